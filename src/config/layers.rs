//! Merges defaults, file, environment and flags, and remembers which of them each value came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use super::Config;

/// The reason why there is no valid configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not TOML. Its text is not shown: it may be a password.
    #[error("{path} is not TOML: line {line}, column {column}: {problem}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The character of that line, from 1.
        column: usize,
        /// The reason, without any text of the file.
        problem: String,
    },
    /// A setting does not exist.
    #[error("{origin}: unknown setting `{name}`; `bellhop check` prints all settings")]
    Unknown {
        /// The name in the configuration.
        name: String,
        /// By whom.
        origin: Origin,
    },
    /// A value has the wrong type or form.
    #[error("{origin}: `{name}`: {problem}")]
    Invalid {
        /// The setting.
        name: String,
        /// The layer that set it.
        origin: Origin,
        /// The problem, and a valid value.
        problem: String,
    },
    /// A value is out of bounds.
    #[error("`{name}` is {value}; it must be {bounds}")]
    OutOfBounds {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// The permitted values.
        bounds: String,
    },
}

/// The origin of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It was not set.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => path.display().fmt(f),
            Self::Environment(name) => write!(f, "${name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// The layers over the defaults, lowest first.
#[derive(Debug, Default)]
pub struct Layers<'a> {
    /// A TOML file.
    pub file: Option<&'a Path>,
    /// Variables; those that are not settings are skipped.
    pub environment: Vec<(String, String)>,
    /// `name=value` pairs from the command line, such as `("nats.url", "nats://…")`.
    pub flags: Vec<(String, String)>,
}

/// A valid configuration.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Each setting by its dotted name: its value, and where it came from.
    pub values: BTreeMap<String, (Value, Origin)>,
    /// `BELLHOP_*` variables that name no setting.
    pub unknown_variables: Vec<String>,
}

/// Variables of other NATS programs that are honoured, below `BELLHOP_*`.
const NATS_VARIABLES: [(&str, &str); 9] = [
    ("NATS_URL", "nats.url"),
    ("NATS_CREDS", "nats.creds"),
    ("NATS_USER", "nats.user"),
    ("NATS_PASSWORD", "nats.password"),
    ("NATS_TOKEN", "nats.token"),
    ("NATS_NKEY", "nats.nkey"),
    ("NATS_CA", "nats.ca"),
    ("NATS_CERT", "nats.cert"),
    ("NATS_KEY", "nats.key"),
];

/// `BELLHOP_*` variables that belong to tools around the service.
const OTHER_VARIABLES: [&str; 6] = [
    "BELLHOP_NATS_SERVER",
    "BELLHOP_LOG",
    "BELLHOP_BIN",
    "BELLHOP_SEED",
    "BELLHOP_SYSTEM_URL",
    "BELLHOP_TEST_POSTGRES",
];

/// Merges the layers.
///
/// # Errors
/// Names the setting, where its value came from, what is wrong and what would be right.
pub fn load(layers: &Layers<'_>) -> Result<Loaded, ConfigError> {
    let defaults = Table::try_from(Config::default()).expect("the defaults are TOML");
    let mut values = BTreeMap::new();
    flatten("", defaults, &mut |name, value| {
        values.insert(name, (value, Origin::Default));
        Ok(())
    })?;
    let mut set = |name: String, value: Value, origin: Origin| match values.get_mut(&name) {
        Some(slot) => {
            let value = fit(&name, value, &slot.0, &origin)?;
            *slot = (value, origin);
            Ok(())
        }
        None => Err(ConfigError::Unknown { name, origin }),
    };
    if let Some(path) = layers.file {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let table: Table = toml::from_str(&text).map_err(|error| not_toml(path, &text, &error))?;
        flatten("", table, &mut |name, value| {
            set(name, value, Origin::File(path.to_owned()))
        })?;
    }
    let find = |name: &str| {
        layers
            .environment
            .iter()
            .find(|(variable, _)| variable == name)
    };
    for (variable, name) in NATS_VARIABLES {
        if let Some((_, text)) = find(variable) {
            set(
                name.to_owned(),
                Value::String(text.clone()),
                Origin::Environment(variable.to_owned()),
            )?;
        }
    }
    let mut unknown_variables = Vec::new();
    for (variable, text) in &layers.environment {
        let Some(rest) = variable
            .strip_prefix("BELLHOP_")
            .filter(|_| !OTHER_VARIABLES.contains(&variable.as_str()))
        else {
            continue;
        };
        match setting_of(rest) {
            Some(name) => set(
                name,
                Value::String(text.clone()),
                Origin::Environment(variable.clone()),
            )?,
            None => unknown_variables.push(variable.clone()),
        }
    }
    for (name, text) in &layers.flags {
        set(name.clone(), Value::String(text.clone()), Origin::Flag)?;
    }
    let config = build(&values)?;
    config.validate()?;
    Ok(Loaded {
        config,
        values,
        unknown_variables,
    })
}

