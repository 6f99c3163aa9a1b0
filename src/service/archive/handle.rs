//! Access to the history.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::config;
use crate::history::{History, HistoryError, HistoryUrl};
use crate::nats::{During, NatsError};

/// The database, opened when it is first needed: it may be away when this member starts.
#[derive(Debug, Clone)]
pub struct HistoryHandle {
    url: HistoryUrl,
    opened: Arc<OnceCell<History>>,
}

impl HistoryHandle {
    /// Returns the database of this setting. `sqlite` alone is a file of the installation's own, so
    /// that two installations of one machine do not mix.
    ///
    /// # Errors
    /// When the setting is not an address, or needs a feature that this program was built without.
    pub fn new(
        setting: &config::History,
        state: &Path,
        installation: &str,
    ) -> Result<Self, NatsError> {
        let url = match setting.url.as_str() {
            "sqlite" => HistoryUrl::Sqlite(state.join(format!("history-{installation}.db"))),
            address => {
                let url: HistoryUrl = address.parse().during("find the history")?;
                url.with_password_file(&setting.password_file)
            }
        };
        url.check_feature().during("find the history")?;
        Ok(Self {
            url,
            opened: Arc::default(),
        })
    }

    /// Returns its address, without a password.
    pub fn url(&self) -> &HistoryUrl {
        &self.url
    }

    /// Returns true if every member reaches the same database, so that each can answer queries.
    pub fn is_shared(&self) -> bool {
        matches!(self.url, HistoryUrl::Postgres(_))
    }

    /// The database; none if no history is kept.
    ///
    /// # Errors
    /// When it cannot be opened, or brought to this version's schema.
    pub async fn open(&self) -> Result<Option<&History>, HistoryError> {
        match &self.url {
            HistoryUrl::None => Ok(None),
            url => self
                .opened
                .get_or_try_init(|| History::open(url))
                .await
                .map(Some),
        }
    }
}

/// Returns the directory for durable state: systemd's `$STATE_DIRECTORY`, else the user's own
/// directory for that (`$XDG_STATE_HOME`, by default `~/.local/state`), else the working directory.
pub fn state_directory() -> PathBuf {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let state_home =
        || variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
    variable("STATE_DIRECTORY")
        .or_else(|| Some(state_home()?.join("bellhop")))
        .unwrap_or_default()
}
