//! What is between a request and the application: reminders without a verdict, and the requests that wait for one. It reads no
//! clock.
//!
//! A reminder can wait longer than the request that brought it, and a second request can bring it again: so requests ask for
//! reminders, and each one's verdict goes to all that do.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use async_nats::Subject;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::deliveries::{Claim, Line, Queued, Verdict};
use super::repeats::{Key, Repeats};
use crate::client::Reminder;
use crate::token::UserId;
use crate::wire::answer::{DeliveryAnswer, Reason, Refused};

/// Where an answer goes, and what it is.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) inbox: Subject,
    pub(super) body: DeliveryAnswer,
}

#[derive(Debug)]
pub(super) struct Handover {
    queue: mpsc::Sender<Queued>,
    verdicts: mpsc::UnboundedSender<Verdict>,
    repeats: Repeats,
    undecided: HashMap<Key, Undecided>,
    /// By number, which is also the order of their deadlines.
    requests: BTreeMap<u64, Request>,
    last_number: u64,
    answers: Vec<Answer>,
}

/// A reminder that waits to be taken, or that the application has.
#[derive(Debug)]
struct Undecided {
    claim: Claim,
    /// Requests that wait for it, and its place in each.
    asked_by: Vec<(u64, usize)>,
}

#[derive(Debug)]
struct Request {
    inbox: Subject,
    deadline: Instant,
    items: Vec<Item>,
    undecided: usize,
}

#[derive(Debug)]
struct Item {
    key: Key,
    named: (String, String, UserId),
    verdict: Option<Result<(), Reason>>,
}

#[derive(Deserialize)]
struct Body {
    reminders: Vec<Box<RawValue>>,
}

impl Handover {
    pub(super) fn new(queue: mpsc::Sender<Queued>, verdicts: mpsc::UnboundedSender<Verdict>, repeats: Repeats) -> Self {
        let (undecided, requests) = (HashMap::new(), BTreeMap::new());
        Self { queue, verdicts, repeats, undecided, requests, last_number: 0, answers: Vec::new() }
    }

    /// A request came. What does not fit is refused at once, and so is what the same user has behind it, so that order holds.
    ///
    /// # Errors
    /// When it is no delivery: then it has no answer.
    pub(super) fn request(
        &mut self,
        deadline: Instant,
        inbox: Subject,
        body: &[u8],
        is_connected: impl Fn(&UserId) -> bool,
    ) -> Result<(), serde_json::Error> {
        let Body { reminders } = serde_json::from_slice(body)?;
        let read = |json: Box<RawValue>| Ok((serde_json::from_str(json.get())?, json));
        let reminders: Vec<(Reminder, _)> =
            reminders.into_iter().map(read).collect::<Result<_, serde_json::Error>>()?;
        self.last_number += 1;
        let number = self.last_number;
        let (mut items, mut undecided) = (Vec::with_capacity(reminders.len()), 0);
        let (mut lines, mut refused_before) = (HashMap::<UserId, Line>::new(), HashMap::new());
        for (place, (reminder, json)) in reminders.into_iter().enumerate() {
            let (key, user) = (Key::of(&reminder), reminder.user.clone());
            let named = (reminder.source.to_string(), reminder.id.clone(), user.clone());
            let line = lines.entry(user.clone()).or_default();
            let verdict = match refused_before.get(&user) {
                Some(&reason) => Some(Err(reason)),
                None => self.ask((number, place), (line, reminder, json), &is_connected),
            };
            match verdict {
                Some(Err(reason)) => drop(refused_before.insert(user, reason)),
                Some(Ok(())) => {}
                None => undecided += 1,
            }
            items.push(Item { key, named, verdict });
        }
        self.requests.insert(number, Request { inbox, deadline, items, undecided });
        self.answer_if_decided(number);
        Ok(())
    }

