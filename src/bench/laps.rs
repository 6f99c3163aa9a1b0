//! Reminders for the same users again and again, each with a number of its own.

use std::ops::Range;
use std::time::Duration;

use super::BenchError;
use super::crew::Progress;
use super::people::People;
use super::publisher::{Batch, To};
use super::site::Site;
use super::stage::System;

/// Reminders in a set.
pub(super) const SET_SIZE: usize = 100;

/// A user has as many numbers as there are laps: one for each time that everybody could have got a reminder.
pub(super) struct Laps {
    /// Whose users.
    pub(super) people: People,
    /// Of the next delivery.
    lap: usize,
}

impl Laps {
    /// Nothing was delivered yet.
    pub(super) fn new(people: People) -> Self {
        Self { people, lap: 0 }
    }

    /// Delivers a reminder to each user who has one of these numbers, waits until nothing is in work any more, and answers how
    /// long it took from the first set published to the last reminder accepted.
    ///
    /// # Errors
    /// [`BenchError::Wrong`] when not everything arrived once and in order.
    pub(super) async fn deliver(
        &mut self,
        site: &Site,
        numbers: Range<usize>,
        progress: Progress<'_>,
    ) -> Result<Duration, BenchError> {
        let (first, count) = (self.lap * self.people.load.users + numbers.start, numbers.len());
        self.lap += 1;
        self.people.expect(first..first + count).await?;
        let to = To::Subject(System::Bellhop.subject().to_owned());
        self.people.publisher.begin(Batch { to, first, count, set_size: SET_SIZE, rate: None }).await?;
        let began_us = self.people.publisher.published(progress).await?.began_us;
        self.people.app_servers.arrived("delivering", progress).await?;
        site.settled().await?;
        let tally = self.people.verify(first..first + count, "delivering", progress).await?;
        Ok(Duration::from_micros(tally.last_us.saturating_sub(began_us)))
    }
}
