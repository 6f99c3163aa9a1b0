//! Writes a message of `BELLHOP_OUTCOMES`: outcomes in the contract's words, and beside them the
//! [lines of the history](crate::reminder::history). A header names what the message settles.

use async_nats::HeaderMap;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use strum::VariantArray;

use super::super::recorded;
use crate::log::Subscriber;
use crate::log::done::{self, Done};
use crate::metrics::OutcomeKind;
use crate::reminder::outcome::{Outcome, Record};
use crate::token::{Source, UserId};

/// Outcomes in one message, and
const MAX_RECORDS: usize = 250;
/// bytes of it: far below any payload limit, unless one reminder alone is more.
const MAX_BYTES: usize = 128 << 10;
/// The typical size of a record, in bytes.
const RECORD_BYTES: usize = 200;

/// An outcome on its way to the stream.
#[derive(Debug)]
pub struct OutcomeEntry {
    /// The public part.
    pub record: Record,
    /// Time at which the reminder was published, in milliseconds since 1970.
    pub published_ms: i64,
    /// Its finished JSON; none if an earlier outcome has carried it, or if it was refused or
    /// blocked: then no one may see what it says.
    pub reminder: Option<Bytes>,
    /// The work that is settled once this is recorded, and its subscriber. A new owner passes it
    /// by. A cancelled reminder, or one that is announced once more, has none.
    pub settles: Option<(Subscriber, Done)>,
}

impl OutcomeEntry {
    fn line(&self) -> Line<'_> {
        let Record {
            id,
            source,
            set,
            user,
            outcome,
            at,
        } = &self.record;
        Line {
            id,
            source,
            set,
            user: user.as_ref(),
            outcome,
            at: *at,
            published_ms: self.published_ms,
            reminder: self.reminder.as_deref(),
            settles: self.settles,
        }
    }
}

/// The same as an [`OutcomeEntry`], borrowed.
#[derive(Debug)]
pub struct Line<'l> {
    /// The reminder's id.
    pub id: &'l str,
    /// Its business system.
    pub source: &'l Source,
    /// Its set.
    pub set: &'l str,
    /// The reminder's user.
    pub user: Option<&'l UserId>,
    /// The outcome.
    pub outcome: &'l Outcome,
    /// Time of the outcome.
    pub at: Timestamp,
    /// Time at which the reminder was published, in milliseconds since 1970.
    pub published_ms: i64,
    /// Its finished JSON, if it is to be kept.
    pub reminder: Option<&'l [u8]>,
    /// The part of the log that is done once this is recorded, and its owner.
    pub settles: Option<(Subscriber, Done)>,
}

/// Outcomes, written in parts of messages. Each is written where it is decided, once, so that the
/// task that stores them has only to put parts together.
#[derive(Debug)]
pub struct Outcomes {
    parts: Vec<Part>,
    has_history: bool,
    at: At,
}

impl Outcomes {
    /// No outcomes yet, to be written with what the history needs or without.
    pub fn new(has_history: bool) -> Self {
        Self {
            parts: Vec::new(),
            has_history,
            at: At::default(),
        }
    }

    /// Returns these outcomes, written.
    pub fn of(entries: &[OutcomeEntry], has_history: bool) -> Self {
        let mut outcomes = Self::new(has_history);
        for entry in entries {
            outcomes.push(&entry.line());
        }
        outcomes
    }

    /// Adds an outcome behind those of its source.
    pub fn push(&mut self, line: &Line<'_>) {
        let last = self
            .parts
            .iter()
            .rposition(|part| part.source == *line.source);
        let bytes = RECORD_BYTES + line.reminder.map_or(0, <[u8]>::len);
        let place = match last.filter(|last| self.parts[*last].has_room(bytes)) {
            Some(place) => place,
            None => {
                self.parts.push(Part::new(line.source.clone()));
                self.parts.len() - 1
            }
        };
        self.parts[place].push(line, self.at.text(line.at), self.has_history);
    }

    /// Returns the parts, those of one source in their order.
    pub fn into_parts(self) -> Vec<Part> {
        self.parts
    }
}

