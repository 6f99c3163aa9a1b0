//! Publishing of sets, and the expected result for each reminder, from the earlier sets of the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use bellhop_core::log::done::Done;
use bellhop_core::log::split::Message;
use bellhop_protocol::reminder::Priority;
use bellhop_protocol::token::{Source, UserId};
use fastrand::Rng;
use jiff::Timestamp;

use super::ledger::{Id, Reminder};
use super::{Happening, Sent, World, named};
use crate::faults::Fault;
use crate::scenario::pick;

/// A set that is published again is published within this time.
const AGAIN_WITHIN_MS: u64 = 4_000;
/// The keyword of the rule that there may be.
pub const BLOCKED: &str = "hide";

/// A set as its publisher has it.
#[derive(Debug)]
pub struct Draft {
    pub source: Source,
    /// Its name, if its publisher gave it one.
    pub name: Option<String>,
    pub message_id: Option<String>,
    pub reminders: Vec<Written>,
    pub body: String,
}

/// A reminder as its publisher has it.
#[derive(Debug, Clone)]
pub struct Written {
    pub id: Option<String>,
    /// None makes it invalid.
    pub user: Option<UserId>,
    pub says: String,
    pub expires_at: Option<i64>,
    pub bytes: usize,
    pub priority: Priority,
    pub stays: bool,
    pub is_tagged: bool,
    pub is_unreadable: bool,
}

impl Written {
    /// All but its id.
    fn content(&self) -> String {
        let Self {
            user,
            says,
            expires_at,
            priority,
            stays,
            is_tagged,
            ..
        } = self;
        let user = user.as_ref().map_or("", |user| user.as_str());
        let tags = if *is_tagged { r#""t""# } else { "" };
        let expires_at = expires_at.map(|at| {
            format!(
                r#","expires_at":"{}""#,
                Timestamp::from_millisecond(at).expect("a run is short")
            )
        });
        format!(
            r#""user":"{user}","content":"{says}","tags":[{tags}],"priority":"{}","reroute":{}{}"#,
            priority.as_str(),
            !stays,
            expires_at.unwrap_or_default()
        )
    }

    fn json(&self) -> String {
        let id = self
            .id
            .as_ref()
            .map_or_else(String::new, |id| format!(r#""id":"{id}","#));
        format!("{{{id}{}}}", self.content())
    }
}

/// The expected result for a reminder of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// It is new, and has one final outcome.
    New(Id),
    /// An earlier set has it.
    Repeat,
    /// Its id is another one's.
    Duplicate,
    /// It is invalid.
    Invalid(Id),
    /// It is invalid, and its set comes again.
    InvalidRepeat,
}

/// A set in the log.
#[derive(Debug, Clone)]
pub struct Stored {
    pub sequence: u64,
    pub stored_ms: i64,
    pub draft: Arc<Draft>,
    /// An earlier set had the same, under the same message id.
    pub is_repeat: bool,
    /// The expected results of its reminders; none if it is refused as a whole.
    pub expected: Vec<Expected>,
}

impl Stored {
    /// Returns the ledger's reminders in it.
    pub fn ids(&self) -> impl Iterator<Item = Id> + '_ {
        self.expected.iter().filter_map(|expected| match expected {
            Expected::New(id) | Expected::Invalid(id) => Some(*id),
            Expected::Repeat | Expected::Duplicate | Expected::InvalidRepeat => None,
        })
    }

    /// Returns the message as a reader gets it.
    pub fn message(&self) -> Message<'_> {
        let body = self.draft.body.as_bytes();
        Message {
            source_token: self.draft.source.as_str(),
            sequence: self.sequence,
            stored_ms: self.stored_ms,
            body,
            set: Ok(body),
            message_id: self.draft.message_id.as_deref(),
            is_requeued: false,
            is_due: false,
            trace: None,
        }
    }
}

/// The identity under which a reminder may be published again.
type Name = (Source, String, UserId);