fn not_toml(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error
        .span()
        .and_then(|span| text.get(..span.start))
        .unwrap_or_default();
    let line_before = before.rsplit('\n').next().unwrap_or_default();
    ConfigError::Syntax {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: line_before.chars().count() + 1,
        problem: error.message().to_owned(),
    }
}

/// `HEARTBEAT_LEASE` → `heartbeat.lease`, if there is such a setting.
fn setting_of(variable: &str) -> Option<String> {
    let defaults = Table::try_from(Config::default()).ok()?;
    let wanted = variable.to_ascii_lowercase();
    let mut found = None;
    let _ = flatten("", defaults, &mut |name, _| {
        if name.replace('.', "_") == wanted {
            found = Some(name);
        }
        Ok(())
    });
    found
}

/// Calls `each` with every leaf's dotted name.
fn flatten(
    prefix: &str,
    table: Table,
    each: &mut impl FnMut(String, Value) -> Result<(), ConfigError>,
) -> Result<(), ConfigError> {
    for (key, value) in table {
        let name = if prefix.is_empty() {
            key
        } else {
            format!("{prefix}.{key}")
        };
        match value {
            Value::Table(table) => flatten(&name, table, each)?,
            leaf => each(name, leaf)?,
        }
    }
    Ok(())
}

/// Text from a variable or a flag becomes what the setting is; anything else must be that already.
fn fit(name: &str, value: Value, like: &Value, origin: &Origin) -> Result<Value, ConfigError> {
    let invalid = |problem: String| ConfigError::Invalid {
        name: name.to_owned(),
        origin: origin.clone(),
        problem,
    };
    match (value, like) {
        (Value::String(text), Value::Integer(_)) if !matches!(origin, Origin::File(_)) => text
            .trim()
            .parse()
            .map(Value::Integer)
            .map_err(|_| invalid(format!("`{text}` is not a whole number"))),
        (Value::String(text), Value::Boolean(_)) if !matches!(origin, Origin::File(_)) => text
            .trim()
            .parse()
            .map(Value::Boolean)
            .map_err(|_| invalid(format!("`{text}` is neither true nor false"))),
        (Value::String(text), Value::Array(_)) if !matches!(origin, Origin::File(_)) => {
            let entries = text
                .split(',')
                .map(str::trim)
                .filter(|entry| !entry.is_empty());
            Ok(Value::Array(
                entries
                    .map(|entry| Value::String(entry.to_owned()))
                    .collect(),
            ))
        }
        (value, like) if value.same_type(like) => Ok(value),
        (value, like) => Err(invalid(format!(
            "expected {}, found {}",
            with_article(like.type_str()),
            with_article(value.type_str())
        ))),
    }
}

/// Returns a noun with its indefinite article.
fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {noun}")
}

/// Puts a value under its dotted name.
fn put(table: &mut Table, name: &str, value: Value) {
    match name.split_once('.') {
        None => _ = table.insert(name.to_owned(), value),
        Some((section, rest)) => {
            let section = table
                .entry(section)
                .or_insert_with(|| Value::Table(Table::new()));
            put(
                section
                    .as_table_mut()
                    .expect("sections have no setting's name"),
                rest,
                value,
            );
        }
    }
}

