//! Ids of sets and reminders.

/// The longest `id` of a set or a reminder, in bytes.
pub const MAX_ID_BYTES: usize = 256;

/// Returns the id of a reminder that has none: `<set id>#<index>`.
pub fn default_id(set: &str, index: usize) -> String {
    format!("{set}#{index}")
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
