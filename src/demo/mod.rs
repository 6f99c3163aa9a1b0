//! `bellhop demo`: the whole of Bellhop on one machine, in a newcomer's first minute.
//!
//! A nats-server, the service, two app servers with a few hundred users, and three business systems run for real; what
//! happens is shown, and an account that knows nothing of Bellhop's insides is kept of every reminder. In the end
//! everybody is connected, everything is delivered, and the account says whether anything was lost, repeated or out of
//! order.
//!
//! | module | |
//! | --- | --- |
//! | `stage` | a nats-server, the service, a directory |
//! | `app_server`, `business`, `catalogue` | programs on `bellhop::client` |
//! | `visitors` | people who use the web terminal |
//! | `chance` | random durations |
//! | `crowd`, `scenes` | who comes and goes; the story of alice, and of an app server that is killed |
//! | `outcomes`, `ledger`, `latency` | the account |
//! | `board`, `meter`, `view`, `screen`, `summary` | what is shown |

#![allow(clippy::disallowed_methods)] // It runs things, so it reads the clock.

mod app_server;
mod board;
mod business;
mod catalogue;
mod chance;
mod crowd;
mod latency;
mod ledger;
mod meter;
mod outcomes;
mod scenes;
mod screen;
mod stage;
mod summary;
#[cfg(test)]
mod tests;
pub(crate) mod view;
mod visitors;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellhop_terminal::{Terminal, TerminalError};
use bellhop_testkit::nats_server::{FindError, StartError};
use futures_util::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::nats::{NatsError, bucket};
use crate::token::UserId;
use app_server::{AppServer, Happening};
use board::{Board, Line};
use business::Business;
use catalogue::SOURCES;
use ledger::Ledger;
use scenes::Scenes;
use screen::Screen;
use stage::Stage;
use summary::Summary;

/// The app servers.
const INSTANCES: [&str; 2] = ["app-east", "app-west"];
/// How many users there are.
const USERS: usize = 300;
/// The first of them is the one in the story.
const ALICE: usize = 0;
/// In the end, when nothing becomes of any reminder for this long, nothing will.
const STALL: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

/// How the demo is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long it lasts; until it is stopped where there is none.
    pub duration: Option<Duration>,
    /// Reminders a second, all business systems together.
    pub rate: u32,
    /// Whether there is a web terminal.
    pub look: Option<Look>,
}

/// How one looks in from a browser.
#[derive(Debug, Clone)]
pub struct Look {
    /// Where the web terminal listens.
    pub listen: SocketAddr,
    /// Whether a browser is to be opened.
    pub opens_browser: bool,
}

/// Why there is no good end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// There is no nats-server.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The nats-server does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// NATS, or the service, did not do what it was asked.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// The web terminal cannot be opened.
    #[error(transparent)]
    Terminal(#[from] TerminalError),
    /// A file, a port or the screen cannot be had.
    #[error("{0}")]
    Io(String, #[source] std::io::Error),
    /// Something did not happen in time.
    #[error("{0}")]
    Late(String),
    /// Something ended that must run as long as the demo.
    #[error("{0}")]
    Ended(String),
    /// It was stopped before it had begun.
    #[error("stopped before it had begun")]
    Stopped,
    /// The account does not add up.
    #[error("the demo failed: {0}; with BELLHOP_LOG=info the service logs beside it")]
    Verdict(String),
}

impl DemoError {
    fn nats(what: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        NatsError::failed(what.into(), problem.to_string()).into()
    }
}

/// Runs the demo, until `stop` if not by time, and shows it on standard output. Dropped, it leaves nothing running.
///
/// # Errors
/// When it cannot be run, or when a reminder was lost, repeated or out of order.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), DemoError> {
    run_on(Screen::stdout(), options, stop).await
}

async fn run_on(
    mut screen: Screen,
    options: Options,
    stop: CancellationToken,
) -> Result<(), DemoError> {
    let stage = tokio::select! {
        stage = Stage::set() => stage?,
        () = stop.cancelled() => return Err(DemoError::Stopped),
    };
    let terminal = match &options.look {
        Some(look) => Some(visitors::open(&stage, look).await?),
        None => None,
    };
    let url = terminal
        .as_ref()
        .map(|terminal| format!("http://{}/", terminal.address()));
    screen.print(&summary::welcome(&stage, &options, url.as_deref()))?;
    if let (
        Some(url),
        Some(Look {
            opens_browser: true,
            ..
        }),
    ) = (&url, &options.look)
    {
        visitors::show(url);
    }
    let mut play = Play::begin(stage, terminal, &options).await?;
    let end = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = after(options.duration) => {}
        }
    };
    play.watch(&mut screen, end).await?;
    let board = play.board.clone();
    let summary = play.end().await?;
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

async fn put_rules(stage: &Stage) -> Result<(), DemoError> {
    let bucket = bucket::open(&stage.nats, stage.nats.names.rules_bucket()).await?;
    for (tag, document) in catalogue::RULES {
        let put = bucket.put(tag, document.into()).await;
        put.map_err(|error| DemoError::nats(format!("put the rules of {tag}"), error))?;
    }
    Ok(())
}

