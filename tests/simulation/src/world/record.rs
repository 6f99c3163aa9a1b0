//! The messages that owners send to be stored.

use bellhop_core::log::Subscriber;
use bellhop_core::log::done::Done;
use bellhop_core::log::progress::Hold;
use bellhop_core::router::{Item, Removal};
use bellhop_protocol::token::UserId;

use super::ledger::Id;

/// An outcome on its way to the stream.
#[derive(Debug)]
pub struct Record {
    pub id: Option<Id>,
    pub name: (Subscriber, Done),
    pub is_final: bool,
    pub then: Then,
}

/// The next step after an outcome is stored.
#[derive(Debug, Clone)]
pub enum Then {
    Nothing,
    /// So many parts of a set are settled.
    Set(Subscriber, u64, usize),
    /// A reminder of the machine's is.
    Item(Item, Removal),
    /// The same, of a mailbox.
    Mailbox(UserId, u64, Removal, Hold),
}

/// Outcomes of one message.
pub type Records = Vec<Record>;

/// A reminder on its way into a mailbox.
#[derive(Debug)]
pub struct Parcel {
    pub user: UserId,
    pub id: Id,
    pub is_copy: bool,
}
