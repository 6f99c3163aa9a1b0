//! Watches the bucket of rules, and has the compiled documents of all tags ready.
//!
//! The task that processes a reminder takes what is [current](Watch::current), all of it. A
//! document that changes is compiled beside the old one and takes its place whole; one that cannot
//! be used leaves the last good one in place. Where there is none, reminders with the tag are
//! refused: a text must not show what a rule was meant to hide.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::now_ms;
use super::pause::Pause;
use crate::http::Readiness;
use crate::metrics::{Metrics, SetAside};
use crate::nats::bucket::{Entry, Operation, Unreadable, Watched, operation};
use crate::nats::link::Link;
use crate::nats::names::bucket_stream;
use crate::nats::raw::{self, RawMessage};
use crate::nats::{Nats, NatsError, chain};
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
    pub fn start(
        link: Link,
        nats: Nats,
        metrics: Metrics,
        readiness: watch::Sender<Readiness>,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, rules) = watch::channel(None);
        readiness.send_modify(|readiness| readiness.reading.rules = true);
        (
            Self { rules },
            tokio::spawn(
                Watcher {
                    link,
                    nats,
                    metrics,
                    readiness,
                    sender,
                }
                .run(),
            ),
        )
    }

    /// Waits until the rules are known: a reminder that goes out before them would show what they
    /// hide.
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
    tokio::task::spawn_blocking(compile)
        .await
        .expect("compiling does not panic")
}

struct Watcher {
    link: Link,
    nats: Nats,
    metrics: Metrics,
    readiness: watch::Sender<Readiness>,
    sender: watch::Sender<Option<Arc<Rules>>>,
}

/// The known content of the bucket.
#[derive(Default)]
struct Known {
    rules: Rules,
    /// Keys whose document cannot be used.
    ignored: BTreeSet<String>,
}

impl Watcher {
    /// Follows the bucket from its present content on.
    async fn run(self) {
        let mut watched = Watched::new(
            &self.link,
            &self.nats,
            self.nats.names.rules_bucket(),
            Unreadable::Put,
        );
        let (mut known, mut pause) = (Known::default(), Pause::default());
        loop {
            match watched.next().await {
                Ok(entry) => {
                    pause.reset();
                    if let Some(entry) = entry {
                        self.changed(&mut known, entry).await;
                    }
                    if watched.is_loaded() {
                        self.tell(&known);
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "watch of rules ended, restarting it");
                    pause.wait().await;
                }
            }
        }
    }

    fn current(&self) -> Arc<Rules> {
        self.sender.borrow().clone().unwrap_or_default()
    }

    fn tell(&self, Known { rules, ignored }: &Known) {
        self.metrics
            .rules_in_use(rules.usable(), ignored.len(), rules.refused());
        self.sender.send_replace(Some(Arc::new(rules.clone())));
        self.readiness
            .send_if_modified(|readiness| std::mem::take(&mut readiness.reading.rules));
    }

    /// Takes in a change of the bucket.
    async fn changed(&self, known: &mut Known, entry: Entry) {
        self.metrics.rules_revised(entry.revision);
        if entry.is_unreadable {
            self.metrics.set_aside(SetAside::Rules);
        }
        known.ignored.remove(&entry.key);
        let (key, revision) = (entry.key.as_str(), entry.revision);
        let tag = match Tag::from_token(key) {
            Ok(tag) => tag,
            Err(error) => {
                if entry.operation == Operation::Put {
                    self.ignored(known, key);
                    tracing::warn!(key, revision, error = %chain(&error), "rule document under an invalid key, ignored");
                }
                return;
            }
        };
        if entry.operation != Operation::Put {
            tracing::info!(tag = tag.as_str(), revision, "rules removed");
            known.rules = std::mem::take(&mut known.rules).with(tag, None);
            return;
        }
        let usable = self.usable(known, &tag, &entry).await;
        let rules = std::mem::take(&mut known.rules);
        known.rules = if usable.is_some() {
            rules.with(tag, usable)
        } else {
            rules.refusing(tag)
        };
    }

