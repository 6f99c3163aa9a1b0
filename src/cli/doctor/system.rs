//! Data that only the system account sees: every server's version, clock and way of writing.
//! Without it, versions are asked for at each address that is known.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::Subject;
use futures_util::StreamExt;
use futures_util::future::join_all;
use serde::Deserialize;

use super::finding::or_ok;
use super::versions::{faults, is_new_enough};
use super::{Case, Finding};
use crate::cli::output::duration;
use crate::config::{Config, Nats};
use crate::nats::{self, During, NatsError, chain, connect_to, shown_addresses, split_credentials};

/// The credentials of a user of the system account.
#[derive(Debug, clap::Args)]
pub(super) struct SystemAccount {
    /// A NATS address with a user of the system account, `nats://USER:PASSWORD@HOST`: it sees every
    /// server's version and how often it writes to its disk. Others can read a command line, so set
    /// $BELLHOP_SYSTEM_URL instead, or use --system-creds
    #[arg(long, value_name = "URL")]
    system: Option<String>,
    /// A credentials file of such a user; it goes with the addresses of --nats
    #[arg(long, value_name = "FILE")]
    system_creds: Option<String>,
}

impl SystemAccount {
    /// The connection that it asks for, if any.
    fn settings(&self, config: &Config) -> Option<Nats> {
        let creds = self.system_creds.clone().unwrap_or_default();
        let variable = || {
            std::env::var("BELLHOP_SYSTEM_URL")
                .ok()
                .filter(|url| !url.is_empty() && creds.is_empty())
        };
        let url = self.system.clone().or_else(variable);
        let is_wanted = url.is_some() || !creds.is_empty();
        let url = url.unwrap_or_else(|| split_credentials(&config.nats.url).0);
        let Nats {
            timeout,
            ping_interval,
            ..
        } = config.nats;
        is_wanted.then(|| Nats {
            url,
            creds,
            timeout,
            ping_interval,
            ..Nats::default()
        })
    }
}

/// A server, by its own words.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Server {
    #[serde(rename = "server")]
    is: Is,
    #[serde(default)]
    data: Data,
}

