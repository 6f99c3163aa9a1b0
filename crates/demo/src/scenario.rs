//! The story: alice goes away and comes back, and an app server is killed and started again. Over and over, until the
//! end; a scene that the end finds in its middle is played out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellhop_protocol::numbers;
use bellhop_protocol::token::UserId;
use tokio_util::sync::CancellationToken;

use crate::app_server::{AppServer, Event};
use crate::board::{Board, Kind, Line};
use crate::catalogue::{ALICE, INSTANCES};
use crate::error::DemoError;

/// How long a scene waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(2);

/// The events of the demo, and what they need.
pub(crate) struct Scenario {
    /// Alice.
    pub alice: UserId,
    /// Where she can connect.
    pub servers: Arc<[AppServer]>,
    /// The board for all lines.
    pub board: Arc<Board>,
    /// The end.
    pub stop: CancellationToken,
}

impl Scenario {
    /// Repeats the events until the end.
    pub(crate) async fn run(self) -> Result<(), DemoError> {
        let mut home = 0;
        self.alice_comes(home).await;
        loop {
            if self.pause(2.0).await {
                return Ok(());
            }
            self.alice_is_away(&mut home).await;
            if self.pause(3.0).await {
                return Ok(());
            }
            // Alice is at the other one, so that each scene has its own users.
            self.server_is_killed(1 - home).await;
            if self.pause(2.0).await {
                return Ok(());
            }
        }
    }

    async fn alice_is_away(&self, home: &mut usize) {
        self.say(format!(
            "alice leaves {}: what comes for her waits in her mailbox",
            INSTANCES[*home]
        ));
        self.board.with(|board| board.alice = None);
        self.servers[*home]
            .send(Event::Goes(self.alice.clone()))
            .await;
        self.pause(5.0).await;
        *home = 1 - *home;
        let back = Instant::now();
        let (waiting, due, troubles) = self.board.with(|board| {
            let ledger = &board.ledger;
            (
                ledger.parked_for(ALICE),
                ledger.due(ALICE, back),
                ledger.troubles_of(ALICE),
            )
        });
        let reminders = if waiting == 1 {
            "reminder waits"
        } else {
            "reminders wait"
        };
        self.say(format!(
            "alice is back, now at {}: {waiting} {reminders} for her",
            INSTANCES[*home]
        ));
        self.alice_comes(*home).await;
        if due == 0 {
            return;
        }
        let has_all = self
            .until(|board| board.with(|board| board.ledger.due(ALICE, back) == 0))
            .await;
        let took = numbers::time(back.elapsed());
        let is_well = self.board.with(|board| board.ledger.troubles_of(ALICE)) == troubles;
        let (kind, text) = match (has_all, is_well) {
            (true, true) => (
                Kind::Good,
                format!("alice has them all, in order, {took} later"),
            ),
            (true, false) => (
                Kind::Bad,
                format!("alice has them {took} later, but not as they should be"),
            ),
            (false, _) => (
                Kind::Bad,
                format!("alice still waits for hers after {took}"),
            ),
        };
        self.board.say(Line {
            kind,
            text,
            detail: None,
        });
    }

    async fn alice_comes(&self, home: usize) {
        self.board.with(|board| board.alice = Some(home));
        self.servers[home]
            .send(Event::Comes(self.alice.clone()))
            .await;
    }

    async fn server_is_killed(&self, server: usize) {
        let name = INSTANCES[server];
        let users = self.board.with(|board| board.servers[server].users);
        self.say(format!(
            "{name} is killed: {users} connections are gone, their routes stay behind"
        ));
        self.servers[server].send(Event::Killed).await;
        self.pause(3.0).await;
        let accepted = self.board.with(|board| board.servers[server].accepted);
        let start = Instant::now();
        self.servers[server].send(Event::Started).await;
        self.say(format!(
            "{name} is back without users: Bellhop asks, and drops the old routes"
        ));
        let accepts = |board: &Board| board.with(|board| board.servers[server].accepted > accepted);
        if self
            .until(|board| accepts(board) || self.stop.is_cancelled())
            .await
            && accepts(&self.board)
        {
            let text = format!(
                "{name} accepts reminders again, {} after its start",
                numbers::time(start.elapsed())
            );
            self.board.say(Line {
                kind: Kind::Good,
                text,
                detail: None,
            });
        }
    }

    fn say(&self, text: String) {
        self.board.say(Line::scene(text));
    }

    /// Returns whether the end has come.
    async fn pause(&self, seconds: f64) -> bool {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs_f64(seconds)) => false,
            () = self.stop.cancelled() => true,
        }
    }

    async fn until(&self, condition: impl Fn(&Board) -> bool) -> bool {
        let give_up = Instant::now() + PATIENCE;
        while !condition(&self.board) {
            if Instant::now() >= give_up {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        true
    }
}
