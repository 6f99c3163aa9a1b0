//! Makes a connection: who asks for it, by which certificates, and what a person can do who gets
//! none.
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::ContextBuilder;
use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, Event};
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::notices::Notices;
use super::pull_limit::PullLimit;
use super::refusals::Refusals;
use super::{Cause, Names, Nats, NatsError};
use crate::config::{self, Config};

/// The least nats-server: consumer resets came with 2.14, and there is no 2.13.
const LEAST_SERVER: (i64, i64, i64) = (2, 14, 0);

/// The least `max_payload`, in bytes: a delivery or a parked reminder of 256 KiB, with room for
/// what surrounds it.
pub(super) const LEAST_PAYLOAD: usize = 512 << 10;

/// Connects, once. Reconnecting later is the client's business.
///
/// # Errors
/// When a file of the settings cannot be used, no server can be reached, none lets this client in,
/// or the server is too old.
pub async fn connect(config: &Config, client_name: &str) -> Result<Nats, NatsError> {
    let Made {
        client,
        refusals,
        access,
        notices,
        ended,
    } = client(&config.nats, client_name).await?;
    check_server(&client, &config.nats)?;
    let timeout = config.nats.timeout;
    let api = config.nats.api();
    let jetstream = ContextBuilder::new()
        .api_prefix(&api)
        .timeout(timeout)
        .build(client.clone());
    Ok(Nats {
        client,
        jetstream,
        api,
        names: Names::new(&config.prefix),
        timeout,
        pull_limit: PullLimit::default(),
        refusals,
        access,
        notices,
        ended,
    })
}

/// Connects to whatever server there is, of any version, for whatever it is good for.
///
/// # Errors
/// When a file of the settings cannot be used, no server can be reached, or none lets this client
/// in.
pub async fn connect_to(config: &Config, client_name: &str) -> Result<Client, NatsError> {
    Ok(client(&config.nats, client_name).await?.client)
}

