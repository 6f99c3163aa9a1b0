//! Queries: the history, one reminder's fate, what waits in a mailbox, and erasing a user.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::{Client, Request};
use jiff::Timestamp;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::Reminder;
use bellhop_protocol::names::Names;
use bellhop_protocol::reminder::history::Step;
use bellhop_protocol::token::{InstanceName, Source, Tag, UserId};
use bellhop_protocol::wire::erased::Erased;

/// The header with the code of an answer that is an error, and the one with a sentence.
const ERROR_CODE: &str = "Nats-Service-Error-Code";
const ERROR: &str = "Nats-Service-Error";

/// Settings of queries, each with its default.
#[derive(Debug, Clone)]
pub struct Options {
    /// The prefix of the installation's names: `bellhop`.
    pub prefix: String,
    /// The app server that asks, about users alone who have a route there. Without one, the program
    /// asks about all users, which its permissions in NATS must allow.
    pub instance: Option<InstanceName>,
    /// The deadline of an answer: 25 s. Bellhop itself gives up after 20 s.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            prefix: "bellhop".to_owned(),
            instance: None,
            patience: Duration::from_secs(25),
        }
    }
}

/// The reason why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The query is wrong, such as a `limit` above 1,000.
    #[error("{0}; correct the query")]
    Invalid(String),
    /// An app server asked about a user who has no route there.
    #[error("{0}; ask about a user who is connected here")]
    Forbidden(String),
    /// Bellhop knows of no such reminder.
    #[error("{0}")]
    NotFound(String),
    /// Bellhop does not answer, or cannot answer now.
    #[error("{0}; ask again later")]
    Unavailable(String),
}

/// Filters of the history. They combine; without any, all reminders match.
#[derive(Debug, Clone, Default, Serialize)]
pub struct HistoryQuery {
    /// For whom they were published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// The business system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The id within the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// One of the tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// The latest outcome, such as `delivered`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Published then or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Published before that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
    /// A part of the title or the content, without regard to case: 1 to 1,024 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// The most reminders of a page, 1 to 1,000; 100 if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// The cursor of the page before, with the same filters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A page of the history. The reminder that was published last comes first.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct Page {
    /// The reminders.
    pub reminders: Vec<PastReminder>,
    /// The place where the next page begins, if there is one.
    pub cursor: Option<String>,
}

/// A reminder of the history, and its outcomes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PastReminder {
    /// The reminder.
    pub reminder: KnownReminder,
    /// The latest outcome, such as `delivered`.
    pub outcome: String,
    /// Time of the latest outcome.
    pub at: Timestamp,
    /// All outcomes, the oldest first.
    pub trail: Vec<Step>,
}

/// A reminder as far as Bellhop may show it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KnownReminder {
    /// Unique within its source.
    pub id: String,
    /// The business system that published it.
    pub source: Source,
    /// The name of the set in which it was published.
    pub set: String,
    /// The user it was published for. `None` if it was refused because it named no user.
    pub user: Option<UserId>,
    /// Time of publishing, by the clock of NATS.
    pub published_at: Timestamp,
    /// The whole reminder. `None` if it was blocked or refused, since its content must not be shown
    /// then.
    pub whole: Option<Box<Reminder>>,
}

/// A reminder and its fate.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct Fate {
    /// The reminder.
    pub reminder: KnownReminder,
    /// All its outcomes, the oldest first.
    pub trail: Vec<Step>,
    /// The users who have a reminder of this id, where they are several. The one of this answer is
    /// the first.
    #[serde(default)]
    pub users: Vec<UserId>,
}

/// The reminders that wait for a user.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct Mailbox {
    /// The number of reminders that wait.
    pub parked: u64,
    /// Since when the oldest of them does.
    pub oldest: Option<Timestamp>,
    /// The first of them, the oldest first.
    pub reminders: Vec<Reminder>,
}

/// Asks Bellhop about reminders, and erases users.
#[derive(Debug, Clone)]
pub struct Queries {
    client: Client,
    api: String,
    patience: Duration,
}

impl Queries {
    /// Returns queries over this connection.
    pub fn new(client: Client, options: Options) -> Self {
        let names = Names::new(&options.prefix);
        let api = match options.instance {
            Some(instance) => format!("{}.of.{}", names.api(), instance.escaped()),
            None => names.api(),
        };
        Self {
            client,
            api,
            patience: options.patience,
        }
    }

    /// Returns a page of the history. For the next page, ask again with its cursor.
    ///
    /// # Errors
    /// When the query is wrong or forbidden, or there is no answer.
    pub async fn history(&self, query: &HistoryQuery) -> Result<Page, QueryError> {
        self.ask("history", query).await
    }

    /// Returns a reminder and all its outcomes. Without a user, it is the one that was published
    /// last under this id.
    ///
    /// # Errors
    /// When there is no such reminder, the query is wrong or forbidden, or there is no answer.
    pub async fn why(
        &self,
        source: &Source,
        id: &str,
        user: Option<&UserId>,
    ) -> Result<Fate, QueryError> {
        let query = json!({ "source": source, "id": id, "user": user });
        self.ask("why", &query).await
    }

    /// Returns what waits for a user: how many, and up to `limit` of them, 1 to 1,000; 100 if it is
    /// missing.
    ///
    /// # Errors
    /// When the query is wrong or forbidden, or there is no answer.
    pub async fn mailbox(
        &self,
        user: &UserId,
        limit: Option<usize>,
    ) -> Result<Mailbox, QueryError> {
        self.ask("mailbox", &json!({ "user": user, "limit": limit }))
            .await
    }

