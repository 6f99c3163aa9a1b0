//! Sets of numbered reminders: the same bytes for every measured system. Pure.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// Keywords in the document of rules.
const KEYWORDS: usize = 1_000;
/// The tag with rules. Half of the reminders have it.
pub const TAG: &str = "bench";
/// The step from one reminder's user to the next one's, which changes instance and partition.
const STRIDE: usize = 7_919;
/// The content, which makes a reminder about 300 bytes long.
const CONTENT: &str = "Invoice {} over 1,280.00 EUR of the account that you look after is due on Friday; please see that it is paid \
                       by then, or tell the customer why it is not, and who is going to look after it from then on. Reference";

/// A group of users that is measured separately, with its own instances and names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Crowd {
    /// The users that are measured.
    Bench,
    /// Users who stay connected meanwhile.
    Live,
    /// Users who are away.
    Away,
}

impl Crowd {
    fn name(self) -> &'static str {
        match self {
            Self::Bench => "bench",
            Self::Live => "live",
            Self::Away => "away",
        }
    }
}

/// Reminders numbered from 0, which one source publishes in this order.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Load {
    /// The users' group.
    pub crowd: Crowd,
    /// The number of users.
    pub users: usize,
    /// The number of instances, which the users are spread over.
    pub instances: usize,
}

impl Load {
    /// Returns the user of a reminder.
    pub fn user_of(&self, number: usize) -> usize {
        number.wrapping_mul(STRIDE) % self.users
    }

    /// Returns the instance that a user is connected to.
    pub fn instance_of(&self, user: usize) -> usize {
        user % self.instances
    }

    /// Returns a user's name.
    pub fn user_name(&self, user: usize) -> String {
        format!("{}{user:07}", &self.crowd.name()[..1])
    }

    /// Returns the user with this name.
    pub fn user_number(&self, name: &str) -> Option<usize> {
        name.strip_prefix(&self.crowd.name()[..1])?.parse().ok()
    }

    /// Returns an instance's name.
    pub fn instance_name(&self, instance: usize) -> String {
        format!("{}-{instance}", self.crowd.name())
    }

    /// Returns the body of a set with `count` reminders from `first` on. Each carries `at_us`, the
    /// time at which the set was due to be published.
    pub fn set(&self, first: usize, count: usize, at_us: u64) -> Vec<u8> {
        let mut body = String::with_capacity(16 + 320 * count);
        body.push_str("{\"reminders\":[");
        for number in first..first + count {
            let user = self.user_name(self.user_of(number));
            let tags = if number.is_multiple_of(2) {
                TAG
            } else {
                "other"
            };
            let content = CONTENT.replace("{}", &number.to_string());
            let word = if number.is_multiple_of(10) {
                keyword(number)
            } else {
                "none".to_owned()
            };
            let comma = if number == first { "" } else { "," };
            let _ = write!(
                body,
                r#"{comma}{{"id":"{number}","user":"{user}","content":"{content} {word}","tags":["{tags}"],"data":{{"at":{at_us}}}}}"#
            );
        }
        body.push_str("]}");
        body.into_bytes()
    }
}

fn keyword(number: usize) -> String {
    format!("keyword-{:04}", number % KEYWORDS)
}

/// Returns the rules document for [`TAG`].
pub fn rules() -> Vec<u8> {
    let keywords: Vec<_> = (0..KEYWORDS).map(keyword).collect();
    let rule = serde_json::json!({ "name": "bench", "keywords": keywords, "action": "mask" });
    serde_json::json!({ "rules": [rule] })
        .to_string()
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bellhop_core::rules::document::Document;
    use bellhop_protocol::reminder::set;

    use super::*;

    #[test]
    fn sets_and_rules_are_valid() {
        let origin = set::Origin {
            source: "bench".parse().unwrap(),
            sequence: 1,
            published_at: jiff::Timestamp::UNIX_EPOCH,
        };
        let body = Load {
            crowd: Crowd::Bench,
            users: 100,
            instances: 8,
        }
        .set(7, 3, 42);
        let set = set::parse(&origin, &body).unwrap();
        let ids: Vec<_> = set
            .reminders
            .iter()
            .map(|one| one.parsed.as_ref().unwrap().id.as_str())
            .collect();
        assert_eq!(ids, ["7", "8", "9"]);
        assert!(
            (250..350).contains(&(body.len() / 3)),
            "{} bytes",
            body.len() / 3
        );
        assert!(Document::parse(&rules()).is_ok());
    }

    #[test]
    fn each_user_gets_as_many_reminders() {
        let load = Load {
            crowd: Crowd::Bench,
            users: 1_000,
            instances: 8,
        };
        let users: BTreeSet<_> = (0..1_000).map(|number| load.user_of(number)).collect();
        assert_eq!(users.len(), 1_000);
        assert_eq!(load.user_number(&load.user_name(999)), Some(999));
    }
}
