//! The history of Bellhop, a NATS-native reminder router: every reminder and its outcomes, in a
//! SQLite file or a PostgreSQL database.
//!
//! [`History`] writes batches of [outcomes](Entry), answers [queries](Query), erases users and
//! removes old reminders. A row is one reminder: its finished JSON as it came, its latest outcome,
//! and its trail, which grows.
//!
//! `rows` decides what a batch does to the rows, and `search` how a query is answered, for every
//! database alike. `sqlite` and `postgres` run the statements. Each of these two is a feature;
//! without them nothing but the address `none` is left. Schemas are numbered SQL files that run
//! once, in order, when a database is opened.

mod error;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod rows;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod schema;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod search;
#[cfg(feature = "sqlite")]
mod sqlite;
mod text;
mod url;

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::future::BoxFuture;

pub use bellhop_protocol::reminder::history::Entry;
pub use bellhop_protocol::wire::query::{Cursor, Query};
pub use error::{HistoryError, HistoryErrorKind};
pub use text::Needle;
pub use url::{HistoryUrl, HistoryUrlError, PostgresUrl, without_password};

use error::Problem;

/// The examples of the README, run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The effect of a batch of outcomes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Reminders that the history did not have.
    pub new: u64,
    /// Reminders of which it knows more now.
    pub changed: u64,
    /// Outcomes that were not stored, since their users were erased after the reminders were
    /// published.
    pub erased: Vec<Unwritten>,
}

/// An outcome that was not stored, since its user was erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwritten {
    /// The reminder's user.
    pub user: String,
    /// The reminder's business system.
    pub source: String,
    /// The reminder's id.
    pub id: String,
    /// Time of publishing, in milliseconds since 1970.
    pub published_ms: i64,
    /// The outcome: a parked reminder, or a copy of a rerouted one, may be in the user's mailbox.
    pub outcome: String,
}

/// Returns the query with its names as they are stored.
fn storable(query: &Query) -> Query {
    let name = |name: &Option<String>| name.clone().map(text::storable);
    let [user, source, id, tag, outcome] = [
        &query.user,
        &query.source,
        &query.id,
        &query.tag,
        &query.outcome,
    ]
    .map(name);
    Query {
        user,
        source,
        id,
        tag,
        outcome,
        ..query.clone()
    }
}

/// Reminders, newest first by the time of publishing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// As many as were asked for, if there are so many.
    pub reminders: Vec<FoundReminder>,
    /// The beginning of the next page, if there are more.
    pub next: Option<Cursor>,
}

/// A reminder and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundReminder {
    /// The place after it.
    pub cursor: Cursor,
    /// The finished reminder, byte for byte; or `id`, `source`, `set`, `user` and `published_at`,
    /// if it is not known.
    pub body: String,
    /// Its latest outcome.
    pub outcome: String,
    /// Time of the latest outcome, in milliseconds since 1970.
    pub at_ms: i64,
    /// Its outcomes, a JSON array of steps, oldest first.
    pub trail: String,
}

/// The reminders of one id for one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserReminders {
    /// The user; none if the reminder was refused and has none that is a name.
    pub user: Option<String>,
    /// The reminder that was published last, with the outcomes of all of them.
    pub newest: FoundReminder,
}

/// A history. Clones share it.
#[derive(Debug, Clone)]
pub struct History {
    url: HistoryUrl,
    database: Arc<dyn Database>,
}

/// A database that holds a history.
trait Database: Debug + Send + Sync {
    fn write(&self, entries: Vec<Entry>) -> Answer<'_, Written>;
    fn find(&self, query: Query) -> Answer<'_, Page>;
    fn explain(&self, query: Query) -> Answer<'_, String>;
    fn erase(&self, user: String, at_ms: i64) -> Answer<'_, u64>;
    fn forget_before(&self, published_ms: i64, at_most: usize) -> Answer<'_, u64>;
}

type Answer<'d, T> = BoxFuture<'d, Result<T, Problem>>;

impl History {
    /// Opens a history. A file that is missing is created, and an older schema is brought up to
    /// date.
    ///
    /// # Errors
    /// When the database cannot be reached or used, or has a schema that is newer than this
    /// program; when the program was built without the feature that the address needs; for the
    /// address `none`.
    pub async fn open(url: &HistoryUrl) -> Result<Self, HistoryError> {
        url.check_feature()?;
        let database = database(url).await.map_err(|problem| problem.at(url))?;
        Ok(Self {
            url: url.clone(),
            database,
        })
    }

