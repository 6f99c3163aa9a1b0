//! Actions that the server does not permit. The server drops such a message and says so on the
//! side, so that a caller who waits for an answer would only see that none comes.

use std::collections::BTreeMap;

use tokio::sync::watch;

/// Refusals remembered; more are logged and forgotten.
const MOST: usize = 100;

/// The actions that a connection was not permitted, with their numbers.
#[derive(Debug, Clone, Default)]
pub struct Refusals(watch::Sender<BTreeMap<(Act, String), u64>>);

/// An action that needs a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Publish,
    Subscribe,
}

impl Refusals {
    /// Takes in an error of the server's, and logs it if it is about a permission. Returns whether
    /// it is.
    pub(super) fn note(&self, error: &str) -> bool {
        let Some((act, subject)) = read(error) else {
            return false;
        };
        let (verb, is_for_answers) = match act {
            Act::Publish => ("publish", false),
            Act::Subscribe => (
                "subscribe",
                subject.ends_with(".*") && subject.contains("INBOX"),
            ),
        };
        let hint = if is_for_answers {
            "no answer can come: `nats.inbox_prefix` is to be one that this user may subscribe to"
        } else {
            "docs/security.md lists what each user needs"
        };
        tracing::warn!(subject, "nats does not permit this user to {verb}; {hint}");
        self.0.send_if_modified(|refused| {
            let key = (act, subject.to_owned());
            let is_noted = refused.len() < MOST || refused.contains_key(&key);
            if is_noted {
                *refused.entry(key).or_default() += 1;
            }
            is_noted
        });
        true
    }

    /// Waits until publishing to this subject is refused once more than it was at the call. Never
    /// ends otherwise.
    ///
    /// Refusals before the call do not count, since permissions may change while a connection
    /// lasts.
    pub fn of_publishing_to(&self, subject: &str) -> impl Future<Output = ()> + Send + use<> {
        self.of(Act::Publish, subject)
    }

    /// Waits until subscribing to this subject is refused once more than it was at the call. Never
    /// ends otherwise.
    pub fn of_subscribing_to(&self, subject: &str) -> impl Future<Output = ()> + Send + use<> {
        self.of(Act::Subscribe, subject)
    }

    fn of(&self, act: Act, subject: &str) -> impl Future<Output = ()> + Send + use<> {
        let (mut refusals, key) = (self.0.subscribe(), (act, subject.to_owned()));
        let before = refusals.borrow_and_update().get(&key).copied();
        async move {
            if refusals
                .wait_for(|refused| refused.get(&key).copied() > before)
                .await
                .is_err()
            {
                std::future::pending().await
            }
        }
    }
}

/// Returns what is not permitted, and for which subject.
fn read(error: &str) -> Option<(Act, &str)> {
    let (_, violation) = error.split_once("Permissions Violation for ")?;
    let (what, rest) = violation.split_once(" to \"")?;
    let act = if what == "Publish" {
        Act::Publish
    } else {
        Act::Subscribe
    };
    Some((act, rest.split('"').next()?))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn only_refusals_after_the_call_count() {
        let refusals = Refusals::default();
        let violation = r#"nats: Permissions Violation for Publish to "a""#;
        refusals.note(violation);
        let mut refused = Box::pin(refusals.of_publishing_to("a"));
        assert_eq!(refused.as_mut().now_or_never(), None);
        refusals.note(violation);
        assert_eq!(refused.now_or_never(), Some(()));
    }

    #[test]
    fn the_servers_words_are_understood() {
        assert_eq!(
            read(r#"nats: Permissions Violation for Publish to "a.b""#),
            Some((Act::Publish, "a.b"))
        );
        assert_eq!(
            read(r#"Permissions Violation for Subscription to "a.>" using queue "q""#),
            Some((Act::Subscribe, "a.>"))
        );
        assert_eq!(read("nats: maximum connections exceeded"), None);
    }
}
