//! A reminder that is to be published.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use bellhop_protocol::reminder::Priority;
use bellhop_protocol::token::{Tag, UserId};

/// What a business system has to say to a user. [`Draft::new`] has what every reminder has; the rest is optional:
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
    /// Unique within the source, 1 to 256 bytes. Where there is none the publisher makes one. Who publishes again after a crash
    /// gives the same one again: within `idempotency.window` (10 minutes) the same id is the same reminder.
    pub id: Option<String>,
    /// Whom it is for.
    pub user: UserId,
    /// A short headline, up to 1 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The text, 1 byte to 64 KiB.
    pub content: String,
    /// What it is about, up to 16; they select the rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// How urgent it is.
    pub priority: Priority,
    /// Not delivered before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliver_at: Option<Timestamp>,
    /// Not delivered after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Whether the user's associates may get it while the user is away.
    pub reroute: bool,
    /// Anything else, delivered byte for byte. The whole reminder fits into 256 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
}

impl Draft {
    /// A reminder with a text.
    pub fn new(user: UserId, content: impl Into<String>) -> Self {
        Self {
            id: None,
            user,
            title: None,
            content: content.into(),
            tags: Vec::new(),
            priority: Priority::default(),
            deliver_at: None,
            expires_at: None,
            reroute: true,
            data: None,
        }
    }
}
