//! Where a history is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a history is. It is shown without its password.
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
pub struct PostgresUrl(String);

/// Why a text is no address of a history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no history: sqlite:PATH, postgres://USER@HOST/DATABASE, or none")]
pub struct HistoryUrlError(String);

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
        let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        match rest {
            Some(rest) if !rest.is_empty() => Ok(Self::Postgres(PostgresUrl(text.to_owned()))),
            _ => Err(HistoryUrlError(without_password(text))),
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
    /// The whole address, with its password.
    pub fn with_password(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_password(&self.0))
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}

/// An address without `:password` before its host, and without `password=` among its parameters.
pub fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let mut shown = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    // A password may have a `?`, so whoever comes before the `@` is taken off first.
    let rest = rest.split_once('@').map_or(rest, |(user, rest)| {
        shown.push_str(user.split(':').next().unwrap_or_default());
        shown.push('@');
        rest
    });
    let (address, parameters) = rest.split_once('?').map_or((rest, None), |(address, rest)| (address, Some(rest)));
    // It may have an `@`, too.
    shown.push_str(address.rsplit('@').next().unwrap_or_default());
    let kept = parameters.into_iter().flat_map(|all| all.split('&')).filter(|one| !one.starts_with("password="));
    for (nth, parameter) in kept.enumerate() {
        shown.push(if nth == 0 { '?' } else { '&' });
        shown.push_str(parameter);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_their_password() {
        let shown = |text: &str| text.parse().map(|url: HistoryUrl| url.to_string());
        assert_eq!("sqlite:/var/lib/b.db".parse(), Ok(HistoryUrl::Sqlite("/var/lib/b.db".into())));
        assert_eq!(shown("none"), Ok("none".into()));
        assert_eq!(shown("postgres://b@h/d"), Ok("postgres://b@h/d".into()));
        assert_eq!(shown("postgres://b:p@ss@h:1/d?sslmode=require"), Ok("postgres://b@h:1/d?sslmode=require".into()));
        assert_eq!(shown("postgres://b:p?word@h/d?sslmode=require"), Ok("postgres://b@h/d?sslmode=require".into()));
        assert_eq!(shown("postgresql:///d?host=/run&password=s&user=b"), Ok("postgresql:///d?host=/run&user=b".into()));
        let url: HistoryUrl = "postgres://b:secret@h/d".parse().unwrap();
        assert!(!format!("{url:?}").contains("secret"));
        for wrong in ["", "sqlite:", "/var/lib/b.db", "mysql://b:secret@h", "postgres://"] {
            let error = HistoryUrl::from_str(wrong).unwrap_err().to_string();
            assert!(error.contains("sqlite:PATH") && !error.contains("secret"), "{error}");
        }
    }
}
