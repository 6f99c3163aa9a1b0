//! A reminder to publish.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use bellhop_protocol::reminder::Priority;
use bellhop_protocol::reminder::repeat::RawRepeat as Repeat;
use bellhop_protocol::token::{Tag, UserId};

/// A reminder to publish. [`Draft::new`] sets the required fields, the others are optional:
///
/// ```
/// use bellhop_client::{Draft, Priority};
///
/// # fn main() -> Result<(), bellhop_client::NameError> {
/// let draft = Draft {
///     id: Some("inv-981".to_owned()),
///     title: Some("Invoice due".to_owned()),
///     tags: vec!["billing".parse()?],
///     priority: Priority::High,
///     ..Draft::new("alice".parse()?, "Invoice 981 is due on Friday")
/// };
/// # assert!(draft.reroute);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Serialize)]
pub struct Draft {
    /// Unique within the source, 1 to 256 bytes; generated if it is missing. Publish again under
    /// the same id after a crash: within `idempotency.window` (10 minutes) the same id is the same
    /// reminder.
    pub id: Option<String>,
    /// The user to deliver it to.
    pub user: UserId,
    /// A short headline, up to 1 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The text, 1 byte to 64 KiB.
    pub content: String,
    /// Topics, up to 16. They select the rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// Its urgency.
    pub priority: Priority,
    /// Earliest delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliver_at: Option<Timestamp>,
    /// The times at which it repeats. Each occurrence is a reminder of its own. Give it an `id`, to
    /// replace or cancel it later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat: Option<Repeat>,
    /// Latest delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// True if the user's associates may receive it while the user is away.
    pub reroute: bool,
    /// True if it may be merged with reminders of the same user and text.
    pub merge: bool,
    /// Any JSON, delivered byte for byte. The whole reminder must fit into 256 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
}

impl Draft {
    /// Returns a reminder with a text.
    pub fn new(user: UserId, content: impl Into<String>) -> Self {
        Self {
            id: None,
            user,
            title: None,
            content: content.into(),
            tags: Vec::new(),
            priority: Priority::default(),
            deliver_at: None,
            repeat: None,
            expires_at: None,
            reroute: true,
            merge: true,
            data: None,
        }
    }
}
