//! Associates: who may get a user's reminders while the user is away, as a value of their bucket.

use serde::{Deserialize, Serialize};

use crate::token::UserId;

/// The value of a user's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Associates {
    /// The associates, in order of preference.
    pub associates: Vec<UserId>,
}

impl Associates {
    /// Reads a value.
    ///
    /// # Errors
    /// When it is not JSON object with a list of names.
    pub fn read(value: &[u8]) -> Result<Self, serde_json::Error> {
        super::object(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_a_list_of_names() {
        let read = |value: &str| Associates::read(value.as_bytes()).map(|value| value.associates);
        assert_eq!(
            read(r#"{"associates":["bob","张三"],"note":1}"#).unwrap(),
            ["bob", "张三"].map(|n| n.parse().unwrap())
        );
        assert_eq!(read(r#"{"associates":[]}"#).unwrap(), []);
        for bad in [
            "",
            "[]",
            r#"[["bob"]]"#,
            "{}",
            r#"{"associates":"bob"}"#,
            r#"{"associates":["bob",""]}"#,
            r#"{"associates":[7]}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
