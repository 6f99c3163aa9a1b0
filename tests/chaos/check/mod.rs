//! The checker: says from the logs alone whether Bellhop kept its promises. Pure; it knows the
//! contract and nothing of how Bellhop works, or of how the logs came about.

mod figures;
#[cfg(test)]
mod tests;
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::logs::{History, Micros, Outcome, Published, Reminder, Served};
pub(crate) use figures::{Figures, STEADY};
use windows::Windows;

/// The errors of a reminder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wrong {
    /// It was acknowledged, accepted or announced, and has neither a final outcome nor a place in a
    /// mailbox.
    Lost,
    /// It has a final outcome, and is in a mailbox.
    BothDoneAndWaiting,
    /// It is in a mailbox twice.
    WaitingTwice,
    /// It is in the mailbox of a connected user.
    LeftInMailbox,
    /// It has more final outcomes than one.
    SecondOutcome,
    /// It is delivered by its outcome, and the app server named there did not take it.
    DeliveredToNobody,
    /// It was valid, and became something else than delivered.
    NotDelivered,
    /// It was accepted before an earlier one of its source and user.
    OutOfOrder,
    /// It reached another user.
    Misdelivered,
    /// No source published it.
    Invented,
    /// It was accepted again, and no fault explains that.
    RepeatedWithoutFault,
}

/// The result.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// The errors, with their reminders.
    pub(crate) wrong: BTreeMap<Wrong, Vec<Reminder>>,
    pub(crate) figures: Figures,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        for (wrong, reminders) in &self.wrong {
            write!(f, "{wrong:?}: {}, as", reminders.len())?;
            for Reminder { source, id, user } in reminders.iter().take(SHOWN) {
                write!(f, " {source}/{id} for {user}")?;
            }
            writeln!(f)?;
        }
        write!(f, "{}", self.figures)
    }
}

/// A published reminder and all that happened to it.
#[derive(Debug, Default)]
struct Trail<'a> {
    user: &'a str,
    is_acknowledged: bool,
    /// The app servers that accepted it, with times, the first one first.
    accepted: Vec<(Micros, &'a str)>,
    is_announced: bool,
    finals: Vec<&'a Outcome>,
    waiting: usize,
}

/// By source and id. Those of one source are in the order in which they were published.
type Trails<'a> = BTreeMap<(&'a str, &'a str), Trail<'a>>;

/// Judges a run.
pub(crate) fn check(history: &History) -> Verdict {
    let windows = Windows::new(&history.faults);
    let mut verdict = Verdict::default();
    let (order, mut trails) = published(history);
    accepted(history, &mut trails, &mut verdict);
    decided(history, &mut trails, &mut verdict);
    let connected = connected(history);
    for (&(source, id), trail) in &trails {
        let reminder = Reminder {
            source: source.into(),
            id: id.into(),
            user: trail.user.into(),
        };
        judge_trail(trail, &windows, &connected, |wrong| {
            verdict
                .wrong
                .entry(wrong)
                .or_default()
                .push(reminder.clone())
        });
    }
    judge_order(&order, &trails, &mut verdict);
    verdict.figures = Figures::new(&trails, &windows);
    verdict
}

/// Everything that was published, in the order of each source.
fn published(history: &History) -> (Vec<(&str, &str)>, Trails<'_>) {
    let (mut order, mut trails) = (Vec::new(), Trails::new());
    for (source, lines) in &history.published {
        let acknowledged = lines.iter().filter_map(|line| match line.event {
            Published::Acknowledged { set } => Some(set),
            _ => None,
        });
        let acknowledged: BTreeSet<u64> = acknowledged.collect();
        for line in lines {
            let Published::Sent { set, reminders } = &line.event else {
                continue;
            };
            for (id, user) in reminders {
                let is_acknowledged = acknowledged.contains(set);
                trails.insert(
                    (source, id),
                    Trail {
                        user,
                        is_acknowledged,
                        ..Trail::default()
                    },
                );
                order.push((source.as_str(), id.as_str()));
            }
        }
    }
    (order, trails)
}

