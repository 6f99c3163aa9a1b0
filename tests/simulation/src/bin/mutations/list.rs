//! The faults. Most are in the machine; the last ones are in the model of what surrounds it, and
//! show that what JetStream guarantees there is needed.

/// A fault: in this file, this text becomes another one.
pub struct Mutation {
    /// The fault, in words.
    pub name: &'static str,
    /// The file, from the repository's root.
    pub file: &'static str,
    /// The text that is there, once.
    pub old: &'static str,
    /// The text in its place.
    pub new: &'static str,
}

const PARTITION: &str = "crates/core/src/router/partition/mod.rs";
const DELIVERIES: &str = "crates/core/src/router/partition/deliveries.rs";
const REROUTING: &str = "crates/core/src/router/partition/rerouting.rs";
const EXPECTED: &str = "crates/core/src/router/partition/expected.rs";
const INSTANCES: &str = "crates/core/src/router/partition/instances.rs";
const CROWDING: &str = "crates/core/src/router/partition/crowding.rs";
const MAILBOXES: &str = "crates/core/src/router/partition/mailboxes.rs";
const PARKS: &str = "crates/core/src/router/partition/parks.rs";
const ROOM: &str = "crates/core/src/router/room.rs";
const USER: &str = "crates/core/src/router/user.rs";
const MERGE_WINDOW: &str = "crates/core/src/router/merge_window.rs";
const POSITION: &str = "crates/core/src/log/position.rs";
const PROGRESS: &str = "crates/core/src/log/progress.rs";
const WINDOW: &str = "crates/core/src/log/window.rs";
const LOG: &str = "crates/core/src/log/partition.rs";
const PLANNER: &str = "crates/core/src/log/planner.rs";
const READERS: &str = "crates/core/src/log/readers.rs";
const SETS: &str = "crates/core/src/log/sets.rs";
const READING: &str = "tests/simulation/src/world/reading.rs";
const SETTLING: &str = "tests/simulation/src/world/settling.rs";
const SUCCESSION: &str = "tests/simulation/src/world/succession.rs";

