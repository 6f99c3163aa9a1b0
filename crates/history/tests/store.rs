//! The history's databases, each with the same tests.

#![cfg(any(feature = "postgres", feature = "sqlite"))]
#![allow(clippy::unwrap_used)] // A test that cannot go on has failed.
#![allow(clippy::disallowed_methods)] // Deadlines are real time.

use std::collections::BTreeMap;
use std::time::Duration;

use bellhop_history::{Entry, FoundReminder, History, HistoryErrorKind, HistoryUrl, Query};
use fastrand::Rng;
use tempfile::TempDir;

/// A database of a test's own.
struct Place {
    url: HistoryUrl,
    _dir: Option<TempDir>,
}

impl Place {
    #[cfg(feature = "sqlite")]
    async fn sqlite() -> Option<Self> {
        let dir = TempDir::with_prefix("bellhop-history-").unwrap();
        Some(Self {
            url: HistoryUrl::Sqlite(dir.path().join("data/history.db")),
            _dir: Some(dir),
        })
    }

    /// Returns none if tests are to do without PostgreSQL.
    #[cfg(feature = "postgres")]
    async fn postgres() -> Option<Self> {
        Some(Self {
            url: bellhop_testkit::postgres::database()
                .await?
                .parse()
                .unwrap(),
            _dir: None,
        })
    }

    /// Returns an empty database of the same kind.
    async fn another(&self) -> Self {
        let another = match self.url {
            #[cfg(feature = "sqlite")]
            HistoryUrl::Sqlite(_) => Self::sqlite().await,
            #[cfg(feature = "postgres")]
            HistoryUrl::Postgres(_) => Self::postgres().await,
            _ => None,
        };
        another.unwrap()
    }

    async fn open(&self) -> History {
        History::open(&self.url).await.unwrap()
    }
}

/// Runs every test with every database.
macro_rules! over_every_database {
    ($($test:ident,)*) => {
        #[cfg(feature = "sqlite")]
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(&super::Place::sqlite().await.unwrap()).await;
            })*
        }

        #[cfg(feature = "postgres")]
        mod postgres {
            $(#[tokio::test]
            #[cfg_attr(not(has_postgres), ignore = "no PostgreSQL here: apt-get install postgresql")]
            async fn $test() {
                if let Some(place) = super::Place::postgres().await {
                    super::$test(&place).await;
                }
            })*
        }
    };
}

over_every_database! {
    what_is_written_is_found,
    a_reminder_of_which_more_is_known_is_still_one,
    an_erased_user_is_gone_and_does_not_come_back,
    what_is_old_goes_in_small_batches,
    every_question_is_answered_as_by_looking_at_everything,
    repeats_and_crashes_change_nothing,
    pages_stay_right_while_reminders_arrive,
    an_erasure_and_a_writer_do_not_miss_each_other,
    what_was_erased_or_is_old_is_not_found_by_its_text,
    every_question_has_an_index,
    names_that_are_no_names_are_taken,
}

const NOW_MS: i64 = 1_795_000_000_000;