    /// Writes outcomes, all or none; they are durable when this returns. An outcome that was
    /// written before changes nothing.
    ///
    /// # Errors
    /// When nothing was written, or, with a database that is away, perhaps all of it: write it
    /// again.
    pub async fn write(&self, entries: Vec<Entry>) -> Result<Written, HistoryError> {
        self.database
            .write(entries)
            .await
            .map_err(|problem| problem.at(&self.url))
    }

    /// Finds reminders, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn find(&self, query: &Query) -> Result<Page, HistoryError> {
        self.database
            .find(storable(query))
            .await
            .map_err(|problem| problem.at(&self.url))
    }

    /// Returns the database's own plan for a query, as text: it shows which indexes are used.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn explain(&self, query: &Query) -> Result<String, HistoryError> {
        self.database
            .explain(storable(query))
            .await
            .map_err(|problem| problem.at(&self.url))
    }

    /// Returns what became of the reminders of this id, for each user, or for one. The user whose
    /// reminder was published last comes first; of each it is the last one, with the trails of all
    /// that had the id, oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn why(
        &self,
        source: &str,
        id: &str,
        user: Option<&str>,
    ) -> Result<Vec<UserReminders>, HistoryError> {
        let query = Query {
            user: user.map(ToOwned::to_owned),
            source: Some(source.to_owned()),
            id: Some(id.to_owned()),
            limit: MAX_REUSES,
            ..Query::default()
        };
        // The newest is first.
        let mut of_users: Vec<UserReminders> = Vec::new();
        for found in self.find(&query).await?.reminders {
            let user = user_of(&found.body);
            match of_users.iter_mut().find(|one| one.user == user) {
                None => of_users.push(UserReminders {
                    user,
                    newest: found,
                }),
                Some(one) => {
                    let (older, newer) = (steps(&found.trail), steps(&one.newest.trail));
                    one.newest.trail = format!("[{older},{newer}]");
                }
            }
        }
        Ok(of_users)
    }

    /// Removes a user: everything that was published for the user up to this time, in milliseconds
    /// since 1970, and the name from the trails of others' reminders that the user got. Later
    /// outcomes of reminders from before that time are not stored. Returns the number of reminders
    /// that were removed.
    ///
    /// # Errors
    /// When nothing was removed, or, with a database that is away, perhaps everything: erase again.
    pub async fn erase(&self, user: &str, at_ms: i64) -> Result<u64, HistoryError> {
        let user = text::storable(user.to_owned());
        self.database
            .erase(user, at_ms)
            .await
            .map_err(|problem| problem.at(&self.url))
    }

    /// Removes reminders that were published before this millisecond, the oldest first, `at_most`
    /// of them at a time, and the memory of erasures from before. Returns the number that was
    /// removed: if it is below `at_most`, none is left.
    ///
    /// # Errors
    /// When nothing was removed, or, with a database that is away, perhaps all of it.
    pub async fn forget_before(
        &self,
        published_ms: i64,
        at_most: usize,
    ) -> Result<u64, HistoryError> {
        self.database
            .forget_before(published_ms, at_most)
            .await
            .map_err(|problem| problem.at(&self.url))
    }
}

async fn database(url: &HistoryUrl) -> Result<Arc<dyn Database>, Problem> {
    match url {
        #[cfg(feature = "sqlite")]
        HistoryUrl::Sqlite(path) => Ok(Arc::new(sqlite::Sqlite::open(path).await?)),
        #[cfg(feature = "postgres")]
        HistoryUrl::Postgres(url) => Ok(Arc::new(postgres::Postgres::open(url).await?)),
        _ => Err(Problem::broken("history is switched off")),
    }
}

/// Reminders with the same id whose trails [`History::why`] returns; older ones are left out.
const MAX_REUSES: usize = 1_000;

/// Returns whom a reminder is for, by its JSON.
fn user_of(body: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Whose {
        user: Option<String>,
    }
    let Whose { user } = serde_json::from_str(body).ok()?;
    user
}

/// Returns the steps of a trail as they stand between its brackets.
fn steps(trail: &str) -> &str {
    trail
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn missing_feature_is_named() {
        for (url, feature, is_built) in [
            ("sqlite:h.db", "sqlite", cfg!(feature = "sqlite")),
            ("postgres://b@h/d", "postgres", cfg!(feature = "postgres")),
        ] {
            let url: HistoryUrl = url.parse().unwrap();
            assert_eq!(url.check_feature().is_ok(), is_built);
            if !is_built {
                let error = History::open(&url).await.unwrap_err();
                assert_eq!(error.kind(), HistoryErrorKind::Broken);
                assert!(
                    error
                        .to_string()
                        .contains(&format!("without the feature `{feature}`")),
                    "{error}"
                );
            }
        }
        assert!(
            History::open(&HistoryUrl::None)
                .await
                .unwrap_err()
                .to_string()
                .contains("switched off")
        );
    }
}