fn accepted<'a>(history: &'a History, trails: &mut Trails<'a>, verdict: &mut Verdict) {
    for (app, lines) in &history.served {
        for line in lines {
            let Served::Accepted(reminder) = &line.event else {
                continue;
            };
            match trails.get_mut(&(reminder.source.as_str(), reminder.id.as_str())) {
                Some(trail) if trail.user == reminder.user => trail.accepted.push((line.at, app)),
                Some(_) => verdict
                    .wrong
                    .entry(Wrong::Misdelivered)
                    .or_default()
                    .push(reminder.clone()),
                None => verdict
                    .wrong
                    .entry(Wrong::Invented)
                    .or_default()
                    .push(reminder.clone()),
            }
        }
    }
    for trail in trails.values_mut() {
        trail.accepted.sort();
    }
}

fn decided<'a>(history: &'a History, trails: &mut Trails<'a>, verdict: &mut Verdict) {
    for outcome in &history.outcomes {
        let reminder = &outcome.reminder;
        match trails.get_mut(&(reminder.source.as_str(), reminder.id.as_str())) {
            None => verdict
                .wrong
                .entry(Wrong::Invented)
                .or_default()
                .push(reminder.clone()),
            Some(trail) if outcome.outcome == "parked" => trail.is_announced = true,
            Some(trail) => trail.finals.push(outcome),
        }
    }
    for reminder in &history.waiting {
        match trails.get_mut(&(reminder.source.as_str(), reminder.id.as_str())) {
            Some(trail) if trail.user == reminder.user => trail.waiting += 1,
            Some(_) => verdict
                .wrong
                .entry(Wrong::Misdelivered)
                .or_default()
                .push(reminder.clone()),
            None => verdict
                .wrong
                .entry(Wrong::Invented)
                .or_default()
                .push(reminder.clone()),
        }
    }
}

/// Returns the users who are connected at the end.
fn connected(history: &History) -> BTreeSet<&str> {
    let mut connected = BTreeSet::new();
    for lines in history.served.values() {
        let mut here: BTreeSet<&str> = BTreeSet::new();
        for line in lines {
            match &line.event {
                Served::Started => here.clear(),
                Served::Connected { users } => here.extend(users.iter().map(String::as_str)),
                Served::Left { users } => {
                    here.retain(|user| !users.iter().any(|gone| gone == user))
                }
                Served::Accepted(_) => {}
            }
        }
        connected.append(&mut here);
    }
    connected
}

fn judge_trail(
    trail: &Trail<'_>,
    windows: &Windows,
    connected: &BTreeSet<&str>,
    mut wrong: impl FnMut(Wrong),
) {
    let was_seen = trail.is_acknowledged || trail.is_announced || !trail.accepted.is_empty();
    if was_seen && trail.finals.is_empty() && trail.waiting == 0 {
        wrong(Wrong::Lost);
    }
    if !trail.finals.is_empty() && trail.waiting > 0 {
        wrong(Wrong::BothDoneAndWaiting);
    }
    if trail.waiting > 1 {
        wrong(Wrong::WaitingTwice);
    }
    if trail.waiting > 0 && connected.contains(trail.user) {
        wrong(Wrong::LeftInMailbox);
    }
    if trail.finals.len() > 1 {
        wrong(Wrong::SecondOutcome);
    }
    for last in &trail.finals {
        let took = |instance: &String| trail.accepted.iter().any(|(_, app)| app == instance);
        match last.outcome.as_str() {
            "delivered" if last.instance.as_ref().is_some_and(took) => {}
            "delivered" => wrong(Wrong::DeliveredToNobody),
            _ => wrong(Wrong::NotDelivered),
        }
    }
    for again in trail.accepted.windows(2) {
        if windows.explaining(again[0].0, again[1].0).is_none() {
            wrong(Wrong::RepeatedWithoutFault);
        }
    }
}

/// Of each user, what was acknowledged is first accepted in the order in which each source
/// published it.
fn judge_order(order: &[(&str, &str)], trails: &Trails<'_>, verdict: &mut Verdict) {
    let mut last: BTreeMap<(&str, &str), Micros> = BTreeMap::new();
    for key @ (source, id) in order {
        let trail = &trails[key];
        let Some(&(at, _)) = trail.accepted.first().filter(|_| trail.is_acknowledged) else {
            continue;
        };
        let last = last.entry((source, trail.user)).or_insert(at);
        if at < *last {
            let reminder = Reminder {
                source: (*source).into(),
                id: (*id).into(),
                user: trail.user.into(),
            };
            verdict
                .wrong
                .entry(Wrong::OutOfOrder)
                .or_default()
                .push(reminder);
        }
        *last = at.max(*last);
    }
}
