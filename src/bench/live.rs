//! Live traffic to a few users who stay connected, at a low rate, whatever else happens: what others feel of it.

use std::time::Duration;

use super::BenchError;
use super::crew::Progress;
use super::load::{Crowd, Load};
use super::people::People;
use super::publisher::{Batch, Published, To};
use super::site::{BELLHOP_PREFIX, Site};

/// A few: they have nothing to do with the others.
const LOAD: Load = Load { crowd: Crowd::Live, users: 100, instances: 2 };
/// Their own source.
const SUBJECT: &str = "bellhop.sets.live";
/// No traffic is longer than this.
const LONGEST: Duration = Duration::from_secs(3_600);

/// A source of its own, and users of its own at instances of their own.
pub(super) struct Live {
    people: People,
    rate: usize,
    /// The number of the next reminder.
    next: usize,
}

impl Live {
    /// Connects the users, and sends nothing yet. Reminders have numbers from `first` on.
    pub(super) async fn start(
        site: &Site,
        rate: usize,
        first: usize,
        progress: Progress<'_>,
    ) -> Result<Self, BenchError> {
        let mut people = People::start(site, LOAD, BELLHOP_PREFIX).await?;
        people.app_servers.connect(0..LOAD.users, progress).await?;
        Ok(Self { people, rate, next: first })
    }

    /// Sends for so long, and answers the time from when reminders were due to be published to acceptance, in microseconds: p50,
    /// p99, p99.9 and the longest.
    ///
    /// # Errors
    /// [`BenchError::Wrong`] when not everything arrived once and in order.
    pub(super) async fn send_for(&mut self, time: Duration, progress: Progress<'_>) -> Result<[u64; 4], BenchError> {
        self.begin_for(time).await?;
        let published = self.people.publisher.published(progress).await?;
        self.arrived(published, progress).await
    }

    /// Begins to send.
    pub(super) async fn begin(&mut self) -> Result<(), BenchError> {
        self.begin_for(LONGEST).await
    }

    /// Ends it, and answers what [`send_for`](Self::send_for) does.
    ///
    /// # Errors
    /// As there.
    pub(super) async fn end(&mut self, progress: Progress<'_>) -> Result<[u64; 4], BenchError> {
        let published = self.people.publisher.stop(progress).await?;
        self.arrived(published, progress).await
    }

    async fn begin_for(&mut self, time: Duration) -> Result<(), BenchError> {
        let (first, rate) = (self.next, self.rate);
        let count = (rate as f64 * time.as_secs_f64()).ceil() as usize;
        self.people.expect(first..first + count).await?;
        let to = To::Subject(SUBJECT.to_owned());
        self.people.publisher.begin(Batch { to, first, count, set_size: 1, rate: Some(rate) }).await
    }

    async fn arrived(&mut self, published: Published, progress: Progress<'_>) -> Result<[u64; 4], BenchError> {
        let tally = self.people.verify(self.next..published.end, "live traffic", progress).await?;
        self.next = published.end;
        Ok(tally.latency_us)
    }
}