    /// The verdict on a reminder, if there is one at once; else it waits for the application's.
    fn ask(
        &mut self,
        place: (u64, usize),
        (line, reminder, json): (&Line, Reminder, Box<RawValue>),
        is_connected: impl Fn(&UserId) -> bool,
    ) -> Option<Result<(), Reason>> {
        let key = Key::of(&reminder);
        if self.repeats.contains(key) {
            return Some(Ok(()));
        }
        if let Some(undecided) = self.undecided.get_mut(&key) {
            undecided.asked_by.push(place);
            return None;
        }
        if !is_connected(&reminder.user) {
            return Some(Err(Reason::NotConnected));
        }
        // What the application has taken still counts.
        if self.undecided.len() >= self.queue.max_capacity() {
            return Some(Err(Reason::Busy));
        }
        let (claim, line, verdicts) = (Claim::default(), line.clone(), self.verdicts.clone());
        let queued = Queued { key, claim: claim.clone(), line, reminder, json, verdicts };
        if self.queue.try_send(queued).is_err() {
            return Some(Err(Reason::Busy));
        }
        self.undecided.insert(key, Undecided { claim, asked_by: vec![place] });
        None
    }

    /// The application said what becomes of a reminder.
    pub(super) fn decide(&mut self, now: Instant, (key, verdict): Verdict) {
        if verdict.is_ok() {
            self.repeats.insert(now, key);
        }
        self.settle(key, verdict);
    }

    /// A user is not connected any more: what is not taken is refused. What the application has taken is its own to judge.
    pub(super) fn disconnected(&mut self, user: &UserId) {
        let items = self.requests.values().flat_map(|request| &request.items);
        let keys: Vec<Key> = items.filter(|item| item.named.2 == *user).map(|item| item.key).collect();
        self.take_back(keys, Reason::NotConnected);
    }

    /// Answers requests that must not wait longer. What of them is not decided is refused for now.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(request) = self.requests.first_entry().filter(|first| first.get().deadline <= now) {
            let (number, request) = request.remove_entry();
            for item in request.items.iter().filter(|item| item.verdict.is_none()) {
                let Some(undecided) = self.undecided.get_mut(&item.key) else { continue };
                undecided.asked_by.retain(|(asking, _)| *asking != number);
                if undecided.asked_by.is_empty() && undecided.claim.wins() {
                    self.undecided.remove(&item.key);
                }
            }
            self.answers.push(request.answer());
        }
    }

    /// When [`expire`](Self::expire) has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.requests.first_key_value().map(|(_, request)| request.deadline)
    }

    /// No request waits for an answer.
    pub(super) fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    /// Answers that are due.
    pub(super) fn answers(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.answers)
    }

    /// Takes these reminders back from the queue, as far as nobody has taken them out of it.
    fn take_back(&mut self, keys: Vec<Key>, reason: Reason) {
        for key in keys {
            if self.undecided.get(&key).is_some_and(|undecided| undecided.claim.wins()) {
                self.settle(key, Err(reason));
            }
        }
    }

    fn settle(&mut self, key: Key, verdict: Result<(), Reason>) {
        let Some(Undecided { asked_by, .. }) = self.undecided.remove(&key) else { return };
        for (number, place) in asked_by {
            let Some(request) = self.requests.get_mut(&number) else { continue };
            request.items[place].verdict = Some(verdict);
            request.undecided -= 1;
            if let Err(reason) = verdict {
                let behind = request.behind(place);
                self.take_back(behind, reason);
            }
            self.answer_if_decided(number);
        }
    }

    fn answer_if_decided(&mut self, number: u64) {
        if self.requests.get(&number).is_some_and(|request| request.undecided == 0) {
            let request = self.requests.remove(&number);
            self.answers.extend(request.map(Request::answer));
        }
    }
}

impl Request {
    /// What the same user has behind a place and is not decided.
    fn behind(&self, place: usize) -> Vec<Key> {
        let user = &self.items[place].named.2;
        let behind = self.items[place + 1..].iter();
        behind.filter(|item| item.verdict.is_none() && item.named.2 == *user).map(|item| item.key).collect()
    }

    /// What is refused, and with it all that the same user has behind it: accepted now, that would have come out of order.
    fn answer(self) -> Answer {
        let mut refused_before = HashMap::new();
        let mut refused = Vec::new();
        for Item { named: (source, id, user), verdict, .. } in self.items {
            let verdict = refused_before.get(&user).map_or(verdict.unwrap_or(Err(Reason::Busy)), |&reason| Err(reason));
            if let Err(reason) = verdict {
                refused.push(Refused { id, source, user: user.to_string(), reason });
                refused_before.insert(user, reason);
            }
        }
        Answer { inbox: self.inbox, body: DeliveryAnswer { refused } }
    }
}
