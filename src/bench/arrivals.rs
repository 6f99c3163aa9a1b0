//! What arrived, and whether it is what was published.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::BenchError;
use super::load::{Load, user_number};
use super::publisher::now_us;
use super::task::Conversation;

/// What must hold of what arrives, beside that everything does, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Check {
    /// A user's reminders come to the user's instance, in order.
    UserOrder,
    /// An instance gets what it gets in order: nobody looks for users.
    InstanceOrder,
    /// Nothing.
    Once,
}

/// Expects the reminders `first` to `first + count`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Order {
    /// The first number.
    pub(super) first: usize,
    /// How many.
    pub(super) count: usize,
    /// How many of the first ones are left out of the latencies.
    pub(super) warm_up: usize,
    /// What must hold.
    pub(super) check: Check,
}

/// What app servers say.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// They are connected, and so are their users.
    Ready,
    /// So many have arrived.
    Progress(usize),
    /// Everything has arrived, or nothing has for a while.
    Done(Tally),
}

/// What arrived.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Tally {
    /// Reminders, each counted once.
    pub(super) accepted: usize,
    /// Reminders that came again.
    pub(super) repeated: usize,
    /// Reminders that came out of order, or where their user is not.
    pub(super) misplaced: usize,
    /// When the last one came, in microseconds since 1970.
    pub(super) last_us: u64,
    /// From when it was due to be published to acceptance, in microseconds: p50, p99, p99.9 and the longest.
    pub(super) latency_us: [u64; 4],
}

/// When nothing comes for so long, nothing will.
const STALL: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// How often progress is told.
const PROGRESS: Duration = Duration::from_millis(500);
/// The longest latency that is told apart, in microseconds.
const LONGEST_US: u64 = 3_600_000_000;

/// What has arrived.
struct Arrivals {
    expected: Range<usize>,
    warm_up: usize,
    check: Check,
    seen: Vec<bool>,
    /// Of each user, or instance, the number after the last one.
    next: Vec<usize>,
    accepted: usize,
    repeated: usize,
    misplaced: usize,
    last_us: u64,
    latencies: Histogram<u64>,
}

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
pub(super) struct Shared(Arc<Mutex<Arrivals>>);

impl Shared {
    pub(super) fn new(load: &Load) -> Self {
        Self(Arc::new(Mutex::new(Arrivals::new(load.users.max(load.instances)))))
    }

    fn lock(&self) -> MutexGuard<'_, Arrivals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the body of a delivery that came to an instance.
    pub(super) fn take(&self, load: &Load, instance: usize, body: &[u8]) {
        let now_us = now_us();
        let delivery: Result<Delivery<'_>, _> = serde_json::from_slice(body);
        let mut arrivals = self.lock();
        let Ok(Delivery { reminders }) = delivery else { return arrivals.misplaced += 1 };
        for Arrived { id, user, data } in &reminders {
            let (Ok(number), Some(user)) = (id.parse(), user_number(user)) else {
                arrivals.misplaced += 1;
                continue;
            };
            let slot = match arrivals.check {
                Check::UserOrder if load.instance_of(user) == instance => Some(user),
                Check::UserOrder => None,
                Check::InstanceOrder | Check::Once => Some(instance),
            };
            let is_meant = load.user_of(number) == user;
            let slot = slot.filter(|_| is_meant);
            arrivals.accept(number, slot, now_us, data.at);
        }
    }

    /// Tells of everything that is ordered whether it arrived.
    pub(super) async fn verify(&self, mut conversation: Conversation) -> Result<(), BenchError> {
        while let Some(order) = conversation.next::<Order>().await? {
            self.lock().expect(order);
            self.await_all(&mut conversation).await?;
            let tally = self.lock().tally();
            conversation.say(&Report::Done(tally)).await?;
        }
        Ok(())
    }