#[derive(Debug, Clone, Deserialize)]
struct Is {
    name: String,
    ver: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Data {
    #[serde(default)]
    config: Option<JetStream>,
}

#[derive(Debug, Clone, Deserialize)]
struct JetStream {
    #[serde(default)]
    sync_always: bool,
    #[serde(default)]
    sync_interval: u64,
}

/// The servers, or why there was no answer; none if no system account was given.
pub(super) type Servers = Option<Result<Vec<Server>, String>>;

/// After this no other server answers any more.
const PATIENCE: Duration = Duration::from_millis(500);

/// Asks all servers, as the system account.
pub(super) async fn servers(config: &Config, system: &SystemAccount) -> Servers {
    let nats = system.settings(config)?;
    let url = shown_addresses(&nats.url);
    Some(
        match ask(&Config {
            nats,
            ..config.clone()
        })
        .await
        {
            Ok(servers) if servers.is_empty() => Err(format!(
                "no server answers: the user at {url} is not in the system account"
            )),
            Ok(servers) => Ok(servers),
            Err(error) => Err(chain(&of_system(error)).to_string()),
        },
    )
}

/// Names the option in an error that names the setting of the installation's own connection.
fn of_system(error: NatsError) -> NatsError {
    match error {
        NatsError::Unusable { path, source, .. } => NatsError::Unusable {
            setting: "--system-creds",
            path,
            source,
        },
        NatsError::NotLetIn { url, who } => NatsError::Contrary {
            what: format!("{url} rejected the connection {who}"),
            problem:
                "name a user of the system account with --system-creds or in $BELLHOP_SYSTEM_URL"
                    .to_owned(),
        },
        error => error,
    }
}

async fn ask(config: &Config) -> Result<Vec<Server>, NatsError> {
    let client = connect_to(config, "bellhop doctor").await?;
    let inbox = Subject::from(client.new_inbox());
    let mut answers = client
        .subscribe(inbox.clone())
        .await
        .during("ask the servers")?;
    let request = r#"{"config":true}"#.into();
    let sent = client
        .publish_with_reply("$SYS.REQ.SERVER.PING.JSZ", inbox, request)
        .await;
    sent.during("ask the servers")?;
    let mut servers = Vec::new();
    while let Ok(Some(answer)) = tokio::time::timeout(PATIENCE, answers.next()).await {
        servers.extend(serde_json::from_slice::<Server>(&answer.payload));
    }
    servers.sort_by(|a, b| a.is.name.cmp(&b.is.name));
    Ok(servers)
}

/// Every server must do what Bellhop needs: a connection may go to any of them tomorrow.
pub(super) async fn versions(
    nats: &nats::Nats,
    config: &Config,
    servers: &Servers,
) -> Vec<Finding> {
    match servers {
        Some(Ok(servers)) => {
            let is_old = |server: &&Server| !is_new_enough(&server.is.ver);
            let old = servers.iter().filter(is_old).map(|server| {
                let found = format!("{} runs nats-server {}", server.is.name, server.is.ver);
                Finding::critical(
                    found,
                    "nats-server 2.14.0 or later everywhere",
                    "upgrade nats-server, one node after the other",
                )
            });
            let all = || {
                servers
                    .iter()
                    .map(|server| (server.is.name.as_str(), server.is.ver.as_str()))
            };
            let enough = all().filter(|(_, version)| is_new_enough(version));
            let findings = old.chain(faults(enough)).collect();
            let versions: BTreeSet<_> = servers
                .iter()
                .map(|server| server.is.ver.as_str())
                .collect();
            or_ok(findings, || {
                format!(
                    "{} of them, nats-server {}",
                    servers.len(),
                    Vec::from_iter(versions).join(", ")
                )
            })
        }
        _ => addresses(nats, config).await,
    }
}

/// Asks every address of the setting, and every one that the server announces.
async fn addresses(nats: &nats::Nats, config: &Config) -> Vec<Finding> {
    let clean = split_credentials(&config.nats.url).0;
    let announced = nats.client.server_info().connect_urls;
    let own: BTreeSet<_> = clean
        .split(',')
        .map(str::trim)
        .map(ToOwned::to_owned)
        .collect();
    let others = announced
        .into_iter()
        .filter(|address| !own.iter().any(|own| own.ends_with(address.as_str())));
    let all: Vec<String> = own.iter().cloned().chain(others).collect();
    let answers = join_all(all.iter().map(|address| version(config, address))).await;
    let mut versions = BTreeSet::new();
    let mut findings = Vec::new();
    for (address, answer) in all.iter().zip(answers) {
        match answer {
            Ok(version) => _ = versions.insert((address.as_str(), version)),
            Err(error @ (NatsError::TooOld { .. } | NatsError::SmallPayload { .. })) => {
                findings.push(super::server::unreachable(&error).finding);
            }
            Err(error) if own.contains(address) => findings.push(Finding::warning(
                chain(&error).to_string(),
                "an answer at every address of nats.url",
                format!("start the server at {address}, or take it out of nats.url"),
            )),
            Err(_) => findings.push(Finding::unknown(
                format!("the servers announce {address}, which cannot be reached from here"),
                "run this where the members run, or set $BELLHOP_SYSTEM_URL to the address of the system account",
            )),
        }
    }
    let by_address = versions
        .iter()
        .map(|(address, version)| (*address, version.as_str()));
    findings.extend(faults(by_address.clone()));
    or_ok(findings, || {
        let versions: BTreeSet<_> = by_address.map(|(_, version)| version).collect();
        format!(
            "nats-server {} at {}",
            Vec::from_iter(versions).join(", "),
            all.join(", ")
        )
    })
}

/// The version of the server at an address. Credentials are those of the setting.
async fn version(config: &Config, address: &str) -> Result<String, NatsError> {
    let mut config = config.clone();
    let (_, credentials) = split_credentials(&config.nats.url);
    match credentials {
        Some((user, Some(password))) if config.nats.user.is_empty() => {
            (config.nats.user, config.nats.password) = (user, password);
            config.nats.password_file.clear();
        }
        Some((token, None))
            if config.nats.token.is_empty() && config.nats.token_file.is_empty() =>
        {
            config.nats.token = token;
        }
        _ => {}
    }
    config.nats.url = address.to_owned();
    Ok(nats::connect(&config, "bellhop doctor")
        .await?
        .client
        .server_info()
        .version)
}

/// Checks the value of an acknowledgement when machines lose power.
pub(super) fn sync(case: &Case<'_>, servers: &Servers) -> Vec<Finding> {
    let servers = match servers {
        Some(Ok(servers)) => servers,
        Some(Err(problem)) => {
            return vec![Finding::unknown(
                problem,
                "set $BELLHOP_SYSTEM_URL to nats://USER:PASSWORD@HOST, or name a credentials file with --system-creds",
            )];
        }
        None => {
            return vec![Finding::unknown(
                "how often servers write to their disks can be seen by the system account alone",
                "set $BELLHOP_SYSTEM_URL to nats://USER:PASSWORD@HOST, or look for sync_interval in nats-server's configuration",
            )];
        }
    };
    let late = servers.iter().filter_map(|server| {
        let config = server.data.config.as_ref().filter(|config| !config.sync_always)?;
        let every = duration(Duration::from_nanos(config.sync_interval));
        let found = format!("{} writes to its disk every {every}", server.is.name);
        let lost = if case.config.streams.replicas == 1 {
            "after a loss of power, sets that were acknowledged in that time are gone"
        } else {
            "what all servers acknowledged in that time is gone when all lose power at once"
        };
        let expected = format!("sync_interval: always; {lost}");
        Some(Finding::warning(
            found,
            expected,
            "set `sync_interval: always` in the block jetstream, as nats-config/durable.conf does, and restart",
        ))
    });
    or_ok(late.collect(), || {
        "every server writes to its disk before it acknowledges".to_owned()
    })
}
