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
struct Fate<'a> {
    user: &'a str,
    is_acknowledged: bool,
    /// The app servers that accepted it, with times, the first one first.
    accepted: Vec<(Micros, &'a str)>,
    is_announced: bool,
    finals: Vec<&'a Outcome>,
    waiting: usize,
}

/// By source and id. Those of one source are in the order in which they were published.
type Fates<'a> = BTreeMap<(&'a str, &'a str), Fate<'a>>;

/// Judges a run.
pub(crate) fn check(history: &History) -> Verdict {
    let windows = Windows::new(&history.faults);
    let mut verdict = Verdict::default();
    let (order, mut fates) = published(history);
    accepted(history, &mut fates, &mut verdict);
    decided(history, &mut fates, &mut verdict);
    let connected = connected(history);
    for (&(source, id), fate) in &fates {
        let reminder = Reminder {
            source: source.into(),
            id: id.into(),
            user: fate.user.into(),
        };
        judge_fate(fate, &windows, &connected, |wrong| {
            verdict
                .wrong
                .entry(wrong)
                .or_default()
                .push(reminder.clone())
        });
    }
    judge_order(&order, &fates, &mut verdict);
    verdict.figures = Figures::new(&fates, &windows);
    verdict
}

/// Everything that was published, in the order of each source.
fn published(history: &History) -> (Vec<(&str, &str)>, Fates<'_>) {
    let (mut order, mut fates) = (Vec::new(), Fates::new());
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
                fates.insert(
                    (source, id),
                    Fate {
                        user,
                        is_acknowledged,
                        ..Fate::default()
                    },
                );
                order.push((source.as_str(), id.as_str()));
            }
        }
    }
    (order, fates)
}

fn accepted<'a>(history: &'a History, fates: &mut Fates<'a>, verdict: &mut Verdict) {
    for (app, lines) in &history.served {
        for line in lines {
            let Served::Accepted(reminder) = &line.event else {
                continue;
            };
            match fates.get_mut(&(reminder.source.as_str(), reminder.id.as_str())) {
                Some(fate) if fate.user == reminder.user => fate.accepted.push((line.at, app)),
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
    for fate in fates.values_mut() {
        fate.accepted.sort();
    }
}

fn decided<'a>(history: &'a History, fates: &mut Fates<'a>, verdict: &mut Verdict) {
    for outcome in &history.outcomes {
        let reminder = &outcome.reminder;
        match fates.get_mut(&(reminder.source.as_str(), reminder.id.as_str())) {
            None => verdict
                .wrong
                .entry(Wrong::Invented)
                .or_default()
                .push(reminder.clone()),
            Some(fate) if outcome.outcome == "parked" => fate.is_announced = true,
            Some(fate) => fate.finals.push(outcome),
        }
    }
    for reminder in &history.waiting {
        match fates.get_mut(&(reminder.source.as_str(), reminder.id.as_str())) {
            Some(fate) if fate.user == reminder.user => fate.waiting += 1,
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

fn judge_fate(
    fate: &Fate<'_>,
    windows: &Windows,
    connected: &BTreeSet<&str>,
    mut wrong: impl FnMut(Wrong),
) {
    let was_seen = fate.is_acknowledged || fate.is_announced || !fate.accepted.is_empty();
    if was_seen && fate.finals.is_empty() && fate.waiting == 0 {
        wrong(Wrong::Lost);
    }
    if !fate.finals.is_empty() && fate.waiting > 0 {
        wrong(Wrong::BothDoneAndWaiting);
    }
    if fate.waiting > 1 {
        wrong(Wrong::WaitingTwice);
    }
    if fate.waiting > 0 && connected.contains(fate.user) {
        wrong(Wrong::LeftInMailbox);
    }
    if fate.finals.len() > 1 {
        wrong(Wrong::SecondOutcome);
    }
    for last in &fate.finals {
        let took = |instance: &String| fate.accepted.iter().any(|(_, app)| app == instance);
        match last.outcome.as_str() {
            "delivered" if last.instance.as_ref().is_some_and(took) => {}
            "delivered" => wrong(Wrong::DeliveredToNobody),
            _ => wrong(Wrong::NotDelivered),
        }
    }
    for again in fate.accepted.windows(2) {
        if windows.explaining(again[0].0, again[1].0).is_none() {
            wrong(Wrong::RepeatedWithoutFault);
        }
    }
}

/// Of each user, what was acknowledged is first accepted in the order in which each source
/// published it.
fn judge_order(order: &[(&str, &str)], fates: &Fates<'_>, verdict: &mut Verdict) {
    let mut last: BTreeMap<(&str, &str), Micros> = BTreeMap::new();
    for key @ (source, id) in order {
        let fate = &fates[key];
        let Some(&(at, _)) = fate.accepted.first().filter(|_| fate.is_acknowledged) else {
            continue;
        };
        let last = last.entry((source, fate.user)).or_insert(at);
        if at < *last {
            let reminder = Reminder {
                source: (*source).into(),
                id: (*id).into(),
                user: fate.user.into(),
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
