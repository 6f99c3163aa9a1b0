//! What is published: sets of numbered reminders, the same bytes whoever brings them. Pure.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// Keywords in the document of rules.
const KEYWORDS: usize = 1_000;
/// The tag whose rules half of the reminders go through.
pub const TAG: &str = "bench";
/// Users follow each other in an order that jumps between instances and partitions.
const STRIDE: usize = 7_919;
/// Bytes of content, so that a reminder is some 300 bytes.
const CONTENT: &str = "Invoice {} over 1,280.00 EUR of the account that you look after is due on Friday; please see that it is paid \
                       by then, or tell the customer why it is not, and who is going to look after it from then on. Reference";

/// People who are measured apart from others, each crowd with instances and names of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Crowd {
    /// Those it is about.
    Bench,
    /// Those who stay connected meanwhile.
    Live,
    /// Those who are away.
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

/// Reminders by number, from 0: one source publishes them in this order.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Load {
    /// Whose they are.
    pub crowd: Crowd,
    /// Users there are.
    pub users: usize,
    /// Instances that they are spread over.
    pub instances: usize,
}

impl Load {
    /// Whom a reminder is for.
    pub fn user_of(&self, number: usize) -> usize {
        number.wrapping_mul(STRIDE) % self.users
    }

    /// Where a user is connected.
    pub fn instance_of(&self, user: usize) -> usize {
        user % self.instances
    }

    /// The user's name.
    pub fn user_name(&self, user: usize) -> String {
        format!("{}{user:07}", &self.crowd.name()[..1])
    }

    /// A user by its name.
    pub fn user_number(&self, name: &str) -> Option<usize> {
        name.strip_prefix(&self.crowd.name()[..1])?.parse().ok()
    }

    /// The instance's name.
    pub fn instance_name(&self, instance: usize) -> String {
        format!("{}-{instance}", self.crowd.name())
    }

    /// The body of a set with `count` reminders from `first` on, that says when it was to be published.
    pub fn set(&self, first: usize, count: usize, at_us: u64) -> Vec<u8> {
        let mut body = String::with_capacity(16 + 320 * count);
        body.push_str("{\"reminders\":[");
        for number in first..first + count {
            let user = self.user_name(self.user_of(number));
            let tags = if number.is_multiple_of(2) { TAG } else { "other" };
            let content = CONTENT.replace("{}", &number.to_string());
            let word = if number.is_multiple_of(10) { keyword(number) } else { "none".to_owned() };
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

/// The document of rules for [`TAG`].
pub fn rules() -> Vec<u8> {
    let keywords: Vec<_> = (0..KEYWORDS).map(keyword).collect();
    let rule = serde_json::json!({ "name": "bench", "keywords": keywords, "action": "mask" });
    serde_json::json!({ "rules": [rule] }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::reminder::set;
    use crate::rules::document::Document;

    #[test]
    fn sets_are_what_bellhop_takes() {
        let origin =
            set::Origin { source: "bench".parse().unwrap(), sequence: 1, published_at: jiff::Timestamp::UNIX_EPOCH };
        let body = Load { crowd: Crowd::Bench, users: 100, instances: 8 }.set(7, 3, 42);
        let set = set::parse(&origin, &body).unwrap();
        let ids: Vec<_> = set.reminders.iter().map(|one| one.parsed.as_ref().unwrap().id.as_str()).collect();
        assert_eq!(ids, ["7", "8", "9"]);
        assert!((250..350).contains(&(body.len() / 3)), "{} bytes", body.len() / 3);
        assert!(Document::parse(&rules()).is_ok());
    }

    #[test]
    fn everybody_gets_as_many() {
        let load = Load { crowd: Crowd::Bench, users: 1_000, instances: 8 };
        let users: BTreeSet<_> = (0..1_000).map(|number| load.user_of(number)).collect();
        assert_eq!(users.len(), 1_000);
        assert_eq!(load.user_number(&load.user_name(999)), Some(999));
    }
}
