//! Writes a message of `BELLHOP_OUTCOMES`: outcomes in the contract's words, and beside them the
//! [lines of the history](crate::reminder::history). A header names what the message settles.

use async_nats::HeaderMap;
use bytes::Bytes;

use super::super::recorded;
use crate::log::Subscriber;
use crate::log::done::{self, Done};
use crate::reminder::outcome::{Batch, Outcome, Record};

/// An outcome on its way to the stream.
#[derive(Debug)]
pub struct OutcomeEntry {
    /// What everybody may read.
    pub record: Record,
    /// When the reminder was published, in milliseconds since 1970.
    pub published_ms: i64,
    /// Its finished JSON; none if an earlier outcome has carried it, or if it was refused or blocked: then no one may see
    /// what it says.
    pub reminder: Option<Bytes>,
    /// What is done with once this is recorded, and whose it is. A new owner passes it by. What was cancelled, or is announced
    /// once more, has none.
    pub settles: Option<(Subscriber, Done)>,
}

impl OutcomeEntry {
    /// Bytes of its part of a message, about.
    pub fn bytes(&self) -> usize {
        let Record {
            id,
            source,
            set,
            user,
            ..
        } = &self.record;
        let instances = match &self.record.outcome {
            Outcome::Delivered { instances, .. } => instances.as_slice(),
            _ => &[],
        };
        let names = [
            id.len(),
            source.as_str().len(),
            set.len(),
            user.as_ref().map_or(0, |user| user.as_str().len()),
        ];
        // Each with quotes and a comma.
        let instances = instances.iter().map(|instance| instance.as_str().len() + 3);
        let names: usize = names.into_iter().chain(instances).sum();
        // JSON may write each byte of a name as two: names have no control characters.
        LINE_BYTES + 2 * names + self.reminder.as_ref().map_or(0, Bytes::len)
    }
}

/// What a line has beside its names and the reminder's own JSON, about.
const LINE_BYTES: usize = 200;

/// Writes a message.
pub fn encode(entries: &[OutcomeEntry], has_history: bool) -> (HeaderMap, Bytes) {
    let outcomes: Vec<&Record> = entries.iter().map(|entry| &entry.record).collect();
    let mut body = Vec::with_capacity(entries.iter().map(OutcomeEntry::bytes).sum());
    serde_json::to_writer(&mut body, &Batch { outcomes }).expect("outcomes are JSON");
    if has_history {
        body.pop();
        for (place, entry) in entries.iter().enumerate() {
            let opening = if place == 0 { r#","history":["# } else { "," };
            body.extend_from_slice(
                format!(r#"{opening}{{"published_at":{}"#, entry.published_ms).as_bytes(),
            );
            if let Some(reminder) = &entry.reminder {
                body.extend_from_slice(br#","reminder":"#);
                body.extend_from_slice(reminder);
            }
            body.push(b'}');
        }
        body.extend_from_slice(b"]}");
    }
    let settles = done::encode(entries.iter().filter_map(|entry| entry.settles));
    let mut headers = HeaderMap::new();
    if !settles.is_empty() {
        headers.insert(recorded::HEADER, settles);
    }
    (headers, body.into())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::partition::Partition;
    use crate::reminder::history::entries;

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
    fn a_line_is_as_long_as_it_says() {
        let instances = (0..64)
            .map(|number| format!("{number}{}", "x".repeat(120)).parse().unwrap())
            .collect();
        let all = [entry(Outcome::delivered(instances).unwrap(), Some("{}"))];
        let (_, body) = encode(&all, true);
        assert!(
            body.len() <= all[0].bytes(),
            "{} of {}",
            body.len(),
            all[0].bytes()
        );
    }

    #[test]
    fn the_history_reads_what_was_told_and_others_read_the_contract() {
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
        let (headers, body) = encode(&all, true);
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
        let (_, without) = encode(&all, false);
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
