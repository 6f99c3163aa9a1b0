//! What the posed app server answers, and what it tells of it.

use std::collections::{BTreeSet, HashSet, VecDeque};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::cli::CliError;
use crate::cli::marked::Style;
use crate::cli::output::{Output, age, complain, plain, plural, short};
use crate::nats::instance::{DeliveryAnswer, Heartbeat, HeartbeatAnswer, Reason, Refused};
use crate::reminder::{Field, Mark};
use crate::token::{InstanceName, UserId};

/// Accepted reminders remembered, to know repeats by.
const REMEMBERED: usize = 100_000;

/// An app-server instance that is none.
pub(super) struct Pose {
    instance: InstanceName,
    subject: String,
    /// Who is connected.
    users: BTreeSet<UserId>,
    refuse: Option<Reason>,
    accepted: Recent,
    is_json: bool,
    output: Output,
}

#[derive(Deserialize)]
struct Delivery<'a> {
    #[serde(borrow)]
    reminders: Vec<&'a RawValue>,
}

/// What is told of a reminder, and what its answer needs.
#[derive(Deserialize)]
struct Reminder {
    id: String,
    source: String,
    user: String,
    title: Option<String>,
    content: String,
    priority: Option<String>,
    #[serde(rename = "for")]
    meant_for: Option<String>,
    rerouted_to: Option<String>,
    count: Option<usize>,
    parked_at: Option<Timestamp>,
    #[serde(default)]
    marks: Vec<Mark>,
}

#[derive(Serialize)]
struct Arrived<'a> {
    event: &'static str,
    at: Timestamp,
    source: &'a str,
    id: &'a str,
    user: &'a str,
    repeat: bool,
    refused: Option<Reason>,
    reminder: &'a RawValue,
}

impl Pose {
    pub(super) fn new(
        instance: InstanceName,
        subject: String,
        users: BTreeSet<UserId>,
        refuse: Option<Reason>,
        is_json: bool,
    ) -> Self {
        Self { instance, subject, users, refuse, accepted: Recent::default(), is_json, output: Output::new() }
    }

    /// What the instance's subjects begin with.
    pub(super) fn subject(&self) -> &str {
        &self.subject
    }

    /// All routes are put.
    pub(super) fn connected(&mut self) -> Result<(), CliError> {
        if self.is_json {
            self.output.json(&json!({ "event": "connected", "at": Timestamp::now(), "instance": self.instance,
                "subject": self.subject, "users": self.users }))?;
        } else {
            let users = plural(self.users.len(), "user");
            self.output.line(format!("{} is at {} with {users}; Ctrl-C ends it", self.instance, self.subject))?;
        }
        self.output.flush()
    }

    /// From here on nobody is connected.
    pub(super) fn leave(&mut self) {
        self.users.clear();
    }

    /// All routes are deleted.
    pub(super) fn disconnected(&mut self) -> Result<(), CliError> {
        if self.is_json {
            self.output.json(&json!({ "event": "disconnected", "at": Timestamp::now(), "instance": self.instance }))?;
        }
        self.output.flush()
    }

    /// The answer to a heartbeat. A request that is none has none.
    pub(super) fn heartbeat(&self, request: &[u8]) -> Option<Vec<u8>> {
        let Ok(Heartbeat::<String> { users }) = serde_json::from_slice(request) else {
            complain(format_args!("not a heartbeat: {}", short(&String::from_utf8_lossy(request), 200)));
            return None;
        };
        let is_connected = |user: &String| self.is_connected(user);
        let answer = HeartbeatAnswer { connected: users.into_iter().filter(is_connected).collect() };
        Some(serde_json::to_vec(&answer).expect("an answer has only string keys"))
    }

