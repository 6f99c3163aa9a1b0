//! The history in a PostgreSQL database. Any number of processes may write and ask; writers take
//! turns.

mod find;
mod index;
mod write;

use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, Timeouts,
    Transaction,
};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::Problem;
use crate::{Answer, Database, Entry, HistoryErrorKind, Page, PostgresUrl, Query, Written, schema};

/// The schema, a step a version.
const MIGRATIONS: [&str; 1] = [include_str!("001.sql")];
/// Connections of one process: a writer, and questions beside it.
const CONNECTIONS: usize = 6;
/// Maximum time for connecting, and for waiting for a free connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// Every statement has an index that gives rows in order. Statistics that are old must not talk the
/// planner out of it. And a process that stands still in the middle of a transaction must not keep
/// the writers' lock.
const PLANNER: &str = "-c enable_seqscan=off -c enable_bitmapscan=off -c enable_sort=off -c enable_hashjoin=off \
    -c enable_mergejoin=off -c jit=off -c idle_in_transaction_session_timeout=30s";
/// The advisory lock of those who write: `bellhop`.
const WRITERS: i64 = 0x0062_656c_6c68_6f70;

#[derive(Debug)]
pub(crate) struct Postgres {
    pool: Pool,
}

impl Postgres {
    pub(crate) async fn open(url: &PostgresUrl) -> Result<Self, Problem> {
        let mut config: Config = url
            .with_password()
            .parse()
            .map_err(|error| Problem::from_postgres(&error))?;
        if let Some(path) = url.password_file() {
            let password = tokio::fs::read_to_string(path).await;
            let password = password.map_err(|error| {
                Problem::broken(format!(
                    "cannot read {}, the file of history.password_file: {error}",
                    path.display()
                ))
            })?;
            // Editors end a file with a line break.
            config.password(password.trim_end_matches(['\r', '\n']));
        }
        let options = config
            .get_options()
            .map_or(PLANNER.to_owned(), |own| format!("{PLANNER} {own}"));
        config
            .options(options)
            .application_name("bellhop")
            .connect_timeout(PATIENCE);
        // A machine that vanishes closes no connection.
        config
            .keepalives_idle(PATIENCE)
            .tcp_user_timeout(3 * PATIENCE);
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = match config.get_ssl_mode() {
            SslMode::Require => Manager::from_config(config, tls()?, recycling),
            _ => Manager::from_config(config, NoTls, recycling),
        };
        let patience = Timeouts {
            wait: Some(PATIENCE),
            create: Some(PATIENCE),
            recycle: Some(PATIENCE),
        };
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS)
            .timeouts(patience)
            .runtime(Runtime::Tokio1);
        let postgres = Self {
            pool: pool.build().map_err(Problem::broken)?,
        };
        postgres.migrate().await?;
        Ok(postgres)
    }

    async fn migrate(&self) -> Result<(), Problem> {
        let mut connection = self.connection().await?;
        let change = begin(&mut connection).await?;
        change
            .batch_execute("CREATE TABLE IF NOT EXISTS history_schema (version bigint NOT NULL)")
            .await?;
        let row = change
            .query_opt("SELECT version FROM history_schema", &[])
            .await?;
        let version = row.map_or(Ok(0), |row| row.try_get::<_, i64>(0))?;
        for step in schema::missing(version, &MIGRATIONS)? {
            change.batch_execute(step).await?;
        }
        change.execute("DELETE FROM history_schema", &[]).await?;
        change
            .execute(
                "INSERT INTO history_schema VALUES ($1)",
                &[&(MIGRATIONS.len() as i64)],
            )
            .await?;
        Ok(change.commit().await?)
    }

    async fn connection(&self) -> Result<Object, Problem> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error.into(),
            other => Problem {
                kind: HistoryErrorKind::Away,
                text: other.to_string(),
            },
        })
    }
}

