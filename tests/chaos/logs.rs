//! The logs of all programs of a run: one file for each, one JSON text per line, append-only.
//!
//! The checker reads these files and nothing else. An app server writes before it answers, so its
//! log has every answer that Bellhop got, even if it is killed at that moment.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Microseconds since 1970: one machine's clock, so that the logs of its processes can be compared.
pub(crate) type Micros = i64;

/// A line of a log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Line<T> {
    pub(crate) at: Micros,
    #[serde(flatten)]
    pub(crate) event: T,
}

/// A business system's actions with a set.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Published {
    /// It publishes the set for the first time; these are the reminders' ids and users.
    Sent {
        set: u64,
        reminders: Vec<(String, String)>,
    },
    /// JetStream acknowledged it.
    Acknowledged { set: u64 },
    /// It will not try again, and does not know whether the set is stored.
    GivenUp { set: u64 },
}

/// An app server's actions.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Served {
    /// It began, without users.
    Started,
    /// These users connected.
    Connected { users: Vec<String> },
    /// These users left.
    Left { users: Vec<String> },
    /// It took a reminder, and is about to say so.
    Accepted(Reminder),
}

/// A reminder, by what the contract identifies it with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Reminder {
    pub(crate) source: String,
    pub(crate) id: String,
    pub(crate) user: String,
}

/// The nemesis's actions.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Fault {
    /// A fault begins.
    Begins { kind: String, target: String },
    /// It is over: what was killed was started again, what was cut is joined.
    Ends,
    /// Nothing is amiss any more: every process is ready, and reminders flow.
    Healed,
}

/// One outcome, as the contract writes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    #[serde(flatten)]
    pub(crate) reminder: Reminder,
    pub(crate) outcome: String,
    /// Time of Bellhop's decision.
    #[serde(rename = "at")]
    pub(crate) decided_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) instance: Option<String>,
}

/// A log that is being written.
#[derive(Debug)]
pub(crate) struct Log(Mutex<File>);

impl Log {
    /// Opens a log of this directory to append to it.
    pub(crate) fn open(dir: &Path, name: &str) -> Self {
        Self(Mutex::new(
            File::options()
                .create(true)
                .append(true)
                .open(dir.join(format!("{name}.jsonl")))
                .unwrap(),
        ))
    }

    /// Writes events down that happen now.
    pub(crate) fn tell<T: Serialize>(&self, events: impl IntoIterator<Item = T>) {
        let at = now();
        self.write(events.into_iter().map(|event| Line { at, event }));
    }

    /// Writes lines as they are, all in one go.
    pub(crate) fn write<T: Serialize>(&self, lines: impl IntoIterator<Item = T>) {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, &line).unwrap();
            text.push(b'\n');
        }
        self.0.lock().unwrap().write_all(&text).unwrap();
    }
}

/// The time.
pub(crate) fn now() -> Micros {
    Timestamp::now().as_microsecond()
}

/// The logs of a run, read back.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    /// By source, in the order of writing.
    pub(crate) published: BTreeMap<String, Vec<Line<Published>>>,
    /// By app server, in the order of writing.
    pub(crate) served: BTreeMap<String, Vec<Line<Served>>>,
    /// One after the other.
    pub(crate) faults: Vec<Line<Fault>>,
    /// In the order of their stream.
    pub(crate) outcomes: Vec<Outcome>,
    /// The reminders in mailboxes at the end.
    pub(crate) waiting: Vec<Reminder>,
}

impl History {
    /// Reads all logs of a directory.
    pub(crate) fn read(dir: &Path) -> Self {
        let mut history = Self::default();
        let names = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        for name in names.filter(|name| name.ends_with(".jsonl")) {
            let path = dir.join(&name);
            match name.split('.').collect::<Vec<_>>()[..] {
                ["published", source, _] => {
                    drop(history.published.insert(source.to_owned(), lines(&path)))
                }
                ["served", app, _] => drop(history.served.insert(app.to_owned(), lines(&path))),
                ["faults", _] => history.faults = lines(&path),
                ["outcomes", _] => history.outcomes = lines(&path),
                ["waiting", _] => history.waiting = lines(&path),
                _ => panic!("{name} is no log of a run"),
            }
        }
        history
    }
}

fn lines<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let text = fs::read_to_string(path).unwrap();
    let read = |line| {
        serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("{}: {error}: {line}", path.display()))
    };
    text.lines().map(read).collect()
}
