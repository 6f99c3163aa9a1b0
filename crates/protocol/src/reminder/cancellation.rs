//! An entry of a set's `cancel`: which scheduled reminders are not to be delivered.

use serde::Deserialize;

#[cfg(feature = "schema")]
use super::id::MAX_ID_BYTES;
use super::id::id_error;
use crate::json::from_object;
use crate::token::UserId;

/// Scheduled reminders of one id that a set cancels.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cancellation {
    /// The id of the reminders.
    pub id: String,
    /// The user whose reminder is cancelled; `None` cancels those of all users.
    pub user: Option<UserId>,
}

impl Cancellation {
    /// Reads an entry of `cancel`.
    ///
    /// # Errors
    /// Says what is wrong with the entry.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let (id, user) = match from_object(text).map_err(|error| error.to_string())? {
            RawCancellation::OfAll(id) => (id, None),
            RawCancellation::OfUser { id, user } => (id, user),
        };
        let user = user.map(|user| user.parse().map_err(|error| format!("`user` {error}")));
        let user = user.transpose()?;
        id_error(&id).map_or(Ok(Self { id, user }), Err)
    }
}

impl From<String> for Cancellation {
    /// Returns the cancellation of an id for all users.
    fn from(id: String) -> Self {
        Self { id, user: None }
    }
}

/// Scheduled reminders of its source that a set cancels.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "it is neither an id nor an object with `id` and `user`"
)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "Cancellation")
)]
pub enum RawCancellation {
    /// The id of the reminders, of all users.
    OfAll(
        #[cfg_attr(feature = "schema", schemars(length(min = 1, max = MAX_ID_BYTES), regex(pattern = crate::token::NO_CONTROL)))]
         String,
    ),
    /// The reminder of one user.
    OfUser {
        /// Its id.
        #[cfg_attr(feature = "schema", schemars(length(min = 1, max = MAX_ID_BYTES), regex(pattern = crate::token::NO_CONTROL)))]
        id: String,
        /// The user; without one, the reminders of all users are cancelled.
        #[cfg_attr(feature = "schema", schemars(with = "Option<UserId>"))]
        user: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_names_id_or_id_and_user() {
        let of = |text| {
            Cancellation::read(text).map(|one| (one.id, one.user.map(|user| user.to_string())))
        };
        let (x, alice) = (|| "x".to_owned(), || Some("alice".to_owned()));
        assert_eq!(of(r#""x""#), Ok((x(), None)));
        assert_eq!(of(r#"{"id":"x","user":"alice","n":1}"#), Ok((x(), alice())));
        assert_eq!(of(r#"{"id":"x","user":null}"#), Ok((x(), None)));
        for (wrong, problem) in [
            (r#""""#, "`id` has 0 bytes"),
            ("7", "neither an id nor an object"),
            (r#"{"user":"alice"}"#, "neither an id nor an object"),
            (r#"["x","alice"]"#, "a list stands"),
            (r#"{"id":"x","user":""}"#, "`user` "),
        ] {
            let error = of(wrong).unwrap_err();
            assert!(error.contains(problem), "{wrong}: {error}");
        }
    }
}
