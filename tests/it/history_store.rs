//! The history's databases, each with the same tests.

use bellhop::history::{Entry, Found, History, HistoryErrorKind, HistoryUrl, Query};
use tempfile::TempDir;

use crate::harness::postgres::database;

/// A database of a test's own.
struct Place {
    url: HistoryUrl,
    _dir: Option<TempDir>,
}

impl Place {
    fn sqlite() -> Self {
        let dir = TempDir::with_prefix("bellhop-it-").unwrap();
        Self { url: HistoryUrl::Sqlite(dir.path().join("data/history.db")), _dir: Some(dir) }
    }

    /// None if tests are to do without PostgreSQL.
    async fn postgres() -> Option<Self> {
        Some(Self { url: database().await?.parse().unwrap(), _dir: None })
    }

    async fn open(&self) -> History {
        History::open(&self.url).await.unwrap()
    }
}

/// Every test, over every database.
macro_rules! over_every_database {
    ($($test:ident,)*) => {
        mod sqlite {
            $(#[tokio::test] async fn $test() { super::$test(&super::Place::sqlite()).await })*
        }
        mod postgres {
            $(#[tokio::test] async fn $test() {
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
}

const NOW_MS: i64 = 1_795_000_000_000;

/// What became of a reminder, a while after it was published.
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
    Query { limit: 1_000, ..Query::default() }
}

async fn find(history: &History, query: &Query) -> Vec<Found> {
    history.find(query).await.unwrap().reminders
}

async fn what_is_written_is_found(place: &Place) {
    let history = place.open().await;
    let invoice = Entry { reminder: reminder("a", "Invoice 981", &["x"]), ..entry("a", "alice", "delivered", 4) };
    let written = history.write(vec![invoice.clone(), entry("b", "bob", "rejected", 5)]).await.unwrap();
    assert_eq!((written.new, written.changed, written.erased.len()), (2, 0, 0));
    let found = find(&history, &Query { contains: Some("INVOICE".into()), tag: Some("x".into()), ..all() }).await;
    assert_eq!((found.len(), Some(&found[0].body)), (1, invoice.reminder.as_ref()));
    assert_eq!((&*found[0].outcome, found[0].at_ms), ("delivered", NOW_MS + 4));
    let refused = find(&history, &Query { outcome: Some("rejected".into()), ..all() }).await;
    assert!(refused[0].body.contains(r#""user":"bob""#), "{}", refused[0].body);
    let why = history.why("billing", "a").await.unwrap().unwrap();
    assert_eq!(why.trail, format!("[{}]", invoice.step));
    assert_eq!(history.why("claims", "a").await.unwrap(), None);
}

async fn a_reminder_of_which_more_is_known_is_still_one(place: &Place) {
    let history = place.open().await;
    let delivered = entry("a", "alice", "delivered", 9);
    let parked = Entry { reminder: reminder("a", "Invoice", &["x"]), ..entry("a", "alice", "parked", 2) };
    assert_eq!(history.write(vec![delivered.clone()]).await.unwrap().new, 1);
    assert_eq!(history.write(vec![parked.clone()]).await.unwrap().changed, 1);
    let before = find(&history, &all()).await;
    let written = history.write(vec![parked.clone(), delivered.clone()]).await.unwrap();
    assert_eq!((written.new, written.changed), (0, 0));
    assert_eq!(find(&history, &all()).await, before);
    assert_eq!(before[0].trail, format!("[{},{}]", parked.step, delivered.step));
    assert_eq!((&*before[0].outcome, Some(&before[0].body)), ("delivered", parked.reminder.as_ref()));
    assert_eq!(find(&history, &Query { tag: Some("x".into()), ..all() }).await, before);
}

async fn an_erased_user_is_gone_and_does_not_come_back(place: &Place) {
    let history = place.open().await;
    let rerouted = entry("b", "bob", "rerouted", 1);
    let to_alice = Entry { step: rerouted.step.replace('}', r#","to":"alice"}"#), ..rerouted };
    history.write(vec![entry("a", "alice", "parked", 1), to_alice.clone()]).await.unwrap();
    assert_eq!(history.erase("alice", NOW_MS + 100).await.unwrap(), 1);
    let late = history.write(vec![entry("a", "alice", "delivered", 200), to_alice]).await.unwrap();
    assert_eq!((late.new, late.changed, &*late.erased[0].id), (0, 0, "a"));
    let left = find(&history, &all()).await;
    assert_eq!(left.len(), 1);
    assert!(!format!("{left:?}").contains("alice"), "{left:?}");
    let later = Entry { published_ms: NOW_MS + 101, ..entry("a", "alice", "delivered", 200) };
    assert_eq!(history.write(vec![later]).await.unwrap().new, 1);
}

async fn what_is_old_goes_in_small_batches(place: &Place) {
    let history = place.open().await;
    let published = |id: &str, ms| Entry { published_ms: NOW_MS + ms, ..entry(id, "alice", "delivered", 9) };
    history.write(vec![published("a", 0), published("b", 1), published("c", 2), published("d", 3)]).await.unwrap();
    assert_eq!(history.forget_before(NOW_MS + 3, 2).await.unwrap(), 2);
    assert_eq!(history.forget_before(NOW_MS + 3, 2).await.unwrap(), 1);
    assert_eq!(history.forget_before(NOW_MS + 3, 2).await.unwrap(), 0);
    assert_eq!(find(&history, &all()).await.len(), 1);
}

#[tokio::test]
async fn nobody_else_may_read_the_file() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::sqlite();
    let history = place.open().await;
    history.write(vec![entry("a", "alice", "delivered", 4)]).await.unwrap();
    let HistoryUrl::Sqlite(path) = &place.url else { unreachable!() };
    for file in std::fs::read_dir(path.parent().unwrap()).unwrap().map(Result::unwrap) {
        assert_eq!(file.metadata().unwrap().mode() & 0o077, 0, "{:?}", file.file_name());
    }
}

#[tokio::test]
async fn a_file_that_is_newer_or_no_database_is_refused() {
    let place = Place::sqlite();
    drop(place.open().await);
    let HistoryUrl::Sqlite(path) = &place.url else { unreachable!() };
    rusqlite::Connection::open(path).unwrap().pragma_update(None, "user_version", 77).unwrap();
    let error = History::open(&place.url).await.unwrap_err();
    assert_eq!(error.kind(), HistoryErrorKind::Broken);
    assert!(error.to_string().contains("version 77"), "{error}");
    std::fs::write(path, "no database, and long enough to be looked at by SQLite".repeat(100)).unwrap();
    assert_eq!(History::open(&place.url).await.unwrap_err().kind(), HistoryErrorKind::Broken);
}