fn build(values: &BTreeMap<String, (Value, Origin)>) -> Result<Config, ConfigError> {
    let mut table = Table::new();
    for (name, (value, origin)) in values {
        put(&mut table, name, value.clone());
        // One setting at a time, so that an error names it.
        let mut alone = Table::new();
        put(&mut alone, name, value.clone());
        if let Err(error) = Config::deserialize(alone) {
            let problem = error.message().to_owned();
            return Err(ConfigError::Invalid {
                name: name.clone(),
                origin: origin.clone(),
                problem,
            });
        }
    }
    Config::deserialize(table).map_err(|error| ConfigError::Invalid {
        name: "configuration".to_owned(),
        origin: Origin::Default,
        problem: error.message().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn later_layers_win_and_their_origin_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bellhop.toml");
        std::fs::write(
            &file,
            "partitions = 8\n[heartbeat]\nlease = \"3s\"\n[nats]\nurl = \"nats://file\"\n",
        )
        .unwrap();
        let loaded = load(&Layers {
            file: Some(&file),
            environment: pairs(&[
                ("NATS_URL", "nats://nats"),
                ("BELLHOP_NATS_URL", "nats://env"),
                ("BELLHOP_HEARTBEAT_LEASE", "0s"),
                ("BELLHOP_HEARTBEAT_LEESE", "1s"),
                ("BELLHOP_NATS_SERVER", "/bin/nats-server"),
            ]),
            flags: pairs(&[
                ("nats.url", "nats://flag"),
                ("mailbox.limit", "7"),
                ("reroute.sources", "billing, hr"),
                ("reroute.min_priority", "high"),
                ("delivery.copy_rerouted", "true"),
                ("mailbox.escalate_after.high", "1h"),
            ]),
        })
        .unwrap();
        assert_eq!(loaded.config.partitions, 8);
        assert_eq!(loaded.config.heartbeat.lease, Duration::ZERO);
        assert_eq!(loaded.config.nats.url, "nats://flag");
        assert_eq!(loaded.config.mailbox.limit, 7);
        assert_eq!(
            loaded.config.reroute.sources,
            ["billing", "hr"].map(|source| source.parse().unwrap())
        );
        assert!(loaded.config.delivery.copy_rerouted);
        assert_eq!(
            loaded.config.mailbox.escalate_after.high,
            Duration::from_secs(3_600)
        );
        assert_eq!(
            loaded.config.reroute.min_priority,
            crate::reminder::Priority::High
        );
        assert_eq!(loaded.values["partitions"].1, Origin::File(file));
        assert_eq!(
            loaded.values["heartbeat.lease"].1,
            Origin::Environment("BELLHOP_HEARTBEAT_LEASE".into())
        );
        assert_eq!(loaded.values["delivery.timeout"].1, Origin::Default);
        assert_eq!(loaded.unknown_variables, ["BELLHOP_HEARTBEAT_LEESE"]);
    }

    #[test]
    fn mistakes_are_named() {
        let flags = |name: &str, value: &str| {
            load(&Layers {
                flags: pairs(&[(name, value)]),
                ..Layers::default()
            })
            .unwrap_err()
        };
        assert!(
            matches!(flags("no.such", "1"), ConfigError::Unknown { name, .. } if name == "no.such")
        );
        assert!(
            matches!(flags("mailbox.limit", "many"), ConfigError::Invalid { name, .. } if name == "mailbox.limit")
        );
        assert!(matches!(
            flags("delivery.copy_rerouted", "maybe"),
            ConfigError::Invalid { .. }
        ));
        assert!(matches!(
            flags("reroute.sources", "billing,\u{7}"),
            ConfigError::Invalid { .. }
        ));
        assert!(matches!(
            flags("heartbeat.lease", "soon"),
            ConfigError::Invalid { .. }
        ));
        assert!(matches!(
            flags("heartbeat.lease", "-1s"),
            ConfigError::Invalid { .. }
        ));
        assert!(matches!(
            flags("mailbox.limit", "0"),
            ConfigError::OutOfBounds {
                name: "mailbox.limit",
                ..
            }
        ));
        assert!(matches!(
            flags("streams.replicas", "2"),
            ConfigError::OutOfBounds { .. }
        ));
        let error = flags("history.url", "mysql://b:secret@h");
        assert!(matches!(
            error,
            ConfigError::OutOfBounds {
                name: "history.url",
                ..
            }
        ));
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(matches!(
            flags("prefix", "a.b"),
            ConfigError::OutOfBounds { .. }
        ));
        assert!(matches!(
            flags("members.ttl", "1s"),
            ConfigError::OutOfBounds {
                name: "members.ttl",
                ..
            }
        ));
        for prefix in ["", "_INBOX.", "a b", "a.*", ">", "$JS"] {
            assert!(
                matches!(
                    flags("nats.inbox_prefix", prefix),
                    ConfigError::OutOfBounds { .. }
                ),
                "{prefix}"
            );
        }
        assert!(matches!(
            flags("nats.cert", "own.crt"),
            ConfigError::OutOfBounds {
                name: "nats.key",
                ..
            }
        ));
        let error = flags("nats.nkey", "SUAsecret");
        assert!(matches!(
            error,
            ConfigError::OutOfBounds {
                name: "nats.nkey",
                ..
            }
        ));
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn broken_files_are_not_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bellhop.toml");
        for broken in [
            "[nats]\npassword = hunter2",
            "[nats]\npassword = \"hunter2",
            "[nats]\npassword \"hunter2\"",
            "[nats]\npassword = 'hunter2' 'hunter2'",
            "[nats]\npassword = \"\\hunter2\"",
            "[nats]\nhunter2",
            "[nats]\n\"hunter2\" = 1\n\"hunter2\" = 2",
        ] {
            std::fs::write(&file, broken).unwrap();
            let error = load(&Layers {
                file: Some(&file),
                ..Layers::default()
            })
            .unwrap_err()
            .to_string();
            assert!(error.contains("bellhop.toml is not TOML: line "), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn defaults_are_valid_and_read_back() {
        let loaded = load(&Layers::default()).unwrap();
        assert_eq!(loaded.config, Config::default());
    }
}
