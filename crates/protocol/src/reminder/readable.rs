//! JSON that its grammar permits and common readers refuse.
//!
//! `data` is delivered byte for byte, beside reminders of other users: an app server that cannot
//! read it cannot read the request. So the intake refuses what some widespread reader refuses. A
//! name that stands twice in an object is no such thing: readers take the last one, and it is
//! delivered as it is.

/// The most lists and objects inside of each other. Readers stop at 64 (.NET), 128 (serde_json) or
/// some 1,000 levels (Python, Jackson).
pub const MAX_DEPTH: usize = 64;
/// The longest number, in characters. Readers stop at 1,000 (Jackson) or 4,300 digits (Python); 300
/// digits always fit into a double.
pub const MAX_NUMBER_BYTES: usize = 300;
/// The longest name of a field in `data`, in bytes as written. Jackson stops there.
pub const MAX_KEY_BYTES: usize = 50_000;

/// The reason why common readers refuse a JSON text. Places are bytes of the text, from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A list or an object at this place is too deep.
    #[error("has more than {MAX_DEPTH} nested lists and objects at byte {0}; reduce the nesting")]
    TooDeep(usize),
    /// The number at this place is too long.
    #[error(
        "has a number of more than {MAX_NUMBER_BYTES} characters at byte {0}; write it as a text"
    )]
    LongNumber(usize),
    /// The number at this place is beyond all doubles.
    #[error("has a number at byte {0} that is too large for a double; write it as a text")]
    LargeNumber(usize),
    /// The escape at this place is one half of a surrogate pair without the other.
    #[error("has half of a surrogate pair at byte {0}; a text was cut inside of a character")]
    LoneSurrogate(usize),
    /// The name of a field that ends at this place is too long.
    #[error(
        "has a field with a name of more than {MAX_KEY_BYTES} bytes at byte {0}; make it shorter"
    )]
    LongKey(usize),
}