/// Returns the pause before an attempt to connect again. The first one is made at once; the others
/// are spread, so that the clients of a server that has gone do not all come to the next one at the
/// same moment.
fn reconnect_delay(attempts: usize) -> Duration {
    if attempts <= 1 {
        return Duration::ZERO;
    }
    let doublings = u32::try_from(attempts - 2).unwrap_or(u32::MAX).min(16);
    let pause = (SHORTEST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE);
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// The bounds of the pauses between attempts to connect again.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

struct Made {
    client: Client,
    refusals: Refusals,
    access: Access,
    notices: Notices,
    ended: CancellationToken,
}

async fn client(settings: &config::Nats, client_name: &str) -> Result<Made, NatsError> {
    let (url, in_url) = split_credentials(&settings.url);
    let access = Access::new(settings, in_url);
    access.check().await?;
    let options = access
        .options()
        .name(client_name)
        .request_timeout(Some(settings.timeout));
    let options = options.custom_inbox_prefix(&settings.inbox_prefix);
    // The client gives up when it is to ping a third time without an answer.
    let options = options
        .ping_interval(settings.ping_interval)
        .connection_timeout(settings.ping_interval * 3)
        .reconnect_delay_callback(reconnect_delay);
    let options = with_tls(options, settings).await?;
    // The client takes the other servers that a server names for servers without WebSockets.
    let options = match settings.is_web() {
        true => options.ignore_discovered_servers(),
        false => options,
    };
    let (refusals, notices, ended) = (
        Refusals::default(),
        Notices::default(),
        CancellationToken::new(),
    );
    let options = telling(options, client_name, &refusals, &access, &notices, &ended);
    let addresses: Vec<&str> = url.split(',').map(str::trim).collect();
    let client = options.connect(addresses).await;
    match client {
        Ok(client) => Ok(Made {
            client,
            refusals,
            access,
            notices,
            ended,
        }),
        Err(error) => Err(unconnected(&url, error, settings, &access).await),
    }
}

/// A configuration with certificates requires TLS, even if a server, or an attacker in between,
/// does not.
async fn with_tls(
    mut options: ConnectOptions,
    settings: &config::Nats,
) -> Result<ConnectOptions, NatsError> {
    if !settings.ca.is_empty() {
        certificates("nats.ca", &settings.ca).await?;
        options = options
            .add_root_certificates(settings.ca.clone().into())
            .require_tls(true);
    }
    if !settings.cert.is_empty() {
        certificates("nats.cert", &settings.cert).await?;
        read("nats.key", &settings.key).await?;
        let (cert, key) = (settings.cert.clone().into(), settings.key.clone().into());
        options = options.add_client_certificate(cert, key).require_tls(true);
    }
    if settings.tls_first {
        options = options.tls_first().require_tls(true);
    }
    Ok(options)
}

/// Checks that a file has certificates. The client reads it itself, each time that it connects.
async fn certificates(setting: &'static str, path: &str) -> Result<(), NatsError> {
    let has_any = read(setting, path)
        .await?
        .contains("-----BEGIN CERTIFICATE-----");
    if has_any {
        Ok(())
    } else {
        Err(unusable(setting, path, "it has no certificate in PEM form"))
    }
}

async fn read(setting: &'static str, path: &str) -> Result<String, NatsError> {
    tokio::fs::read_to_string(path)
        .await
        .map_err(|error| unusable(setting, path, error))
}

fn unusable(setting: &'static str, path: &str, cause: impl Into<Cause>) -> NatsError {
    NatsError::Unusable {
        setting,
        path: path.to_owned(),
        source: cause.into(),
    }
}

/// Logs the client's connection events. The client holds the callback for as long as it runs,
/// however it ends, so the callback holds what marks the end.
fn telling(
    options: ConnectOptions,
    client: &str,
    refusals: &Refusals,
    access: &Access,
    notices: &Notices,
    ended: &CancellationToken,
) -> ConnectOptions {
    let (client, end) = (Arc::<str>::from(client), ended.clone().drop_guard());
    let (refusals, access, notices) = (refusals.clone(), access.clone(), notices.clone());
    options.event_callback(move |event| {
        let (client, refusals, access, notices, _) = (
            client.clone(),
            refusals.clone(),
            access.clone(),
            notices.clone(),
            &end,
        );
        async move {
            if access.note(&client, &event).await {
                return;
            }
            match event {
                Event::Connected => tracing::info!(%client, "connected to nats"),
                Event::LameDuckMode => {
                    tracing::warn!(%client, "the nats-server of this connection is about to stop");
                    notices.note();
                }
                Event::Disconnected => {
                    tracing::warn!(%client, "disconnected from nats, reconnecting")
                }
                Event::Closed | Event::Draining => tracing::debug!(%client, %event, "nats client"),
                Event::ServerError(error) if refusals.note(&error.to_string()) => {}
                other => tracing::warn!(%client, event = %other, "nats client"),
            }
        }
    })
}

/// Returns the failure of a connection, with what to do about it.
async fn unconnected(
    url: &str,
    error: ConnectError,
    settings: &config::Nats,
    access: &Access,
) -> NatsError {
    let url = shown_addresses(url);
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            NatsError::NotLetIn {
                url,
                who: access.who().await,
            }
        }
        kind if kind == ConnectErrorKind::Tls || is_of_handshake(&error) => NatsError::Tls {
            url,
            source: error.into(),
            hint: tls_hint(settings),
        },
        _ => NatsError::Connect {
            hint: silence_hint(&error, settings),
            url,
            source: error.into(),
        },
    }
}

/// Returns the failure of a read or a write that ended the connection, if one did.
fn io_error(error: &ConnectError) -> Option<&io::Error> {
    error.source()?.downcast_ref()
}

/// Returns true if TLS failed during its handshake, for which the client has no kind of error. Over
/// WebSockets the failure is further down among the causes.
fn is_of_handshake(error: &ConnectError) -> bool {
    let of_tls = |cause: &(dyn Error + 'static)| {
        let inner = cause.downcast_ref().and_then(io::Error::get_ref);
        inner.is_some_and(|inner| inner.is::<async_nats::rustls::Error>())
    };
    std::iter::successors(error.source(), |&cause| cause.source()).any(of_tls)
}

fn tls_hint(settings: &config::Nats) -> &'static str {
    if settings.tls_first {
        "; `nats.tls_first` is for a server with `handshake_first` alone"
    } else {
        ""
    }
}

/// Returns what to do about a server that takes a connection and says nothing: one with
/// `handshake_first` waits for TLS.
fn silence_hint(error: &ConnectError, settings: &config::Nats) -> &'static str {
    // The client has read to the end, or something else than the words with which a nats-server
    // begins.
    let is_silent = error.kind() == ConnectErrorKind::Io && io_error(error).is_none();
    if is_silent && !settings.tls_first && !settings.is_web() {
        "is it a server with `handshake_first`? Then set `nats.tls_first`. If not, is it nats-server?"
    } else {
        "is nats-server running there?"
    }
}

