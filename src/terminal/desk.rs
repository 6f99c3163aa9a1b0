//! What one user has before them: the windows that are open, what came lately, and what waits for a window's word. Pure.
//!
//! A reminder is *shown* when a window has said that it is on its page. Only then it is accepted: what was merely written
//! to a connection may be lost with it, and Bellhop would have forgotten it. A window says how far it has come, so one
//! word stands for everything before it, and the word of any window is enough.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::events::{self, Hello};
use crate::client::{Reason, Reminder, Source, UserId};

/// Windows of one user. A browser allows itself fewer connections to one server.
pub(super) const MOST_WINDOWS: usize = 16;
/// Events that a window may be behind, more than one request of Bellhop's brings. Then it is closed, and its browser asks
/// again for what it has not.
pub(super) const MOST_BEHIND: usize = 2_048;
/// How long windows may owe their word until what they owe it for is refused for now. Others wait for the same answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long they may owe it until they count as gone: frozen, or at the end of a dead connection.
const HUNG: Duration = Duration::from_secs(4);
/// How long a user without a window counts as connected: a page that is loaded anew is no absence.
const GRACE: Duration = Duration::from_secs(3);
/// How long after that it is remembered what was shown, for another device that comes back.
const KEEP: Duration = Duration::from_secs(120);
/// What is remembered of what was shown, in reminders and in bytes of their JSON.
const MOST_NOTES: usize = 200;
const MOST_BYTES: usize = 1 << 20;

/// A desk. `H` is how Bellhop is answered about one reminder.
#[derive(Debug)]
pub(super) struct Desk<H> {
    windows: Vec<mpsc::Sender<Bytes>>,
    /// What came lately, the oldest first.
    notes: VecDeque<Note>,
    /// Of the notes' events.
    bytes: usize,
    /// Up to this number everything was shown.
    shown: u64,
    /// What Bellhop waits to hear of.
    pending: Vec<(u64, H)>,
    /// Since when windows could have told of what is not shown.
    owed_since: Option<Instant>,
    /// Up to this number nothing is remembered.
    forgotten: u64,
    away_since: Option<Instant>,
    is_here: bool,
}

#[derive(Debug)]
struct Note {
    number: u64,
    key: Key,
    event: Bytes,
}

/// What a reminder is known by, when it comes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    source: Source,
    id: String,
    meant_for: Option<UserId>,
    published_at: Timestamp,
}

impl Key {
    pub(super) fn of(reminder: &Reminder) -> Self {
        let Reminder { source, id, meant_for, published_at, .. } = reminder;
        Self { source: source.clone(), id: id.clone(), meant_for: meant_for.clone(), published_at: *published_at }
    }
}

/// What becomes of a reminder that is put on a desk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Put<H> {
    /// It waits for a window's word.
    Waits,
    /// It was shown before.
    Shown(H),
    /// It is refused at once.
    Refused(H, Reason),
}

/// What time has done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passed<H> {
    /// Nothing that others should know.
    Nothing,
    /// These were not shown in time. When they come again, they may have been.
    Late(Vec<H>),
    /// The user has left, and these were not shown.
    Left(Vec<H>),
    /// The user is long gone, and the desk can go, too.
    Over,
}

impl<H> Desk<H> {
    /// An empty one. Numbers up to `last` were given away before it was there.
    pub(super) fn new(last: u64, now: Instant) -> Self {
        Self {
            windows: Vec::new(),
            notes: VecDeque::new(),
            bytes: 0,
            shown: last,
            pending: Vec::new(),
            owed_since: None,
            forgotten: last,
            away_since: Some(now),
            is_here: false,
        }
    }

    /// Opens a window. Its page has everything up to the number `after`, if it names one, and is sent what it lacks; where
    /// that is not remembered, all that is. Answers whether the user has come by that, or `None` for a window too many.
    pub(super) fn open(
        &mut self,
        now: Instant,
        window: mpsc::Sender<Bytes>,
        after: Option<u64>,
        hello: &Hello<'_>,
    ) -> Option<bool> {
        if self.windows.len() >= MOST_WINDOWS {
            return None;
        }
        let after = after.filter(|after| *after >= self.forgotten);
        let mut first = hello.event(after.is_some());
        for note in self.notes.iter().filter(|note| after.is_none_or(|after| note.number > after)) {
            first.extend_from_slice(&note.event);
        }
        if window.try_send(first.into()).is_ok() {
            self.windows.push(window);
            self.away_since = None;
            // It has the time that every window has.
            self.owed_since = self.has_unshown().then_some(now);
        }
        let has_come = !self.is_here && !self.windows.is_empty();
        self.is_here |= has_come;
        Some(has_come)
    }

