//! The reference: each reminder, what became of it, and what may become of it. It knows nothing of
//! how the machine decides; it knows the promises.

use std::collections::BTreeMap;
use std::sync::Arc;

use bellhop_core::log::done::Done;
use bellhop_core::router::{Entry, Item, Text};
use bellhop_protocol::reminder::Priority;
use bellhop_protocol::token::{InstanceName, Source, UserId};

/// A reminder, by its place in the log: a repeat is none.
pub type Id = usize;

#[derive(Debug)]
pub struct Reminder {
    /// Its id as its publisher and the outcomes call it.
    pub name: String,
    /// Its position in the log; none for a copy.
    pub published: Option<Done>,
    pub user: UserId,
    pub source: Source,
    /// Its text, and the machine's view of that.
    pub says: String,
    pub text: Option<Arc<Text>>,
    pub expires_at: Option<i64>,
    /// Bytes that it counts in a delivery.
    pub bytes: usize,
    pub priority: Priority,
    /// It comes when it comes: its place in the order is past.
    pub is_copy: bool,
    /// No app server can read it, for as long as there are faults.
    pub is_unreadable: bool,
    /// No associate may get it.
    pub stays: bool,
    /// Its set was lost by the server, or one before it, so that it may count as a repeat: it need
    /// not have an end.
    pub is_optional: bool,
    /// Every acceptance, in order: the app server, and the recipient.
    pub accepted_by: Vec<(InstanceName, UserId)>,
    /// A final outcome was decided.
    pub is_settled: bool,
    /// And it is recorded.
    pub is_recorded: bool,
    /// A fault touched it: it may be accepted again.
    pub is_touched: bool,
    /// An instance chose to take a later one before it, or a full mailbox refused it.
    pub is_overtaken: bool,
}

impl Reminder {
    /// Returns the machine's view of it when it is read from a mailbox.
    pub fn parked(&self, item: Item) -> Entry {
        let (source, text, may_reroute) = (self.source.clone(), self.text.clone(), false);
        let (expires_at, bytes, priority) = (self.expires_at, self.bytes, self.priority);
        Entry {
            item,
            expires_at,
            bytes,
            may_reroute,
            source,
            priority,
            text,
        }
    }

    /// The user itself got it.
    fn was_delivered(&self) -> bool {
        self.accepted_by
            .iter()
            .any(|(_, recipient)| *recipient == self.user)
    }
}

/// All reminders, and who got which of them last.
#[derive(Debug, Default)]
pub struct Ledger {
    pub reminders: Vec<Reminder>,
    /// The latest of each user's reminders that was accepted for the first time, for each who was
    /// recipient: anywhere, and at each app server.
    latest: BTreeMap<(UserId, UserId, Option<InstanceName>), Id>,
}

impl Ledger {
    /// A reminder is published.
    pub fn add(&mut self, reminder: Reminder) -> Id {
        self.reminders.push(reminder);
        self.reminders.len() - 1
    }

    /// Adds the user's copy of a rerouted reminder, and returns its id.
    pub fn add_copy(&mut self, of: Id) -> Id {
        let Reminder {
            name,
            user,
            source,
            says,
            expires_at,
            bytes,
            priority,
            is_optional,
            ..
        } = &self.reminders[of];
        self.add(Reminder {
            name: name.clone(),
            published: None,
            user: user.clone(),
            source: source.clone(),
            says: says.clone(),
            text: None,
            expires_at: *expires_at,
            bytes: *bytes,
            priority: *priority,
            is_copy: true,
            is_unreadable: false,
            stays: true,
            is_optional: *is_optional,
            accepted_by: Vec::new(),
            is_settled: false,
            is_recorded: false,
            is_touched: false,
            is_overtaken: false,
        })
    }

    /// A fault touched these: they may be accepted again.
    pub fn touch(&mut self, ids: impl IntoIterator<Item = Id>) {
        ids.into_iter()
            .for_each(|id| self.reminders[id].is_touched = true);
    }

