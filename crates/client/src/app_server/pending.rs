//! Requests without an answer, and reminders without a decision. Pure: it reads no clock.
//!
//! A reminder can wait longer than the request that brought it, and a second request can bring it
//! again. So a reminder knows the requests that wait for it, and its decision goes to all of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use async_nats::Subject;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, mpsc};

use super::deliveries::{Content, Line, Queued, Verdict};
use super::duplicates::{Accepted, Key};
use crate::Reminder;
use bellhop_protocol::token::UserId;
use bellhop_protocol::wire::answer::{DeliveryAnswer, Reason, Refused};

/// An answer, and where it goes.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) inbox: Subject,
    pub(super) body: DeliveryAnswer,
}

#[derive(Debug)]
pub(super) struct Pending {
    queue: mpsc::UnboundedSender<Vec<Queued>>,
    /// A permit for each reminder that can be in the queue.
    room: Arc<Semaphore>,
    capacity: usize,
    verdicts: mpsc::UnboundedSender<Verdict>,
    accepted: Accepted,
    undecided: HashMap<Key, Undecided>,
    /// By number. Their deadlines are in the same order.
    requests: BTreeMap<u64, Request>,
    last_number: u64,
    answers: Vec<Answer>,
}

/// A reminder that is in the queue, or that the application has.
#[derive(Debug)]
struct Undecided {
    content: Content,
    /// The requests that wait for it, and its position in each.
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

impl Pending {
    pub(super) fn new(
        queue: mpsc::UnboundedSender<Vec<Queued>>,
        capacity: usize,
        verdicts: mpsc::UnboundedSender<Verdict>,
        accepted: Accepted,
    ) -> Self {
        let capacity = capacity.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            queue,
            room: Arc::new(Semaphore::new(capacity)),
            capacity,
            verdicts,
            accepted,
            undecided: HashMap::new(),
            requests: BTreeMap::new(),
            last_number: 0,
            answers: Vec::new(),
        }
    }

    /// Takes a request in. A reminder without room is refused at once, and so are the same user's
    /// later ones, so that they stay in order.
    ///
    /// # Errors
    /// When it is not a delivery. Then it gets no answer.
    pub(super) fn request(
        &mut self,
        deadline: Instant,
        inbox: Subject,
        body: &[u8],
        is_connected: impl Fn(&UserId) -> bool,
    ) -> Result<(), serde_json::Error> {
        let Body { reminders } = serde_json::from_slice(body)?;
        let read = |json: Box<RawValue>| Ok((serde_json::from_str(json.get())?, json));
        let reminders: Vec<(Reminder, _)> = reminders
            .into_iter()
            .map(read)
            .collect::<Result<_, serde_json::Error>>()?;
        self.last_number += 1;
        let number = self.last_number;
        let (mut items, mut undecided) = (Vec::with_capacity(reminders.len()), 0);
        let mut queued = Vec::new();
        let (mut lines, mut refused_before) = (HashMap::<UserId, Line>::new(), HashMap::new());
        for (place, (reminder, json)) in reminders.into_iter().enumerate() {
            let (key, user) = (
                self.accepted.key(&reminder, (number, place)),
                reminder.user.clone(),
            );
            let named = (
                reminder.source.to_string(),
                reminder.id.clone(),
                user.clone(),
            );
            let line = lines.entry(user.clone()).or_default();
            let verdict = match refused_before.get(&user) {
                Some(&reason) => Some(Err(reason)),
                None => self.ask(
                    key,
                    (number, place),
                    (line, reminder, json),
                    &is_connected,
                    &mut queued,
                ),
            };
            match verdict {
                Some(Err(reason)) => drop(refused_before.insert(user, reason)),
                Some(Ok(())) => {}
                None => undecided += 1,
            }
            items.push(Item {
                key,
                named,
                verdict,
            });
        }
        if !queued.is_empty() {
            // Where the application has dropped the other end meanwhile, the request is answered at
            // its deadline.
            let _ = self.queue.send(queued);
        }
        self.requests.insert(
            number,
            Request {
                inbox,
                deadline,
                items,
                undecided,
            },
        );
        self.answer_if_decided(number);
        Ok(())
    }

