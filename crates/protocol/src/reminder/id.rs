//! Ids of sets and reminders.

/// The longest `id` of a set or a reminder, in bytes.
pub const MAX_ID_BYTES: usize = 256;

/// Returns the id of a reminder that has none: `<set id>#<index>`.
pub fn default_id(set: &str, index: usize) -> String {
    format!("{set}#{index}")
}

/// Returns true if an id is the one that a reminder without an id has at this place of its set.
pub fn is_default_id(id: &str, set: &str, index: usize) -> bool {
    let number = id.strip_prefix(set).and_then(|rest| rest.strip_prefix('#'));
    let digits = index.checked_ilog10().map_or(1, |log| log as usize + 1);
    number.is_some_and(|number| number.len() == digits && number.parse() == Ok(index))
}

/// Returns what is wrong with a text as the id of a reminder or a set, if anything is.
pub fn id_error(id: &str) -> Option<String> {
    if id.is_empty() || id.len() > MAX_ID_BYTES {
        Some(format!(
            "`id` has {} bytes; 1 to {MAX_ID_BYTES} are allowed",
            id.len()
        ))
    } else {
        let control = id.chars().any(char::is_control);
        control.then(|| "`id` has a control character".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_ids_are_known_as_such() {
        for index in [0, 7, 10, 9_999] {
            assert!(is_default_id(&default_id("s#1", index), "s#1", index));
        }
        for other in [
            "s#", "s#07", "s#+7", "s#8", "s#77", "t#7", "s7", "ss#7", "s#7 ",
        ] {
            assert!(!is_default_id(other, "s", 7), "{other}");
        }
    }
}
