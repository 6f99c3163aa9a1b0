//! The output of `connect-as`.

use std::collections::{BTreeSet, HashSet, VecDeque};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::cli::CliError;
use crate::cli::marked::Marks;
use crate::cli::output::{Output, age, plain, plural, short};
use crate::client::{Delivery, Field, InstanceName, Priority, Reason, Reminder, Source, UserId};

/// The most accepted reminders remembered, to mark redeliveries.
const REMEMBERED: usize = 100_000;

/// Prints what happens to the app server, for people or as JSON.
pub(super) struct Printer {
    instance: InstanceName,
    subject: String,
    accepted: Recent,
    is_json: bool,
    output: Output,
}

#[derive(Serialize)]
struct Arrived<'a> {
    event: &'static str,
    at: Timestamp,
    source: &'a Source,
    id: &'a str,
    user: &'a UserId,
    repeat: bool,
    refused: Option<Reason>,
    reminder: &'a RawValue,
}

impl Printer {
    pub(super) fn new(instance: InstanceName, subject: String, is_json: bool) -> Self {
        Self {
            instance,
            subject,
            accepted: Recent::default(),
            is_json,
            output: Output::new(),
        }
    }

    /// Prints that all routes are put.
    pub(super) fn connected(&mut self, users: &BTreeSet<UserId>) -> Result<(), CliError> {
        let Self {
            instance, subject, ..
        } = self;
        if self.is_json {
            let at = Timestamp::now();
            self.output.json(
                &json!({ "event": "connected", "at": at, "instance": instance, "subject": subject,
                "users": users }),
            )?;
        } else {
            let users = plural(users.len(), "user");
            self.output.line(format!(
                "{instance} is at {subject} with {users}; Ctrl-C ends it"
            ))?;
        }
        self.flush()
    }

    /// Prints that all routes are deleted.
    pub(super) fn disconnected(&mut self) -> Result<(), CliError> {
        if self.is_json {
            self.output.json(&json!({ "event": "disconnected", "at": Timestamp::now(), "instance": self.instance }))?;
        }
        self.flush()
    }

    /// Prints a reminder, and why it is refused, if it is.
    pub(super) fn reminder(
        &mut self,
        now: Timestamp,
        delivery: &Delivery,
        refused: Option<Reason>,
    ) -> Result<(), CliError> {
        let reminder = &delivery.reminder;
        let key = Recent::key(reminder);
        let repeat = self.accepted.contains(&key);
        if refused.is_none() {
            self.accepted.insert(key);
        }
        if !self.is_json {
            return self.output.line(line(now, reminder, repeat, refused));
        }
        let Reminder {
            id, source, user, ..
        } = reminder;
        let (event, reminder) = ("reminder", delivery.json());
        self.output.json(&Arrived {
            event,
            at: now,
            source,
            id,
            user,
            repeat,
            refused,
            reminder,
        })
    }

    pub(super) fn flush(&mut self) -> Result<(), CliError> {
        self.output.flush()
    }
}

/// Returns a reminder for people: when it came, whose it is, what it says, and what is unusual
/// about it.
fn line(now: Timestamp, reminder: &Reminder, is_repeat: bool, refused: Option<Reason>) -> String {
    let Reminder {
        id,
        source,
        user,
        title,
        content,
        priority,
        ..
    } = reminder;
    let Reminder {
        meant_for,
        rerouted_to,
        count,
        parked_at,
        marks,
        ..
    } = reminder;
    let marked = |text: &str, field| {
        let marks: Vec<_> = marks.iter().filter(|mark| mark.field == field).collect();
        Marks::Brackets.marked(text, &marks)
    };
    let title = title
        .as_ref()
        .map(|title| marked(title, Field::Title) + ": ")
        .unwrap_or_default();
    let text = title + &marked(content, Field::Content);
    let notes = [
        (*priority != Priority::Normal).then(|| priority.as_str().to_owned()),
        meant_for.as_ref().map(|user| format!("for {user}")),
        rerouted_to
            .as_ref()
            .map(|associate| format!("{associate} got it")),
        (*count > 1).then(|| format!("{count} in one")),
        parked_at.map(|at| format!("parked for {}", age(now, at))),
        is_repeat.then(|| "repeat".to_owned()),
        refused.map(|reason| match reason {
            Reason::NotConnected => "refused: not_connected".to_owned(),
            Reason::Busy => "refused: busy".to_owned(),
        }),
    ];
    let notes: Vec<String> = notes.into_iter().flatten().collect();
    let notes = if notes.is_empty() {
        String::new()
    } else {
        format!("  [{}]", notes.join(", "))
    };
    let at = now.strftime("%H:%M:%S%.3f");
    plain(&format!(
        "{at} {source} {id} → {user}  {}{notes}",
        short(&text, 100)
    ))
}

/// The latest accepted reminders.
#[derive(Default)]
struct Recent {
    keys: HashSet<[String; 3]>,
    order: VecDeque<[String; 3]>,
}

impl Recent {
    /// Returns what a redelivery has in common with the first delivery.
    fn key(reminder: &Reminder) -> [String; 3] {
        [
            reminder.source.to_string(),
            reminder.id.clone(),
            reminder.user.to_string(),
        ]
    }

    fn contains(&self, key: &[String; 3]) -> bool {
        self.keys.contains(key)
    }

    fn insert(&mut self, key: [String; 3]) {
        if self.keys.insert(key.clone()) {
            self.order.push_back(key);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reminder(id: &str, user: &str) -> Reminder {
        let reminder = json!({ "id": id, "source": "s", "set": "7", "user": user, "content": "c",
            "published_at": "2026-11-22T08:00:00Z" });
        serde_json::from_value(reminder).unwrap()
    }

    #[test]
    fn accepted_reminders_are_redeliveries_until_forgotten() {
        let key = |id: &str, user: &str| Recent::key(&reminder(id, user));
        let mut recent = Recent::default();
        recent.insert(key("a", "alice"));
        assert!(recent.contains(&key("a", "alice")) && !recent.contains(&key("a", "bob")));
        (0..REMEMBERED).for_each(|i| recent.insert(key(&i.to_string(), "alice")));
        assert!(!recent.contains(&key("a", "alice")) && recent.keys.len() == REMEMBERED);
    }

    #[test]
    fn line_names_unusual_fields() {
        let mut reminder = reminder("a", "bob");
        let now = "2026-11-22T10:00:00.5Z".parse().unwrap();
        assert_eq!(
            line(now, &reminder, false, None),
            "10:00:00.500 s a → bob  c"
        );
        reminder.title = Some("\u{1b}[1mt".to_owned());
        reminder.meant_for = Some("alice".parse().unwrap());
        reminder.rerouted_to = Some("carol".parse().unwrap());
        reminder.priority = Priority::Urgent;
        reminder.count = 2;
        reminder.parked_at = Some("2026-11-22T09:00:00Z".parse().unwrap());
        let mark =
            r#"{"tag":"t","rule":"r","field":"content","start":0,"end":1,"action":"highlight"}"#;
        reminder.marks = vec![serde_json::from_str(mark).unwrap()];
        assert_eq!(
            line(now, &reminder, true, Some(Reason::Busy)),
            "10:00:00.500 s a → bob  \\u{1b}[1mt: [c]{highlight}  [urgent, for alice, carol got it, 2 in one, parked for 1h, repeat, refused: busy]"
        );
    }
}
