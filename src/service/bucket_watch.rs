//! Watches a bucket once for the whole process, and tells each partition held here of its own
//! users' entries.

use std::collections::BTreeMap;

use tokio::sync::{mpsc, watch};

use super::catch_up::CatchUp;
use super::pause::Pause;
use crate::http::{Readiness, Reading};
use crate::metrics::{Metrics, SetAside};
use crate::nats::bucket::{Entry, Unreadable, Watched};
use crate::nats::link::Link;
use crate::nats::{Names, Nats, NatsError, chain};
use crate::partition::{Partition, of_user};
use crate::router::Input;
use crate::token::UserId;

/// Changes that wait for a partition to take them in.
const MAX_WAITING: usize = 8_192;

/// An update for a partition.
#[derive(Debug)]
pub enum Update {
    /// An entry was put or deleted.
    Changed(Input),
    /// All entries of the time of the subscription have been sent.
    Loaded,
    /// All changes were sent that had been made before [`Follow::catch_up`] was called, or took too
    /// long.
    CaughtUp,
}

/// The reason why an entry is not Bellhop's. The key's earlier meaning stays.
pub type NotOurs = Box<dyn std::error::Error + Send + Sync>;

/// Returns the user of an entry, and the input for that user's partition.
pub type Read = fn(&Names, &Entry) -> Result<(UserId, Input), NotOurs>;

/// A bucket to watch.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name.
    pub bucket: String,
    /// The name of one entry in messages.
    pub what: &'static str,
    /// The kind under which unreadable entries are counted.
    pub kind: SetAside,
    /// Reads an entry.
    pub read: Read,
    /// The flag that is set while the bucket is being read.
    pub reading: fn(&mut Reading) -> &mut bool,
}

/// Asks for what concerns a partition.
#[derive(Debug, Clone)]
pub struct Follow {
    requests: mpsc::Sender<Request>,
}

impl Follow {
    /// Starts the task that watches.
    ///
    /// It watches over `link`; what does not arrive there, it reads over `nats`.
    pub fn start(
        link: Link,
        nats: Nats,
        partitions: u16,
        metrics: Metrics,
        readiness: watch::Sender<Readiness>,
        source: Source,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        // Each partition has one request of a kind under way.
        let (sender, requests) = mpsc::channel(2 * usize::from(partitions).max(1));
        (
            Self { requests: sender },
            tokio::spawn(follow(
                link, nats, partitions, metrics, readiness, source, requests,
            )),
        )
    }

    /// The partition's entries: those there are, [`Update::Loaded`], and every change, until the
    /// receiver is dropped.
    pub async fn follow(&self, partition: Partition) -> mpsc::Receiver<Update> {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        // The watch ends with the process only.
        let _ = self.requests.send(Request::Follow(partition, sender)).await;
        receiver
    }

    /// Asks for [`Update::CaughtUp`], behind every change that was made before.
    pub async fn catch_up(&self, partition: Partition) {
        let _ = self.requests.send(Request::CatchUp(partition)).await;
    }
}

#[derive(Debug)]
enum Request {
    Follow(Partition, mpsc::Sender<Update>),
    CatchUp(Partition),
}

struct Follower {
    sender: mpsc::Sender<Update>,
    knows: Knows,
}

/// The progress of a subscriber.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Knows {
    /// A watch must begin for it.
    Nothing,
    /// The watch that is being loaded began after it asked.
    Some,
    All,
}

