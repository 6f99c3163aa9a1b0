//! `bellhop terminal`: a web page on which people see their reminders.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use bellhop_terminal::{Options, SigningKey, Terminal};
use tokio_util::sync::CancellationToken;

use super::output::{Output, complain};
use super::serve::stop_on_signal;
use super::{CliError, SettingsArgs};
use crate::config::Exposure;
use crate::nats;
use crate::nats::chain;
use crate::token::{InstanceName, UserId};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  bellhop terminal
  bellhop terminal --listen 0.0.0.0:9480 --instance web-2 --key-file web.key
  bellhop terminal --listen 127.0.0.1:9480 --host reminders.example --proxy 127.0.0.1

It is an app server with a web page. There is no password: everyone who reaches the page can sign in under any name. \
So it listens on this machine only, unless --listen says otherwise.")]
pub(super) struct Args {
    /// Address for browsers; port 0 picks a free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9480")]
    listen: SocketAddr,
    /// Its instance name, unique among running app servers
    #[arg(long, value_name = "NAME", default_value = "web-1")]
    instance: InstanceName,
    /// A name that the page suggests to sign in as; may be repeated
    #[arg(long = "suggest", value_name = "USER")]
    names: Vec<UserId>,
    /// A host name that browsers may use, besides addresses and localhost; may be repeated
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// File for the key that signs cookies, so that sessions survive a restart and are shared with
    /// others using the same file [default: a new key each time]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Address of a TLS proxy in front of it, which sets X-Forwarded-For and X-Forwarded-Proto:
    /// cookies are marked Secure if the proxy says `https`
    #[arg(long, value_name = "IP")]
    proxy: Option<IpAddr>,
}

pub(super) async fn run(settings: &SettingsArgs, args: Args) -> Result<(), CliError> {
    let Args {
        listen,
        instance,
        names,
        hosts,
        key_file,
        proxy,
    } = args;
    let key = match &key_file {
        Some(path) => SigningKey::of_file(path)
            .map_err(|error| (format!("the key of {}", path.display()), error)),
        None => SigningKey::random().map_err(|error| ("a key".to_owned(), error)),
    };
    let key = key.map_err(|(what, error)| CliError::Io(format!("cannot have {what}"), error))?;
    if let Some(exposure) =
        key_file.and_then(|path| Exposure::of_file("--key-file", &path.to_string_lossy()))
    {
        complain(format_args!("{}: {}", exposure.found, exposure.remedy));
    }
    let config = settings.config()?;
    let nats = nats::connect(&config, "bellhop terminal").await?;
    let options = Options {
        listen,
        instance,
        prefix: config.prefix.clone(),
        answer_within: config.delivery.timeout / 2,
        names: names.iter().map(ToString::to_string).collect(),
        hosts,
        key,
        proxy,
    };
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;
    let terminal = Terminal::start(nats.client, options)
        .await
        .map_err(|error| CliError::Failed(chain(&error).to_string()))?;
    let mut output = Output::new();
    output.line(format!(
        "http://{}/ is open; everyone who reaches it can sign in under any name; Ctrl-C ends it",
        terminal.address()
    ))?;
    output.flush()?;
    terminal.run(stop).await;
    Ok(())
}
