//! Associates as they stand in their bucket: who may get a user's reminders while the user is away.

use super::bucket_watch::NotOurs;
use crate::nats::Names;
use crate::nats::bucket::{Entry, Operation};
use crate::router::Input;
use crate::token::UserId;
pub use crate::wire::associates::Associates;

/// Returns the user of an entry of the bucket, and the input for that user's partition.
pub(super) fn read(_: &Names, entry: &Entry) -> Result<(UserId, Input), NotOurs> {
    let user = UserId::from_token(&entry.key)?;
    let Associates { associates } = match entry.operation {
        Operation::Put => Associates::read(&entry.value)?,
        Operation::Delete | Operation::Purge => Associates {
            associates: Vec::new(),
        },
    };
    Ok((user.clone(), Input::Associates { user, associates }))
}
