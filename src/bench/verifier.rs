//! What comes to the app servers of a process, verified, whichever way it comes; and what they are told and say of it.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::BenchError;
use super::arrivals::{Arrivals, Check, Expected, Tally};
use super::load::Load;
use super::publisher::now_us;
use super::task::{Conversation, PROGRESS};

/// What app servers are told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// The users of the reminders of these numbers connect.
    Connect(Range<usize>),
    /// These are to arrive.
    Expect(Expected),
    /// None from this number on is to arrive any more.
    Until(usize),
}

/// What app servers say.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// They are connected; their users are not yet.
    Ready,
    /// So many users are connected, or so many reminders have arrived.
    Progress(usize),
    /// The users are connected who were to be.
    Connected,
    /// Everything has arrived, or nothing has for a while.
    Done(Tally),
}

/// When nothing comes for so long, nothing will: an instance that was silent when the machine was overloaded is asked again
/// within half a minute (`heartbeat.backoff_max`), and may then be silent once more.
const STALL: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);

#[derive(Deserialize)]
struct Delivery<'d> {
    #[serde(borrow)]
    reminders: Vec<Arrived<'d>>,
}

#[derive(Deserialize)]
struct Arrived<'d> {
    id: &'d str,
    user: &'d str,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    at: u64,
}

/// What has arrived at all instances of a process.
#[derive(Clone)]
pub(super) struct Verifier {
    load: Load,
    arrivals: Arc<Mutex<Arrivals>>,
}

impl Verifier {
    /// Nothing is to arrive yet.
    pub(super) fn new(load: Load) -> Self {
        Self { load, arrivals: Arc::new(Mutex::new(Arrivals::new(load.users.max(load.instances)))) }
    }

    /// Takes the body of a delivery that came to an instance.
    pub(super) fn take(&self, instance: usize, body: &[u8]) {
        let now_us = now_us();
        let delivery: Result<Delivery<'_>, _> = serde_json::from_slice(body);
        let mut arrivals = self.lock();
        let Ok(Delivery { reminders }) = delivery else { return arrivals.misplace() };
        for Arrived { id, user, data } in &reminders {
            let (Ok(number), Some(user)) = (id.parse(), self.load.user_number(user)) else {
                arrivals.misplace();
                continue;
            };
            let slot = match arrivals.check {
                Check::UserOrder if self.load.instance_of(user) == instance => Some(user),
                Check::UserOrder => None,
                Check::InstanceOrder | Check::Once => Some(instance),
            };
            let is_meant = self.load.user_of(number) == user;
            let slot = slot.filter(|_| is_meant);
            arrivals.accept(number, slot, now_us, data.at);
        }
    }

    /// Says that the instances are ready, and does what it is ordered, until whoever measures is done or gone. `connect`
    /// connects the users of the reminders of some numbers.
    pub(super) async fn run(
        &self,
        mut conversation: Conversation,
        connect: impl AsyncFn(Range<usize>, &mut Conversation) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        conversation.say(&Report::Ready).await?;
        let mut wait: Option<Wait> = None;
        let mut look = tokio::time::interval(POLL);
        loop {
            tokio::select! {
                order = conversation.next::<Order>() => match order? {
                    Some(Order::Connect(numbers)) => {
                        connect(numbers, &mut conversation).await?;
                        conversation.say(&Report::Connected).await?;
                    }
                    Some(Order::Expect(expected)) => {
                        self.lock().expect(expected);
                        wait = Some(Wait::begun());
                    }
                    Some(Order::Until(end)) => {
                        self.lock().end_at(end);
                        wait = Some(Wait::begun());
                    }
                    None => return Ok(()),
                },
                _ = look.tick() => {
                    let report = wait.as_mut().and_then(|wait| wait.look(&self.lock()));
                    wait = wait.filter(|_| !matches!(report, Some(Report::Done(_))));
                    if let Some(report) = report {
                        conversation.say(&report).await?;
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A wait until everything is there, or nothing comes any more.
struct Wait {
    accepted: usize,
    since: Instant,
    told: Instant,
}

impl Wait {
    fn begun() -> Self {
        Self { accepted: 0, since: Instant::now(), told: Instant::now() }
    }

    /// What is to be told of it now, if anything is.
    fn look(&mut self, arrivals: &Arrivals) -> Option<Report> {
        let accepted = arrivals.accepted();
        if accepted > self.accepted {
            (self.accepted, self.since) = (accepted, Instant::now());
        }
        if arrivals.are_complete() || self.since.elapsed() > STALL {
            return Some(Report::Done(arrivals.tally()));
        }
        (self.told.elapsed() > PROGRESS).then(|| {
            self.told = Instant::now();
            Report::Progress(accepted)
        })
    }
}