    /// Returns what applies to a tag now that this document is stored for it, if anything can be
    /// used.
    async fn usable(&self, known: &mut Known, tag: &Tag, entry: &Entry) -> Option<Arc<Engine>> {
        let (key, revision) = (entry.key.as_str(), entry.revision);
        let problems = match compiled(entry.value.clone()).await {
            Ok(engine) => {
                let (count, bytes) = (engine.rules().len(), engine.heap_bytes());
                tracing::info!(
                    tag = tag.as_str(),
                    revision,
                    rules = count,
                    bytes,
                    "rules loaded"
                );
                self.metrics
                    .rules_loaded(now_ms().as_millisecond() as f64 / 1_000.0);
                return Some(Arc::new(engine));
            }
            Err(problems) => problems,
        };
        self.ignored(known, key);
        let last_good = match self.current().engine(tag) {
            Some(engine) => Some(engine.clone()),
            None => self.last_good(entry).await,
        };
        let problem = problems
            .first()
            .map(ToString::to_string)
            .unwrap_or_default();
        let (tag, more) = (tag.as_str(), problems.len().saturating_sub(1));
        if let Some(engine) = last_good {
            tracing::warn!(
                tag,
                revision,
                problem,
                more,
                "document of rules ignored, the last good one stays in use; `bellhop rules lint` lists all problems"
            );
            return Some(engine);
        }
        tracing::error!(
            tag,
            revision,
            problem,
            more,
            "document of rules cannot be used, and there is no earlier one: reminders with this tag are refused; \
             `bellhop rules lint` lists all problems"
        );
        None
    }

    /// Returns the last version before a bad one that was good, for a process that has not seen it
    /// in force. Goes on until it is known: without it, a member that starts while JetStream is
    /// away would refuse what it need not refuse.
    async fn last_good(&self, bad: &Entry) -> Option<Arc<Engine>> {
        let mut pause = Pause::default();
        loop {
            match last_good(&self.nats, &bad.key, bad.revision).await {
                Ok(found) => {
                    return found.map(|(revision, engine)| {
                        tracing::info!(key = bad.key, revision, "earlier rules loaded");
                        engine
                    });
                }
                // Asking again would not help. The other tags have their rules meanwhile.
                Err(error @ NatsError::NotPermitted { .. }) => {
                    tracing::error!(error = %chain(&error), key = bad.key, "cannot read earlier rules until this member restarts");
                    return None;
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), key = bad.key, "failed to look up earlier rules, retrying")
                }
            }
            pause.wait().await;
        }
    }

    fn ignored(&self, known: &mut Known, key: &str) {
        self.metrics.rules_ignored();
        known.ignored.insert(key.to_owned());
    }
}

/// Returns the newest version of a document before `revision` that can be used, with its own
/// revision. Versions before a deletion do not count.
///
/// # Errors
/// When JetStream does not answer, or this user may not read single messages of the bucket.
pub async fn last_good(
    nats: &Nats,
    key: &str,
    revision: u64,
) -> Result<Option<(u64, Arc<Engine>)>, NatsError> {
    let bucket = nats.names.rules_bucket();
    let (stream, subject) = (bucket_stream(&bucket), format!("$KV.{bucket}.{key}"));
    let (mut from, mut versions) = (1, Vec::new());
    while let Some(version) = raw::next(nats, &stream, &subject, from).await? {
        if version.sequence >= revision {
            break;
        }
        from = version.sequence + 1;
        versions.push(version);
    }
    let is_put = |version: &RawMessage| {
        version
            .read_headers()
            .map_or(Operation::Put, |h| operation(&h))
            == Operation::Put
    };
    for version in versions.into_iter().rev().take_while(is_put) {
        if let Ok(engine) = compiled(version.payload).await {
            return Ok(Some((version.sequence, Arc::new(engine))));
        }
    }
    Ok(None)
}