    /// Whether the user counts as connected.
    pub(super) fn is_here(&self) -> bool {
        self.is_here
    }

    /// Puts a reminder on the desk, under this number if it is new there, and sends it to all windows.
    pub(super) fn put(&mut self, now: Instant, (number, key, json): (u64, Key, &str), handle: H) -> Put<H> {
        if !self.is_here {
            return Put::Refused(handle, Reason::NotConnected);
        }
        let known = self.notes.iter().find(|note| note.key == key).map(|note| note.number);
        match known {
            Some(known) if known <= self.shown => return Put::Shown(handle),
            // What is new must not overtake what was refused.
            _ if self.has_owed_for(PATIENCE, now) => return Put::Refused(handle, Reason::Busy),
            Some(known) => self.pending.push((known, handle)),
            None => {
                let event = events::reminder(number, json);
                self.send(&event, now);
                self.bytes += event.len();
                self.notes.push_back(Note { number, key, event });
                self.pending.push((number, handle));
                self.owed_since.get_or_insert(now);
                self.forget();
            }
        }
        Put::Waits
    }

    /// A window's page has everything up to this number. Answers what is shown by that.
    pub(super) fn seen(&mut self, now: Instant, number: u64) -> Vec<H> {
        let newest = self.notes.back().map_or(self.shown, |note| note.number);
        self.shown = self.shown.max(number.min(newest));
        self.owed_since = self.has_unshown().then_some(now);
        let (seen, pending) = std::mem::take(&mut self.pending).into_iter().partition(|(it, _)| *it <= self.shown);
        self.pending = pending;
        self.forget();
        handles(seen)
    }

    /// Tells all windows that the server is there, and finds out which connections are not.
    pub(super) fn ping(&mut self, now: Instant) {
        self.send(&Bytes::from_static(events::PING), now);
    }

    /// Looks at the time, and which windows are still there.
    pub(super) fn pass(&mut self, now: Instant) -> Passed<H> {
        let is_hung = self.has_owed_for(HUNG, now);
        self.windows.retain(|window| !is_hung && !window.is_closed());
        self.note_absence(now);
        let away = self.away_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if self.is_here && away >= GRACE {
            return Passed::Left(self.leave());
        }
        if !self.is_here && away >= KEEP {
            return Passed::Over;
        }
        match self.has_owed_for(PATIENCE, now) && !self.pending.is_empty() {
            true => Passed::Late(handles(std::mem::take(&mut self.pending))),
            false => Passed::Nothing,
        }
    }

    /// Closes all windows. Answers what was not shown.
    pub(super) fn clear(mut self) -> Vec<H> {
        self.windows.clear();
        self.leave()
    }

    /// What was not shown is forgotten here: Bellhop decides anew what becomes of it, and somebody else may get it.
    fn leave(&mut self) -> Vec<H> {
        self.is_here = false;
        self.owed_since = None;
        let shown = self.notes.partition_point(|note| note.number <= self.shown);
        for note in self.notes.drain(shown..) {
            self.bytes -= note.event.len();
        }
        handles(std::mem::take(&mut self.pending))
    }

    fn has_unshown(&self) -> bool {
        self.notes.back().is_some_and(|note| note.number > self.shown)
    }

    fn has_owed_for(&self, long: Duration, now: Instant) -> bool {
        self.owed_since.is_some_and(|since| now >= since + long)
    }

    fn send(&mut self, event: &Bytes, now: Instant) {
        self.windows.retain(|window| window.try_send(event.clone()).is_ok());
        self.note_absence(now);
    }

    fn note_absence(&mut self, now: Instant) {
        if self.windows.is_empty() {
            self.away_since.get_or_insert(now);
        }
    }

