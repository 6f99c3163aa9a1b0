//! The part of a message of `BELLHOP_OUTCOMES` for the history, beside the outcomes of the
//! contract: `{"outcomes":[{…},…],"history":[{"published_at":1764000000000,"reminder":{…}},…]}`.
//!
//! The second list belongs to the first, line by line. It says which reminder each outcome is of; a
//! reminder's first outcome carries its finished JSON, too.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// One outcome of one reminder, as it goes into the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The reminder's business system.
    pub source: String,
    /// The reminder's id. The same source and id, published at another time, is another reminder.
    pub id: String,
    /// The reminder's set.
    pub set: String,
    /// The reminder's user; a refused reminder may have none.
    pub user: Option<String>,
    /// Time at which JetStream stored the set, in milliseconds since 1970.
    pub published_ms: i64,
    /// The outcome's name.
    pub outcome: String,
    /// Time of the outcome, in milliseconds since 1970: `at` of the step, without what is finer.
    pub at_ms: i64,
    /// The outcome as the trail shows it: a JSON object with `outcome` and `at` at least, a
    /// [`Step`].
    pub step: String,
    /// The finished reminder, a JSON object. It comes with the first outcome of a reminder that was
    /// not refused.
    pub reminder: Option<String>,
}

/// A step of a reminder's trail: an outcome, when, and its details.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The outcome's name.
    pub outcome: String,
    /// Time of the outcome.
    pub at: Timestamp,
    /// The instance, the rule, the error, …
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// Reads a message.
///
/// # Errors
/// When it is not a message of outcomes. One without the list for the history has no entries.
pub fn entries(message: &[u8]) -> Result<Vec<Entry>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Public {
        id: String,
        source: String,
        set: String,
        #[serde(default)]
        user: Option<String>,
        #[serde(flatten)]
        step: Step,
    }
    #[derive(Deserialize)]
    struct Private<'a> {
        published_at: i64,
        #[serde(borrow, default)]
        reminder: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Message<'a> {
        outcomes: Vec<Public>,
        #[serde(borrow, default)]
        history: Vec<Private<'a>>,
    }
    let Message { outcomes, history } = serde_json::from_slice(message)?;
    let entry = |(public, private): (Public, Private<'_>)| {
        let Public {
            id,
            source,
            set,
            user,
            step,
        } = public;
        let (published_ms, reminder) = (
            private.published_at,
            private.reminder.map(|json| json.get().to_owned()),
        );
        let (text, at_ms) = (serde_json::to_string(&step)?, step.at.as_millisecond());
        Ok(Entry {
            source,
            id,
            set,
            user,
            published_ms,
            outcome: step.outcome,
            at_ms,
            step: text,
            reminder,
        })
    };
    outcomes.into_iter().zip(history).map(entry).collect()
}