/// Outcomes of one source, as they stand in a message.
#[derive(Debug)]
pub struct Part {
    source: Source,
    count: usize,
    /// Records, and lines of the history, with commas between.
    records: Vec<u8>,
    history: Vec<u8>,
    settles: Vec<(Subscriber, Done)>,
    /// The number of outcomes of each kind.
    kinds: [u64; OutcomeKind::VARIANTS.len()],
}

impl Part {
    fn new(source: Source) -> Self {
        Self {
            source,
            count: 0,
            records: Vec::new(),
            history: Vec::new(),
            settles: Vec::new(),
            kinds: [0; OutcomeKind::VARIANTS.len()],
        }
    }

    /// Returns whose reminders these are.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Returns how many outcomes there are of each kind that there are some of.
    pub fn kinds(&self) -> impl Iterator<Item = (OutcomeKind, u64)> + '_ {
        let all = OutcomeKind::VARIANTS.iter().copied().zip(self.kinds);
        all.filter(|(_, count)| *count > 0)
    }

    fn bytes(&self) -> usize {
        self.records.len() + self.history.len()
    }

    /// Returns true if a message has room for these bytes as well.
    fn has_room(&self, bytes: usize) -> bool {
        self.count < MAX_RECORDS && self.bytes() + bytes <= MAX_BYTES
    }

    fn push(&mut self, line: &Line<'_>, at: &str, has_history: bool) {
        if self.count > 0 {
            self.records.push(b',');
        } else {
            self.records.reserve(RECORD_BYTES);
        }
        self.count += 1;
        write_record(&mut self.records, line, at);
        if has_history {
            if !self.history.is_empty() {
                self.history.push(b',');
            }
            write_history(&mut self.history, line);
        }
        self.settles.extend(line.settles);
        self.kinds[OutcomeKind::from(line.outcome) as usize] += 1;
    }
}

/// Returns how many of these parts, from the first on, go in one message: at least one.
pub fn fitting(parts: &[Part]) -> usize {
    let (mut count, mut bytes) = (0, 0);
    let fits = |part: &&Part| {
        count += part.count;
        bytes += part.bytes();
        count <= MAX_RECORDS && bytes <= MAX_BYTES
    };
    parts
        .iter()
        .take_while(fits)
        .count()
        .max(1)
        .min(parts.len())
}

