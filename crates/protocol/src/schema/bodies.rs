//! Bodies that are put together from reminders' finished JSON, for their schemas alone.

use jiff::Timestamp;
use schemars::JsonSchema;

use crate::reminder::Reminder;
use crate::token::UserId;

/// A reminder as an app server gets it.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "DeliveredReminder")]
pub struct Delivered {
    /// The reminder after processing by the intake.
    #[serde(flatten)]
    pub reminder: Reminder,
    /// Time at which it began to wait in a mailbox, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parked_at: Option<Timestamp>,
    /// The user for whom it was published, if `user` is that user's associate.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub meant_for: Option<UserId>,
    /// The associate who got it, if this is a copy for the user it was meant for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rerouted_to: Option<UserId>,
}

/// A request to take reminders, up to 256 KiB.
#[derive(Debug, JsonSchema)]
pub struct Delivery {
    /// The reminders. Each user's are in the order in which each source published them.
    #[schemars(length(min = 1))]
    pub reminders: Vec<Delivered>,
}
