//! `bellhop demo`: the whole of Bellhop on one machine, in a newcomer's first minute.
//!
//! A nats-server, the service, two app servers with a few hundred users, and three business systems run for real; what
//! happens is shown, and a ledger that knows nothing of Bellhop's insides has every reminder. In the end all users are
//! connected, everything is delivered, and the ledger says whether anything was lost, repeated or out of order.
//!
//! The service is the caller's: the crate knows Bellhop by its contract and by the names of its settings.
//!
//! | module | |
//! | --- | --- |
//! | `stage` | a nats-server, the service, a directory |
//! | `app_server`, `business`, `catalogue` | programs on [`bellhop_client`] |
//! | `visitors` | people who use the web terminal |
//! | `chance` | random durations |
//! | `crowd`, `scenario` | which users come and go; the story of alice, and of an app server that is killed |
//! | `outcomes`, `ledger`, `latency` | the account of all reminders |
//! | `board`, `meter`, `view`, `screen`, `summary` | what is shown |
//! | `options` | the caller's choices |
//! | `run` | all of that, from start to end |

#![allow(clippy::disallowed_methods)] // It runs things, so it reads the clock.

mod app_server;
mod board;
mod business;
mod catalogue;
mod chance;
mod crowd;
mod error;
mod latency;
mod ledger;
mod meter;
mod options;
mod outcomes;
mod run;
mod scenario;
mod screen;
mod stage;
mod summary;
mod view;
mod visitors;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use error::{Cause, DemoError};
pub use options::{Look, Options};
use run::Demo;
use screen::Screen;
use stage::Stage;

/// Runs the demo until `stop`, if it does not end by time, and shows it on standard output. Dropped, it leaves nothing
/// running.
///
/// `serve` runs the service with these settings, by name, until its token is cancelled.
///
/// # Errors
/// When the demo cannot run, or when a reminder was lost, repeated or out of order.
pub async fn run<S>(
    options: Options,
    serve: impl FnOnce(Vec<(String, String)>, CancellationToken) -> S,
    stop: CancellationToken,
) -> Result<(), DemoError>
where
    S: Future<Output = Result<(), Cause>> + Send + 'static,
{
    let mut screen = Screen::stdout();
    let stage = tokio::select! {
        stage = Stage::set(serve) => stage?,
        () = stop.cancelled() => return Err(DemoError::Stopped),
    };
    let terminal = match &options.look {
        Some(look) => Some(visitors::open(&stage, look.listen).await?),
        None => None,
    };
    let url = terminal
        .as_ref()
        .map(|terminal| format!("http://{}/", terminal.address()));
    screen.print(&summary::welcome(&stage, &options, url.as_deref()))?;
    if options.look.is_some_and(|look| look.opens_browser) {
        url.as_deref().into_iter().for_each(visitors::show);
    }
    let mut demo = Demo::begin(stage, terminal, options.rate).await?;
    let end = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = after(options.duration) => {}
        }
    };
    demo.watch(&mut screen, end).await?;
    let board = demo.board();
    let summary = demo.end().await?;
    screen.close(&board, &summary.rows())?;
    match summary.trouble() {
        None => Ok(()),
        Some(trouble) => Err(DemoError::Verdict(trouble)),
    }
}

async fn after(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
