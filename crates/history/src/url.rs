//! The address of a history.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{HistoryError, Problem};

/// The address of a history. It is shown without its password.
///
/// The setting may also be `sqlite` alone, for a file whose name only a running service knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryUrl {
    /// A file, created where it is missing.
    Sqlite(PathBuf),
    /// A PostgreSQL database, as libpq takes its address.
    Postgres(PostgresUrl),
    /// No history is kept.
    None,
}

/// The address of a PostgreSQL database, which may have a password in it.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    address: String,
    password_file: Option<PathBuf>,
}

/// The text is not an address of a history. It is not shown, since nothing says where in it a
/// password may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a history address: use sqlite:PATH, postgres://USER@HOST/DATABASE, or none")]
pub struct HistoryUrlError;

impl FromStr for HistoryUrl {
    type Err = HistoryUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" {
            return Ok(Self::None);
        }
        if let Some(path) = text.strip_prefix("sqlite:")
            && !path.is_empty()
        {
            return Ok(Self::Sqlite(path.into()));
        }
        let rest = text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"));
        match rest {
            Some(rest) if !rest.is_empty() => Ok(Self::Postgres(PostgresUrl {
                address: text.to_owned(),
                password_file: None,
            })),
            _ => Err(HistoryUrlError),
        }
    }
}

impl HistoryUrl {
    /// Checks that the program can open such an address.
    ///
    /// # Errors
    /// When the program was built without the feature that the address needs.
    pub fn check_feature(&self) -> Result<(), HistoryError> {
        let (is_built, feature) = match self {
            Self::Sqlite(_) => (cfg!(feature = "sqlite"), "sqlite"),
            Self::Postgres(_) => (cfg!(feature = "postgres"), "postgres"),
            Self::None => return Ok(()),
        };
        let missing = || {
            format!(
                "this program was built without the feature `{feature}`, which the address needs"
            )
        };
        if is_built {
            Ok(())
        } else {
            Err(Problem::broken(missing()).at(self))
        }
    }

    /// Returns the same address with its password in this file; an empty name leaves it as it is.
    pub fn with_password_file(self, path: &str) -> Self {
        match self {
            Self::Postgres(url) if !path.is_empty() => Self::Postgres(PostgresUrl {
                password_file: Some(path.into()),
                ..url
            }),
            url => url,
        }
    }
}

impl fmt::Display for HistoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => url.fmt(f),
            Self::None => f.write_str("none"),
        }
    }
}

impl PostgresUrl {
    /// Returns the whole address, with the password that is in it.
    pub fn with_password(&self) -> &str {
        &self.address
    }

    /// Returns the file that has the password, where it is not in the address.
    pub fn password_file(&self) -> Option<&Path> {
        self.password_file.as_deref()
    }

    /// Returns the hosts to which a connection goes without TLS; none if the program was built
    /// without PostgreSQL.
    pub fn hosts_without_tls(&self) -> Vec<String> {
        #[cfg(feature = "postgres")]
        return crate::postgres::hosts_without_tls(self);
        #[cfg(not(feature = "postgres"))]
        Vec::new()
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_password(&self.address))
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}

/// The parameters of an address that are shown. Any other may be a password, or have one in it.
const SHOWN_PARAMETERS: [&str; 8] = [
    "application_name",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "port",
    "sslmode",
    "user",
];

/// Returns an address of a history without its password. Text in which nothing says where a
/// password would be is not shown at all.
pub fn without_password(url: &str) -> String {
    let is_path = url == "sqlite" || url == "none" || url.starts_with("sqlite:");
    if is_path || url.is_empty() {
        return url.to_owned();
    }
    let Some((scheme, rest)) = url
        .split_once("://")
        .filter(|(scheme, _)| scheme.starts_with("postgres"))
    else {
        return "***".to_owned();
    };
    let (user, rest) = match rest.rsplit_once('@') {
        None => (String::new(), rest),
        // The `@` may be one of a parameter, or the `?` one of a password.
        Some((user, _)) if user.contains(['?', '/', '#']) => return format!("{scheme}://***"),
        Some((user, rest)) => (
            format!("{}@", user.split(':').next().unwrap_or_default()),
            rest,
        ),
    };
    let (address, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let is_shown = |one: &&str| {
        one.split_once('=')
            .is_some_and(|(name, _)| SHOWN_PARAMETERS.contains(&name))
    };
    let kept: Vec<_> = parameters.split('&').filter(is_shown).collect();
    let parameters = if kept.is_empty() {
        String::new()
    } else {
        format!("?{}", kept.join("&"))
    };
    format!("{scheme}://{user}{address}{parameters}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_their_password() {
        let shown = |text: &str| text.parse().map(|url: HistoryUrl| url.to_string());
        assert_eq!(
            "sqlite:/var/lib/b.db".parse(),
            Ok(HistoryUrl::Sqlite("/var/lib/b.db".into()))
        );
        assert_eq!(shown("none"), Ok("none".into()));
        assert_eq!(shown("postgres://b@h/d"), Ok("postgres://b@h/d".into()));
        assert_eq!(
            shown("postgres://b:p@ss@h:1/d?sslmode=require"),
            Ok("postgres://b@h:1/d?sslmode=require".into())
        );
        for secret in [
            "postgres://b:secret?word@h/d",
            "postgres://b:secret/word@h/d",
            "postgres://b:a@secret?x@h/d",
            "postgres://h/d?password=a@secret",
            "postgres://h/d?pass%77ord=secret",
            "postgres://h/d?PASSWORD=secret&options=secret",
        ] {
            assert!(
                shown(secret).is_ok_and(
                    |shown| shown.starts_with("postgres://") && !shown.contains("secret")
                )
            );
        }
        for secret in [
            "host=h password=secret",
            "postgres:b:secret@h",
            "b:secret@h/d",
            "mysql://b:secret@h",
        ] {
            assert_eq!(without_password(secret), "***");
        }
        assert_eq!(
            shown("postgresql:///d?host=/run&password=s&user=b"),
            Ok("postgresql:///d?host=/run&user=b".into())
        );
        let url: HistoryUrl = "postgres://b:secret@h/d".parse().unwrap();
        assert!(!format!("{url:?}").contains("secret"));
        for wrong in [
            "",
            "sqlite:",
            "/var/lib/b.db",
            "mysql://b:secret@h",
            "postgres://",
        ] {
            let error = HistoryUrl::from_str(wrong).unwrap_err().to_string();
            assert!(
                error.contains("sqlite:PATH") && !error.contains("secret"),
                "{error}"
            );
        }
    }
}