/// Returns an outcome of a reminder, a while after it was published.
fn entry(id: &str, user: &str, outcome: &str, after_ms: i64) -> Entry {
    let at_ms = NOW_MS + after_ms;
    let at = jiff::Timestamp::from_millisecond(at_ms).unwrap();
    Entry {
        source: "billing".into(),
        id: id.into(),
        set: "s".into(),
        user: Some(user.into()),
        published_ms: NOW_MS,
        outcome: outcome.into(),
        at_ms,
        step: format!(r#"{{"outcome":"{outcome}","at":"{at}"}}"#),
        reminder: None,
    }
}

/// A finished reminder.
fn reminder(id: &str, content: &str, tags: &[&str]) -> Option<String> {
    Some(serde_json::json!({"id": id, "content": content, "tags": tags}).to_string())
}

fn all() -> Query {
    Query {
        limit: 1_000,
        ..Query::default()
    }
}

async fn find(history: &History, query: &Query) -> Vec<FoundReminder> {
    history.find(query).await.unwrap().reminders
}

async fn what_is_written_is_found(place: &Place) {
    let history = place.open().await;
    let invoice = Entry {
        reminder: reminder("a", "Invoice 981", &["x"]),
        ..entry("a", "alice", "delivered", 4)
    };
    let written = history
        .write(vec![invoice.clone(), entry("b", "bob", "rejected", 5)])
        .await
        .unwrap();
    assert_eq!(
        (written.new, written.changed, written.erased.len()),
        (2, 0, 0)
    );
    let found = find(
        &history,
        &Query {
            contains: Some("INVOICE".into()),
            tag: Some("x".into()),
            ..all()
        },
    )
    .await;
    assert_eq!(
        (found.len(), Some(&found[0].body)),
        (1, invoice.reminder.as_ref())
    );
    assert_eq!(
        (&*found[0].outcome, found[0].at_ms),
        ("delivered", NOW_MS + 4)
    );
    let refused = find(
        &history,
        &Query {
            outcome: Some("rejected".into()),
            ..all()
        },
    )
    .await;
    assert!(
        refused[0].body.contains(r#""user":"bob""#),
        "{}",
        refused[0].body
    );
    let why = history.why("billing", "a", None).await.unwrap();
    assert_eq!(why.len(), 1);
    assert_eq!(why[0].newest.trail, format!("[{}]", invoice.step));
    assert_eq!(history.why("claims", "a", None).await.unwrap(), []);
}

async fn a_reminder_of_which_more_is_known_is_still_one(place: &Place) {
    let history = place.open().await;
    let delivered = entry("a", "alice", "delivered", 9);
    let parked = Entry {
        reminder: reminder("a", "Invoice", &["x"]),
        ..entry("a", "alice", "parked", 2)
    };
    assert_eq!(history.write(vec![delivered.clone()]).await.unwrap().new, 1);
    assert_eq!(
        history.write(vec![parked.clone()]).await.unwrap().changed,
        1
    );
    let before = find(&history, &all()).await;
    let written = history
        .write(vec![parked.clone(), delivered.clone()])
        .await
        .unwrap();
    assert_eq!((written.new, written.changed), (0, 0));
    assert_eq!(find(&history, &all()).await, before);
    assert_eq!(
        before[0].trail,
        format!("[{},{}]", parked.step, delivered.step)
    );
    assert_eq!(
        (&*before[0].outcome, Some(&before[0].body)),
        ("delivered", parked.reminder.as_ref())
    );
    assert_eq!(
        find(
            &history,
            &Query {
                tag: Some("x".into()),
                ..all()
            }
        )
        .await,
        before
    );
}

async fn an_erased_user_is_gone_and_does_not_come_back(place: &Place) {
    let history = place.open().await;
    let rerouted = entry("b", "bob", "rerouted", 1);
    let to_alice = Entry {
        step: rerouted.step.replace('}', r#","to":"alice"}"#),
        ..rerouted
    };
    history
        .write(vec![entry("a", "alice", "parked", 1), to_alice.clone()])
        .await
        .unwrap();
    assert_eq!(history.erase("alice", NOW_MS + 100).await.unwrap(), 1);
    let late = history
        .write(vec![entry("a", "alice", "delivered", 200), to_alice])
        .await
        .unwrap();
    assert_eq!((late.new, late.changed, &*late.erased[0].id), (0, 0, "a"));
    let left = find(&history, &all()).await;
    assert_eq!(left.len(), 1);
    assert!(!format!("{left:?}").contains("alice"), "{left:?}");
    let later = Entry {
        published_ms: NOW_MS + 101,
        ..entry("a", "alice", "delivered", 200)
    };
    assert_eq!(history.write(vec![later]).await.unwrap().new, 1);
}

async fn what_is_old_goes_in_small_batches(place: &Place) {
    let history = place.open().await;
    let published = |id: &str, ms| Entry {
        published_ms: NOW_MS + ms,
        ..entry(id, "alice", "delivered", 9)
    };
    history
        .write(vec![
            published("a", 0),
            published("b", 1),
            published("c", 2),
            published("d", 3),
        ])
        .await
        .unwrap();
    assert_eq!(history.forget_before(NOW_MS + 3, 2).await.unwrap(), 2);
    assert_eq!(history.forget_before(NOW_MS + 3, 2).await.unwrap(), 1);
    assert_eq!(history.forget_before(NOW_MS + 3, 2).await.unwrap(), 0);
    assert_eq!(find(&history, &all()).await.len(), 1);
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn file_is_readable_by_its_user_alone() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::sqlite().await.unwrap();
    let history = place.open().await;
    history
        .write(vec![entry("a", "alice", "delivered", 4)])
        .await
        .unwrap();
    let HistoryUrl::Sqlite(path) = &place.url else {
        unreachable!()
    };
    for file in std::fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(Result::unwrap)
    {
        assert_eq!(
            file.metadata().unwrap().mode() & 0o077,
            0,
            "{:?}",
            file.file_name()
        );
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn newer_or_foreign_file_is_refused() {
    let place = Place::sqlite().await.unwrap();
    drop(place.open().await);
    let HistoryUrl::Sqlite(path) = &place.url else {
        unreachable!()
    };
    rusqlite::Connection::open(path)
        .unwrap()
        .pragma_update(None, "user_version", 77)
        .unwrap();
    let error = History::open(&place.url).await.unwrap_err();
    assert_eq!(error.kind(), HistoryErrorKind::Broken);
    assert!(error.to_string().contains("version 77"), "{error}");
    std::fs::write(
        path,
        "no database, and long enough to be looked at by SQLite".repeat(100),
    )
    .unwrap();
    assert_eq!(
        History::open(&place.url).await.unwrap_err().kind(),
        HistoryErrorKind::Broken
    );
}

async fn names_that_are_no_names_are_taken(place: &Place) {
    let history = place.open().await;
    let odd = entry("i\0d", "a\0lice", "rejected", 1);
    assert_eq!(history.write(vec![odd.clone()]).await.unwrap().new, 1);
    assert_eq!(history.write(vec![odd]).await.unwrap(), Default::default());
    assert_eq!(history.why("billing", "i\0d", None).await.unwrap().len(), 1);
    assert_eq!(
        find(
            &history,
            &Query {
                contains: Some("\0".into()),
                ..all()
            }
        )
        .await,
        []
    );
    assert_eq!(history.erase("a\0lice", NOW_MS + 9).await.unwrap(), 1);
}

// Many reminders.

const USERS: [&str; 5] = ["alice", "bob", "carol", "张三", "o'neil\\%_"];
const SOURCES: [&str; 3] = ["billing", "claims", "人事"];
const TAGS: [&str; 4] = ["urgent", "money", "假期", "x"];
const OUTCOMES: [&str; 4] = ["delivered", "delivered", "parked", "expired"];
const WORDS: [&str; 12] = [
    "Invoice",
    "due",
    "981",
    "费用",
    "报销单",
    "请假🎉",
    "Straße",
    "ÉTÉ",
    "a%b",
    "the",
    "invoices",
    "用",
];

/// A random element, and a seed that tells which it was: a test that fails prints it.
struct Chance(Rng);

impl Chance {
    fn new() -> Self {
        let seed = std::env::var("BELLHOP_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(|| fastrand::u64(..));
        println!("BELLHOP_SEED={seed}");
        Self(Rng::with_seed(seed))
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.0.usize(..all.len())]
    }

    fn maybe<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        let one = self.of(all);
        (self.0.u8(..5) == 0).then_some(one)
    }

    fn text(&mut self) -> String {
        let words: Vec<_> = (0..self.0.usize(1..8)).map(|_| self.of(&WORDS)).collect();
        words.join(self.of(&[" ", ""]))
    }

    fn entry(&mut self, nth: usize) -> Entry {
        let (id, user, outcome) = (format!("inv-{nth}"), self.of(&USERS), self.of(&OUTCOMES));
        let tags: Vec<_> = TAGS.into_iter().filter(|_| self.0.bool()).collect();
        let content = format!("{} {nth}", self.text());
        let mut body =
            serde_json::json!({"id": id, "user": user, "content": content, "tags": tags});
        if self.0.bool() {
            body["title"] = self.text().into();
        }
        Entry {
            source: self.of(&SOURCES).into(),
            published_ms: NOW_MS + self.0.i64(0..100),
            reminder: Some(body.to_string()),
            ..entry(&id, user, outcome, self.0.i64(100..10_000))
        }
    }

    fn query(&mut self) -> Query {
        let owned = |one: Option<&str>| one.map(str::to_owned);
        let contains = match self.0.u8(..4) {
            0 => Some(self.of(&WORDS).to_lowercase()),
            1 => {
                let text: Vec<char> = self.text().chars().collect();
                let begin = self.0.usize(..text.len());
                Some(text[begin..].iter().take(self.0.usize(1..6)).collect())
            }
            2 => Some(self.0.u16(..6_000).to_string()),
            _ => None,
        };
        Query {
            user: owned(self.maybe(&USERS)),
            source: owned(self.maybe(&SOURCES)),
            tag: owned(self.maybe(&TAGS)),
            outcome: owned(self.maybe(&OUTCOMES)),
            id: (self.0.u8(..20) == 0).then(|| format!("inv-{}", self.0.u16(..5_000))),
            from_ms: (self.0.u8(..4) == 0).then(|| NOW_MS + self.0.i64(0..100)),
            to_ms: (self.0.u8(..4) == 0).then(|| NOW_MS + self.0.i64(0..100)),
            contains,
            limit: self.of(&[7, 100, 1_000]),
            before: None,
        }
    }
}

/// Returns true if a reminder matches a query.
fn matches(query: &Query, entry: &Entry) -> bool {
    let body: serde_json::Value = serde_json::from_str(entry.reminder.as_ref().unwrap()).unwrap();
    let is =
        |asked: &Option<String>, there: &str| asked.as_deref().is_none_or(|asked| asked == there);
    let fold = |text: &str| text.to_lowercase().replace('ß', "ss");
    let contains = fold(query.contains.as_deref().unwrap_or_default());
    let texts = ["title", "content"].map(|field| fold(body[field].as_str().unwrap_or_default()));
    is(&query.user, entry.user.as_ref().unwrap())
        && is(&query.source, &entry.source)
        && is(&query.id, &entry.id)
        && is(&query.outcome, &entry.outcome)
        && query.tag.as_ref().is_none_or(|tag| {
            body["tags"]
                .as_array()
                .unwrap()
                .iter()
                .any(|one| one == tag)
        })
        && query.from_ms.is_none_or(|from| entry.published_ms >= from)
        && query.to_ms.is_none_or(|to| entry.published_ms < to)
        && texts.iter().any(|text| text.contains(&contains))
}

/// All pages of a query, one after the other.
async fn pages(history: &History, query: &Query) -> Vec<FoundReminder> {
    some_pages(history, query, usize::MAX).await
}

/// The first pages of a query.
async fn some_pages(history: &History, query: &Query, at_most: usize) -> Vec<FoundReminder> {
    let (mut found, mut query) = (Vec::new(), query.clone());
    for _ in 0..at_most {
        let page = history.find(&query).await.unwrap();
        assert!(page.reminders.len() <= query.limit);
        found.extend(page.reminders);
        match page.next {
            Some(next) => query.before = Some(next.to_string().parse().unwrap()),
            None => break,
        }
    }
    found
}

async fn every_question_is_answered_as_by_looking_at_everything(place: &Place) {
    let mut chance = Chance::new();
    let history = place.open().await;
    let entries: Vec<Entry> = (0..6_000).map(|nth| chance.entry(nth)).collect();
    let mut rest = &entries[..];
    while !rest.is_empty() {
        let (some, others) = rest.split_at(rest.len().min(chance.of(&[1, 40, 1_000, 4_500])));
        assert_eq!(
            history.write(some.to_vec()).await.unwrap().new,
            some.len() as u64
        );
        rest = others;
    }
    let mut newest_first: Vec<&Entry> = entries.iter().collect();
    newest_first.reverse();
    newest_first.sort_by_key(|entry| std::cmp::Reverse(entry.published_ms));
    for _ in 0..80 {
        let query = chance.query();
        let all = newest_first.iter().filter(|entry| matches(&query, entry));
        let mut expected: Vec<&str> = all
            .map(|entry| entry.reminder.as_deref().unwrap())
            .collect();
        let at_most = if query.limit == 1_000 { usize::MAX } else { 3 };
        expected.truncate(query.limit.saturating_mul(at_most));
        let found = some_pages(&history, &query, at_most).await;
        let found: Vec<&str> = found.iter().map(|found| &*found.body).collect();
        assert_eq!(found.len(), expected.len(), "{query:?}");
        assert_eq!(found, expected, "{query:?}");
    }
}

async fn repeats_and_crashes_change_nothing(place: &Place) {
    let mut chance = Chance::new();
    let mut entries = Vec::new();
    for nth in 0..300 {
        let first = chance.entry(nth);
        entries.extend((0..chance.0.usize(1..4)).map(|step| {
            let after = first.at_ms - NOW_MS + step as i64;
            let later = entry(&first.id, "", chance.of(&OUTCOMES), after);
            let reminder = first.reminder.clone().filter(|_| step == 0);
            Entry {
                outcome: later.outcome,
                at_ms: later.at_ms,
                step: later.step,
                reminder,
                ..first.clone()
            }
        }));
    }
    let by_id = async |history: &History| -> BTreeMap<String, (String, String, i64)> {
        let all = pages(history, &all()).await;
        all.into_iter()
            .map(|found| (found.body, (found.trail, found.outcome, found.at_ms)))
            .collect()
    };
    let calm = place.another().await;
    let expected = calm.open().await;
    expected.write(entries.clone()).await.unwrap();

    let mut history = place.open().await;
    for _ in 0..40 {
        let some: Vec<Entry> = (0..chance.0.usize(1..100))
            .map(|_| entries[chance.0.usize(..entries.len())].clone())
            .collect();
        match chance.0.u8(..3) {
            0 => drop(
                tokio::time::timeout(
                    Duration::from_micros(chance.0.u64(..5_000)),
                    history.write(some),
                )
                .await,
            ),
            1 => {
                history.write(some).await.unwrap();
                history = place.open().await;
            }
            _ => drop(history.write(some).await.unwrap()),
        }
    }
    chance.0.shuffle(&mut entries);
    history.write(entries.clone()).await.unwrap();
    assert_eq!(by_id(&history).await, by_id(&expected).await);
    let again = history.write(entries).await.unwrap();
    assert_eq!((again.new, again.changed), (0, 0));
}

async fn pages_stay_right_while_reminders_arrive(place: &Place) {
    let mut chance = Chance::new();
    let history = place.open().await;
    let entries: Vec<Entry> = (0..1_500).map(|nth| chance.entry(nth)).collect();
    let (there, later) = entries.split_at(1_000);
    history.write(there.to_vec()).await.unwrap();
    let writer = tokio::spawn({
        let (history, later) = (place.open().await, later.to_vec());
        async move {
            for some in later.chunks(20) {
                history.write(some.to_vec()).await.unwrap();
            }
        }
    });
    let found = pages(&history, &Query { limit: 7, ..all() }).await;
    writer.await.unwrap();
    let mut cursors: Vec<String> = found.iter().map(|found| found.cursor.to_string()).collect();
    cursors.dedup();
    assert_eq!(cursors.len(), found.len());
    assert!(
        cursors.is_sorted_by(|newer, older| newer > older),
        "newest first, and nothing twice"
    );
    let is_found = |entry: &Entry| {
        found
            .iter()
            .any(|found| Some(&found.body) == entry.reminder.as_ref())
    };
    assert!(there.iter().all(is_found));
}

async fn an_erasure_and_a_writer_do_not_miss_each_other(place: &Place) {
    let mut chance = Chance::new();
    let history = place.open().await;
    let entries: Vec<Entry> = (0..2_000).map(|nth| chance.entry(nth)).collect();
    let of_alice = entries
        .iter()
        .filter(|entry| entry.user.as_deref() == Some("alice"))
        .count();
    let writer = tokio::spawn({
        let (history, entries) = (place.open().await, entries.clone());
        async move {
            let mut refused = 0;
            for some in entries.chunks(20) {
                refused += history.write(some.to_vec()).await.unwrap().erased.len();
            }
            refused
        }
    });
    while find(
        &history,
        &Query {
            user: Some("alice".into()),
            ..all()
        },
    )
    .await
    .is_empty()
    {
        tokio::task::yield_now().await;
    }
    let removed = history.erase("alice", NOW_MS + 1_000_000).await.unwrap() as usize;
    let refused = writer.await.unwrap();
    assert_eq!(removed + refused, of_alice);
    assert!(removed > 0);
    assert!(
        find(
            &history,
            &Query {
                user: Some("alice".into()),
                ..all()
            }
        )
        .await
        .is_empty()
    );
    assert_eq!(
        pages(&history, &all()).await.len(),
        entries.len() - of_alice
    );
    let later = Entry {
        published_ms: NOW_MS + 1_000_001,
        ..entry("later", "alice", "parked", 9)
    };
    assert_eq!(history.write(vec![later]).await.unwrap().new, 1);
    history
        .forget_before(NOW_MS + 1_000_001, 10_000)
        .await
        .unwrap();
    let forgotten = entries
        .iter()
        .find(|entry| entry.user.as_deref() == Some("alice"))
        .unwrap();
    assert_eq!(
        history.write(vec![forgotten.clone()]).await.unwrap().new,
        1,
        "an erasure is forgotten, too"
    );
}

async fn what_was_erased_or_is_old_is_not_found_by_its_text(place: &Place) {
    let history = place.open().await;
    let content = |nth: i64| reminder(&nth.to_string(), &format!("secret{nth:05}"), &[]);
    let of = |user: &str, nth: i64| Entry {
        published_ms: NOW_MS + nth,
        reminder: content(nth),
        ..entry(&nth.to_string(), user, "delivered", 9)
    };
    let entries = (0..9_000)
        .map(|nth| of(if nth % 10 == 0 { "alice" } else { "bob" }, nth))
        .collect();
    history.write(entries).await.unwrap();
    let count = async |part: &str| {
        find(
            &history,
            &Query {
                contains: Some(part.into()),
                ..all()
            },
        )
        .await
        .len()
    };
    assert_eq!(
        [
            count("secret00010").await,
            count("SECRET0001").await,
            count("5").await
        ],
        [1, 10, 1_000]
    );
    assert_eq!(
        history.erase("alice", NOW_MS + 1_000_000).await.unwrap(),
        900
    );
    assert_eq!(
        [count("secret00010").await, count("SECRET0001").await],
        [0, 9]
    );
    assert_eq!(
        history.forget_before(NOW_MS + 8_500, 5_000).await.unwrap(),
        5_000
    );
    assert_eq!(
        [count("secret00011").await, count("secret08499").await],
        [0, 1]
    );
    while history.forget_before(NOW_MS + 9_000, 5_000).await.unwrap() > 0 {}
    assert_eq!(count("secret").await, 0);
}

async fn every_question_has_an_index(place: &Place) {
    let mut chance = Chance::new();
    let history = place.open().await;
    for some in (0..20_000).collect::<Vec<_>>().chunks(5_000) {
        history
            .write(some.iter().map(|nth| chance.entry(*nth)).collect())
            .await
            .unwrap();
    }
    for asked in 0..64u8 {
        let some = |bit: u8, value: &str| (asked & 1 << bit > 0).then(|| value.to_owned());
        let query = Query {
            user: some(0, "alice"),
            source: some(1, "billing"),
            id: some(2, "inv-7"),
            tag: some(3, "money"),
            outcome: some(4, if asked & 1 > 0 { "parked" } else { "delivered" }),
            from_ms: (asked & 1 << 5 > 0).then_some(NOW_MS + 50),
            ..Query {
                limit: 100,
                ..Query::default()
            }
        };
        let plan = history.explain(&query).await.unwrap();
        let is_slow = ["SCAN r", "SCAN t", "TEMP B-TREE", "Seq Scan", "Bitmap"]
            .iter()
            .any(|slow| plan.contains(slow));
        assert!(!is_slow, "{query:?}:\n{plan}");
    }
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn missing_password_file_is_named() {
    let url: HistoryUrl = "postgres://b@127.0.0.1:1/d".parse().unwrap();
    let error = History::open(&url.with_password_file("/nowhere/password"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), HistoryErrorKind::Broken);
    assert!(
        error
            .to_string()
            .contains("/nowhere/password, the file of history.password_file"),
        "{error}"
    );
}
