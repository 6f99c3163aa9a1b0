//! Runs the programs of the demo beside each other, from their start to the summary.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellhop_protocol::token::UserId;
use bellhop_terminal::Terminal;
use futures_util::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::app_server::{AppServer, Event};
use crate::board::{Board, Line};
use crate::business::Business;
use crate::catalogue::{self, ALICE, INSTANCES, SOURCES, USERS};
use crate::error::{DemoError, During};
use crate::ledger::Ledger;
use crate::scenario::Scenario;
use crate::screen::Screen;
use crate::stage::Stage;
use crate::summary::Summary;
use crate::{crowd, outcomes, visitors};

/// When no reminder made progress for this long at the end, none will any more.
const STALL: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

async fn put_rules(stage: &Stage) -> Result<(), DemoError> {
    let bucket = stage.bucket(stage.names.rules_bucket()).await?;
    for (tag, document) in catalogue::RULES {
        let put = bucket.put(tag, document.into()).await;
        put.during("put the demo's rules")?;
    }
    Ok(())
}

/// The demo while it runs.
pub(crate) struct Demo {
    stage: Stage,
    board: Arc<Board>,
    /// App servers run until the last sender of their events is dropped.
    _servers: Arc<[AppServer]>,
    /// App servers and the reader of the outcomes, which last as long as the demo.
    services: JoinSet<Result<(), DemoError>>,
    /// Business systems, users and the scenario, which end when the demo is stopping.
    workload: JoinSet<Result<(), DemoError>>,
    stopping: CancellationToken,
    began: Instant,
    lasted: Duration,
}

impl Demo {
    /// Starts the app servers, the business systems and the users.
    ///
    /// # Errors
    /// When one of them cannot be started.
    pub(crate) async fn begin(
        stage: Stage,
        terminal: Option<Terminal>,
        rate: u32,
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
        let (mut services, mut workload, stopping) =
            (JoinSet::new(), JoinSet::new(), CancellationToken::new());
        services.spawn(outcomes::follow(
            stage.jetstream.clone(),
            stage.names.outcomes_stream(),
            board.clone(),
        ));
        let mut servers = Vec::new();
        for (number, name) in INSTANCES.into_iter().enumerate() {
            let (server, process) = AppServer::new(number, name, stage.url(), board.clone());
            services.spawn(process);
            server.send(Event::Started).await;
            servers.push(server);
        }
        let servers: Arc<[AppServer]> = servers.into();
        put_rules(&stage).await?;
        tokio::select! {
            () = until(|| board.with(|board| board.servers.iter().all(|server| server.is_up))) => {}
            Some(ended) = services.join_next() => return Err(ended_early(ended)),
        }
        workload.spawn(crowd::run(
            users.clone(),
            servers.clone(),
            board.clone(),
            stopping.clone(),
        ));
        let (alice, stop) = (users[ALICE].clone(), stopping.clone());
        workload.spawn(
            Scenario {
                alice,
                servers: servers.clone(),
                board: board.clone(),
                stop,
            }
            .run(),
        );
        let per_second = f64::from(rate) / SOURCES.len() as f64;
        for source in 0..SOURCES.len() {
            let business = Business::new(source, users.clone(), per_second);
            workload.spawn(business.run(stage.url().to_owned(), board.clone(), stopping.clone()));
        }
        if let Some(terminal) = terminal {
            workload.spawn(visitors::entertain(
                stage.client.clone(),
                terminal.visitors(),
                stopping.clone(),
            ));
            services.spawn(terminal.run(CancellationToken::new()).map(Ok));
        }
        let _servers = servers;
        Ok(Self {
            stage,
            board,
            _servers,
            services,
            workload,
            stopping,
            began: Instant::now(),
            lasted: Duration::ZERO,
        })
    }

    /// Returns the board.
    pub(crate) fn board(&self) -> Arc<Board> {
        self.board.clone()
    }

    /// Shows everything until the end has come and everything is settled.
    pub(crate) async fn watch(
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
                () = &mut end, if !self.stopping.is_cancelled() => self.begin_to_stop(),
                Some(ended) = self.workload.join_next() => result_of(ended)?,
                Some(ended) = self.services.join_next() => return Err(ended_early(ended)),
                error = self.stage.failure() => return Err(error),
            }
            match (self.workload.is_empty(), is_settling) {
                (true, true) => return Ok(()),
                (true, false) => {
                    is_settling = true;
                    self.workload.spawn(settled(self.board.clone()));
                }
                (false, _) => {}
            }
        }
    }

    fn begin_to_stop(&mut self) {
        self.lasted = self.began.elapsed();
        let text = "the end: publishing stops, and everybody connects";
        self.board.say(Line::scene(text.to_owned()));
        self.stopping.cancel();
    }

    /// Stops the service, reads the outcomes to their end, and closes the account.
    pub(crate) async fn end(mut self) -> Result<Summary, DemoError> {
        self.stage.stop_service().await?;
        let last = self.stage.last_outcome().await?;
        tokio::select! {
            () = until(|| self.board.with(|board| board.outcomes_seen >= last)) => {}
            () = tokio::time::sleep(STALL) => {}
            Some(ended) = self.services.join_next() => return Err(ended_early(ended)),
        }
        self.services.shutdown().await;
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
    ended?
}

fn ended_early(ended: Ended) -> DemoError {
    match result_of(ended) {
        Ok(()) => DemoError::Ended("a part of the demo ended early"),
        Err(error) => error,
    }
}
