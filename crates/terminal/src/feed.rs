//! The feed of one user: the windows that are open, recent reminders, and those that no window has
//! confirmed yet. Pure.
//!
//! A reminder is *shown* when a window has confirmed that it is on its page. Only then is it
//! accepted: what was merely written to a connection may be lost with it, and Bellhop would have
//! forgotten it. A window confirms how far it has come, so one confirmation stands for everything
//! before it, and that of any window is enough.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellhop_client::{Reason, Reminder, Source, UserId};
use jiff::Timestamp;
use tokio::sync::mpsc;

/// The most windows of one user. A browser allows itself fewer connections to one server.
const MAX_WINDOWS: usize = 16;
/// The most reminders that a window may be behind, more than one request of Bellhop's brings. Then
/// it is closed, and its browser connects again.
const MAX_BEHIND: usize = 2_048;
/// Maximum time for windows to confirm a reminder, before it is refused for now. Others wait for
/// the same answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// Maximum time before they count as gone: frozen, or at the end of a dead connection.
const HUNG: Duration = Duration::from_secs(4);
/// Time for which a user without a window counts as connected: reloading a page is not an absence.
const GRACE: Duration = Duration::from_secs(3);
/// Further time for which recent reminders are remembered, for another device that comes back.
const KEEP: Duration = Duration::from_secs(120);
/// The most reminders remembered after they were shown, and the most bytes of their JSON.
const MAX_RECENT: usize = 200;
const MAX_BYTES: usize = 1 << 20;

/// A reminder as windows get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    /// Its number among all that this server sends.
    pub number: u64,
    /// The reminder.
    pub json: Arc<str>,
}

/// An open window. It is closed by whichever end is dropped first.
#[derive(Debug)]
pub(super) struct Window {
    /// True if `missed` is all that its page lacks.
    pub resumed: bool,
    /// Reminders from before it was opened, the oldest first.
    pub missed: Vec<Item>,
    /// Reminders since then.
    pub live: mpsc::Receiver<Item>,
}

/// A user's feed. `H` is the handle by which Bellhop is answered about one reminder.
#[derive(Debug)]
pub(super) struct Feed<H> {
    windows: Vec<mpsc::Sender<Item>>,
    /// Recent reminders, the oldest first.
    recent: VecDeque<Recent>,
    /// Of their JSON.
    bytes: usize,
    /// Up to this number everything was shown.
    shown: u64,
    /// Handles of reminders that Bellhop waits to be answered about.
    pending: Vec<(u64, H)>,
    /// Since when windows could have confirmed what is not shown.
    unconfirmed_since: Option<Instant>,
    /// Up to this number nothing is remembered.
    forgotten: u64,
    away_since: Option<Instant>,
    is_connected: bool,
}

#[derive(Debug)]
struct Recent {
    key: Key,
    item: Item,
}

/// Identifies a reminder when it comes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    source: Source,
    id: String,
    meant_for: Option<UserId>,
    published_at: Timestamp,
}

impl Key {
    pub(super) fn of(reminder: &Reminder) -> Self {
        let Reminder {
            source,
            id,
            meant_for,
            published_at,
            ..
        } = reminder;
        Self {
            source: source.clone(),
            id: id.clone(),
            meant_for: meant_for.clone(),
            published_at: *published_at,
        }
    }
}

/// The result of adding a reminder.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added<H> {
    /// It waits for a window's confirmation.
    Waits,
    /// It was shown before.
    Shown(H),
    /// It is refused at once.
    Refused(H, Reason),
}

/// The result of a tick.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tick<H> {
    /// Nothing that Bellhop should know.
    Nothing,
    /// These were not shown in time. When they come again, they may have been.
    Late(Vec<H>),
    /// The user has left, and these were not shown.
    Left(Vec<H>),
    /// The user left long ago, and the feed can go, too.
    Over,
}

impl<H> Feed<H> {
    /// Returns an empty feed. Numbers up to `last` were used before it was there.
    pub(super) fn new(last: u64, now: Instant) -> Self {
        Self {
            windows: Vec::new(),
            recent: VecDeque::new(),
            bytes: 0,
            shown: last,
            pending: Vec::new(),
            unconfirmed_since: None,
            forgotten: last,
            away_since: Some(now),
            is_connected: false,
        }
    }