    /// The oldest go that were shown and are too many.
    fn forget(&mut self) {
        while self.notes.len() > MOST_NOTES || self.bytes > MOST_BYTES {
            let Some(note) = self.notes.front().filter(|note| note.number <= self.shown) else { return };
            self.bytes -= note.event.len();
            self.forgotten = note.number;
            self.notes.pop_front();
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
    const HELLO: Hello<'static> = Hello { user: "alice", instance: "web-1" };

    /// A desk whose handles are the reminders' numbers.
    struct Scene {
        desk: Desk<u64>,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            let now = Instant::now();
            Self { desk: Desk::new(0, now), now }
        }

        fn open(&mut self, after: Option<u64>) -> mpsc::Receiver<Bytes> {
            let (window, received) = mpsc::channel(MOST_BEHIND);
            self.desk.open(self.now, window, after, &HELLO).unwrap();
            received
        }

        /// A reminder comes, once more if it has come before.
        fn come(&mut self, number: u64, id: u64, text: &str) -> Put<u64> {
            let source = "billing".parse().unwrap();
            let key = Key { source, id: id.to_string(), meant_for: None, published_at: Timestamp::UNIX_EPOCH };
            self.desk.put(self.now, (number, key, text), id)
        }

        fn put(&mut self, number: u64) {
            assert_eq!(self.come(number, number, &format!(r#"{{"id":"{number}"}}"#)), Put::Waits);
        }

        fn seen(&mut self, number: u64) -> Vec<u64> {
            self.desk.seen(self.now, number)
        }

        fn pass(&mut self, seconds: f64) -> Passed<u64> {
            self.now += Duration::from_secs_f64(seconds);
            self.desk.pass(self.now)
        }
    }

    fn received(events: &mut mpsc::Receiver<Bytes>) -> String {
        std::iter::from_fn(|| events.try_recv().ok()).map(|event| String::from_utf8(event.to_vec()).unwrap()).collect()
    }

    fn is_closed(events: &mut mpsc::Receiver<Bytes>) -> bool {
        received(events);
        matches!(events.try_recv(), Err(mpsc::error::TryRecvError::Disconnected))
    }

    #[test]
    fn the_word_of_one_window_stands_for_all_before_it() {
        let mut scene = Scene::new();
        let (mut desktop, mut phone) = (scene.open(None), scene.open(None));
        (1..=3).for_each(|number| scene.put(number));
        for window in [&mut desktop, &mut phone] {
            let text = received(window);
            assert!(text.contains("id: 3\n") && text.contains(r#"data: {"id":"1"}"#), "{text}");
        }
        assert_eq!(scene.seen(2), [1, 2]);
        assert_eq!(scene.seen(2), NOTHING);
        assert_eq!(scene.seen(99), [3]);
        scene.put(4);
        assert_eq!(scene.seen(3), NOTHING, "a word says nothing about what had not come");
        assert_eq!(scene.come(5, 3, "{}"), Put::Shown(3));
    }

    #[test]
    fn what_was_not_shown_in_time_is_refused_with_all_behind_it_until_it_is() {
        let mut scene = Scene::new();
        let _window = scene.open(None);
        (1..=2).for_each(|number| scene.put(number));
        assert_eq!(scene.pass(0.4), Passed::Nothing);
        assert_eq!(scene.pass(0.1), Passed::Late(vec![1, 2]));
        assert_eq!(scene.pass(0.1), Passed::Nothing);
        for (number, id) in [(3, 1), (4, 3)] {
            assert_eq!(scene.come(number, id, "{}"), Put::Refused(id, Reason::Busy));
        }
        assert_eq!(scene.seen(2), NOTHING, "nobody waits for it, but it is remembered");
        assert_eq!([scene.come(5, 1, "{}"), scene.come(6, 2, "{}")], [Put::Shown(1), Put::Shown(2)]);
        assert_eq!(scene.come(7, 3, "{}"), Put::Waits);
    }

    #[test]
    fn windows_that_owe_their_word_for_long_are_closed_and_their_user_leaves() {
        let mut scene = Scene::new();
        let mut window = scene.open(None);
        scene.put(1);
        assert_eq!(scene.pass(3.9), Passed::Late(vec![1]));
        assert!(!is_closed(&mut window));
        assert_eq!(scene.pass(0.1), Passed::Nothing);
        assert!(is_closed(&mut window));
        assert_eq!(scene.pass(3.0), Passed::Left(vec![]));
        assert_eq!(scene.come(2, 2, "{}"), Put::Refused(2, Reason::NotConnected));
        let mut window = scene.open(Some(0));
        assert!(!received(&mut window).contains("id: 1\n"), "somebody else may have it by now");
    }

    #[test]
    fn a_window_that_comes_back_in_time_is_asked_again() {
        let mut scene = Scene::new();
        let _hung = scene.open(None);
        scene.put(1);
        scene.pass(4.0);
        let mut window = scene.open(Some(0));
        assert!(received(&mut window).contains("id: 1\n"));
        assert_eq!(scene.come(2, 1, "{}"), Put::Waits);
        assert_eq!(scene.pass(3.9), Passed::Late(vec![1]));
        assert!(!is_closed(&mut window));
        assert_eq!(scene.come(3, 1, "{}"), Put::Refused(1, Reason::Busy));
        assert_eq!(scene.seen(1), NOTHING);
        assert_eq!(scene.pass(60.0), Passed::Nothing);
        assert!(!is_closed(&mut window));
    }

    #[test]
    fn a_page_that_is_loaded_anew_is_no_absence() {
        let mut scene = Scene::new();
        drop(scene.open(None));
        scene.pass(0.0);
        scene.put(1);
        assert_eq!(scene.pass(0.4), Passed::Nothing);
        let mut window = scene.open(None);
        assert!(received(&mut window).contains("id: 1\n"));
        assert_eq!(scene.seen(1), [1]);
        assert_eq!(scene.pass(60.0), Passed::Nothing);
    }

    #[test]
    fn who_is_long_gone_is_forgotten() {
        let mut scene = Scene::new();
        drop(scene.open(None));
        scene.pass(0.0);
        assert_eq!(scene.pass(3.0), Passed::Left(vec![]));
        assert_eq!(scene.pass(116.9), Passed::Nothing);
        assert_eq!(scene.pass(0.1), Passed::Over);
    }

    #[test]
    fn a_window_that_comes_back_gets_what_it_lacks_or_is_told_that_nobody_knows() {
        let mut scene = Scene::new();
        let _first = scene.open(None);
        let most = MOST_NOTES as u64;
        for number in 1..=most + 10 {
            scene.put(number);
            scene.seen(number);
        }
        let mut window = scene.open(Some(most));
        let text = received(&mut window);
        assert!(text.contains(r#""resumed":true"#), "{text}");
        let numbers: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
        assert_eq!(numbers, (most + 1..=most + 10).map(|number| number.to_string()).collect::<Vec<_>>());
        for after in [Some(9), None] {
            let mut window = scene.open(after);
            let text = received(&mut window);
            assert!(text.contains(r#""resumed":false"#), "{text}");
            assert_eq!(text.matches("id: ").count(), MOST_NOTES);
        }
    }

    #[test]
    fn what_is_not_shown_is_kept_however_much_it_is() {
        let mut scene = Scene::new();
        let _window = scene.open(None);
        let large = "x".repeat(MOST_BYTES / 2);
        for number in 1..=3 {
            assert_eq!(scene.come(number, number, &large), Put::Waits);
        }
        let mut window = scene.open(None);
        assert_eq!(received(&mut window).matches("id: ").count(), 3);
        assert_eq!(scene.seen(3), [1, 2, 3]);
        let mut window = scene.open(None);
        assert_eq!(received(&mut window).matches("id: ").count(), 1);
    }

    #[test]
    fn a_window_that_does_not_read_is_closed() {
        let mut scene = Scene::new();
        let (mut slow, mut quick) = (scene.open(None), scene.open(None));
        for number in 1..=MOST_BEHIND as u64 {
            scene.put(number);
            received(&mut quick);
        }
        assert!(is_closed(&mut slow) && !is_closed(&mut quick));
    }

    #[test]
    fn there_is_a_bound_on_windows() {
        let mut scene = Scene::new();
        let _open: Vec<_> = (0..MOST_WINDOWS).map(|_| scene.open(None)).collect();
        assert_eq!(scene.desk.open(scene.now, mpsc::channel(1).0, None, &HELLO), None);
    }
}
