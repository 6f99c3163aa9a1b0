//! Recurring reminders. One schedule is stored at a time, that of the next occurrence. When it
//! comes due, the occurrence is published as a reminder of its own, and the schedule of the one
//! after it is stored.

use bellhop_protocol::reminder::repeat::occurrence_id;
use bellhop_protocol::reminder::set::{self, Origin};
use bellhop_protocol::token::Source;
use bytes::Bytes;
use jiff::Timestamp;

use super::split::{Scheduled, scheduled, set_of};

/// The result of a recurring reminder that came due.
#[derive(Debug)]
pub struct Due {
    /// The due time of this occurrence.
    pub moment: Timestamp,
    /// A set of this occurrence, to be published now.
    pub occurrence: Bytes,
    /// The next occurrence; none if the reminder expires before.
    pub next: Option<Scheduled>,
}

/// Returns what a reminder that came due at `came` becomes, if it is a recurring one. Moments that
/// passed before `came` are skipped: after an outage one occurrence comes late, and those behind it
/// in the outage do not come.
pub fn due(source: &Source, set: &[u8], came: Timestamp) -> Option<Due> {
    // The first moment that is not before its `deliver_at` is that moment itself.
    let origin = Origin::new(source.clone(), 0, 0);
    let set = set::parse(&origin, set).ok()?;
    let mut recurring = set.reminders.into_iter().next()?.parsed.ok()?;
    let (moment, mut occurrence) = (recurring.deliver_at?, recurring.clone());
    let repeat = occurrence.repeat.take()?;
    occurrence.id = occurrence_id(&recurring.id, moment);
    let next = repeat.next_after(moment.max(came));
    let next = next.filter(|next| recurring.expires_at.is_none_or(|end| *next < end));
    let next = next.map(|next| {
        recurring.deliver_at = Some(next);
        scheduled(next, recurring, 0)
    });
    let occurrence = set_of(&occurrence);
    Some(Due {
        moment,
        occurrence,
        next,
    })
}

#[cfg(test)]
mod tests {
    use super::super::split::{Message, SetWork, split};
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// Returns what a set with this reminder schedules.
    fn first(fields: &str) -> Scheduled {
        let body = format!(
            r#"{{"id":"s","reminders":[{{"id":"r","user":"u","content":"c","data":{{"n":1.50}},{fields}}}]}}"#
        );
        let message = Message {
            source_token: "hr",
            sequence: 1,
            stored_ms: at("2026-12-01T07:30:00Z").as_millisecond(),
            body: body.as_bytes(),
            set: Ok(body.as_bytes()),
            message_id: None,
            is_requeued: false,
            is_due: false,
            trace: None,
        };
        match split(&message, 1).of_set.unwrap().work {
            SetWork::Parts(mut parts) => parts.scheduled.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn becomes(scheduled: &Scheduled, came: &str) -> Due {
        due(&"hr".parse().unwrap(), &scheduled.set, at(came)).unwrap()
    }

    #[test]
    fn each_occurrence_has_id_and_moment() {
        let first = first(r#""repeat":{"cron":"0 8 * * *"},"reroute":false"#);
        assert_eq!(first.at, at("2026-12-01T08:00:00Z"));
        let Due {
            moment,
            occurrence,
            next,
        } = becomes(&first, "2026-12-01T08:00:00.2Z");
        assert_eq!(moment, first.at);
        let text = String::from_utf8(occurrence.to_vec()).unwrap();
        for part in [
            r#""id":"r@2026-12-01T08:00:00Z""#,
            r#""deliver_at":"2026-12-01T08:00:00Z""#,
            r#""data":{"n":1.50}"#,
            r#""reroute":false"#,
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains("repeat"), "{text}");
        let next = next.unwrap();
        assert_eq!((&*next.id, next.at), ("r", at("2026-12-02T08:00:00Z")));
        let after = becomes(&next, "2026-12-02T08:00:00Z").next.unwrap();
        assert_eq!(after.at, at("2026-12-03T08:00:00Z"));
        assert_eq!(first.user, after.user);
    }

    #[test]
    fn one_late_occurrence_comes_after_an_outage() {
        let first = first(r#""repeat":{"cron":"0 8 * * *"}"#);
        let late = becomes(&first, "2026-12-04T12:00:00Z");
        assert_eq!(late.moment, first.at);
        assert_eq!(late.next.unwrap().at, at("2026-12-05T08:00:00Z"));
    }

    #[test]
    fn recurrence_ends_when_it_expires() {
        let first = first(r#""repeat":{"cron":"0 8 * * *"},"expires_at":"2026-12-02T08:00:00Z""#);
        assert!(becomes(&first, "2026-12-01T08:00:00Z").next.is_none());
    }

    #[test]
    fn other_reminders_are_not_recurring() {
        let once = first(r#""deliver_at":"2026-12-02T08:00:00Z""#);
        let source = "hr".parse().unwrap();
        assert!(due(&source, &once.set, once.at).is_none());
        assert!(due(&source, b"?", once.at).is_none());
    }
}
