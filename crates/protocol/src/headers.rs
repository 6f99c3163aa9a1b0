//! The names of Bellhop's own headers. `traceparent` is [`trace`](crate::trace)'s, those of
//! CloudEvents are [`cloud_event`](crate::wire::cloud_event)'s.

/// Of a rejected message: the stable code of the refusal, a
/// [`RejectCode`](crate::reminder::reject::RejectCode).
pub const ERROR: &str = "Bellhop-Error";
/// Of a rejected message: what was wrong, for people.
pub const ERROR_DETAIL: &str = "Bellhop-Error-Detail";
/// Of a rejected message that is a single reminder: the id of its set.
pub const SET: &str = "Bellhop-Set";
/// Of a rejected message that is a single reminder: its id, or the one that Bellhop made up.
pub const ID: &str = "Bellhop-Id";
/// Of a rejected message: how many of its publisher's headers were left out for lack of room.
pub const HEADERS_CUT: &str = "Bellhop-Headers-Cut";
/// Of a rejected message: its size in bytes, where only a part of it could be stored.
pub const CUT: &str = "Bellhop-Cut";
/// Of a set that was rejected before, so that its reminders do not count as duplicates: the
/// sequence of the rejected message.
pub const REQUEUE: &str = "Bellhop-Requeue";
/// Of a delivery request: the traces of all its reminders, separated by commas, where there are
/// several.
pub const TRACES: &str = "Bellhop-Traces";
/// Of a member's metrics: the member.
pub const MEMBER: &str = "Bellhop-Member";
