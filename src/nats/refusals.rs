//! What the server does not permit. It drops such a message and says so on the side, so that whoever waits for an answer
//! would only see that none comes.

use std::collections::BTreeSet;

use tokio::sync::watch;

/// Subjects remembered; more are told of and forgotten.
const MOST: usize = 100;

/// The subjects to which a connection was not permitted to publish.
#[derive(Debug, Clone, Default)]
pub struct Refusals(watch::Sender<BTreeSet<String>>);

impl Refusals {
    /// Takes in an error of the server's, and tells whoever reads the log. Answers whether it is about a permission.
    pub(super) fn note(&self, error: &str) -> bool {
        let Some((act, subject)) = read(error) else { return false };
        let is_for_answers = act == "subscribe" && subject.ends_with(".*") && subject.contains("INBOX");
        let hint = if is_for_answers {
            "no answer can come: `nats.inbox_prefix` is to be one that this user may subscribe to"
        } else {
            "docs/security.md lists what each user needs"
        };
        tracing::warn!(subject, "nats does not permit this user to {act}; {hint}");
        if act == "publish" {
            self.0.send_if_modified(|subjects| subjects.len() < MOST && subjects.insert(subject.to_owned()));
        }
        true
    }

    /// Waits until publishing to this subject is refused, for ever if it never is.
    pub async fn of_publishing_to(&self, subject: &str) {
        let is_refused = |subjects: &BTreeSet<String>| subjects.contains(subject);
        if self.0.subscribe().wait_for(is_refused).await.is_err() {
            std::future::pending().await
        }
    }
}

/// `publish` or `subscribe`, and the subject.
fn read(error: &str) -> Option<(&'static str, &str)> {
    let (_, violation) = error.split_once("Permissions Violation for ")?;
    let (what, rest) = violation.split_once(" to \"")?;
    let act = if what == "Publish" { "publish" } else { "subscribe" };
    Some((act, rest.split('"').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_words_are_understood() {
        assert_eq!(read(r#"nats: Permissions Violation for Publish to "a.b""#), Some(("publish", "a.b")));
        assert_eq!(
            read(r#"Permissions Violation for Subscription to "a.>" using queue "q""#),
            Some(("subscribe", "a.>"))
        );
        assert_eq!(read("nats: maximum connections exceeded"), None);
    }
}