async fn follow(
    link: Link,
    nats: Nats,
    partitions: u16,
    metrics: Metrics,
    readiness: watch::Sender<Readiness>,
    source: Source,
    mut requests: mpsc::Receiver<Request>,
) {
    let mut followers: BTreeMap<Partition, Follower> = BTreeMap::new();
    // A newcomer needs everything from the start, so a second watch begins. The first one goes on
    // meanwhile, so that no other subscriber waits for updates.
    let (mut current, mut fresh): (Option<Watched>, Option<Watched>) = (None, None);
    // How far the second one has come.
    let mut sent_revision = 0;
    let mut pause = Pause::default();
    let mut catch_up = CatchUp::new(nats.clone(), source.bucket.clone());
    loop {
        if fresh.is_none()
            && followers
                .values()
                .any(|follower| follower.knows != Knows::All)
        {
            (fresh, sent_revision) = (
                Some(Watched::new(
                    &link,
                    &nats,
                    source.bucket.clone(),
                    Unreadable::Removed,
                )),
                0,
            );
            advance(&mut followers, Knows::Nothing, Knows::Some);
        }
        if fresh.as_ref().is_some_and(Watched::is_loaded) {
            current = fresh.take();
            for follower in advance(&mut followers, Knows::Some, Knows::All) {
                let _ = follower.sender.send(Update::Loaded).await;
            }
            continue; // A partition may have subscribed meanwhile.
        }
        for partition in catch_up.reached(current.as_ref().map_or(0, Watched::complete_to)) {
            if let Some(follower) = followers.get(&partition) {
                let _ = follower.sender.send(Update::CaughtUp).await; // If it is gone, another task follows.
            }
        }
        readiness.send_if_modified(|readiness| {
            std::mem::replace((source.reading)(&mut readiness.reading), fresh.is_some())
                != fresh.is_some()
        });
        let (entry, is_fresh) = tokio::select! {
            request = requests.recv() => {
                let Some(mut request) = request else { return };
                loop {
                    match request {
                        Request::Follow(partition, sender) => {
                            // A watch that is being loaded goes on to its end: starting again for
                            // each subscriber might never end.
                            followers.insert(partition, Follower { sender, knows: Knows::Nothing });
                            catch_up.forget(partition);
                        }
                        Request::CatchUp(partition) => catch_up.want(partition),
                    }
                    // Partitions are taken in groups, and one fresh watch serves them all.
                    match requests.try_recv() {
                        Ok(next) => request = next,
                        Err(_) => break,
                    }
                }
                continue;
            }
            () = catch_up.step() => continue,
            entry = next(&mut current) => (entry, false),
            entry = next(&mut fresh) => (entry, true),
        };
        match entry {
            // The second watch tells a key's latest value only, in the order of revisions: this one
            // is sent, or outdated, and the first watch may be gone before it sends the newer one.
            Ok(None) => pause.reset(), // A watch may be loaded now.
            Ok(Some(entry)) if !is_fresh && fresh.is_some() && entry.revision <= sent_revision => {}
            Ok(Some(entry)) => {
                pause.reset();
                if is_fresh {
                    sent_revision = entry.revision;
                }
                if entry.is_unreadable {
                    metrics.set_aside(source.kind);
                }
                tell(&mut followers, &nats.names, partitions, &source, &entry).await;
            }
            // It continues behind the last entry that was sent.
            Err(error) => {
                tracing::warn!(error = %chain(&error), bucket = source.bucket, "watch ended, restarting it");
                pause.wait().await;
            }
        }
    }
}

/// Those who know as much as `from` know `to` from now on. Answers who.
fn advance(
    followers: &mut BTreeMap<Partition, Follower>,
    from: Knows,
    to: Knows,
) -> Vec<&mut Follower> {
    let mut advanced: Vec<_> = followers
        .values_mut()
        .filter(|follower| follower.knows == from)
        .collect();
    advanced.iter_mut().for_each(|follower| follower.knows = to);
    advanced
}

async fn next(watch: &mut Option<Watched>) -> Result<Option<Entry>, NatsError> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

async fn tell(
    followers: &mut BTreeMap<Partition, Follower>,
    names: &Names,
    partitions: u16,
    source: &Source,
    entry: &Entry,
) {
    let (user, input) = match (source.read)(names, entry) {
        Ok(read) => read,
        Err(problem) => {
            tracing::warn!(key = entry.key, %problem, "not {}, ignored", source.what);
            return;
        }
    };
    let partition = of_user(&user, partitions);
    if let Some(follower) = followers.get(&partition)
        && follower.sender.send(Update::Changed(input)).await.is_err()
    {
        followers.remove(&partition);
    }
}
