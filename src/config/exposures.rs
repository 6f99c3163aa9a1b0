//! Secrets that others could read, by the settings: on this machine, or on the way to another one.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;

use super::Config;
use crate::history::HistoryUrl;

/// A secret that others could read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// The secret, and who could read it.
    pub found: String,
    /// The change that ends it.
    pub remedy: String,
}

impl Exposure {
    /// Returns what is wrong with a file of secrets, which a setting names, if every user of this
    /// machine can read it.
    pub fn of_file(setting: &str, path: &str) -> Option<Self> {
        let mode = fs::metadata(path).ok()?.permissions().mode();
        (mode & 0o004 != 0).then(|| Self {
            found: format!("every user of this machine can read {path}, the file of {setting}"),
            remedy: format!("chmod o-rwx {path}"),
        })
    }
}

impl Config {
    /// Returns each secret that others could read: files that every user of this machine may read,
    /// and passwords that go to another machine where nothing asks for TLS. Files that are missing
    /// are passed over.
    pub fn exposures(&self) -> Vec<Exposure> {
        let files = [
            ("nats.creds", &self.nats.creds),
            ("nats.nkey", &self.nats.nkey),
            ("nats.key", &self.nats.key),
            ("nats.password_file", &self.nats.password_file),
            ("nats.token_file", &self.nats.token_file),
            ("history.password_file", &self.history.password_file),
        ];
        let mut found: Vec<_> = files
            .into_iter()
            .filter_map(|(setting, path)| Exposure::of_file(setting, path))
            .collect();
        found.extend(self.password_to_nats());
        found.extend(self.history_elsewhere());
        found
    }

    fn password_to_nats(&self) -> Option<Exposure> {
        let nats = &self.nats;
        let secrets = [&nats.user, &nats.token, &nats.token_file];
        let has_password =
            secrets.iter().any(|secret| !secret.is_empty()) || nats.url.contains('@');
        let is_exposed = |address: &str| {
            let (scheme, rest) = address
                .trim()
                .split_once("://")
                .unwrap_or(("nats", address.trim()));
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            !["tls", "wss"].contains(&scheme) && !is_loopback(without_port(host))
        };
        let is_found = has_password && !nats.asks_for_tls() && nats.url.split(',').any(is_exposed);
        is_found.then(|| Exposure {
            found: "a password or token of NATS goes to another machine, and nothing asks for TLS".to_owned(),
            remedy: "write tls://HOST in nats.url, or set nats.ca; an NKEY or a credentials file sends no secret"
                .to_owned(),
        })
    }

    fn history_elsewhere(&self) -> Option<Exposure> {
        let Ok(HistoryUrl::Postgres(url)) = self.history.url.parse() else {
            return None;
        };
        let is_found = url
            .hosts_without_tls()
            .iter()
            .any(|host| !is_loopback(host));
        is_found.then(|| Exposure {
            found: "reminders go to PostgreSQL on another machine without TLS".to_owned(),
            remedy: "add `?sslmode=require` to history.url".to_owned(),
        })
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Returns whether a host is this machine, by its name or address alone.
fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host.is_empty()
        || host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        config
            .exposures()
            .into_iter()
            .map(|exposure| exposure.found)
            .collect()
    }

    #[test]
    fn passwords_to_other_machines_need_tls() {
        let of = |url: &str, user: &str| {
            found(|config| (config.nats.url, config.nats.user) = (url.to_owned(), user.to_owned()))
        };
        for exposed in [
            "nats://nats-1:4222",
            "nats-1",
            "tls://nats-1,nats://10.0.0.2:4222",
            "ws://nats-1",
        ] {
            assert!(
                of(exposed, "u")[0].contains("a password or token"),
                "{exposed}"
            );
            assert_eq!(
                of(exposed, ""),
                Vec::<String>::new(),
                "{exposed} without a password"
            );
        }
        assert_eq!(of("nats://token@nats-1", "").len(), 1);
        for fine in [
            "nats://127.0.0.1:4222",
            "localhost",
            "nats://[::1]:4222",
            "tls://nats-1",
            "wss://nats-1",
        ] {
            assert_eq!(of(fine, "u"), Vec::<String>::new(), "{fine}");
        }
        let with_ca = found(|config| {
            (config.nats.url, config.nats.ca) = ("nats://u:p@nats-1".into(), "ca.crt".into())
        });
        assert_eq!(with_ca, Vec::<String>::new());
    }

    #[test]
    fn plain_connections_to_other_machines_are_exposed() {
        let of = |url: &str| found(|config| config.history.url = url.to_owned());
        for exposed in [
            "postgres://b@db/d",
            "postgres://b@10.0.0.1/d?sslmode=prefer",
            "postgres:///d?host=db",
        ] {
            assert!(of(exposed)[0].contains("PostgreSQL"), "{exposed}");
        }
        for fine in [
            "postgres://b@localhost/d",
            "postgres:///d?host=/run",
            "postgres://b@db/d?sslmode=require",
        ] {
            assert_eq!(of(fine), Vec::<String>::new(), "{fine}");
        }
    }

    #[test]
    fn files_that_all_can_read_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bellhop.nk");
        fs::write(&path, "SUA").unwrap();
        let with_mode = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            found(|config| config.nats.nkey = path.to_str().unwrap().to_owned())
        };
        assert!(with_mode(0o644)[0].ends_with("bellhop.nk, the file of nats.nkey"));
        assert_eq!(
            [with_mode(0o600), with_mode(0o440)],
            [Vec::<String>::new(), Vec::new()]
        );
    }
}