/// The recent publications, in the order of the log. It knows nothing of how a partition finds that
/// out.
#[derive(Debug, Default)]
pub struct Publications {
    accepted: BTreeMap<Name, (i64, String)>,
    messages: BTreeMap<(Source, String), (i64, String)>,
    /// The server lost a set with this name: until then it may count as published or not.
    doubtful_until: BTreeMap<Name, i64>,
    /// The published drafts, to be published again.
    drafts: Vec<Arc<Draft>>,
}

impl World {
    pub(super) fn publish(&mut self, luck: &mut Rng) {
        let draft = Arc::new(self.write(luck));
        self.publications.drafts.push(draft.clone());
        self.send(Sent::Set(draft.clone()));
        if self.faults.strikes(luck, Fault::RepeatedSets) {
            self.count("sets published again");
            let delay = luck.u64(0..AGAIN_WITHIN_MS);
            self.after(delay, Happening::Arrives(Sent::Set(draft)));
        }
    }

    fn write(&mut self, luck: &mut Rng) -> Draft {
        let source: Source = named(pick(luck, &["billing", "billing", "claims"]));
        let number = self.publications.drafts.len();
        let is_named = luck.bool();
        let message_id = luck.bool().then(|| format!("m{number}"));
        let mut reminders: Vec<Written> = Vec::new();
        for place in 0..luck.usize(1..=4) {
            let mut reminder = self.write_reminder(luck, number, place);
            let is_same = luck.u32(0..6) == 0;
            let says_so = |before: &&Written| {
                is_same || (before.user == reminder.user && before.says == reminder.says)
            };
            if let Some(before) = reminders.iter().find(says_so) {
                // The same in all, under another id, and perhaps under other rules.
                reminder = Written {
                    is_tagged: luck.bool(),
                    ..before.clone()
                };
            }
            // An unnamed set is known again by its message id alone.
            reminder.id = (is_named || message_id.is_none() || luck.bool())
                .then(|| format!("{number}.{place}"));
            if reminder.id.is_some() && self.faults.strikes(luck, Fault::RepeatedSets) {
                reminder.id = self.some_id(luck, &source, &reminders).or(reminder.id);
            }
            if self.faults.strikes(luck, Fault::InvalidSets) {
                reminder.user = None;
            }
            reminders.push(reminder);
        }
        let name = is_named.then(|| format!("s{number}"));
        let id = name
            .as_ref()
            .map_or_else(String::new, |name| format!(r#""id":"{name}","#));
        let all: Vec<_> = reminders.iter().map(Written::json).collect();
        let mut body = format!(r#"{{{id}"reminders":[{}]}}"#, all.join(","));
        if luck.u32(0..4) == 0 && self.faults.strikes(luck, Fault::InvalidSets) {
            body.pop();
            reminders.clear();
        }
        Draft {
            source,
            name,
            message_id,
            reminders,
            body,
        }
    }

    fn write_reminder(&mut self, luck: &mut Rng, number: usize, place: usize) -> Written {
        let user = luck.usize(0..self.users.len());
        let soon = pick(luck, &[20, 300, 8_000]);
        let is_expiring = self.faults.strikes(luck, Fault::Expiry);
        // A time of 1970 or before is refused as no time.
        let expires_at = is_expiring.then(|| (self.wall_ms() + luck.i64(0..soon)).max(1));
        let bytes = pick(luck, &[10, 60, 200]);
        let stays = luck.u32(0..6) == 0;
        let priority = pick(luck, &Priority::ALL);
        let is_unreadable = self.faults.strikes(luck, Fault::Unreadable);
        let is_tagged = luck.u32(0..4) == 0;
        let hidden = if luck.u32(0..3) == 0 { BLOCKED } else { "show" };
        let says = match luck.bool() {
            true => format!("{hidden} {}", luck.usize(0..2)),
            false => format!("{hidden} {number} {place}"),
        };
        let user = Some(self.users[user].clone());
        Written {
            id: None,
            user,
            says,
            expires_at,
            bytes,
            priority,
            stays,
            is_tagged,
            is_unreadable,
        }
    }

    /// Returns an id that the source has used before, but not in this set.
    fn some_id(&self, luck: &mut Rng, source: &Source, others: &[Written]) -> Option<String> {
        let own = self
            .publications
            .drafts
            .iter()
            .filter(|draft| draft.source == *source);
        let ids: Vec<_> = own
            .flat_map(|draft| &draft.reminders)
            .filter_map(|reminder| reminder.id.clone())
            .collect();
        let id = ids.get(luck.usize(0..ids.len().max(1)))?.clone();
        others
            .iter()
            .all(|other| other.id.as_ref() != Some(&id))
            .then_some(id)
    }

    /// A set is stored. The expected result follows from the earlier sets.
    pub(super) fn set_arrives(&mut self, draft: Arc<Draft>) {
        self.nats.last += 1;
        let sequence = self.nats.last;
        let stored_ms = i64::try_from(self.at)
            .expect("a run is short")
            .max(self.nats.not_before);
        let window =
            i64::try_from(self.log_settings.window.as_millis()).expect("a window is short");
        let is_within = |at: i64| stored_ms - at < window;
        let message = draft
            .message_id
            .clone()
            .map(|message| (draft.source.clone(), message));
        let known = message
            .as_ref()
            .and_then(|message| self.publications.messages.get(message));
        let is_repeat = known.is_some_and(|(at, body)| is_within(*at) && *body == draft.body);
        let mut expected = Vec::new();
        for (place, written) in draft.reminders.iter().enumerate() {
            expected.push(self.expect(
                &draft, sequence, stored_ms, place, written, is_repeat, window,
            ));
        }
        let has_own_part = draft.reminders.is_empty()
            || draft.reminders.iter().any(|written| written.user.is_none());
        if let Some(message) = message.filter(|_| has_own_part && !is_repeat) {
            self.publications
                .messages
                .insert(message, (stored_ms, draft.body.clone()));
        }
        self.tell_of(|| format!("set {sequence} at {stored_ms}: {expected:?} {}", draft.body));
        self.nats.log.insert(
            sequence,
            Stored {
                sequence,
                stored_ms,
                draft,
                is_repeat,
                expected,
            },
        );
    }

    #[allow(clippy::too_many_arguments)] // They are what a reminder is judged by.
    fn expect(
        &mut self,
        draft: &Draft,
        sequence: u64,
        stored_ms: i64,
        place: usize,
        written: &Written,
        is_repeat: bool,
        window: i64,
    ) -> Expected {
        let set = draft.name.clone().unwrap_or_else(|| sequence.to_string());
        let name = written
            .id
            .clone()
            .unwrap_or_else(|| format!("{set}#{place}"));
        let mut reminder = Reminder {
            name: name.clone(),
            published: Some(Done::Published {
                set: sequence,
                stored_ms,
                place,
            }),
            user: written
                .user
                .clone()
                .unwrap_or_else(|| self.users[0].clone()),
            source: draft.source.clone(),
            says: written.says.clone(),
            text: None,
            expires_at: written.expires_at,
            bytes: written.bytes,
            priority: written.priority,
            is_copy: false,
            is_unreadable: written.is_unreadable,
            stays: written.stays,
            is_optional: false,
            accepted_by: Vec::new(),
            is_settled: false,
            is_recorded: false,
            is_touched: false,
            is_overtaken: false,
        };
        let Some(user) = written.user.clone() else {
            if is_repeat {
                return Expected::InvalidRepeat;
            }
            return Expected::Invalid(self.ledger.add(reminder));
        };
        let known_as = match (&written.id, &draft.name, &draft.message_id) {
            (Some(_), _, _) | (None, Some(_), _) => name,
            (None, None, Some(message)) => format!("\0{message} {place}"),
            (None, None, None) => return Expected::New(self.ledger.add(reminder)),
        };
        let key = (draft.source.clone(), known_as, user);
        if self
            .publications
            .doubtful_until
            .get(&key)
            .is_some_and(|until| *until > stored_ms)
        {
            self.publications
                .doubtful_until
                .insert(key, stored_ms + window);
            reminder.is_optional = true;
            return Expected::New(self.ledger.add(reminder));
        }
        let content = written.content();
        match self.publications.accepted.get(&key) {
            Some((at, _)) if stored_ms - at >= window => {}
            Some((_, other)) if *other == content => {
                self.count("repeats");
                return Expected::Repeat;
            }
            Some(_) => {
                self.count("ids used for something else");
                return Expected::Duplicate;
            }
            None => {}
        }
        self.publications.accepted.insert(key, (stored_ms, content));
        Expected::New(self.ledger.add(reminder))
    }

    /// The server loses the newest sets. Acknowledged sets are gone with them; what comes next must
    /// not be.
    pub(super) fn power_loss(&mut self, luck: &mut Rng) {
        let most = usize::try_from(self.nats.last)
            .expect("a run is short")
            .min(5);
        if most == 0 {
            return;
        }
        self.count("power losses");
        let lost = luck.usize(1..=most) as u64;
        let window =
            i64::try_from(self.log_settings.window.as_millis()).expect("a window is short");
        self.nats.last -= lost;
        let mut gone = self.nats.log.split_off(&(self.nats.last + 1));
        // A removal at the front may be lost, too, or have been of sets that are lost.
        if luck.bool() {
            self.nats.log.append(&mut self.nats.removed);
        }
        gone.append(&mut self.nats.removed.split_off(&(self.nats.last + 1)));
        gone.append(&mut self.nats.log.split_off(&(self.nats.last + 1)));
        self.nats.first = self
            .nats
            .log
            .keys()
            .next()
            .copied()
            .unwrap_or(self.nats.last + 1);
        self.nats.not_before = i64::try_from(self.at).expect("a run is short") + 1;
        self.tell_of(|| {
            format!(
                "the server loses sets {:?}",
                gone.keys().collect::<Vec<_>>()
            )
        });
        for stored in gone.into_values() {
            for (expected, written) in stored.expected.iter().zip(&stored.draft.reminders) {
                let (Expected::New(id) | Expected::Invalid(id)) = expected else {
                    continue;
                };
                self.count("reminders lost by the server");
                self.ledger.reminders[*id].is_optional = true;
                self.ledger.touch([*id]);
                let Some(user) = written.user.clone() else {
                    continue;
                };
                let until = stored.stored_ms + window;
                let place = stored
                    .expected
                    .iter()
                    .position(|other| std::ptr::eq(other, expected))
                    .unwrap_or(0);
                let known_as = match (&written.id, &stored.draft.name, &stored.draft.message_id) {
                    (Some(id), _, _) => id.clone(),
                    (None, Some(name), _) => format!("{name}#{place}"),
                    (None, None, Some(message)) => format!("\0{message} {place}"),
                    (None, None, None) => continue,
                };
                let key = (stored.draft.source.clone(), known_as, user);
                let doubt = self.publications.doubtful_until.entry(key).or_insert(until);
                *doubt = until.max(*doubt);
            }
            if let Some(message) = &stored.draft.message_id {
                // Whether the refusal is known is open, too: it is not published again.
                let message = message.clone();
                self.publications
                    .drafts
                    .retain(|draft| draft.message_id.as_ref() != Some(&message));
                self.agenda.retain(|_, happening| match happening {
                    Happening::Arrives(Sent::Set(draft)) => {
                        draft.message_id.as_ref() != Some(&message)
                    }
                    _ => true,
                });
            }
        }
        // Removals of the front in flight are gone with the connection.
        self.agenda
            .retain(|_, happening| !matches!(happening, Happening::Arrives(Sent::Purge { .. })));
        for number in self.owners.keys().copied().collect::<Vec<_>>() {
            self.owner(number).is_cut = true;
            let delay = luck.u64(0..300);
            self.inside(number, delay, super::Inside::Reconnected);
        }
    }
}
