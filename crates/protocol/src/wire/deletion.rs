//! The message that deletes a key of a bucket: a mark with a time to live. Buckets permit no
//! roll-ups, since by one a program that may write a single key could remove the keys of all
//! others.

use std::time::Duration;

/// The header that says that a key is deleted.
pub const OPERATION: &str = "KV-Operation";

/// The lifetime of the marker, for watchers to see it: 1 hour. The marker has the key, which names
/// a user.
pub const MARK_AGE: Duration = Duration::from_secs(3_600);

/// Returns the headers of the mark. With a `revision`, JetStream refuses it where the key was
/// written since.
pub fn headers(revision: Option<u64>) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        (OPERATION, "DEL".to_owned()),
        ("Nats-TTL", format!("{}s", MARK_AGE.as_secs())),
    ];
    headers.extend(
        revision.map(|revision| ("Nats-Expected-Last-Subject-Sequence", revision.to_string())),
    );
    headers
}