/// The demo while it runs.
struct Play {
    stage: Stage,
    board: Arc<Board>,
    /// App servers run as long as somebody may tell them something.
    _servers: Arc<[AppServer]>,
    /// App servers and who follows the outcomes: they last as long as the demo.
    house: JoinSet<Result<(), DemoError>>,
    /// Business systems, users, the story: they end with the curtain.
    players: JoinSet<Result<(), DemoError>>,
    curtain: CancellationToken,
    began: Instant,
    lasted: Duration,
}

impl Play {
    async fn begin(
        stage: Stage,
        terminal: Option<Terminal>,
        options: &Options,
    ) -> Result<Self, DemoError> {
        let names: Arc<[String]> = catalogue::users(USERS).into();
        let users: Arc<[UserId]> = names
            .iter()
            .map(|name| name.parse().expect("it is a name"))
            .collect();
        let board = Arc::new(Board::new(
            Ledger::new(&SOURCES, &names, &INSTANCES),
            INSTANCES.len(),
        ));
        let (mut house, mut players, curtain) =
            (JoinSet::new(), JoinSet::new(), CancellationToken::new());
        house.spawn(outcomes::follow(stage.nats.clone(), board.clone()));
        let mut servers = Vec::new();
        for (number, name) in INSTANCES.into_iter().enumerate() {
            let (server, process) = AppServer::new(number, name, stage.url(), board.clone());
            house.spawn(process);
            server.tell(Happening::Started).await;
            servers.push(server);
        }
        let servers: Arc<[AppServer]> = servers.into();
        put_rules(&stage).await?;
        tokio::select! {
            () = until(|| board.with(|board| board.servers.iter().all(|server| server.is_up))) => {}
            Some(ended) = house.join_next() => return Err(ended_early(ended)),
        }
        players.spawn(crowd::run(
            users.clone(),
            servers.clone(),
            board.clone(),
            curtain.clone(),
        ));
        let (alice, stop) = (users[ALICE].clone(), curtain.clone());
        players.spawn(
            Scenes {
                alice,
                servers: servers.clone(),
                board: board.clone(),
                stop,
            }
            .play(),
        );
        let per_second = f64::from(options.rate) / SOURCES.len() as f64;
        for source in 0..SOURCES.len() {
            let business = Business::new(source, users.clone(), per_second);
            players.spawn(business.run(stage.url().to_owned(), board.clone(), curtain.clone()));
        }
        if let Some(terminal) = terminal {
            players.spawn(visitors::entertain(
                stage.nats.client.clone(),
                terminal.visitors(),
                curtain.clone(),
            ));
            house.spawn(terminal.run(CancellationToken::new()).map(Ok));
        }
        let _servers = servers;
        Ok(Self {
            stage,
            board,
            _servers,
            house,
            players,
            curtain,
            began: Instant::now(),
            lasted: Duration::ZERO,
        })
    }

    /// Shows everything until the end has come and everything is settled.
    async fn watch(
        &mut self,
        screen: &mut Screen,
        end: impl Future<Output = ()>,
    ) -> Result<(), DemoError> {
        tokio::pin!(end);
        let mut is_settling = false;
        loop {
            tokio::select! {
                () = screen.tick() => {
                    screen.show(&self.board)?;
                    self.stage.check_connection()?;
                }
                () = &mut end, if !self.curtain.is_cancelled() => self.drop_curtain(),
                Some(ended) = self.players.join_next() => result_of(ended)?,
                Some(ended) = self.house.join_next() => return Err(ended_early(ended)),
                error = self.stage.failure() => return Err(error),
            }
            match (self.players.is_empty(), is_settling) {
                (true, true) => return Ok(()),
                (true, false) => {
                    is_settling = true;
                    self.players.spawn(settled(self.board.clone()));
                }
                (false, _) => {}
            }
        }
    }

    fn drop_curtain(&mut self) {
        self.lasted = self.began.elapsed();
        let text = "the end: publishing stops, and everybody connects";
        self.board.say(Line::scene(text.to_owned()));
        self.curtain.cancel();
    }

    /// Stops the service, reads the outcomes to their end, and closes the account.
    async fn end(mut self) -> Result<Summary, DemoError> {
        self.stage.stop_service().await?;
        let last = self.stage.last_outcome().await?;
        tokio::select! {
            () = until(|| self.board.with(|board| board.outcomes_seen >= last)) => {}
            () = tokio::time::sleep(STALL) => {}
            Some(ended) = self.house.join_next() => return Err(ended_early(ended)),
        }
        self.house.shutdown().await;
        self.stage.clear().await?;
        Ok(self.board.with(|board| {
            board.ledger.close();
            Summary::of(board, self.lasted)
        }))
    }
}

/// Waits until everything is known about every reminder, or nothing more happens.
async fn settled(board: Arc<Board>) -> Result<(), DemoError> {
    let (mut open, mut since) = (usize::MAX, Instant::now());
    until(|| {
        let now_open = board.with(|board| board.ledger.open());
        if now_open != open {
            (open, since) = (now_open, Instant::now());
        }
        open == 0 || since.elapsed() >= STALL
    })
    .await;
    Ok(())
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(POLL).await;
    }
}

type Ended = Result<Result<(), DemoError>, tokio::task::JoinError>;

fn result_of(ended: Ended) -> Result<(), DemoError> {
    ended.map_err(|panic| DemoError::Ended(panic.to_string()))?
}

fn ended_early(ended: Ended) -> DemoError {
    match result_of(ended) {
        Ok(()) => DemoError::Ended("a part of the demo ended early".to_owned()),
        Err(error) => error,
    }
}
