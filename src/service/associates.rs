//! Associates as they stand in their bucket: who may get a user's reminders while the user is away.

use async_nats::jetstream::kv::{Entry, Operation};
use serde::{Deserialize, Serialize};

use super::follow::NotOurs;
use crate::nats::Names;
use crate::router::Input;
use crate::token::UserId;

/// The value of a user's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Associates {
    /// Who they are, in order of preference.
    pub associates: Vec<UserId>,
}

/// What an entry of the bucket tells the partition of its user.
pub(super) fn read(_: &Names, entry: &Entry) -> Result<(UserId, Input), NotOurs> {
    let user = UserId::from_token(&entry.key)?;
    let Associates { associates } = match entry.operation {
        Operation::Put => serde_json::from_slice(&entry.value)?,
        Operation::Delete | Operation::Purge => Associates { associates: Vec::new() },
    };
    Ok((user.clone(), Input::Associates { user, associates }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_a_list_of_names_or_nothing_at_all() {
        let read = |value: &str| serde_json::from_str::<Associates>(value).map(|value| value.associates);
        assert_eq!(
            read(r#"{"associates":["bob","张三"],"note":1}"#).unwrap(),
            ["bob", "张三"].map(|n| n.parse().unwrap())
        );
        assert_eq!(read(r#"{"associates":[]}"#).unwrap(), []);
        for bad in ["", "[]", "{}", r#"{"associates":"bob"}"#, r#"{"associates":["bob",""]}"#, r#"{"associates":[7]}"#]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
