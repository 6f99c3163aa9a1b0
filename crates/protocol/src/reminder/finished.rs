//! A reminder's finished JSON, and what may still be added to it. Its content is not looked at
//! again.

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::fields::Fields;
use super::repeat::RawRepeat;
use crate::token::{MAX_NAME_BYTES, UserId};

/// The maximum number of bytes that [`rerouted`] adds: two names, each with every byte escaped, and
/// the JSON around them. [`with_rerouted_to`] and [`with_parked_at`] together add less.
pub const REROUTED_BYTES: usize = 4 * MAX_NAME_BYTES + 16;

/// Adds `parked_at` to a finished reminder: a JSON object that is not empty.
pub fn with_parked_at(json: &[u8], parked_at: Timestamp) -> Vec<u8> {
    with_field(
        json,
        &format!(r#""parked_at":"{}""#, to_the_millisecond(parked_at)),
    )
}

/// A time as reminders tell it.
pub fn to_the_millisecond(at: Timestamp) -> Timestamp {
    at.round(jiff::Unit::Millisecond).unwrap_or(at)
}

/// Makes a finished reminder one for an associate: `user` becomes the associate, and `for` names
/// the user meant.
///
/// # Errors
/// When it is not a JSON object.
pub fn rerouted(json: &[u8], associate: &UserId) -> Result<Vec<u8>, serde_json::Error> {
    let mut user = None;
    let mut out = b"{".to_vec();
    for (name, value) in serde_json::from_slice::<Fields<'_>>(json)?.0 {
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(name.get().as_bytes());
        out.push(b':');
        if name.get() == r#""user""# {
            serde_json::to_writer(&mut out, associate)?;
            user = Some(value);
        } else {
            out.extend_from_slice(value.get().as_bytes());
        }
    }
    out.push(b'}');
    let user = user.map_or("null", RawValue::get);
    Ok(with_field(&out, &format!(r#""for":{user}"#)))
}

/// Adds to a finished reminder that an associate got it.
pub fn with_rerouted_to(json: &[u8], associate: &UserId) -> Vec<u8> {
    let name = serde_json::to_string(associate).expect("a name is text");
    with_field(json, &format!(r#""rerouted_to":{name}"#))
}

/// Adds to a finished reminder what became of it, last and step by step; `trail` is a JSON array.
pub fn with_fate(json: &[u8], outcome: &str, at: Timestamp, trail: &str) -> Vec<u8> {
    with_field(
        json,
        &format!(r#""outcome":"{outcome}","at":"{at}","trail":{trail}"#),
    )
}

/// Adds to a finished reminder what its publisher said and app servers do not learn: that no
/// associate may get it (`stays`), and that it is not merged (`is_single`). Then it can be
/// published again.
pub fn as_published(json: Vec<u8>, stays: bool, is_single: bool) -> Vec<u8> {
    let said = [
        (stays, r#""reroute":false"#),
        (is_single, r#""merge":false"#),
    ];
    said.iter()
        .fold(json, |json, (is_said, field)| match is_said {
            true => with_field(&json, field),
            false => json,
        })
}

/// Adds when a reminder repeats.
pub fn with_repeat(json: &[u8], repeat: &RawRepeat) -> Vec<u8> {
    let repeat = serde_json::to_string(repeat).expect("texts are JSON");
    with_field(json, &format!(r#""repeat":{repeat}"#))
}

/// Adds a field, `"name":value`, to a finished reminder.
pub fn with_field(json: &[u8], field: &str) -> Vec<u8> {
    let open = json.strip_suffix(b"}").unwrap_or(json);
    let mut out = Vec::with_capacity(json.len() + field.len() + 1);
    out.extend_from_slice(open);
    out.push(b',');
    out.extend_from_slice(field.as_bytes());
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn associate_sees_the_intended_user() {
        let json = br#"{"id":"i","user":"a\"b","content":"\u4e00 {\"user\":1}","data":{"user": 1.50,  "a":[]}}"#;
        let to = |associate: &str| {
            String::from_utf8(rerouted(json, &associate.parse().unwrap()).unwrap()).unwrap()
        };
        assert_eq!(
            to("bob"),
            r#"{"id":"i","user":"bob","content":"\u4e00 {\"user\":1}","data":{"user": 1.50,  "a":[]},"for":"a\"b"}"#
        );
        let longest = "\"".repeat(MAX_NAME_BYTES);
        assert!(to(&longest).len() <= json.len() + REROUTED_BYTES);
        assert!(rerouted(b"[]", &"bob".parse().unwrap()).is_err());
    }

    #[test]
    fn the_time_of_parking_is_added() {
        let at: Timestamp = "2026-11-22T08:00:00.0004Z".parse().unwrap();
        assert_eq!(
            with_parked_at(br#"{"id":"i"}"#, at),
            br#"{"id":"i","parked_at":"2026-11-22T08:00:00Z"}"#
        );
    }
}