    /// An app server accepts a reminder for a user. Checks that it is not repeated without a
    /// fault, that everybody gets only what is theirs, and the order. Returns true if it is a
    /// repeat.
    pub fn accept(
        &mut self,
        id: Id,
        recipient: &UserId,
        at: &InstanceName,
        goes_to_all: bool,
        wall_ms: i64,
    ) -> bool {
        let reminder = &mut self.reminders[id];
        let place = (at.clone(), recipient.clone());
        let is_repeated = !reminder.accepted_by.is_empty();
        let is_repeated_here = reminder.accepted_by.contains(&place);
        let may_be_repeated = reminder.is_touched || (goes_to_all && !is_repeated_here);
        assert!(
            !is_repeated || may_be_repeated,
            "{id} is accepted again without a fault: {reminder:?}"
        );
        let is_rerouted = *recipient != reminder.user;
        assert!(
            !is_rerouted || !reminder.stays,
            "{id} is delivered to {recipient}: {reminder:?}"
        );
        reminder.accepted_by.push(place);
        // What an associate's instance hung on goes another way, and others to the associate
        // meanwhile. What an associate got, and a fault kept from being recorded, is the user's
        // again: a repeat, behind what was parked meanwhile.
        let was_rerouted = reminder
            .accepted_by
            .iter()
            .any(|(_, recipient)| *recipient != reminder.user);
        let may_be_late =
            reminder.is_overtaken || reminder.is_settled || (was_rerouted && reminder.is_touched);
        // It expired on its way to one device, while another one, whose turn came then, was sent
        // what follows.
        let was_left_out = goes_to_all && reminder.expires_at.is_some_and(|at| at <= wall_ms);
        for (is_first, at) in [(!is_repeated, None), (!is_repeated_here, Some(at.clone()))] {
            // A reminder that the server lost has no place in the order any more.
            if !is_first
                || reminder.is_copy
                || reminder.is_optional
                || (at.is_none() && was_left_out)
            {
                continue;
            }
            let latest = self
                .latest
                .entry((reminder.user.clone(), recipient.clone(), at))
                .or_insert(id);
            assert!(
                *latest <= id || may_be_late,
                "{id} is accepted after {latest}: {reminder:?}"
            );
            *latest = id.max(*latest);
        }
        is_repeated
    }

    /// Another one says the same to the user, no less urgently, and the user got it.
    pub fn check_merged(&self, id: Id, into: &str) {
        let reminder = &self.reminders[id];
        let stands = |(other, one): (Id, &Reminder)| {
            let is_same = one.user == reminder.user
                && one.source == reminder.source
                && one.says == reminder.says;
            other != id
                && one.name == into
                && is_same
                && reminder.priority <= one.priority
                && one.was_delivered()
        };
        let found = self.reminders.iter().enumerate().any(stands);
        assert!(
            found,
            "{id} is merged into `{into}`, and the user did not get that: {reminder:?}"
        );
    }

    /// A final outcome was decided; an owner decides it once. Afterwards only a fault lets it be
    /// accepted again.
    pub fn settle(&mut self, id: Id, is_first: bool) {
        let reminder = &mut self.reminders[id];
        assert!(
            is_first || reminder.is_touched,
            "{id} ends twice: {reminder:?}"
        );
        reminder.is_settled = true;
    }

    /// A final outcome is in the stream of outcomes. There is one, whatever went wrong.
    pub fn record(&mut self, id: Id) {
        let reminder = &mut self.reminders[id];
        assert!(
            !reminder.is_recorded || reminder.is_copy,
            "{id} has a second final outcome: {reminder:?}"
        );
        reminder.is_recorded = true;
    }

    pub fn assert_everything_has_an_end(&self) {
        for (id, reminder) in self.reminders.iter().enumerate() {
            assert!(
                reminder.is_recorded || reminder.is_optional,
                "{id} has no end: {reminder:?}"
            );
        }
    }
}