/// Puts a message together.
pub fn encode(parts: &[Part]) -> (HeaderMap, Bytes) {
    let bytes: usize = parts.iter().map(|part| part.bytes() + 2).sum();
    let mut body = Vec::with_capacity(bytes + FRAME_BYTES);
    body.extend_from_slice(br#"{"outcomes":["#);
    join(&mut body, parts.iter().map(|part| &part.records));
    if parts.iter().any(|part| !part.history.is_empty()) {
        body.extend_from_slice(br#"],"history":["#);
        join(&mut body, parts.iter().map(|part| &part.history));
    }
    body.extend_from_slice(b"]}");
    let settles = parts.iter().flat_map(|part| &part.settles).copied();
    let settles = done::encode(settles);
    let mut headers = HeaderMap::new();
    if !settles.is_empty() {
        headers.insert(recorded::HEADER, settles);
    }
    (headers, body.into())
}

/// The size of everything around the records and lines of a message, in bytes.
const FRAME_BYTES: usize = 32;

fn join<'p>(body: &mut Vec<u8>, lists: impl Iterator<Item = &'p Vec<u8>>) {
    for (place, list) in lists.enumerate() {
        if place > 0 {
            body.push(b',');
        }
        body.extend_from_slice(list);
    }
}

/// The last time that was written. Outcomes that are settled together have the same one.
#[derive(Debug, Default)]
struct At {
    time: Timestamp,
    text: String,
}

impl At {
    fn text(&mut self, time: Timestamp) -> &str {
        if self.text.is_empty() || self.time != time {
            *self = Self {
                time,
                text: time.to_string(),
            };
        }
        &self.text
    }
}

/// Writes a [`Record`] as serde does, in a third of the time: serde collects the outcome's fields
/// before it flattens them, and writes each time again.
fn write_record(body: &mut Vec<u8>, line: &Line<'_>, at: &str) {
    body.extend_from_slice(br#"{"id":"#);
    write_json(body, line.id);
    body.extend_from_slice(br#","source":"#);
    write_json(body, line.source);
    body.extend_from_slice(br#","set":"#);
    write_json(body, line.set);
    body.extend_from_slice(br#","user":"#);
    write_json(body, &line.user);
    // Its fields stand beside the record's own.
    let opening = body.len();
    write_json(body, line.outcome);
    body[opening] = b',';
    body.pop();
    body.extend_from_slice(br#","at":""#);
    body.extend_from_slice(at.as_bytes());
    body.extend_from_slice(br#""}"#);
}

fn write_history(body: &mut Vec<u8>, line: &Line<'_>) {
    body.extend_from_slice(br#"{"published_at":"#);
    write_json(body, &line.published_ms);
    if let Some(reminder) = line.reminder {
        body.extend_from_slice(br#","reminder":"#);
        body.extend_from_slice(reminder);
    }
    body.push(b'}');
}

fn write_json(body: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(body, value).expect("names and outcomes are JSON");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::partition::Partition;
    use crate::reminder::history::entries;
    use crate::reminder::outcome::Batch;
    use crate::reminder::reject::RejectCode;

    /// Writes one message of all of these.
    fn message(entries: &[OutcomeEntry], has_history: bool) -> (HeaderMap, Bytes) {
        encode(&Outcomes::of(entries, has_history).into_parts())
    }

    fn entry(outcome: Outcome, reminder: Option<&'static str>) -> OutcomeEntry {
        let record = Record {
            id: "inv-\"1\"".to_owned(),
            source: "billing".parse().unwrap(),
            set: "s".to_owned(),
            user: Some("张三".parse().unwrap()),
            outcome,
            at: "2026-11-23T08:00:00Z".parse().unwrap(),
        };
        let settles = Some((
            Subscriber::Partition(Partition(1)),
            Done::Parked {
                sequence: 7,
                stored_ms: 5,
            },
        ));
        OutcomeEntry {
            record,
            published_ms: 12,
            reminder: reminder.map(|json| json.as_bytes().into()),
            settles,
        }
    }

    #[test]
    fn records_are_written_as_serde_writes_them() {
        let instances = vec!["app-\"1\"".parse().unwrap(), "app-2".parse().unwrap()];
        let outcomes = [
            Outcome::delivered(instances[..1].to_vec()).unwrap(),
            Outcome::delivered(instances.clone()).unwrap(),
            Outcome::Rerouted {
                instance: instances[0].clone(),
                to: "bob".parse().unwrap(),
            },
            Outcome::Parked { escalated: false },
            Outcome::Parked { escalated: true },
            Outcome::Merged {
                into: "\u{1}".to_owned(),
            },
            Outcome::Blocked {
                tag: "t".parse().unwrap(),
                rule: "r".to_owned(),
            },
            Outcome::Cancelled,
            Outcome::Expired {
                expires_at: Timestamp::UNIX_EPOCH,
            },
            Outcome::Rejected {
                error: RejectCode::MailboxFull,
            },
        ];
        let mut entries: Vec<_> = outcomes
            .into_iter()
            .map(|outcome| entry(outcome, None))
            .collect();
        entries[1].record.at = Timestamp::UNIX_EPOCH;
        entries[2].record.user = None;
        let outcomes = entries.iter().map(|entry| &entry.record).collect();
        let expected = serde_json::to_string(&Batch { outcomes }).unwrap();
        let (_, body) = message(&entries, false);
        assert_eq!(std::str::from_utf8(&body), Ok(expected.as_str()));
    }

    #[test]
    fn part_ends_where_a_message_is_full() {
        let delivered = || Outcome::delivered(vec!["app-1".parse().unwrap()]).unwrap();
        let many: Vec<_> = (0..MAX_RECORDS + 1)
            .map(|_| entry(delivered(), None))
            .collect();
        let parts = Outcomes::of(&many, true).into_parts();
        let counts: Vec<_> = parts.iter().map(|part| part.count).collect();
        assert_eq!(counts, [MAX_RECORDS, 1]);
        let instances = (0..64)
            .map(|number| format!("{number}{}", "x".repeat(120)).parse().unwrap())
            .collect();
        let long = Outcome::delivered(instances).unwrap();
        let large: Vec<_> = (0..100).map(|_| entry(long.clone(), None)).collect();
        let most = large.len() * 64 * 140;
        let parts = Outcomes::of(&large, true).into_parts();
        assert!(most > 4 * MAX_BYTES && parts.len() > 4, "{}", parts.len());
        for part in &parts {
            let bytes = encode(std::slice::from_ref(part)).1.len();
            assert!(bytes < MAX_BYTES + 10_000, "{bytes} bytes");
        }
    }

    #[test]
    fn small_parts_share_a_message() {
        let delivered = || Outcome::delivered(vec!["app-1".parse().unwrap()]).unwrap();
        let part = |count: usize| {
            let entries: Vec<_> = (0..count).map(|_| entry(delivered(), None)).collect();
            Outcomes::of(&entries, false).into_parts().remove(0)
        };
        assert_eq!(fitting(&[part(200), part(50), part(1)]), 2);
        assert_eq!(fitting(&[part(MAX_RECORDS), part(1)]), 1);
        assert_eq!(fitting(&[]), 0);
    }

    #[test]
    fn outcomes_of_each_source_keep_their_order() {
        let of = |source: &str, id: &str| {
            let mut entry = entry(Outcome::Cancelled, None);
            (entry.record.source, entry.record.id) = (source.parse().unwrap(), id.to_owned());
            entry
        };
        let all = [of("a", "1"), of("b", "2"), of("a", "3")];
        let parts = Outcomes::of(&all, false).into_parts();
        let ids = parts.iter().map(|part| {
            let (_, body) = encode(std::slice::from_ref(part));
            let body: Value = serde_json::from_slice(&body).unwrap();
            let records = body["outcomes"].as_array().unwrap().clone();
            let ids: Vec<_> = records.iter().map(|record| record["id"].clone()).collect();
            (part.source().as_str(), ids)
        });
        let expected = [("a", vec![json!("1"), json!("3")]), ("b", vec![json!("2")])];
        assert_eq!(ids.collect::<Vec<_>>(), expected);
        assert_eq!(
            parts[0].kinds().collect::<Vec<_>>(),
            [(OutcomeKind::Cancelled, 2)]
        );
    }

    #[test]
    fn history_and_public_readers_read_one_message() {
        let delivered = Outcome::delivered(vec!["app-1".parse().unwrap()]).unwrap();
        let all = [
            entry(delivered, Some(r#"{"id":"x","data":[ 1.50]}"#)),
            entry(
                Outcome::Expired {
                    expires_at: jiff::Timestamp::UNIX_EPOCH,
                },
                None,
            ),
        ];
        let (headers, body) = message(&all, true);
        assert_eq!(
            headers.get(recorded::HEADER).unwrap().as_str(),
            "1:m7@5 1:m7@5"
        );
        let lines = entries(&body).unwrap();
        assert_eq!(
            lines[0].reminder.as_deref(),
            Some(r#"{"id":"x","data":[ 1.50]}"#)
        );
        assert_eq!(
            (lines[1].published_ms, lines[1].reminder.as_ref()),
            (12, None)
        );
        assert_eq!(
            (lines[0].id.as_str(), lines[0].user.as_deref()),
            ("inv-\"1\"", Some("张三"))
        );
        assert_eq!(
            lines[0].step,
            r#"{"outcome":"delivered","at":"2026-11-23T08:00:00Z","instance":"app-1"}"#
        );
        let public =
            |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap()["outcomes"].clone();
        let (_, without) = message(&all, false);
        assert_eq!(public(&body), public(&without));
        assert_eq!(
            serde_json::from_slice::<Value>(&without)
                .unwrap()
                .as_object()
                .unwrap()
                .len(),
            1
        );
        assert!(entries(&without).unwrap().is_empty());
        assert_eq!(
            public(&body)[1],
            json!({"id": "inv-\"1\"", "source": "billing", "set": "s", "user": "张三",
            "outcome": "expired", "at": "2026-11-23T08:00:00Z", "expires_at": "1970-01-01T00:00:00Z"})
        );
    }
}
