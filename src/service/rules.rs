//! Watches the bucket of rules, and has the compiled documents of all tags ready.
//!
//! Whoever processes a reminder takes what is [current](Watch::current), all of it. A document that changes is compiled
//! beside the old one and takes its place whole; one that cannot be used leaves the last good one in place.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::now_ms;
use crate::metrics::{Metrics, SetAside};
use crate::nats::bucket::{Entry, Operation, Unreadable, Watched, operation};
use crate::nats::link::Link;
use crate::nats::raw::{self, RawMessage};
use crate::nats::{Nats, NatsError};
use crate::rules::Rules;
use crate::rules::document::Document;
use crate::rules::engine::Engine;
use crate::rules::problem::Problem;
use crate::token::Tag;

/// The rules as they are now.
#[derive(Debug, Clone)]
pub struct Watch {
    /// None until everything in the bucket was read once.
    rules: watch::Receiver<Option<Arc<Rules>>>,
}

impl Watch {
    /// Starts the task that watches.
    ///
    /// It watches over `link`; what does not arrive there, it reads over `nats`.
    pub fn start(link: Link, nats: Nats, metrics: Metrics) -> (Self, tokio::task::JoinHandle<()>) {
        let (told, rules) = watch::channel(None);
        (Self { rules }, tokio::spawn(Watcher { link, nats, metrics, told }.run()))
    }

    /// Waits until the rules are known: a reminder that goes out before them would show what they hide.
    pub async fn loaded(&self) {
        if self.rules.clone().wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await; // The task ends with the process only.
        }
    }

    /// The rules. None at all before they are [loaded](Self::loaded).
    pub fn current(&self) -> Arc<Rules> {
        self.rules.borrow().clone().unwrap_or_default()
    }
}

/// Reads and compiles a document, beside the tasks that serve.
async fn compiled(value: Bytes) -> Result<Engine, Vec<Problem>> {
    let compile = move || Document::parse(&value).and_then(|document| Engine::new(&document));
    tokio::task::spawn_blocking(compile).await.expect("compiling does not panic")
}

struct Watcher {
    link: Link,
    nats: Nats,
    metrics: Metrics,
    told: watch::Sender<Option<Arc<Rules>>>,
}

/// What is known of the bucket.
#[derive(Default)]
struct Known {
    rules: Rules,
    /// Keys whose document cannot be used.
    ignored: BTreeSet<String>,
}

impl Watcher {
    async fn run(self) {
        loop {
            let Err(error) = self.follow().await else { return };
            tracing::warn!(%error, "watching rules again");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Follows the bucket from its present content on, until the watch breaks.
    async fn follow(&self) -> Result<(), NatsError> {
        let mut watched =
            Watched::begin(&self.link, &self.nats, self.nats.names.rules_bucket(), Unreadable::Put).await?;
        // Documents that were deleted while nobody watched are not told of: it begins with none.
        let mut known = Known::default();
        while !watched.is_loaded() {
            if let Some(entry) = watched.next().await? {
                self.changed(&mut known, entry).await?;
            }
        }
        self.tell(&known);
        loop {
            if let Some(entry) = watched.next().await? {
                self.changed(&mut known, entry).await?;
            }
            self.tell(&known);
        }
    }

    fn current(&self) -> Arc<Rules> {
        self.told.borrow().clone().unwrap_or_default()
    }

    fn tell(&self, Known { rules, ignored }: &Known) {
        self.metrics.rules_in_use(rules.len(), ignored.len());
        self.told.send_replace(Some(Arc::new(rules.clone())));
    }

    /// Takes in a change of the bucket.
    async fn changed(&self, known: &mut Known, entry: Entry) -> Result<(), NatsError> {
        self.metrics.rules_revised(entry.revision);
        if entry.is_unreadable {
            self.metrics.set_aside(SetAside::Rules);
        }
        known.ignored.remove(&entry.key);
        let tag = match Tag::from_token(&entry.key) {
            Ok(tag) => tag,
            Err(error) => {
                if entry.operation == Operation::Put {
                    self.ignored(known, &entry, &[Problem::error(format!("the key is no tag: {error}"))]);
                }
                return Ok(());
            }
        };
        let rules = std::mem::take(&mut known.rules);
        if entry.operation != Operation::Put {
            tracing::info!(tag = tag.as_str(), revision = entry.revision, "rules removed");
            known.rules = rules.with(tag, None);
            return Ok(());
        }
        known.rules = match compiled(entry.value.clone()).await {
            Ok(engine) => {
                let (count, bytes) = (engine.rules().len(), engine.heap_bytes());
                tracing::info!(tag = tag.as_str(), revision = entry.revision, rules = count, bytes, "rules loaded");
                self.metrics.rules_loaded(now_ms().as_millisecond() as f64 / 1_000.0);
                rules.with(tag, Some(Arc::new(engine)))
            }
            Err(problems) => {
                self.ignored(known, &entry, &problems);
                let last_good = match self.current().engine(&tag) {
                    Some(engine) => Some(engine.clone()),
                    None => self.last_good(&entry).await?,
                };
                rules.with(tag, last_good)
            }
        };
        Ok(())
    }

    /// The version before a bad one that was good: this process did not see it, since it has just begun.
    async fn last_good(&self, bad: &Entry) -> Result<Option<Arc<Engine>>, NatsError> {
        let bucket = self.nats.names.rules_bucket();
        let (stream, subject) = (format!("KV_{bucket}"), format!("$KV.{bucket}.{}", bad.key));
        let (mut from, mut versions) = (1, Vec::new());
        while let Some(version) = raw::next(&self.nats, &stream, &subject, from).await? {
            if version.sequence >= bad.revision {
                break;
            }
            from = version.sequence + 1;
            versions.push(version);
        }
        let is_put =
            |version: &RawMessage| version.read_headers().map_or(Operation::Put, |h| operation(&h)) == Operation::Put;
        for version in versions.into_iter().rev().take_while(is_put) {
            if let Ok(engine) = compiled(version.payload).await {
                tracing::info!(key = bad.key, revision = version.sequence, "earlier rules loaded");
                return Ok(Some(Arc::new(engine)));
            }
        }
        Ok(None)
    }

    fn ignored(&self, known: &mut Known, entry: &Entry, problems: &[Problem]) {
        self.metrics.rules_ignored();
        known.ignored.insert(entry.key.clone());
        let problem = problems.first().map(ToString::to_string).unwrap_or_default();
        let (key, revision, more) = (&entry.key, entry.revision, problems.len().saturating_sub(1));
        tracing::warn!(
            key,
            revision,
            problem,
            more,
            "document of rules ignored, the last good one stays; `bellhop rules lint` tells all"
        );
    }
}
