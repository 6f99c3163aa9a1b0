//! Users of a measurement, with their app servers and a publisher for them.

use std::ops::Range;
use std::time::Duration;

use super::Progress;
use super::app_servers::{self, AppServers};
use super::arrivals::{Check, Expected, Tally};
use super::environment::{Environment, ROUTES_BUCKET};
use super::error::BenchError;
use super::load::Load;
use super::publisher::{Batch, Publisher, To};
use super::trial::System;
use super::usage::CpuTimes;

/// Users, with two worker processes for them.
pub(super) struct Population {
    pub(super) load: Load,
    pub(super) publisher: Publisher,
    pub(super) app_servers: AppServers,
}

impl Population {
    /// Starts the workers. Instances' subjects begin with `prefix`. No user is connected yet.
    pub(super) async fn start(
        environment: &Environment,
        load: Load,
        prefix: &str,
    ) -> Result<Self, BenchError> {
        let publisher = Publisher::start(&environment.url, load).await?;
        let app_servers = AppServers::start(&app_servers::Task {
            url: environment.url.clone(),
            load,
            prefixes: vec![prefix.to_owned()],
            routes: ROUTES_BUCKET.to_owned(),
            instances: None,
        })
        .await?;
        Ok(Self {
            load,
            publisher,
            app_servers,
        })
    }

    /// Expects the reminders with these numbers, each user's in order.
    pub(super) async fn expect(&mut self, numbers: Range<usize>) -> Result<(), BenchError> {
        let (first, count) = (numbers.start, numbers.len());
        self.app_servers
            .expect(Expected {
                first,
                count,
                warm_up: 0,
                check: Check::UserOrder,
            })
            .await
    }

    /// Verifies that the reminders with these numbers, and no others, arrived once and in order.
    ///
    /// # Errors
    /// [`BenchError::Void`], which names `what`.
    pub(super) async fn verify(
        &mut self,
        numbers: Range<usize>,
        what: &str,
        progress: Progress<'_>,
    ) -> Result<Tally, BenchError> {
        self.app_servers
            .arrived_until(numbers.end, what, progress)
            .await?
            .verified(what, numbers.len())
    }

    /// Returns the CPU time so far of the servers, the members and the app servers.
    pub(super) fn cpu_times(&self, environment: &Environment) -> CpuTimes {
        environment
            .cpu_times()
            .into_iter()
            .chain([("app servers", self.app_servers.cpu_time())])
            .collect()
    }
}

/// Reminders in a set that [`Rounds`] delivers.
pub(super) const SET_SIZE: usize = 100;

/// Delivers to the same users again and again, with new numbers in each round.
pub(super) struct Rounds {
    pub(super) population: Population,
    next: usize,
}

impl Rounds {
    pub(super) fn new(population: Population) -> Self {
        Self {
            population,
            next: 0,
        }
    }

    /// Delivers a reminder to each user with one of these numbers, and waits until Bellhop has
    /// recorded everything. Returns the time from the first set published to the last reminder
    /// accepted.
    ///
    /// # Errors
    /// [`BenchError::Void`] if not everything arrived once and in order.
    pub(super) async fn deliver(
        &mut self,
        environment: &Environment,
        numbers: Range<usize>,
        progress: Progress<'_>,
    ) -> Result<Duration, BenchError> {
        let Self { population, next } = self;
        let (first, count) = (*next * population.load.users + numbers.start, numbers.len());
        *next += 1;
        population.expect(first..first + count).await?;
        let to = To::Subject(System::Bellhop.subject().to_owned());
        population
            .publisher
            .begin(Batch {
                to,
                first,
                count,
                set_size: SET_SIZE,
                rate: None,
            })
            .await?;
        let began_us = population.publisher.published(progress).await?.began_us;
        population.app_servers.arrived("delivery", progress).await?;
        environment.settled().await?;
        let tally = population
            .verify(first..first + count, "delivery", progress)
            .await?;
        Ok(Duration::from_micros(
            tally.last_us.saturating_sub(began_us),
        ))
    }
}
