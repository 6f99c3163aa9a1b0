//! `bellhop serve`: runs the service until a signal.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{CliError, SettingsArgs};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address for health probes and metrics; port 0 picks a free port [default: 127.0.0.1:9411]
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Database of the history: sqlite:PATH, postgres://USER@HOST/DATABASE, or none [default:
    /// sqlite, a file in $STATE_DIRECTORY or ~/.local/state/bellhop]
    #[arg(long, value_name = "URL")]
    history: Option<String>,
}

pub(super) async fn run(mut settings: SettingsArgs, args: Args) -> Result<(), CliError> {
    let flags = [("http", args.http), ("history.url", args.history)];
    settings.set.extend(
        flags
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?))),
    );
    let config = settings.config()?;
    for exposure in config.exposures() {
        tracing::warn!("{}: {}", exposure.found, exposure.remedy);
    }
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;
    crate::service::serve(config, stop).await?;
    tracing::info!("stopped");
    Ok(())
}

/// The first SIGTERM or SIGINT asks for an orderly stop, the second one leaves at once.
pub(super) fn stop_on_signal(stop: CancellationToken) -> Result<(), CliError> {
    let listen = |kind| {
        signal(kind).map_err(|error| CliError::Io("cannot listen for signals".to_owned(), error))
    };
    let (mut terminate, mut interrupt) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
    );
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.is_cancelled() {
                tracing::warn!("second signal, leaving at once");
                std::process::exit(1);
            }
            tracing::info!("stopping; a second signal leaves at once");
            stop.cancel();
        }
    });
    Ok(())
}