impl Database for Postgres {
    fn write(&self, entries: Vec<Entry>) -> Answer<'_, Written> {
        Box::pin(async {
            let mut connection = self.connection().await?;
            let change = begin(&mut connection).await?;
            let written = write::write(&change, entries).await?;
            change.commit().await?;
            Ok(written)
        })
    }

    fn find(&self, query: Query) -> Answer<'_, Page> {
        Box::pin(async move { find::find(&mut self.connection().await?, &query).await })
    }

    fn explain(&self, query: Query) -> Answer<'_, String> {
        Box::pin(async move { find::explain(&mut self.connection().await?, &query).await })
    }

    fn erase(&self, user: String, at_ms: i64) -> Answer<'_, u64> {
        Box::pin(async move {
            let mut connection = self.connection().await?;
            let change = begin(&mut connection).await?;
            let removed = write::erase(&change, &user, at_ms).await?;
            change.commit().await?;
            Ok(removed)
        })
    }

    fn forget_before(&self, published_ms: i64, at_most: usize) -> Answer<'_, u64> {
        Box::pin(async move {
            let mut connection = self.connection().await?;
            let change = begin(&mut connection).await?;
            let removed = write::forget_before(&change, published_ms, at_most).await?;
            change.commit().await?;
            Ok(removed)
        })
    }
}

/// Returns the hosts to which a connection goes without TLS.
pub(crate) fn hosts_without_tls(url: &PostgresUrl) -> Vec<String> {
    let Ok(config) = url.with_password().parse::<Config>() else {
        return Vec::new();
    };
    let name = |host: &Host| match host {
        Host::Tcp(name) => Some(name.clone()),
        Host::Unix(_) => None,
    };
    let is_plain = config.get_ssl_mode() != SslMode::Require;
    config
        .get_hosts()
        .iter()
        .filter(|_| is_plain)
        .filter_map(name)
        .collect()
}

/// TLS, with the certificates that this machine trusts, or those of `$SSL_CERT_FILE`.
fn tls() -> Result<MakeRustlsConnect, Problem> {
    let described = |error: &dyn std::fmt::Display| {
        format!("no certificate authorities to trust: {error}; set SSL_CERT_FILE")
    };
    MakeRustlsConnect::with_native_certs()
        .map(|(tls, _)| tls)
        .map_err(|errors| match errors.first() {
            Some(error) => Problem::broken(described(error)),
            None => Problem::broken(described(&"this machine has none")),
        })
}

/// Returns a transaction that no other writer comes between.
async fn begin(connection: &mut Object) -> Result<Transaction<'_>, Problem> {
    let change = connection.transaction().await?;
    change
        .execute("SELECT pg_advisory_xact_lock($1)", &[&WRITERS])
        .await?;
    Ok(change)
}

impl From<tokio_postgres::Error> for Problem {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::from_postgres(&error)
    }
}

impl Problem {
    fn from_postgres(error: &tokio_postgres::Error) -> Self {
        let Some(refusal) = error.as_db_error() else {
            // The address cannot be read; or there is no connection, or it broke.
            let is_broken = format!("{error:?}").contains("ConfigParse");
            let kind = if is_broken {
                HistoryErrorKind::Broken
            } else {
                HistoryErrorKind::Away
            };
            let cause = std::error::Error::source(error)
                .map(|cause| format!(": {cause}"))
                .unwrap_or_default();
            return Self {
                kind,
                text: format!("{error}{cause}"),
            };
        };
        let code = refusal.code();
        // Connections, rollbacks to be repeated, resources, an operator at work; a standby takes no
        // writes.
        let may_pass = ["08", "40", "53", "57", "58"]
            .iter()
            .any(|class| code.code().starts_with(class));
        let kind = match may_pass || *code == SqlState::READ_ONLY_SQL_TRANSACTION {
            true => HistoryErrorKind::Away,
            false => HistoryErrorKind::Broken,
        };
        Self {
            kind,
            text: format!("{} ({})", refusal.message(), code.code()),
        }
    }
}