    /// Erases a user from the history, the mailboxes, the schedules, the routes and the lists of
    /// associates. Returns how many of each were removed.
    ///
    /// # Errors
    /// When this program may not erase users, or there is no answer.
    pub async fn erase(&self, user: &UserId) -> Result<Erased, QueryError> {
        #[derive(Deserialize)]
        struct Answer {
            erased: Erased,
        }
        let Answer { erased } = self.ask("erase", &json!({ "user": user })).await?;
        Ok(erased)
    }

    async fn ask<Answer: DeserializeOwned>(
        &self,
        question: &str,
        query: &impl Serialize,
    ) -> Result<Answer, QueryError> {
        let subject = format!("{}.{question}", self.api);
        let body = serde_json::to_vec(query).expect("a query has only string keys");
        let request = Request::new()
            .payload(body.into())
            .timeout(Some(self.patience));
        let unavailable = |problem: &str| QueryError::Unavailable(format!("{subject}: {problem}"));
        let answer = self.client.send_request(subject.clone(), request).await;
        let answer = answer.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => unavailable("no Bellhop answers there"),
            _ => unavailable(&error.to_string()),
        })?;
        let header = |name: &str| Some(answer.headers.as_ref()?.get(name)?.as_str());
        let Some(code) = header(ERROR_CODE) else {
            return serde_json::from_slice(&answer.payload)
                .map_err(|error| unavailable(&format!("the answer cannot be read: {error}")));
        };
        let problem = format!("{subject}: {}", header(ERROR).unwrap_or(code));
        Err(match code {
            "400" => QueryError::Invalid(problem),
            "403" => QueryError::Forbidden(problem),
            "404" => QueryError::NotFound(problem),
            _ => QueryError::Unavailable(problem),
        })
    }
}

/// Reads the text, since `data` cannot be kept byte for byte in any other way.
impl<'de> Deserialize<'de> for KnownReminder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Named {
            id: String,
            source: Source,
            set: String,
            user: Option<UserId>,
            published_at: Timestamp,
            content: Option<IgnoredAny>,
        }
        let json = Box::<RawValue>::deserialize(deserializer)?;
        let named: Named = serde_json::from_str(json.get()).map_err(D::Error::custom)?;
        let whole = named
            .content
            .map(|_| serde_json::from_str(json.get()))
            .transpose()
            .map_err(D::Error::custom)?;
        Ok(Self {
            id: named.id,
            source: named.source,
            set: named.set,
            user: named.user,
            published_at: named.published_at,
            whole,
        })
    }
}

impl<'de> Deserialize<'de> for PastReminder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Past {
            outcome: String,
            at: Timestamp,
            trail: Vec<Step>,
        }
        let json = Box::<RawValue>::deserialize(deserializer)?;
        let past: Past = serde_json::from_str(json.get()).map_err(D::Error::custom)?;
        Ok(Self {
            reminder: serde_json::from_str(json.get()).map_err(D::Error::custom)?,
            outcome: past.outcome,
            at: past.at,
            trail: past.trail,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an example of the protocol page.
    fn example<Answer: DeserializeOwned>(name: &str) -> Answer {
        let page = include_str!("../../../docs/protocol.md");
        let (_, example) = page.split_once(&format!("```json {name}\n")).unwrap();
        let (example, _) = example.split_once("```").unwrap();
        serde_json::from_str(example).unwrap()
    }

    #[test]
    fn reads_the_examples_of_the_protocol_page() {
        let page: Page = example("history-answer");
        let [past] = &page.reminders[..] else {
            panic!("{page:?}")
        };
        assert_eq!(page.cursor.as_deref(), Some("b000019aaa7d4c000"));
        assert_eq!((past.outcome.as_str(), past.trail.len()), ("delivered", 2));
        assert_eq!(past.trail[1].more["instance"], "app-1");
        let whole = past.reminder.whole.as_ref().unwrap();
        assert_eq!(whole.content, "Invoice 981 is due on Friday");

        let fate: Fate = example("why-answer");
        assert!(fate.reminder.whole.is_none() && fate.users.is_empty());
        assert_eq!(fate.reminder.user.unwrap().as_str(), "alice");
        assert_eq!(fate.trail[0].more["rule"], "forbidden");

        let mailbox: Mailbox = example("mailbox-answer");
        assert!(mailbox.oldest.is_some());
        assert_eq!(
            (mailbox.parked, mailbox.reminders[0].id.as_str()),
            (1, "inv-984")
        );
    }

    #[test]
    fn a_query_has_only_what_is_given() {
        let query = HistoryQuery {
            user: Some("alice".parse().unwrap()),
            from: Some("2026-11-22T00:00:00Z".parse().unwrap()),
            limit: Some(1),
            ..HistoryQuery::default()
        };
        let expected = json!({ "user": "alice", "from": "2026-11-22T00:00:00Z", "limit": 1 });
        assert_eq!(serde_json::to_value(query).unwrap(), expected);
    }

    /// A JSON reader that goes through other types would round the number.
    #[test]
    fn data_of_the_history_stays_as_published() {
        let past: PastReminder = serde_json::from_str(
            r#"{"id":"i","source":"s","set":"7","user":"bob","content":"c","published_at":"2026-11-22T08:00:00Z",
                "data":{"n": 1234567890123456789.0},"outcome":"delivered","at":"2026-11-22T08:00:00Z","trail":[]}"#,
        )
        .unwrap();
        let data = past.reminder.whole.unwrap().data.unwrap();
        assert_eq!(data.get(), r#"{"n": 1234567890123456789.0}"#);
    }
}