    /// Waits until everything is there, or nothing comes any more.
    async fn await_all(&self, conversation: &mut Conversation) -> Result<(), BenchError> {
        let (mut before, mut since, mut told) = (0, Instant::now(), Instant::now());
        loop {
            tokio::time::sleep(POLL).await;
            let (accepted, expected) = {
                let arrivals = self.lock();
                (arrivals.accepted, arrivals.expected.len())
            };
            if accepted > before {
                (before, since) = (accepted, Instant::now());
            }
            if accepted >= expected || since.elapsed() > STALL {
                return Ok(());
            }
            if told.elapsed() > PROGRESS {
                told = Instant::now();
                conversation.say(&Report::Progress(accepted)).await?;
            }
        }
    }
}

impl Arrivals {
    fn new(slots: usize) -> Self {
        Self {
            expected: 0..0,
            warm_up: 0,
            check: Check::Once,
            seen: Vec::new(),
            next: vec![0; slots],
            accepted: 0,
            repeated: 0,
            misplaced: 0,
            last_us: 0,
            latencies: Histogram::new_with_max(LONGEST_US, 3).expect("the bounds are right"),
        }
    }

    fn expect(&mut self, Order { first, count, warm_up, check }: Order) {
        self.seen = vec![false; count];
        self.next.fill(0);
        (self.expected, self.warm_up, self.check) = (first..first + count, warm_up, check);
        (self.accepted, self.repeated, self.misplaced, self.last_us) = (0, 0, 0, 0);
        self.latencies.reset();
    }

    fn accept(&mut self, number: usize, slot: Option<usize>, now_us: u64, due_us: u64) {
        let place = number.wrapping_sub(self.expected.start);
        let Some(seen) = self.seen.get_mut(place) else {
            self.repeated += 1; // Of an earlier measurement.
            return;
        };
        if std::mem::replace(seen, true) {
            self.repeated += 1;
            return;
        }
        self.accepted += 1;
        self.last_us = now_us;
        match slot.and_then(|slot| self.next.get_mut(slot)) {
            Some(next) => {
                self.misplaced += usize::from(self.check != Check::Once && number < *next);
                *next = number + 1;
            }
            None => self.misplaced += 1,
        }
        if place >= self.warm_up {
            self.latencies.saturating_record(now_us.saturating_sub(due_us).max(1));
        }
    }

    fn tally(&self) -> Tally {
        let at = |quantile| self.latencies.value_at_quantile(quantile);
        Tally {
            accepted: self.accepted,
            repeated: self.repeated,
            misplaced: self.misplaced,
            last_us: self.last_us,
            latency_us: [at(0.5), at(0.99), at(0.999), self.latencies.max()],
        }
    }
}

impl Tally {
    /// What is wrong with it, if anything is.
    pub(super) fn problem(&self, expected: usize) -> Option<String> {
        let Self { accepted, repeated, misplaced, .. } = self;
        let is_right = *accepted == expected && *repeated == 0 && *misplaced == 0;
        (!is_right).then(|| {
            format!("of {expected} reminders {accepted} arrived, {repeated} came again, {misplaced} were out of place")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(numbers: &[(usize, Option<usize>)]) -> Tally {
        let mut arrivals = Arrivals::new(2);
        arrivals.expect(Order { first: 10, count: 3, warm_up: 1, check: Check::UserOrder });
        for (number, slot) in numbers {
            arrivals.accept(*number, *slot, 2_000, 1_000);
        }
        arrivals.tally()
    }

    #[test]
    fn what_is_right_has_no_problem() {
        let tally = arrived(&[(10, Some(0)), (12, Some(1)), (11, Some(0))]);
        assert_eq!(tally.problem(3), None, "two users have an order each");
        assert!((990..1_010).contains(&tally.latency_us[0]));
    }

    #[test]
    fn whatever_is_wrong_is_a_problem() {
        for wrong in [
            &[(10, Some(0)), (11, Some(0))][..],
            &[(10, Some(0)), (11, Some(0)), (12, Some(0)), (12, Some(0))],
            &[(10, Some(0)), (12, Some(0)), (11, Some(0))],
            &[(10, Some(0)), (11, None), (12, Some(0))],
            &[(10, Some(0)), (11, Some(0)), (12, Some(0)), (9, Some(0))],
        ] {
            assert!(arrived(wrong).problem(3).is_some(), "{wrong:?}");
        }
    }
}
