//! The history: every reminder and what became of it, in a database that can be asked.
//!
//! A row is one reminder: its finished JSON as it came, its latest outcome, and its trail, which grows. What a batch of
//! outcomes does to the rows (`batch`, `trail`, `body`) is decided here, for every database alike; `sqlite` and `postgres` find,
//! insert and change rows. Schemas are numbered SQL files that run once, in order, at the start.

mod batch;
mod body;
mod error;
mod find;
mod grams;
mod indexing;
mod number;
mod postgres;
mod postings;
mod question;
mod sqlite;
mod text;
mod trail;

pub use crate::config::{HistoryUrl, PostgresUrl};
pub use crate::reminder::history::Entry;
pub use crate::wire::query::{Cursor, Query};
pub use error::{HistoryError, HistoryErrorKind};
pub use text::Needle;

use error::Problem;

/// What a batch of outcomes did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Reminders that the history did not have.
    pub new: u64,
    /// Reminders of which it knows more now.
    pub changed: u64,
    /// Outcomes that were not stored, since their users were erased after the reminders were published.
    pub erased: Vec<Unwritten>,
}

/// An outcome that was not stored, since its user was erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwritten {
    /// Whom the reminder was for.
    pub user: String,
    /// The reminder's business system.
    pub source: String,
    /// The reminder's id.
    pub id: String,
    /// When it was published, in milliseconds since 1970.
    pub published_ms: i64,
    /// What became of it: one that was parked, or a copy of one that was rerouted, may lie in the user's mailbox.
    pub outcome: String,
}

/// Returns the query with its names as they are stored.
fn storable(query: &Query) -> Query {
    let name = |name: &Option<String>| name.clone().map(text::storable);
    let [user, source, id, tag, outcome] =
        [&query.user, &query.source, &query.id, &query.tag, &query.outcome].map(name);
    Query { user, source, id, tag, outcome, ..query.clone() }
}

/// Reminders, newest first by the time of publishing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// As many as were asked for, if there are so many.
    pub reminders: Vec<Found>,
    /// Where the next page begins, if there are more.
    pub next: Option<Cursor>,
}

/// A reminder and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The place after it.
    pub cursor: Cursor,
    /// The finished reminder, byte for byte; or `id`, `source`, `set`, `user` and `published_at`, if it is not known.
    pub body: String,
    /// Its latest outcome.
    pub outcome: String,
    /// When that was, in milliseconds since 1970.
    pub at_ms: i64,
    /// Its outcomes, a JSON array of steps, oldest first.
    pub trail: String,
}

/// A history. Clones share it.
#[derive(Debug, Clone)]
pub struct History {
    url: HistoryUrl,
    database: Database,
}

#[derive(Debug, Clone)]
enum Database {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

impl History {
    /// Opens a history. A file that is missing is created, and an older schema brought up to date.
    ///
    /// # Errors
    /// When it cannot be reached or used, or has a schema that is newer than this program.
    pub async fn open(url: &HistoryUrl) -> Result<Self, HistoryError> {
        let opened = match url {
            HistoryUrl::Sqlite(path) => sqlite::Sqlite::open(path).await.map(Database::Sqlite),
            HistoryUrl::Postgres(url) => postgres::Postgres::open(url).await.map(Database::Postgres),
            HistoryUrl::None => Err(Problem::broken("history is switched off")),
        };
        let database = opened.map_err(|problem| problem.at(url))?;
        Ok(Self { url: url.clone(), database })
    }

    /// Writes outcomes, all or none; they are durable when this returns. What was written before changes nothing.
    ///
    /// # Errors
    /// When nothing was written, or, with a database that is away, perhaps all of it: write it again.
    pub async fn write(&self, entries: Vec<Entry>) -> Result<Written, HistoryError> {
        let written = match &self.database {
            Database::Sqlite(sqlite) => sqlite.write(entries).await,
            Database::Postgres(postgres) => postgres.write(entries).await,
        };
        written.map_err(|problem| problem.at(&self.url))
    }

    /// Finds reminders, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn find(&self, query: &Query) -> Result<Page, HistoryError> {
        let query = storable(query);
        let found = match &self.database {
            Database::Sqlite(sqlite) => sqlite.find(query).await,
            Database::Postgres(postgres) => postgres.find(&query).await,
        };
        found.map_err(|problem| problem.at(&self.url))
    }

    /// How the database would go about a query, in its own words: whether an index is used.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn explain(&self, query: &Query) -> Result<String, HistoryError> {
        let plan = match &self.database {
            Database::Sqlite(sqlite) => sqlite.explain(query.clone()).await,
            Database::Postgres(postgres) => postgres.explain(query).await,
        };
        plan.map_err(|problem| problem.at(&self.url))
    }

    /// The reminder of this id that was published last, with the trails of all that had the id, oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn why(&self, source: &str, id: &str) -> Result<Option<Found>, HistoryError> {
        let query =
            Query { source: Some(source.to_owned()), id: Some(id.to_owned()), limit: MAX_REUSES, ..Query::default() };
        let page = self.find(&query).await?;
        let trails = page.reminders.iter().rev().map(|found| trail::inside(&found.trail)).collect::<Vec<_>>();
        let trail = format!("[{}]", trails.join(","));
        Ok(page.reminders.into_iter().next().map(|newest| Found { trail, ..newest }))
    }

    /// Removes a user: everything that was published for the user up to this time, in milliseconds since 1970, and the
    /// name where the user got somebody else's reminder. What arrives later of what was published until then is not stored.
    /// Answers how many reminders were removed.
    ///
    /// # Errors
    /// When nothing was removed, or, with a database that is away, perhaps everything: erase again.
    pub async fn erase(&self, user: &str, at_ms: i64) -> Result<u64, HistoryError> {
        let user = text::storable(user.to_owned());
        let erased = match &self.database {
            Database::Sqlite(sqlite) => sqlite.erase(user, at_ms).await,
            Database::Postgres(postgres) => postgres.erase(&user, at_ms).await,
        };
        erased.map_err(|problem| problem.at(&self.url))
    }

    /// Removes reminders that were published before this millisecond, the oldest first, and at most so many; and the
    /// memory of erasures from before. Answers how many were removed: fewer than `at_most`, and all are.
    ///
    /// # Errors
    /// When nothing was removed, or, with a database that is away, perhaps all of it.
    pub async fn forget_before(&self, published_ms: i64, at_most: usize) -> Result<u64, HistoryError> {
        let forgotten = match &self.database {
            Database::Sqlite(sqlite) => sqlite.forget_before(published_ms, at_most).await,
            Database::Postgres(postgres) => postgres.forget_before(published_ms, at_most).await,
        };
        forgotten.map_err(|problem| problem.at(&self.url))
    }
}

/// Of how many reminders with the same id [`History::why`] tells at most.
const MAX_REUSES: usize = 1_000;