    /// Opens a window whose page has everything up to the number `after`, if it names one. Its user
    /// is connected from then on. Returns `None` for a window too many.
    pub(super) fn open(&mut self, now: Instant, after: Option<u64>) -> Option<Window> {
        if self.windows.len() >= MAX_WINDOWS {
            return None;
        }
        let after = after.filter(|after| *after >= self.forgotten);
        let items = self.recent.iter().map(|recent| &recent.item);
        let missed = items
            .filter(|item| after.is_none_or(|after| item.number > after))
            .cloned()
            .collect();
        let (window, live) = mpsc::channel(MAX_BEHIND);
        self.windows.push(window);
        self.away_since = None;
        self.is_connected = true;
        // It has the time that every window has.
        self.unconfirmed_since = self.has_unshown().then_some(now);
        Some(Window {
            resumed: after.is_some(),
            missed,
            live,
        })
    }

    /// Returns whether the user counts as connected.
    pub(super) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Adds a reminder, under this number if it is new, and sends it to all windows.
    pub(super) fn add(&mut self, now: Instant, key: Key, item: Item, handle: H) -> Added<H> {
        if !self.is_connected {
            return Added::Refused(handle, Reason::NotConnected);
        }
        let known = self
            .recent
            .iter()
            .find(|recent| recent.key == key)
            .map(|recent| recent.item.number);
        match known {
            Some(known) if known <= self.shown => return Added::Shown(handle),
            // A new one must not overtake one that was refused.
            _ if self.is_unconfirmed_for(PATIENCE, now) => {
                return Added::Refused(handle, Reason::Busy);
            }
            Some(known) => self.pending.push((known, handle)),
            None => {
                self.windows
                    .retain(|window| window.try_send(item.clone()).is_ok());
                self.note_absence(now);
                self.bytes += item.json.len();
                self.pending.push((item.number, handle));
                self.recent.push_back(Recent { key, item });
                self.unconfirmed_since.get_or_insert(now);
                self.forget();
            }
        }
        Added::Waits
    }

    /// Notes that a window shows everything up to this number. Returns the handles of what is shown
    /// by that.
    pub(super) fn seen(&mut self, now: Instant, number: u64) -> Vec<H> {
        let newest = self
            .recent
            .back()
            .map_or(self.shown, |recent| recent.item.number);
        self.shown = self.shown.max(number.min(newest));
        self.unconfirmed_since = self.has_unshown().then_some(now);
        let (seen, pending) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|(it, _)| *it <= self.shown);
        self.pending = pending;
        self.forget();
        handles(seen)
    }

    /// Looks at the time, and at which windows are still open.
    pub(super) fn tick(&mut self, now: Instant) -> Tick<H> {
        let is_hung = self.is_unconfirmed_for(HUNG, now);
        self.windows
            .retain(|window| !is_hung && !window.is_closed());
        self.note_absence(now);
        let away = self
            .away_since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if self.is_connected && away >= GRACE {
            return Tick::Left(self.leave());
        }
        if !self.is_connected && away >= KEEP {
            return Tick::Over;
        }
        match self.is_unconfirmed_for(PATIENCE, now) && !self.pending.is_empty() {
            true => Tick::Late(handles(std::mem::take(&mut self.pending))),
            false => Tick::Nothing,
        }
    }

    /// Closes all windows. Returns the handles of what was not shown.
    pub(super) fn close(mut self) -> Vec<H> {
        self.windows.clear();
        self.leave()
    }

    /// Forgets what was not shown: Bellhop decides again what becomes of it, and an associate may
    /// get it.
    fn leave(&mut self) -> Vec<H> {
        self.is_connected = false;
        self.unconfirmed_since = None;
        let shown = self
            .recent
            .partition_point(|recent| recent.item.number <= self.shown);
        for recent in self.recent.drain(shown..) {
            self.bytes -= recent.item.json.len();
        }
        handles(std::mem::take(&mut self.pending))
    }

    fn has_unshown(&self) -> bool {
        self.recent
            .back()
            .is_some_and(|recent| recent.item.number > self.shown)
    }

    fn is_unconfirmed_for(&self, long: Duration, now: Instant) -> bool {
        self.unconfirmed_since
            .is_some_and(|since| now >= since + long)
    }

    fn note_absence(&mut self, now: Instant) {
        if self.windows.is_empty() {
            self.away_since.get_or_insert(now);
        }
    }

    /// Forgets the oldest of what was shown, as far as it is too much.
    fn forget(&mut self) {
        while self.recent.len() > MAX_RECENT || self.bytes > MAX_BYTES {
            let Some(Recent { item, .. }) = self
                .recent
                .front()
                .filter(|it| it.item.number <= self.shown)
            else {
                return;
            };
            self.bytes -= item.json.len();
            self.forgotten = item.number;
            self.recent.pop_front();
        }
    }
}