    /// Returns the decision about a reminder, if there is one at once. Otherwise the application
    /// decides.
    fn ask(
        &mut self,
        key: Key,
        place: (u64, usize),
        (line, reminder, json): (&Line, Reminder, Box<RawValue>),
        is_connected: impl Fn(&UserId) -> bool,
        queued: &mut Vec<Queued>,
    ) -> Option<Result<(), Reason>> {
        if self.accepted.contains(key) {
            return Some(Ok(()));
        }
        if let Some(undecided) = self.undecided.get_mut(&key) {
            undecided.asked_by.push(place);
            return None;
        }
        if !is_connected(&reminder.user) {
            return Some(Err(Reason::NotConnected));
        }
        // Reminders that the application has taken still count.
        if self.undecided.len() >= self.capacity || self.queue.is_closed() {
            return Some(Err(Reason::Busy));
        }
        let Ok(_room) = self.room.clone().try_acquire_owned() else {
            return Some(Err(Reason::Busy));
        };
        let (content, line, verdicts) = (
            Content::new(reminder, json),
            line.clone(),
            self.verdicts.clone(),
        );
        queued.push(Queued {
            key,
            content: content.clone(),
            line,
            verdicts,
            _room,
        });
        self.undecided.insert(
            key,
            Undecided {
                content,
                asked_by: vec![place],
            },
        );
        None
    }

    /// Takes the application's decision about a reminder.
    pub(super) fn decide(&mut self, now: Instant, (key, verdict): Verdict) {
        if verdict.is_ok() {
            self.accepted.insert(now, key);
        }
        self.settle(key, verdict);
    }

    /// Refuses the reminders in the queue of a user who has left. Those that the application has
    /// are its own to decide.
    pub(super) fn disconnected(&mut self, user: &UserId) {
        let items = self.requests.values().flat_map(|request| &request.items);
        let keys: Vec<Key> = items
            .filter(|item| item.named.2 == *user)
            .map(|item| item.key)
            .collect();
        self.take_back(keys, Reason::NotConnected);
    }

    /// Replies to the requests whose deadline has passed. Their undecided reminders are refused for
    /// now.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(request) = self
            .requests
            .first_entry()
            .filter(|first| first.get().deadline <= now)
        {
            let (number, request) = request.remove_entry();
            for item in request.items.iter().filter(|item| item.verdict.is_none()) {
                let Some(undecided) = self.undecided.get_mut(&item.key) else {
                    continue;
                };
                undecided.asked_by.retain(|(asking, _)| *asking != number);
                if undecided.asked_by.is_empty() && undecided.content.take().is_some() {
                    self.undecided.remove(&item.key);
                }
            }
            self.answers.push(request.answer());
        }
    }

    /// Returns when [`expire`](Self::expire) has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.requests
            .first_key_value()
            .map(|(_, request)| request.deadline)
    }

    /// Returns true if no request waits for a reply.
    pub(super) fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    /// Returns the answers to send.
    pub(super) fn answers(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.answers)
    }

    /// Takes reminders back that are still in the queue, and refuses them.
    fn take_back(&mut self, keys: Vec<Key>, reason: Reason) {
        for key in keys {
            if self
                .undecided
                .get(&key)
                .is_some_and(|undecided| undecided.content.take().is_some())
            {
                self.settle(key, Err(reason));
            }
        }
    }

    fn settle(&mut self, key: Key, verdict: Result<(), Reason>) {
        let Some(Undecided { asked_by, .. }) = self.undecided.remove(&key) else {
            return;
        };
        for (number, place) in asked_by {
            let Some(request) = self.requests.get_mut(&number) else {
                continue;
            };
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
        if self
            .requests
            .get(&number)
            .is_some_and(|request| request.undecided == 0)
        {
            let request = self.requests.remove(&number);
            self.answers.extend(request.map(Request::answer));
        }
    }
}

