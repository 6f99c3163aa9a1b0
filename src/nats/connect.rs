//! Makes a connection: who asks for it, by which certificates, and what a person can do who gets none.
use std::sync::Arc;

use async_nats::jetstream::context::ContextBuilder;
use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, Event};
use tokio_util::sync::CancellationToken;

use super::refusals::Refusals;
use super::{Cause, Names, Nats, NatsError};
use crate::config::{self, Config};

/// The least nats-server: consumer resets came with 2.14, and there is no 2.13.
const LEAST_SERVER: (i64, i64, i64) = (2, 14, 0);

/// The least `max_payload`, in bytes: a delivery or a parked reminder of 256 KiB, with room for what surrounds it.
pub(super) const LEAST_PAYLOAD: usize = 512 << 10;

/// Connects, once. Reconnecting later is the client's business.
///
/// # Errors
/// When a file of the settings cannot be used, no server can be reached, none lets this client in, or the server is too
/// old.
pub async fn connect(config: &Config, client_name: &str) -> Result<Nats, NatsError> {
    let (client, refusals, ended) = client(&config.nats, client_name).await?;
    check_server(&client, &config.nats)?;
    let timeout = config.nats.timeout;
    let api = match config.nats.domain.as_str() {
        "" => "$JS.API".to_owned(),
        domain => format!("$JS.{domain}.API"),
    };
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
        refusals,
        ended,
    })
}

/// Connects to whatever server there is, of any version, for whatever it is good for.
///
/// # Errors
/// When a file of the settings cannot be used, no server can be reached, or none lets this client in.
pub async fn connect_to(config: &Config, client_name: &str) -> Result<Client, NatsError> {
    Ok(client(&config.nats, client_name).await?.0)
}

type Made = (Client, Refusals, CancellationToken);

async fn client(settings: &config::Nats, client_name: &str) -> Result<Made, NatsError> {
    let (url, in_url) = split_credentials(&settings.url);
    let options = ConnectOptions::new()
        .name(client_name)
        .request_timeout(Some(settings.timeout));
    let options = options.custom_inbox_prefix(&settings.inbox_prefix);
    // The client gives up when it is to ping a third time without an answer.
    let options = options
        .ping_interval(settings.ping_interval)
        .connection_timeout(settings.ping_interval * 3);
    let options = with_tls(
        with_credentials(options, settings, in_url.as_ref()).await?,
        settings,
    )
    .await?;
    let (refusals, ended) = (Refusals::default(), CancellationToken::new());
    let options = telling(options, client_name, refusals.clone(), ended.clone());
    let addresses: Vec<&str> = url.split(',').map(str::trim).collect();
    let client = options.connect(addresses).await;
    let client = client.map_err(|error| unconnected(&url, &error, settings, in_url.is_some()))?;
    Ok((client, refusals, ended))
}

async fn with_credentials(
    mut options: ConnectOptions,
    settings: &config::Nats,
    in_url: Option<&Credentials>,
) -> Result<ConnectOptions, NatsError> {
    if !settings.creds.is_empty() {
        let text = read("nats.creds", &settings.creds).await?;
        options = options
            .credentials(&text)
            .map_err(|error| unusable("nats.creds", &settings.creds, error))?;
    }
    if !settings.nkey.is_empty() {
        let text = read("nats.nkey", &settings.nkey).await?;
        let seed = seed_in(&text).ok_or_else(|| {
            unusable(
                "nats.nkey",
                &settings.nkey,
                "it has no seed of a user, a line that begins with SU",
            )
        })?;
        options = options.nkey(seed.to_owned());
    }
    match in_url {
        _ if !settings.user.is_empty() => {
            options = options.user_and_password(settings.user.clone(), settings.password.clone());
        }
        // async-nats passes over credentials in an address.
        Some((user, Some(password))) => {
            options = options.user_and_password(user.clone(), password.clone())
        }
        Some((token, None)) => options = options.token(token.clone()),
        None => {}
    }
    Ok(if settings.token.is_empty() {
        options
    } else {
        options.token(settings.token.clone())
    })
}

/// The seed of a user's NKEY, in a file that may have the lines around it that tools write.
fn seed_in(text: &str) -> Option<&str> {
    text.lines()
        .map(str::trim)
        .find(|line| line.starts_with("SU"))
}

/// A configuration with certificates requires TLS, even if a server, or an attacker in between, does not.
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

/// Logs the client's connection events. The client holds the callback for as long as it runs, however it ends, so
/// the callback holds what marks the end.
fn telling(
    options: ConnectOptions,
    client: &str,
    refusals: Refusals,
    ended: CancellationToken,
) -> ConnectOptions {
    let (client, end) = (Arc::<str>::from(client), ended.drop_guard());
    options.event_callback(move |event| {
        let (client, refusals, _) = (client.clone(), refusals.clone(), &end);
        async move {
            match event {
                Event::Connected => tracing::info!(%client, "connected to nats"),
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

/// What went wrong, with what to do about it.
fn unconnected(
    url: &str,
    error: &ConnectError,
    settings: &config::Nats,
    is_in_url: bool,
) -> NatsError {
    let url = shown_addresses(url);
    let problem = error.to_string().trim_end_matches(['.', ':']).to_owned();
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            NatsError::NotLetIn {
                url,
                who: who(settings, is_in_url),
            }
        }
        ConnectErrorKind::Tls => NatsError::Tls { url, problem },
        _ if ["certificate", "fatal alert", "InvalidContentType"]
            .iter()
            .any(|word| problem.contains(word)) =>
        {
            NatsError::Tls { url, problem }
        }
        _ => NatsError::Connect { url, problem },
    }
}

/// As whom a connection was asked for, without what is secret.
fn who(settings: &config::Nats, is_in_url: bool) -> String {
    if !settings.creds.is_empty() {
        return format!("with the credentials of {}", settings.creds);
    }
    match (settings.nkey.as_str(), settings.user.as_str()) {
        ("", "") if is_in_url => "with the credentials of its address".to_owned(),
        ("", "") if !settings.token.is_empty() => "with this token".to_owned(),
        ("", "") => "without credentials".to_owned(),
        ("", user) => format!("as user `{user}` with this password"),
        (nkey, _) => format!("with the NKEY of {nkey}"),
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

/// Takes credentials out of a list of server addresses, so that the first ones can be used, and none are shown.
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

/// Returns a list of server addresses as it may be shown: without credentials, and with `***` for each part that does not
/// look like an address, since it may be a piece of a password that has a comma.
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

    #[test]
    fn a_seed_is_found_among_other_lines() {
        let decorated =
            "-----BEGIN USER NKEY SEED-----\n SUAX \n------END USER NKEY SEED------\nUAX\n";
        assert_eq!([seed_in("SUAX"), seed_in(decorated)], [Some("SUAX"); 2]);
        assert_eq!([seed_in("UAX"), seed_in("")], [None; 2]);
    }
}