    /// The answer to a delivery, which is told of. A request that is none has none.
    pub(super) fn delivery(&mut self, now: Timestamp, request: &[u8]) -> Result<Option<Vec<u8>>, CliError> {
        let read = |raw: &&RawValue| serde_json::from_str(raw.get()).map(|reminder: Reminder| reminder);
        let delivery = serde_json::from_slice::<Delivery<'_>>(request).and_then(|delivery| {
            let reminders: Vec<Reminder> = delivery.reminders.iter().map(read).collect::<Result<_, _>>()?;
            Ok((reminders, delivery.reminders))
        });
        let (reminders, raw) = match delivery {
            Ok(delivery) => delivery,
            Err(error) => {
                complain(format_args!("not a delivery: {error}: {}", short(&String::from_utf8_lossy(request), 200)));
                return Ok(None);
            }
        };
        let mut answer = DeliveryAnswer::default();
        for (reminder, raw) in reminders.into_iter().zip(raw) {
            let reason = self.refuse.or((!self.is_connected(&reminder.user)).then_some(Reason::NotConnected));
            let is_repeat = self.accepted.contains(&reminder);
            self.tell(now, &reminder, raw, is_repeat, reason)?;
            match reason {
                None => self.accepted.insert(reminder),
                Some(reason) => {
                    let Reminder { id, source, user, .. } = reminder;
                    answer.refused.push(Refused { id, source, user, reason });
                }
            }
        }
        self.output.flush()?;
        Ok(Some(serde_json::to_vec(&answer).expect("an answer has only string keys")))
    }

    fn is_connected(&self, user: &str) -> bool {
        user.parse::<UserId>().is_ok_and(|user| self.users.contains(&user))
    }

    fn tell(
        &mut self,
        now: Timestamp,
        reminder: &Reminder,
        raw: &RawValue,
        is_repeat: bool,
        refused: Option<Reason>,
    ) -> Result<(), CliError> {
        let Reminder { id, source, user, .. } = reminder;
        if self.is_json {
            let repeat = is_repeat;
            return self.output.json(&Arrived {
                event: "reminder",
                at: now,
                source,
                id,
                user,
                repeat,
                refused,
                reminder: raw,
            });
        }
        self.output.line(line(now, reminder, is_repeat, refused))
    }
}

/// A reminder for people: when, whose, what, and what is uncommon about it.
fn line(now: Timestamp, reminder: &Reminder, is_repeat: bool, refused: Option<Reason>) -> String {
    let Reminder { id, source, user, title, content, priority, meant_for, rerouted_to, count, parked_at, marks } =
        reminder;
    let marked = |text: &str, field| {
        let marks: Vec<_> = marks.iter().filter(|mark| mark.field == field).collect();
        Style::Brackets.marked(text, &marks)
    };
    let title = title.as_ref().map(|title| marked(title, Field::Title) + ": ").unwrap_or_default();
    let text = title + &marked(content, Field::Content);
    let notes = [
        priority.as_ref().filter(|priority| *priority != "normal").cloned(),
        meant_for.as_ref().map(|user| format!("for {user}")),
        rerouted_to.as_ref().map(|associate| format!("{associate} got it")),
        count.map(|count| format!("{count} in one")),
        parked_at.map(|at| format!("parked for {}", age(now, at))),
        is_repeat.then(|| "repeat".to_owned()),
        refused.map(|reason| match reason {
            Reason::NotConnected => "refused: not_connected".to_owned(),
            Reason::Busy => "refused: busy".to_owned(),
        }),
    ];
    let notes: Vec<String> = notes.into_iter().flatten().collect();
    let notes = if notes.is_empty() { String::new() } else { format!("  [{}]", notes.join(", ")) };
    let at = now.strftime("%H:%M:%S%.3f");
    plain(&format!("{at} {source} {id} → {user}  {}{notes}", short(&text, 100)))
}

/// The last reminders that were accepted.
#[derive(Default)]
struct Recent {
    keys: HashSet<[String; 3]>,
    order: VecDeque<[String; 3]>,
}

impl Recent {
    fn contains(&self, reminder: &Reminder) -> bool {
        self.keys.contains(&[reminder.source.clone(), reminder.id.clone(), reminder.user.clone()])
    }

