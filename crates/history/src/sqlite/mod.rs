//! The history in a file of SQLite's: one connection writes, others read beside it.

mod find;
mod index;
mod pool;
mod write;

use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use self::pool::Pool;
use crate::error::Problem;
use crate::{Answer, Database, Entry, HistoryErrorKind, Page, Query, Written, schema};

/// The schema, a step a version.
const MIGRATIONS: [&str; 1] = [include_str!("001.sql")];
/// The settings of a connection: committed data has reached the disk. A page is copied from the log
/// to the file less often than it changes: pages of 64 MiB are.
const SETTINGS: &str =
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -65536;
    PRAGMA wal_autocheckpoint = 16384";
/// Questions that are answered at a time.
const READERS: usize = 4;
/// Maximum time to wait for another process that uses the file.
const BUSY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Sqlite {
    writer: Pool,
    readers: Pool,
}

impl Sqlite {
    pub(crate) async fn open(path: &Path) -> Result<Self, Problem> {
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            if let Some(directory) = path.parent() {
                std::fs::create_dir_all(directory).map_err(|error| {
                    Problem::broken(format!("cannot make {}: {error}", directory.display()))
                })?;
            }
            create(&path)?;
            let mut writer = connect(&path)?;
            migrate(&mut writer)?;
            let readers = (0..READERS)
                .map(|_| connect(&path))
                .collect::<Result<_, _>>()?;
            Ok(Self {
                writer: Pool::new(vec![writer]),
                readers: Pool::new(readers),
            })
        });
        opened.await.map_err(Problem::broken)?
    }
}

impl Database for Sqlite {
    fn write(&self, entries: Vec<Entry>) -> Answer<'_, Written> {
        self.writer
            .run(|connection| write::write(connection, entries))
            .boxed()
    }

    fn find(&self, query: Query) -> Answer<'_, Page> {
        self.readers
            .run(move |connection| find::find(connection, &query))
            .boxed()
    }

    fn explain(&self, query: Query) -> Answer<'_, String> {
        self.readers
            .run(move |connection| find::explain(connection, &query))
            .boxed()
    }

    fn erase(&self, user: String, at_ms: i64) -> Answer<'_, u64> {
        self.writer
            .run(move |connection| write::erase(connection, &user, at_ms))
            .boxed()
    }

    fn forget_before(&self, published_ms: i64, at_most: usize) -> Answer<'_, u64> {
        self.writer
            .run(move |connection| write::forget_before(connection, published_ms, at_most))
            .boxed()
    }
}

/// Makes the file where it is missing, readable for this user alone; SQLite makes those beside it
/// alike.
fn create(path: &Path) -> Result<(), Problem> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let opened = options.open(path).map(drop);
    opened.map_err(|error| Problem::broken(format!("cannot open {}: {error}", path.display())))
}

fn connect(path: &Path) -> Result<Connection, Problem> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch(SETTINGS)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> Result<(), Problem> {
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = change.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for step in schema::missing(version, &MIGRATIONS)? {
        change.execute_batch(step)?;
    }
    change.pragma_update(None, "user_version", MIGRATIONS.len() as u32)?;
    Ok(change.commit()?)
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        let may_pass = [
            ErrorCode::DatabaseBusy,
            ErrorCode::DatabaseLocked,
            ErrorCode::DiskFull,
            ErrorCode::SystemIoFailure,
        ];
        let kind = match error.sqlite_error_code() {
            Some(code) if may_pass.contains(&code) => HistoryErrorKind::Away,
            _ => HistoryErrorKind::Broken,
        };
        Self {
            kind,
            text: error.to_string(),
        }
    }
}