/// All of them.
pub const MUTATIONS: &[Mutation] = &[
    Mutation {
        name: "expiry is not checked",
        file: PARTITION,
        old: "if entry.is_expired(now) {",
        new: "if false && entry.is_expired(now) {",
    },
    Mutation {
        name: "a connection counts as held without a heartbeat",
        file: USER,
        old: "self.is_fresh || self.held_until",
        new: "true || self.held_until",
    },
    Mutation {
        name: "a confirmation serves for two deliveries",
        file: DELIVERIES,
        old: "        self.users[user].use_up_confirmations();\n        let company",
        new: "        let company",
    },
    Mutation {
        name: "a ticket is valid in another turn",
        file: PARTITION,
        old: "waits_for_it && user.work().turn == ticket.turn",
        new: "waits_for_it",
    },
    Mutation {
        name: "an instance gets a delivery while one is in flight",
        file: DELIVERIES,
        old: "if queue.tracks[company].delivering.is_some() || !queue.is_up() {",
        new: "if !queue.is_up() {",
    },
    Mutation {
        name: "a batch ends with the first answer",
        file: DELIVERIES,
        old: "        if batch.open.is_empty() {\n",
        new: "        if true {\n",
    },
    Mutation {
        name: "refused reminders return in the wrong order",
        file: DELIVERIES,
        old: "for (entry, _) in refused.into_iter().rev() {",
        new: "for (entry, _) in refused.into_iter() {",
    },
    Mutation {
        name: "refused reminders return behind later ones",
        file: DELIVERIES,
        old: "work.waiting.push_front(entry);",
        new: "work.waiting.push_back(entry);",
    },
    Mutation {
        name: "reminders refused as busy count as accepted",
        file: DELIVERIES,
        old: "Some(Refusal::Busy) => receptions[*place].is_put_off = true,",
        new: "Some(Refusal::Busy) => receptions[*place].by.push(self.queues[queue].instance.name.clone()),",
    },
    Mutation {
        name: "a pause has no end",
        file: DELIVERIES,
        old: "        self.timers.insert((until, Timer::Resume(user)));\n    }",
        new: "    }",
    },
    Mutation {
        name: "a suspect reminder is sent with others",
        file: DELIVERIES,
        old: "if company == Company::Alone && !shares.is_empty() {",
        new: "if false && company == Company::Alone && !shares.is_empty() {",
    },
    Mutation {
        name: "a crowding request is forgotten",
        file: CROWDING,
        old: "            self.park(now, user, entry);",
        new: "            let _ = (now, entry);",
    },
    Mutation {
        name: "a reminder that another device got is also parked",
        file: CROWDING,
        old: "self.users[*user].work().has_live() && !self.users[*user].work().is_sent()",
        new: "self.users[*user].work().has_live()",
    },
    Mutation {
        name: "a reminder is settled as parked before it is stored",
        file: MAILBOXES,
        old: "return self.parks.push_back(Park {\n                user,\n                entry,\n                resolution,\n            });",
        new: "return self.settle(user, entry, resolution);",
    },
    Mutation {
        name: "a reminder that waits for parking is forgotten",
        file: MAILBOXES,
        old: "Item::Event { .. } => self.park(now, user, entry),",
        new: "Item::Event { .. } => drop(entry),",
    },
    Mutation {
        name: "reminders on their way into a mailbox are not counted",
        file: USER,
        old: "let occupied = self.count + self.parking;",
        new: "let occupied = self.count;",
    },
    Mutation {
        name: "a source fills more than its share of a mailbox",
        file: USER,
        old: "tally.take_in(&entry.source, room.of_source())",
        new: "tally.take_in(&entry.source, room.limit)",
    },
    Mutation {
        name: "low priorities fill the reserve for higher ones",
        file: USER,
        old: "occupied < room.of_priority(entry.priority)",
        new: "occupied < room.limit",
    },
    Mutation {
        name: "a reminder overtakes those that wait for a count",
        file: USER,
        old: "tally.undecided.is_empty()\n                    && occupied",
        new: "occupied",
    },
    Mutation {
        name: "reminders settled ahead count against the limit",
        file: ROOM,
        old: " && !settled_ahead.contains(at)",
        new: "",
    },
    Mutation {
        name: "live reminders overtake those on their way into a mailbox",
        file: USER,
        old: "self.has_mail() || self.parking > 0",
        new: "self.has_mail()",
    },
    Mutation {
        name: "live reminders do not queue behind the mail",
        file: REROUTING,
        old: "if self.users[user].work().has_live() && self.users[user].mailbox().is_in_use() {",
        new: "if false && self.users[user].mailbox().is_in_use() {",
    },
    Mutation {
        name: "a page is taken in while its reminders are being parked",
        file: MAILBOXES,
        old: "if mailbox.parking == 0 {",
        new: "if true {",
    },
    Mutation {
        name: "reminders settled ahead are delivered again",
        file: MAILBOXES,
        old: "at > mailbox.last || mailbox.settled_ahead.contains(&at)",
        new: "at > mailbox.last",
    },
    Mutation {
        name: "a mailbox is purged beyond the settled reminders",
        file: USER,
        old: "if front.is_none_or(|front| sequence < front) {",
        new: "if front.is_none_or(|front| sequence < front) || true {",
    },
    Mutation {
        name: "a search for expired reminders purges others",
        file: MAILBOXES,
        old: "self.settle_before_front(user, entry, Resolution::Expired, sweep.oldest_kept);",
        new: "self.settle_before_front(user, entry, Resolution::Expired, None);",
    },
    Mutation {
        name: "a mailbox found at the takeover is forgotten",
        file: MAILBOXES,
        old: "        mailbox.last = summary.last;\n",
        new: "",
    },
    Mutation {
        name: "no user goes on when an instance is back",
        file: INSTANCES,
        old: "let wanted = self.queues[queue].comes_up();",
        new: "self.queues[queue].comes_up();\n            let wanted = Vec::<UserKey>::new();",
    },
    Mutation {
        name: "an instance that answered is still probed",
        file: INSTANCES,
        old: "            self.disarm_probe(queue);\n            let wanted",
        new: "            let wanted",
    },
    Mutation {
        name: "an associate gets a reminder that only the user may get",
        file: DELIVERIES,
        old: "|entry: &Entry| to.is_none() || entry.may_reroute;",
        new: "|_: &Entry| true;",
    },
    Mutation {
        name: "no user is expected back",
        file: EXPECTED,
        old: "back_by.filter(|until| *until > now.instant)",
        new: "back_by.filter(|_| false)",
    },
    Mutation {
        name: "an accepted delivery does not show that the user is there",
        file: DELIVERIES,
        old: "                self.note_held(now, *user);\n",
        new: "",
    },
    Mutation {
        name: "an associate gets it without being asked for",
        file: INSTANCES,
        old: "let may_board = is_there && is_up && work.attempt.is_some();",
        new: "let may_board = is_up && work.attempt.is_some();",
    },
    Mutation {
        name: "a user's reminder is merged into a rerouted one",
        file: REROUTING,
        old: "            if let Some(instance) = by.into_iter().next() {",
        new: "            self.merge_window.accepted(now.instant, &entry);\n            if let Some(instance) = by.into_iter().next() {",
    },
    Mutation {
        name: "a reminder is merged into a less urgent one",
        file: MERGE_WINDOW,
        old: " && text.priority <= other.priority",
        new: "",
    },
    Mutation {
        name: "live reminders are left when the partition is given up",
        file: PARTITION,
        old: "(!work.has_live() && self.is_stopping)",
        new: "self.is_stopping",
    },
    Mutation {
        name: "without the fence, a late append is stored",
        file: SETTLING,
        old: "if self.nats.fence != from {",
        new: "if false {",
    },
    Mutation {
        name: "without its fence, a late outcome is stored",
        file: SETTLING,
        old: "if self.nats.fenced.contains(&from) {",
        new: "if false {",
    },
    Mutation {
        name: "an outcome is removed before it is recorded",
        file: SETTLING,
        old: "        self.submit(number, others);\n",
        new: "        self.recorded(number, others, 0);\n",
    },
    Mutation {
        name: "reminders that the earlier owner parked are routed again",
        file: SUCCESSION,
        old: ".filter(is_open)\n            .collect();",
        new: ".filter(is_open).filter(|_| false)\n            .collect();",
    },
    Mutation {
        name: "a position is ahead of the records",
        file: PROGRESS,
        old: ".map_or(self.read, |(_, oldest)| oldest.before)",
        new: ".map_or(self.read, |_| self.read)",
    },
    Mutation {
        name: "a position is stored before the entries of its window",
        file: READING,
        old: "        if checkpoint.entries.is_empty() {\n",
        new: "        if true {\n",
    },
    Mutation {
        name: "the front is removed ahead of a position",
        file: POSITION,
        old: "lowest.sequence.min(sequence),\n            lowest.stored_ms.min(stored_ms),",
        new: "lowest.sequence.max(sequence),\n            lowest.stored_ms.max(stored_ms),",
    },
    Mutation {
        name: "the front is removed by a position from before the log went back",
        file: POSITION,
        old: "    stored_ms_at <= front.stored_ms\n",
        new: "    stored_ms_at <= front.stored_ms || true\n",
    },
    Mutation {
        name: "a new owner begins one set too late",
        file: POSITION,
        old: "after: sequence.max(before_first)",
        new: "after: sequence.max(before_first) + 1",
    },
    Mutation {
        name: "a catch-up begins one set too late",
        file: READERS,
        old: "            subscription.after = sequence;\n",
        new: "            subscription.after = sequence + 1;\n",
    },
    Mutation {
        name: "a position counts for a log that went back",
        file: POSITION,
        old: "        let is_same = sequence <= log.last",
        new: "        let is_same = true || sequence <= log.last",
    },
    Mutation {
        name: "a republished reminder is compared with a later set",
        file: WINDOW,
        old: "if settled.covers(entries.sequence, entries.stored_ms) {",
        new: "if true || settled.covers(entries.sequence, entries.stored_ms) {",
    },
    Mutation {
        name: "a window ends when the next set is noted",
        file: WINDOW,
        old: "Some(known) if stored_ms.saturating_sub(known.stored_ms) < self.length_ms => {",
        new: "Some(known) => {",
    },
    Mutation {
        name: "different content under an id is dropped silently",
        file: WINDOW,
        old: "known.content == content {",
        new: "known.content == content || true {",
    },
    Mutation {
        name: "recorded reminders are worked again",
        file: LOG,
        old: "(true, _) => Before::Recorded,",
        new: "(true, _) => Before::Nothing,",
    },
    Mutation {
        name: "refused reminders of a set are refused again",
        file: SETS,
        old: "refused.retain(|refused| !is_recorded(refused.place));",
        new: "refused.retain(|refused| !is_recorded(refused.place) || true);",
    },
    Mutation {
        name: "outcomes of reminders that are not removed are not read",
        file: PROGRESS,
        old: ".map_or(self.last_outcome, |(hold, _)| hold.0);",
        new: ".map_or(self.last_outcome, |_| self.last_outcome);",
    },
    Mutation {
        name: "records of earlier owners are forgotten before they are read",
        file: PROGRESS,
        old: "if is_ahead { self.base.1 } else { held }",
        new: "if false && is_ahead { self.base.1 } else { held }",
    },
    Mutation {
        name: "a set is settled with its first part",
        file: PROGRESS,
        old: "open.unsettled = open.unsettled.saturating_sub(parts);",
        new: "open.unsettled = if parts > 0 { 0 } else { open.unsettled };",
    },
    Mutation {
        name: "a reminder is merged into a recorded one",
        file: PLANNER,
        old: "            if self.originals[first].is_over() {\n",
        new: "            if false && self.originals[first].is_over() {\n",
    },
    Mutation {
        name: "reminders that JetStream refuses to park are forgotten",
        file: PARKS,
        old: ".for_each(|park| self.parks.push_front(park));",
        new: ".for_each(drop);",
    },
];