fn handles<H>(pending: Vec<(u64, H)>) -> Vec<H> {
    pending.into_iter().map(|(_, handle)| handle).collect()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Some instant is needed to count from; which one makes no difference.
mod tests {
    use super::*;

    const NOTHING: [u64; 0] = [];

    /// A feed whose handles are the reminders' numbers.
    struct Scene {
        feed: Feed<u64>,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            let now = Instant::now();
            Self {
                feed: Feed::new(0, now),
                now,
            }
        }

        fn open(&mut self, after: Option<u64>) -> Window {
            self.feed.open(self.now, after).unwrap()
        }

        /// Adds a reminder, which has come before if its id has.
        fn come(&mut self, number: u64, id: u64, json: &str) -> Added<u64> {
            let source = "billing".parse().unwrap();
            let key = Key {
                source,
                id: id.to_string(),
                meant_for: None,
                published_at: Timestamp::UNIX_EPOCH,
            };
            self.feed.add(
                self.now,
                key,
                Item {
                    number,
                    json: json.into(),
                },
                id,
            )
        }

        fn add(&mut self, number: u64) {
            assert_eq!(self.come(number, number, "{}"), Added::Waits);
        }

        fn seen(&mut self, number: u64) -> Vec<u64> {
            self.feed.seen(self.now, number)
        }

        fn tick(&mut self, seconds: f64) -> Tick<u64> {
            self.now += Duration::from_secs_f64(seconds);
            self.feed.tick(self.now)
        }
    }

    impl Window {
        /// Takes the numbers of all that has come.
        fn received(&mut self) -> Vec<u64> {
            let live = std::iter::from_fn(|| self.live.try_recv().ok());
            self.missed
                .drain(..)
                .chain(live)
                .map(|item| item.number)
                .collect()
        }

        fn is_closed(&mut self) -> bool {
            self.received();
            matches!(
                self.live.try_recv(),
                Err(mpsc::error::TryRecvError::Disconnected)
            )
        }
    }

    #[test]
    fn one_windows_confirmation_counts_for_all_before_it() {
        let mut scene = Scene::new();
        let (mut desktop, mut phone) = (scene.open(None), scene.open(None));
        (1..=3).for_each(|number| scene.add(number));
        assert_eq!(
            [desktop.received(), phone.received()],
            [[1, 2, 3], [1, 2, 3]]
        );
        assert_eq!(scene.seen(2), [1, 2]);
        assert_eq!(scene.seen(2), NOTHING);
        assert_eq!(scene.seen(99), [3]);
        scene.add(4);
        assert_eq!(
            scene.seen(3),
            NOTHING,
            "an earlier confirmation says nothing about what had not come"
        );
        assert_eq!(scene.come(5, 3, "{}"), Added::Shown(3));
    }

    #[test]
    fn late_reminders_are_refused_with_all_behind_them() {
        let mut scene = Scene::new();
        let _window = scene.open(None);
        (1..=2).for_each(|number| scene.add(number));
        assert_eq!(scene.tick(0.4), Tick::Nothing);
        assert_eq!(scene.tick(0.1), Tick::Late(vec![1, 2]));
        assert_eq!(scene.tick(0.1), Tick::Nothing);
        for (number, id) in [(3, 1), (4, 3)] {
            assert_eq!(
                scene.come(number, id, "{}"),
                Added::Refused(id, Reason::Busy)
            );
        }
        assert_eq!(
            scene.seen(2),
            NOTHING,
            "no request waits for it, but it is remembered"
        );
        assert_eq!(
            [scene.come(5, 1, "{}"), scene.come(6, 2, "{}")],
            [Added::Shown(1), Added::Shown(2)]
        );
        assert_eq!(scene.come(7, 3, "{}"), Added::Waits);
    }

    #[test]
    fn unresponsive_windows_are_closed_and_their_user_leaves() {
        let mut scene = Scene::new();
        let mut window = scene.open(None);
        scene.add(1);
        assert_eq!(scene.tick(3.9), Tick::Late(vec![1]));
        assert!(!window.is_closed());
        assert_eq!(scene.tick(0.1), Tick::Nothing);
        assert!(window.is_closed());
        assert_eq!(scene.tick(3.0), Tick::Left(vec![]));
        assert_eq!(
            scene.come(2, 2, "{}"),
            Added::Refused(2, Reason::NotConnected)
        );
        assert_eq!(
            scene.open(Some(0)).received(),
            NOTHING,
            "an associate may have it by now"
        );
    }

    #[test]
    fn a_window_that_comes_back_is_asked_again() {
        let mut scene = Scene::new();
        let _hung = scene.open(None);
        scene.add(1);
        scene.tick(4.0);
        let mut window = scene.open(Some(0));
        assert_eq!(window.received(), [1]);
        assert_eq!(scene.come(2, 1, "{}"), Added::Waits);
        assert_eq!(scene.tick(3.9), Tick::Late(vec![1]));
        assert!(!window.is_closed());
        assert_eq!(scene.come(3, 1, "{}"), Added::Refused(1, Reason::Busy));
        assert_eq!(scene.seen(1), NOTHING);
        assert_eq!(scene.tick(60.0), Tick::Nothing);
        assert!(!window.is_closed());
    }

    #[test]
    fn a_reloaded_page_is_no_absence() {
        let mut scene = Scene::new();
        drop(scene.open(None));
        scene.tick(0.0);
        scene.add(1);
        assert_eq!(scene.tick(0.4), Tick::Nothing);
        let mut window = scene.open(None);
        assert_eq!(window.received(), [1]);
        assert_eq!(scene.seen(1), [1]);
        assert_eq!(scene.tick(60.0), Tick::Nothing);
    }

    #[test]
    fn departed_user_is_forgotten_later() {
        let mut scene = Scene::new();
        drop(scene.open(None));
        scene.tick(0.0);
        assert_eq!(scene.tick(3.0), Tick::Left(vec![]));
        assert_eq!(scene.tick(116.9), Tick::Nothing);
        assert_eq!(scene.tick(0.1), Tick::Over);
    }

    #[test]
    fn a_window_resumes_only_where_all_is_remembered() {
        let mut scene = Scene::new();
        let _first = scene.open(None);
        let most = MAX_RECENT as u64;
        for number in 1..=most + 10 {
            scene.add(number);
            scene.seen(number);
        }
        let mut window = scene.open(Some(most));
        assert!(window.resumed);
        assert_eq!(
            window.received(),
            (most + 1..=most + 10).collect::<Vec<_>>()
        );
        for after in [Some(9), None] {
            let mut window = scene.open(after);
            assert!(!window.resumed);
            assert_eq!(window.received().len(), MAX_RECENT);
        }
    }

    #[test]
    fn unshown_reminders_are_kept_whatever_their_size() {
        let mut scene = Scene::new();
        let _window = scene.open(None);
        let large = "x".repeat(MAX_BYTES / 2);
        for number in 1..=3 {
            assert_eq!(scene.come(number, number, &large), Added::Waits);
        }
        assert_eq!(scene.open(None).received().len(), 3);
        assert_eq!(scene.seen(3), [1, 2, 3]);
        assert_eq!(scene.open(None).received().len(), 2);
    }

    #[test]
    fn a_window_that_does_not_read_is_closed() {
        let mut scene = Scene::new();
        let (mut slow, mut quick) = (scene.open(None), scene.open(None));
        for number in 1..=MAX_BEHIND as u64 + 1 {
            scene.add(number);
            quick.received();
        }
        assert!(slow.is_closed() && !quick.is_closed());
    }

    #[test]
    fn windows_of_a_user_are_limited() {
        let mut scene = Scene::new();
        let _open: Vec<_> = (0..MAX_WINDOWS).map(|_| scene.open(None)).collect();
        assert!(scene.feed.open(scene.now, None).is_none());
    }
}
