//! The identity of a connection, and the server's verdict on it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::{ClientError, ConnectErrorKind, ConnectOptions, Event, ServerError};
use bellhop_client::credentials::{Credentials, Secret};
use jiff::{SignedDuration, Timestamp};

use super::NatsError;
use crate::config;

pub use bellhop_client::credentials::Validity;

/// The longest time before its end at which a JWT ends soon: enough for people who renew it by
/// hand.
const LONGEST_NOTICE: SignedDuration = SignedDuration::from_hours(14 * 24);

/// The credentials of a connection, which are read at each attempt to connect. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Access(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    credentials: Credentials,
    /// The settings that name files of credentials, with these files.
    files: Vec<(&'static str, String)>,
    who: String,
    is_refused: AtomicBool,
}

impl Access {
    /// Takes the credentials of the settings, or those in a server's address where the settings
    /// have none.
    pub(super) fn new(settings: &config::Nats, in_url: Option<(String, Option<String>)>) -> Self {
        let config::Nats {
            creds,
            nkey,
            user,
            password,
            password_file,
            token,
            token_file,
            ..
        } = settings;
        let text = |text: &String| (!text.is_empty()).then(|| text.clone());
        let secret = |file: &String, own: &String| match text(file) {
            Some(file) => Some(Secret::File(file.into())),
            None => text(own).map(Secret::Text),
        };
        let is_in_url = in_url.is_some();
        let mut credentials = Credentials {
            creds: text(creds).map(Into::into),
            nkey: text(nkey).map(Into::into),
            user: text(user),
            password: text(user).and_then(|_| secret(password_file, password)),
            token: secret(token_file, token),
        };
        match in_url {
            Some((user, Some(password))) if credentials.user.is_none() => {
                credentials.user = Some(user);
                credentials.password = Some(Secret::Text(password));
            }
            Some((token, None)) if credentials.user.is_none() && credentials.token.is_none() => {
                credentials.token = Some(Secret::Text(token));
            }
            _ => {}
        }
        let files = [
            ("nats.creds", creds),
            ("nats.nkey", nkey),
            ("nats.password_file", password_file),
            ("nats.token_file", token_file),
        ];
        Self(Arc::new(Inner {
            credentials,
            files: files.map(|(setting, path)| (setting, path.clone())).into(),
            who: who(settings, is_in_url),
            is_refused: AtomicBool::new(false),
        }))
    }

    /// Returns options that read the credentials at each attempt to connect.
    pub(super) fn options(&self) -> ConnectOptions {
        self.0.credentials.clone().connect_options()
    }

    /// Reads the files once, so that a missing one is named before anything is connected.
    ///
    /// # Errors
    /// Names the setting and the file that cannot be used.
    pub(super) async fn check(&self) -> Result<(), NatsError> {
        let Err(unusable) = self.0.credentials.auth(b"").await else {
            return Ok(());
        };
        let named = |(_, path): &&(&str, String)| Path::new(path) == unusable.path;
        let setting = self.0.files.iter().find(named).map(|(setting, _)| *setting);
        Err(NatsError::Unusable {
            setting: setting.unwrap_or("nats.creds"),
            path: unusable.path.display().to_string(),
            source: unusable.source.into(),
        })
    }

    /// Returns when the JWT in the credentials file ends, if there is one that ends.
    pub async fn validity(&self) -> Option<Validity> {
        self.0.credentials.validity().await.ok().flatten()
    }

    /// Returns whether the server refused these credentials at the last attempt to connect.
    pub fn is_refused(&self) -> bool {
        self.0.is_refused.load(Ordering::Relaxed)
    }

    /// Returns as whom the connection asks to be let in, without what is secret.
    pub(super) async fn who(&self) -> String {
        match self.validity().await {
            Some(Validity { expires, .. }) => format!("{}, a JWT until {expires}", self.0.who),
            None => self.0.who.clone(),
        }
    }

    /// Takes in what the client says of its connection, and logs what concerns credentials. Returns
    /// whether this does.
    pub(super) async fn note(&self, client: &str, event: &Event) -> bool {
        match event {
            Event::Connected => {
                self.0.is_refused.store(false, Ordering::Relaxed);
                false
            }
            Event::ClientError(ClientError::Other(problem)) if is_refusal(problem) => {
                // Each attempt would log it.
                if !self.0.is_refused.swap(true, Ordering::Relaxed) {
                    tracing::error!(
                        %client,
                        "nats rejects this client {}; retrying, and reading the credentials files each time",
                        self.who().await
                    );
                }
                true
            }
            Event::ServerError(ServerError::Other(problem))
                if problem
                    .to_ascii_lowercase()
                    .contains("authentication expired") =>
            {
                tracing::warn!(
                    %client,
                    "nats closed the connection: its credentials have expired"
                );
                true
            }
            _ => false,
        }
    }
}

/// Returns whether a JWT ends soon: it has a tenth of its life left, or 14 days where that is less.
/// A tool that renews a JWT does so earlier.
pub fn ends_soon(validity: &Validity, now: Timestamp) -> bool {
    let life = validity
        .issued
        .map(|issued| validity.expires.duration_since(issued));
    let notice = life.map_or(LONGEST_NOTICE, |life| (life / 10).min(LONGEST_NOTICE));
    validity.expires.duration_since(now) <= notice
}

/// Returns whether an attempt to connect failed over credentials: the client passes on the kind of
/// the error as text.
fn is_refusal(problem: &str) -> bool {
    let kinds = [
        ConnectErrorKind::AuthorizationViolation,
        ConnectErrorKind::Authentication,
    ];
    kinds.iter().any(|kind| problem == kind.to_string())
}

fn who(settings: &config::Nats, is_in_url: bool) -> String {
    if !settings.creds.is_empty() {
        return format!("with the credentials of {}", settings.creds);
    }
    let has_token = !settings.token.is_empty() || !settings.token_file.is_empty();
    match (settings.nkey.as_str(), settings.user.as_str()) {
        ("", "") if has_token => "with this token".to_owned(),
        ("", "") if is_in_url => "with the credentials of its address".to_owned(),
        ("", "") => "without credentials".to_owned(),
        ("", user) => format!("as user `{user}` with this password"),
        (nkey, _) => format!("with the NKEY of {nkey}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jwt_ends_soon_in_its_last_tenth() {
        let time = |seconds| Timestamp::from_second(seconds).unwrap();
        let of = |issued: Option<i64>, expires, now| {
            let validity = Validity {
                issued: issued.map(time),
                expires: time(expires),
            };
            ends_soon(&validity, time(now))
        };
        let (hour, day) = (3_600, 86_400);
        assert!(!of(Some(0), hour, hour - 361) && of(Some(0), hour, hour - 360));
        let year = 365 * day;
        assert!(!of(Some(0), year, year - 14 * day - 1) && of(Some(0), year, year - 14 * day));
        assert!(!of(None, year, year - 14 * day - 1) && of(None, year, year + 1));
    }

    #[test]
    fn only_refused_credentials_count_as_a_refusal() {
        assert!(is_refusal("authorization violation") && is_refusal("failed signing nonce"));
        assert!(!is_refusal("IO error") && !is_refusal("timed out"));
    }
}