/// Checks a JSON text, in one pass and without allocating. The text may also be no JSON: then the
/// result says nothing.
///
/// # Errors
/// The first thing that common readers refuse.
pub fn check(json: &str) -> Result<(), Unreadable> {
    let bytes = json.as_bytes();
    let (mut at, mut depth, mut last_text) = (0, 0_usize, 0);
    while let Some(byte) = bytes.get(at) {
        let begin = at;
        at += 1;
        match byte {
            b'"' => {
                let end = text_end(bytes, at)?;
                last_text = end - at;
                at = end + 1;
            }
            b':' if last_text > MAX_KEY_BYTES => return Err(Unreadable::LongKey(begin)),
            b'[' | b'{' if depth == MAX_DEPTH => return Err(Unreadable::TooDeep(begin)),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'-' | b'0'..=b'9' => {
                at += bytes[at..]
                    .iter()
                    .take_while(|byte| is_in_number(**byte))
                    .count();
                check_number(begin, &json[begin..at])?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_in_number(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-')
}

fn check_number(at: usize, number: &str) -> Result<(), Unreadable> {
    if number.len() > MAX_NUMBER_BYTES {
        return Err(Unreadable::LongNumber(at));
    }
    // Without an exponent, a number that is not too long is not too large.
    let is_large = number.contains(['e', 'E']) && number.parse().is_ok_and(f64::is_infinite);
    if is_large {
        Err(Unreadable::LargeNumber(at))
    } else {
        Ok(())
    }
}

/// Returns where the text that begins at `at`, behind its quotation mark, ends.
fn text_end(bytes: &[u8], mut at: usize) -> Result<usize, Unreadable> {
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(plain) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) else {
            return Ok(bytes.len());
        };
        at += plain;
        if rest[plain] == b'"' {
            return Ok(at);
        }
        at += match (
            escaped_unit(bytes, at),
            escaped_unit(bytes, at + UNIT_BYTES),
        ) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 2 * UNIT_BYTES,
            (Some(0xD800..=0xDFFF), _) => return Err(Unreadable::LoneSurrogate(at)),
            (Some(_), _) => UNIT_BYTES,
            (None, _) => 2,
        };
    }
}

/// Bytes of an escape such as `\u4e00`.
const UNIT_BYTES: usize = 6;

/// Returns the UTF-16 unit that is escaped at this place, if one is.
fn escaped_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + UNIT_BYTES)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn everything_beyond_a_bound_is_refused() {
        use Unreadable::*;
        let digits = |count| "7".repeat(count);
        for (json, expected) in [
            (format!("{}{}", "[".repeat(65), "]".repeat(65)), TooDeep(64)),
            (
                format!("[0,{}{}]", "{\"a\":[".repeat(32), "]}".repeat(32)),
                TooDeep(3 + 31 * 6 + 5),
            ),
            (digits(301), LongNumber(0)),
            (format!("[1, -{}]", digits(300)), LongNumber(4)),
            ("1e309".into(), LargeNumber(0)),
            ("[-1E+400]".into(), LargeNumber(1)),
            (format!("1e{}", digits(298)), LargeNumber(0)),
            (r#""paid \ud83d""#.into(), LoneSurrogate(6)),
            (r#""\uDE00\ud83d""#.into(), LoneSurrogate(1)),
            (r#""\ud83d\ud83d\ude00""#.into(), LoneSurrogate(1)),
            (r#""\\\ud83d""#.into(), LoneSurrogate(3)),
            (r#""\ud83d\u0041""#.into(), LoneSurrogate(1)),
            (r#"{"\ud83d":1}"#.into(), LoneSurrogate(2)),
            (
                format!("{{\"{}\" :1}}", "k".repeat(MAX_KEY_BYTES + 1)),
                LongKey(MAX_KEY_BYTES + 5),
            ),
        ] {
            assert_eq!(
                check(&json),
                Err(expected),
                "{}",
                &json[..json.len().min(80)]
            );
        }
    }

    #[test]
    fn everything_at_a_bound_is_accepted() {
        for json in [
            format!("{}{}", "[".repeat(64), "]".repeat(64)),
            format!("[{}]", "[[]],".repeat(1_000)),
            format!("\"{}\"", "[{".repeat(1_000)),
            "7".repeat(300),
            format!(
                "{{\"{}\":\"{}\"}}",
                "k".repeat(MAX_KEY_BYTES),
                "v".repeat(2 * MAX_KEY_BYTES)
            ),
            "[1.7976931348623157e308,1e-400,-0.0,0e999]".into(),
            r#""\\ud83d \ud83d\uDE00 \u0000""#.into(),
            r#"{"a":1,"a":2}"#.into(),
        ] {
            assert_eq!(check(&json), Ok(()), "{}", &json[..json.len().min(80)]);
        }
    }

    /// JSON, with halves of surrogate pairs and large exponents.
    fn json() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "a", "é", r"\\", r#"\""#, r"\n", r"\ud83d", r"\uDE00", r"\u0041", "[:",
        ]);
        let text = prop::collection::vec(piece, 0..6)
            .prop_map(|pieces| format!("\"{}\"", pieces.concat()));
        let number = r"-?(0|[1-9][0-9]{0,4})(\.[0-9]{1,3})?([eE][+-]?[0-9]{1,3})?";
        let leaf = prop_oneof![text.clone(), number, Just("null".to_owned())];
        leaf.prop_recursive(6, 40, 5, move |inner| {
            let field =
                (text.clone(), inner.clone()).prop_map(|(name, value)| format!("{name} : {value}"));
            prop_oneof![
                prop::collection::vec(inner, 0..5)
                    .prop_map(|items| format!("[{}]", items.join(", "))),
                prop::collection::vec(field, 0..5)
                    .prop_map(|fields| format!("{{{}}}", fields.join(","))),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_text_is_checked_without_panic(text in r#"([\[\]{}:,"\\0-9eE.+-]|\\u[0-9a-fD]{0,4}|\PC){0,60}"#) {
            let _ = check(&text);
        }

        #[test]
        fn serde_json_reads_accepted_data(json in json()) {
            prop_assert_eq!(check(&json).is_ok(), serde_json::from_str::<Value>(&json).is_ok());
        }
    }
}
