//! A crowd: its app servers, and a business system that publishes for it.

use std::ops::Range;

use super::BenchError;
use super::acceptor;
use super::arrivals::{Check, Expected, Tally};
use super::crew::{AppServers, Progress, Publisher};
use super::load::Load;
use super::site::{ROUTES_BUCKET, Site};
use super::usage::CpuTimes;

/// Two processes.
pub(super) struct People {
    /// Who they are.
    pub(super) load: Load,
    /// Who publishes for them.
    pub(super) publisher: Publisher,
    /// Who holds their connections.
    pub(super) app_servers: AppServers,
}

impl People {
    /// Starts both; instances' subjects begin with `prefix`. Nobody is connected yet.
    pub(super) async fn start(site: &Site, load: Load, prefix: &str) -> Result<Self, BenchError> {
        let publisher = Publisher::start(&site.url, load).await?;
        let app_servers = AppServers::start(acceptor::Task {
            url: site.url.clone(),
            load,
            prefixes: vec![prefix.to_owned()],
            routes: ROUTES_BUCKET.to_owned(),
            instances: None,
        })
        .await?;
        Ok(Self { load, publisher, app_servers })
    }

    /// Tells the app servers that the reminders of these numbers are to arrive, each user's in order.
    pub(super) async fn expect(&mut self, numbers: Range<usize>) -> Result<(), BenchError> {
        let (first, count) = (numbers.start, numbers.len());
        self.app_servers.expect(Expected { first, count, warm_up: 0, check: Check::UserOrder }).await
    }

    /// That the reminders of these numbers arrived once and in order, and no others.
    ///
    /// # Errors
    /// [`BenchError::Wrong`], which says that of `what`.
    pub(super) async fn verify(
        &mut self,
        numbers: Range<usize>,
        what: &str,
        progress: Progress<'_>,
    ) -> Result<Tally, BenchError> {
        self.app_servers.arrived_until(numbers.end, what, progress).await?.verified(what, numbers.len())
    }

    /// CPU time so far of what brings the reminders, and of what accepts them.
    pub(super) fn cpu_times(&self, site: &Site) -> CpuTimes {
        site.cpu_times().into_iter().chain([("app servers", self.app_servers.cpu_time())]).collect()
    }
}