fn check_server(client: &Client, settings: &config::Nats) -> Result<(), NatsError> {
    let url = || shown_addresses(&settings.url);
    let (major, minor, patch) = LEAST_SERVER;
    if !client.is_server_compatible(major, minor, patch) {
        let found = client.server_info().version;
        return Err(NatsError::TooOld {
            url: url(),
            found,
            needed: "2.14.0",
        });
    }
    match client.max_payload() {
        found if found < LEAST_PAYLOAD => Err(NatsError::SmallPayload { url: url(), found }),
        _ => Ok(()),
    }
}

/// `user:password@` or `token@` of a server's address.
type Credentials = (String, Option<String>);

/// Takes credentials out of a list of server addresses, so that the first ones can be used, and
/// none are shown.
pub fn split_credentials(url: &str) -> (String, Option<Credentials>) {
    let mut credentials = None;
    let clean = |address: &str| {
        let (scheme, rest) = address
            .split_once("://")
            .map_or(("", address), |(scheme, rest)| (scheme, rest));
        let Some((own, host)) = rest.rsplit_once('@') else {
            return address.to_owned();
        };
        let own = own.split_once(':').map_or((own, None), |(user, password)| {
            (user, Some(password.to_owned()))
        });
        credentials.get_or_insert((own.0.to_owned(), own.1));
        if scheme.is_empty() {
            host.to_owned()
        } else {
            format!("{scheme}://{host}")
        }
    };
    let addresses: Vec<String> = url.split(',').map(str::trim).map(clean).collect();
    (addresses.join(","), credentials)
}

/// Returns a list of server addresses as it may be shown: without credentials, and with `***` for
/// each part that does not look like an address, since it may be a piece of a password that has a
/// comma.
pub fn shown_addresses(url: &str) -> String {
    let (clean, _) = split_credentials(url);
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    let is_address = |address: &&str| {
        let host = address
            .split_once("://")
            .map_or(*address, |(_, host)| host)
            .trim_end_matches('/');
        let port = host
            .rsplit_once(':')
            .map_or("", |(_, port)| port.trim_end_matches(']'));
        host.chars().all(is_host) && port.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let is_torn = url
        .split(',')
        .skip(1)
        .any(|part| part.contains('@') && !part.contains("://"));
    let shown = |part| {
        if is_torn || !is_address(&part) {
            "***"
        } else {
            part
        }
    };
    clean.split(',').map(shown).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_to_connect_are_spread() {
        assert_eq!(
            [reconnect_delay(0), reconnect_delay(1)],
            [Duration::ZERO; 2]
        );
        for attempts in [2, 5, 20, usize::MAX] {
            let pause = reconnect_delay(attempts);
            assert!(
                (SHORTEST_PAUSE / 2..=LONGEST_PAUSE).contains(&pause),
                "{attempts}: {pause:?}"
            );
        }
        assert!(reconnect_delay(usize::MAX) >= LONGEST_PAUSE / 2);
    }

    #[test]
    fn credentials_are_taken_out_of_addresses() {
        let split = |url| split_credentials(url);
        assert_eq!(
            split("nats://a:4222, tls://b"),
            ("nats://a:4222,tls://b".into(), None)
        );
        let with_user = Some(("u".to_owned(), Some("p@ss:word".to_owned())));
        assert_eq!(
            split("nats://u:p@ss:word@a:1,nats://x@b"),
            ("nats://a:1,nats://b".into(), with_user)
        );
        assert_eq!(
            split("token@a"),
            ("a".into(), Some(("token".to_owned(), None)))
        );
    }

    #[test]
    fn passwords_are_shown_in_no_form_of_address() {
        for fine in [
            "nats://a:4222,tls://b",
            "a",
            "nats://[::1]:4222",
            "",
            "nats://10.0.0.1:4222,nats://10.0.0.2",
        ] {
            assert_eq!(shown_addresses(fine), fine);
        }
        assert_eq!(
            shown_addresses("nats://u:secret@a:4222, nats://secret@b"),
            "nats://a:4222,nats://b"
        );
        for secret in [
            "nats://u:secret,word@a",
            "nats://u:1234,5@a",
            "nats://a/?token=secret",
            "u:secret",
            "nats://u:secret",
        ] {
            let shown = shown_addresses(secret);
            assert!(
                shown.contains("***") && !shown.contains("secret") && !shown.contains("1234"),
                "{shown}"
            );
        }
    }
}
