//! The bucket of routes, as it stands.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::kv::{Operation, Store};
use bellhop_protocol::names::Names;
use bellhop_protocol::token::InstanceName;
use bytes::Bytes;
use futures_util::StreamExt;

use super::ConformanceError;

/// The most routes of an instance that are looked at: an app server to be tested has few.
pub(super) const MAX_ROUTES: usize = 1_000;
/// The time in which the first of an instance's routes must come; a watch does not say that there
/// is none.
const PATIENCE: Duration = Duration::from_secs(5);

/// A key and its value.
pub(super) struct Route {
    pub(super) key: String,
    pub(super) value: Bytes,
}

pub(super) struct Bucket(Store);

impl Bucket {
    pub(super) async fn open(jetstream: &Context, names: &Names) -> Result<Self, ConformanceError> {
        let bucket = names.routes_bucket();
        let store = jetstream.get_key_value(&bucket).await;
        store
            .map(Self)
            .map_err(|source| ConformanceError::Open { bucket, source })
    }

    /// Returns the route under a key, if there is one.
    pub(super) async fn route(&self, key: String) -> Result<Option<Route>, ConformanceError> {
        let value = self.0.get(&key).await.map_err(ConformanceError::read)?;
        Ok(value.map(|value| Route { key, value }))
    }

    /// Returns the routes of all users to an instance.
    pub(super) async fn routes_to(
        &self,
        instance: &InstanceName,
    ) -> Result<Vec<Route>, ConformanceError> {
        let keys = format!("*.{}", instance.escaped());
        let mut watch = self
            .0
            .watch_with_history(keys)
            .await
            .map_err(ConformanceError::read)?;
        let mut routes = Vec::new();
        while let Ok(Some(entry)) = tokio::time::timeout(PATIENCE, watch.next()).await {
            let entry = entry.map_err(ConformanceError::read)?;
            let is_last = entry.delta == 0;
            if entry.operation == Operation::Put {
                routes.push(Route {
                    key: entry.key,
                    value: entry.value,
                });
            }
            if is_last {
                break;
            }
            if routes.len() == MAX_ROUTES {
                return Err(ConformanceError::TooManyRoutes(instance.clone()));
            }
        }
        Ok(routes)
    }
}