impl Request {
    /// Returns the same user's undecided reminders after this position.
    fn behind(&self, place: usize) -> Vec<Key> {
        let user = &self.items[place].named.2;
        let behind = self.items[place + 1..].iter();
        behind
            .filter(|item| item.verdict.is_none() && item.named.2 == *user)
            .map(|item| item.key)
            .collect()
    }

    /// Returns the answer. All that follows a refused reminder of the same user is refused, too:
    /// accepted now, it would be out of order.
    fn answer(self) -> Answer {
        let mut refused_before = HashMap::new();
        let mut refused = Vec::new();
        for Item {
            named: (source, id, user),
            verdict,
            ..
        } in self.items
        {
            let verdict = refused_before
                .get(&user)
                .map_or(verdict.unwrap_or(Err(Reason::Busy)), |&reason| Err(reason));
            if let Err(reason) = verdict {
                refused.push(Refused {
                    id,
                    source,
                    user: user.to_string(),
                    reason,
                });
                refused_before.insert(user, reason);
            }
        }
        Answer {
            inbox: self.inbox,
            body: DeliveryAnswer { refused },
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Some instant is needed to count from; which one makes no difference.
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::super::deliveries::{self, Deliveries, Delivery};
    use super::*;

    struct World {
        now: Instant,
        pending: Pending,
        deliveries: Deliveries,
        verdicts: mpsc::UnboundedReceiver<Verdict>,
    }

    impl World {
        fn new(capacity: usize) -> Self {
            Self::remembering(capacity, 100)
        }

        fn remembering(capacity: usize, remember: usize) -> Self {
            let (queue, deliveries) = deliveries::queue();
            let (sender, verdicts) = mpsc::unbounded_channel();
            let accepted = Accepted::new(Duration::from_secs(600), remember);
            let pending = Pending::new(queue, capacity, sender, accepted);
            Self {
                now: Instant::now(),
                pending,
                deliveries,
                verdicts,
            }
        }

        /// Alice is connected.
        fn request(&mut self, inbox: &'static str, ids: &[&str]) {
            let reminder = |id: &&str| {
                serde_json::json!({ "id": id, "source": "s", "set": "7", "user": "alice", "content": "c",
                    "published_at": "2026-11-22T08:00:00Z" })
            };
            let body =
                serde_json::json!({ "reminders": ids.iter().map(reminder).collect::<Vec<_>>() })
                    .to_string();
            self.now += Duration::from_secs(1);
            let deadline = self.now + Duration::from_millis(1_500);
            self.pending
                .request(deadline, inbox.into(), body.as_bytes(), |user| {
                    user.as_str() == "alice"
                })
                .unwrap();
        }

        fn take_batch(&mut self) -> Option<Vec<Delivery>> {
            self.deliveries.next_batch().now_or_never().flatten()
        }

        fn take(&mut self) -> Option<Delivery> {
            self.deliveries.next().now_or_never().flatten()
        }

        /// Returns every answer since the last call: where it went, and what it refuses.
        fn answers(&mut self) -> Vec<(String, Vec<String>)> {
            while let Ok(verdict) = self.verdicts.try_recv() {
                self.pending.decide(self.now, verdict);
            }
            let answer = |answer: Answer| {
                (
                    answer.inbox.to_string(),
                    answer
                        .body
                        .refused
                        .into_iter()
                        .map(|refused| refused.id)
                        .collect(),
                )
            };
            self.pending.answers().into_iter().map(answer).collect()
        }
    }

    fn answer(inbox: &str, refused: &[&str]) -> (String, Vec<String>) {
        (
            inbox.to_owned(),
            refused.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn a_decision_answers_every_waiting_request() {
        let mut world = World::new(10);
        world.request("first", &["1"]);
        world.request("second", &["1"]);
        let delivery = world.take().unwrap();
        assert!(world.take().is_none(), "it is one reminder");
        delivery.accept();
        assert_eq!(
            world.answers(),
            [answer("first", &[]), answer("second", &[])]
        );
        assert!(world.pending.is_idle() && world.pending.undecided.is_empty());
    }

    #[test]
    fn an_expired_request_leaves_others_waiting() {
        let mut world = World::new(10);
        world.request("first", &["1"]);
        world.request("second", &["1"]);
        world.pending.expire(world.now + Duration::from_millis(500));
        assert_eq!(world.answers(), [answer("first", &["1"])]);
        world.take().unwrap().accept();
        assert_eq!(world.answers(), [answer("second", &[])]);
    }

    #[test]
    fn accepted_after_refused_is_not_handed_over_twice() {
        let mut world = World::new(10);
        world.request("first", &["1", "2"]);
        let (first, second) = (world.take().unwrap(), world.take().unwrap());
        second.accept();
        assert_eq!(world.answers(), []);
        first.refuse(Reason::Busy);
        assert_eq!(world.answers(), [answer("first", &["1", "2"])]);
        world.request("second", &["1", "2"]);
        world.take().unwrap().accept();
        assert!(world.take().is_none());
        assert_eq!(world.answers(), [answer("second", &[])]);
    }

    #[test]
    fn nothing_is_taken_after_a_pending_refusal() {
        let mut world = World::new(10);
        world.request("first", &["1", "2"]);
        world.take().unwrap().refuse(Reason::Busy);
        assert!(world.take().is_none());
        assert_eq!(world.answers(), [answer("first", &["1", "2"])]);
    }

    #[test]
    fn taken_reminders_count_against_capacity_until_decided() {
        let mut world = World::new(2);
        world.request("first", &["1", "2", "3"]);
        let held = world.take().unwrap();
        world.pending.expire(world.now + Duration::from_secs(2));
        assert_eq!(world.answers(), [answer("first", &["1", "2", "3"])]);
        assert!(world.take().is_none(), "taken back");
        world.request("second", &["4", "5"]);
        assert!(
            world
                .take()
                .is_some_and(|delivery| delivery.reminder.id == "4"),
            "one fits beside what is held"
        );
        assert_eq!(world.answers(), [answer("second", &["4", "5"])]);
        held.accept();
        world.request("third", &["1"]);
        assert_eq!(world.answers(), [answer("third", &[])]);
    }

    #[test]
    fn a_batch_is_all_of_one_request() {
        let mut world = World::new(10);
        world.request("first", &["1", "2", "3"]);
        world.request("second", &["4"]);
        assert_eq!(world.take().unwrap().accept().id, "1");
        let batch = world.take_batch().unwrap();
        assert_eq!(
            batch
                .iter()
                .map(|delivery| delivery.reminder.id.as_str())
                .collect::<Vec<_>>(),
            ["2", "3"]
        );
        let reasons = [Reason::Busy, Reason::NotConnected];
        batch
            .into_iter()
            .zip(reasons)
            .for_each(|(delivery, reason)| delivery.refuse(reason));
        assert_eq!(world.answers(), [answer("first", &["2", "3"])]);
        assert_eq!(world.take_batch().unwrap().len(), 1);
        assert!(world.take_batch().is_none());
    }

    #[test]
    fn without_memory_each_request_is_handed_over() {
        let mut world = World::remembering(10, 0);
        world.request("first", &["1"]);
        world.request("second", &["1"]);
        let (first, second) = (world.take().unwrap(), world.take().unwrap());
        second.accept();
        assert_eq!(world.answers(), [answer("second", &[])]);
        world.request("third", &["1"]);
        first.refuse(Reason::Busy);
        world.take().unwrap().accept();
        assert_eq!(
            world.answers(),
            [answer("first", &["1"]), answer("third", &[])]
        );
    }

    #[test]
    fn the_queue_never_exceeds_its_capacity() {
        let mut world = World::new(2);
        world.request("first", &["1", "2"]);
        world.pending.expire(world.now + Duration::from_secs(2));
        world.request("second", &["3"]);
        assert_eq!(
            world.answers(),
            [answer("first", &["1", "2"]), answer("second", &["3"])]
        );
        assert!(world.take().is_none(), "taken back, and out of the queue");
        world.request("third", &["3"]);
        assert!(world.take().is_some());
    }
}
