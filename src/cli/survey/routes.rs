//! The connected users and their instances, from the routes. Reading them takes a consumer for a
//! moment.

use std::collections::BTreeMap;

use async_nats::jetstream::consumer::{DeliverPolicy, pull};

use crate::cli::CliError;
use crate::cli::scan::scan;
use crate::nats::Nats;
use crate::nats::names::bucket_stream;
use crate::token::{UserId, unescape};

/// The content of the bucket of routes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::cli) struct Routes {
    /// Users' connections, by instance.
    pub(in crate::cli) by_instance: BTreeMap<String, u64>,
    /// Marks of deleted routes.
    pub(in crate::cli) marks: u64,
}

impl Routes {
    /// More keys than this are not read one by one: it takes a second for each 200,000.
    pub(in crate::cli) const MOST: u64 = 200_000;

    /// Reads them.
    ///
    /// # Errors
    /// When there is no bucket, or JetStream does not answer.
    pub(in crate::cli) async fn read(nats: &Nats) -> Result<Self, CliError> {
        Self::read_with(nats, |_| {}).await
    }

    /// Reads them, and calls `each` with the user of each route.
    ///
    /// # Errors
    /// When there is no bucket, or JetStream does not answer.
    pub(in crate::cli) async fn read_with(
        nats: &Nats,
        mut each: impl FnMut(UserId),
    ) -> Result<Self, CliError> {
        let bucket = nats.names.routes_bucket();
        let config = pull::Config {
            headers_only: true,
            deliver_policy: DeliverPolicy::LastPerSubject,
            filter_subject: format!("$KV.{bucket}.>"),
            ..pull::Config::default()
        };
        let mut routes = Self::default();
        scan(nats, &bucket_stream(&bucket), config, |stored| {
            if stored
                .header("KV-Operation")
                .or(stored.header("Nats-Marker-Reason"))
                .is_some()
            {
                routes.marks += 1;
                return Ok(());
            }
            let mut tokens = stored.message.subject.rsplit('.');
            let token = tokens.next().unwrap_or_default();
            let user = tokens.next().map(UserId::from_token);
            user.and_then(Result::ok).into_iter().for_each(&mut each);
            let instance = unescape(token).unwrap_or_else(|_| token.to_owned());
            *routes.by_instance.entry(instance).or_default() += 1;
            Ok(())
        })
        .await?;
        Ok(routes)
    }

    /// All users' connections.
    pub(in crate::cli) fn count(&self) -> u64 {
        self.by_instance.values().sum()
    }
}