    fn insert(&mut self, reminder: Reminder) {
        let key = [reminder.source, reminder.id, reminder.user];
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

    fn pose(users: &[&str], refuse: Option<Reason>) -> Pose {
        let users = users.iter().map(|user| user.parse().unwrap()).collect();
        let pose = Pose::new("app-1".parse().unwrap(), "bellhop.app.app-1".to_owned(), users, refuse, true);
        Pose { output: Output::unseen(), ..pose }
    }

    fn reminder(id: &str, user: &str) -> String {
        format!(r#"{{"id":"{id}","source":"s","user":"{user}","content":"c","set":"7","tags":[],"priority":"normal"}}"#)
    }

    fn deliver(pose: &mut Pose, reminders: &[String]) -> String {
        let request = format!(r#"{{"reminders":[{}]}}"#, reminders.join(","));
        String::from_utf8(pose.delivery(Timestamp::UNIX_EPOCH, request.as_bytes()).unwrap().unwrap()).unwrap()
    }

    #[test]
    fn it_accepts_what_is_for_its_users() {
        let mut pose = pose(&["alice"], None);
        assert_eq!(deliver(&mut pose, &[reminder("a", "alice")]), "{}");
        assert_eq!(
            deliver(&mut pose, &[reminder("a", "alice"), reminder("b", "bob")]),
            r#"{"refused":[{"id":"b","source":"s","user":"bob","reason":"not_connected"}]}"#
        );
        pose.leave();
        assert!(deliver(&mut pose, &[reminder("a", "alice")]).contains("not_connected"));
    }

    #[test]
    fn it_refuses_what_it_shall() {
        let answer = deliver(&mut pose(&["alice"], Some(Reason::Busy)), &[reminder("a", "alice")]);
        assert_eq!(answer, r#"{"refused":[{"id":"a","source":"s","user":"alice","reason":"busy"}]}"#);
    }

    #[test]
    fn only_who_is_connected_is_in_the_answer_to_a_heartbeat() {
        let pose = pose(&["alice", "张三"], None);
        let answer = pose.heartbeat(r#"{"users":["bob","张三"]}"#.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(answer).unwrap(), r#"{"connected":["张三"]}"#);
        assert_eq!(pose.heartbeat(br#"{"users":[]}"#).unwrap(), br#"{"connected":[]}"#);
    }

    #[test]
    fn what_is_no_request_has_no_answer() {
        let mut pose = pose(&["alice"], None);
        assert!(pose.heartbeat(b"hello").is_none());
        for request in ["hello", "{}", r#"{"reminders":[{"id":"a"}]}"#] {
            assert!(pose.delivery(Timestamp::UNIX_EPOCH, request.as_bytes()).unwrap().is_none(), "{request}");
        }
    }

    #[test]
    fn repeats_are_what_was_accepted_before() {
        let read = |id: &str, user: &str| serde_json::from_str::<Reminder>(&reminder(id, user)).unwrap();
        let mut recent = Recent::default();
        recent.insert(read("a", "alice"));
        assert!(recent.contains(&read("a", "alice")) && !recent.contains(&read("a", "bob")));
        (0..REMEMBERED).for_each(|i| recent.insert(read(&i.to_string(), "alice")));
        assert!(!recent.contains(&read("a", "alice")) && recent.keys.len() == REMEMBERED);
    }

    #[test]
    fn a_line_tells_what_is_uncommon() {
        let mut reminder: Reminder = serde_json::from_str(&reminder("a", "bob")).unwrap();
        let now = "2026-11-22T10:00:00.5Z".parse().unwrap();
        assert_eq!(line(now, &reminder, false, None), "10:00:00.500 s a → bob  c");
        reminder.title = Some("\u{1b}[1mt".to_owned());
        reminder.meant_for = Some("alice".to_owned());
        reminder.rerouted_to = Some("carol".to_owned());
        reminder.priority = Some("urgent".to_owned());
        reminder.count = Some(2);
        reminder.parked_at = Some("2026-11-22T09:00:00Z".parse().unwrap());
        let mark = r#"{"tag":"t","rule":"r","field":"content","start":0,"end":1,"action":"highlight"}"#;
        reminder.marks = vec![serde_json::from_str(mark).unwrap()];
        assert_eq!(
            line(now, &reminder, true, Some(Reason::Busy)),
            "10:00:00.500 s a → bob  \\u{1b}[1mt: [c]{highlight}  [urgent, for alice, carol got it, 2 in one, parked for 1h, repeat, refused: busy]"
        );
    }
}
