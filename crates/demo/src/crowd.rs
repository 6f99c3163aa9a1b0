//! The users: who is connected where, and who comes and goes when. Alice is left to the story.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellhop_protocol::token::UserId;
use tokio_util::sync::CancellationToken;

use crate::app_server::{AppServer, Event};
use crate::board::{Board, Gauge};
use crate::catalogue::ALICE;
use crate::chance::between;
use crate::error::DemoError;

/// Seconds that a user stays connected, and away: two in three are connected.
const ON: std::ops::Range<f64> = 4.0..16.0;
const OFF: std::ops::Range<f64> = 2.0..8.0;
/// Seconds until a user whose connection broke has a new one.
const RECONNECT: std::ops::Range<f64> = 0.3..4.0;
const STEP: Duration = Duration::from_millis(50);

/// A life of an app server: its number, and how often it was started.
type Place = (usize, u32);

/// A user comes to an app server, or leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Move {
    user: usize,
    server: usize,
    comes: bool,
}

/// Who is where. Pure.
#[derive(Debug)]
pub(crate) struct Crowd {
    chance: fastrand::Rng,
    places: Vec<Option<Place>>,
    due: BTreeSet<(Instant, usize)>,
}

impl Crowd {
    /// So many users, all away; two in three come at once.
    pub(crate) fn new(users: usize, now: Instant, mut chance: fastrand::Rng) -> Self {
        let others = (0..users).filter(|user| *user != ALICE);
        let due = others.map(|user| match chance.usize(..3) {
            0 => (now + between(&mut chance, OFF), user),
            _ => (now, user),
        });
        let due = due.collect();
        Self {
            chance,
            places: vec![None; users],
            due,
        }
    }

    /// Who comes and goes by now, where these app servers run.
    pub(crate) fn step(&mut self, now: Instant, servers: &[Gauge]) -> Vec<Move> {
        self.drop_broken(now, servers);
        let mut moves = Vec::new();
        while let Some((_, user)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.pop_first();
            let next = match self.places[user].take() {
                Some((server, _)) => {
                    moves.push(Move {
                        user,
                        server,
                        comes: false,
                    });
                    OFF
                }
                None => match self.come(user, servers) {
                    Some(coming) => {
                        moves.push(coming);
                        ON
                    }
                    None => RECONNECT,
                },
            };
            self.due
                .insert((now + between(&mut self.chance, next), user));
        }
        moves
    }

    /// Brings everybody who is away.
    pub(crate) fn gather(&mut self, now: Instant, servers: &[Gauge]) -> Vec<Move> {
        self.drop_broken(now, servers);
        let away: Vec<_> = (0..self.places.len())
            .filter(|user| *user != ALICE && self.places[*user].is_none())
            .collect();
        away.into_iter()
            .filter_map(|user| self.come(user, servers))
            .collect()
    }

    fn come(&mut self, user: usize, servers: &[Gauge]) -> Option<Move> {
        // As a load balancer does: to the server with the fewest connections.
        let connections = |server: usize| {
            self.places
                .iter()
                .flatten()
                .filter(|place| place.0 == server)
                .count()
        };
        let server = (0..servers.len())
            .filter(|server| servers[*server].is_up)
            .min_by_key(|it| connections(*it))?;
        self.places[user] = Some((server, servers[server].life));
        Some(Move {
            user,
            server,
            comes: true,
        })
    }

    /// Who was connected to a server that ended has no connection any more.
    fn drop_broken(&mut self, now: Instant, servers: &[Gauge]) {
        let is_broken =
            |(server, life): Place| !servers[server].is_up || servers[server].life != life;
        let broken: BTreeSet<usize> = (0..self.places.len())
            .filter(|user| self.places[*user].is_some_and(is_broken))
            .collect();
        if broken.is_empty() {
            return;
        }
        self.due.retain(|(_, user)| !broken.contains(user));
        for user in broken {
            self.places[user] = None;
            self.due
                .insert((now + between(&mut self.chance, RECONNECT), user));
        }
    }
}

/// Lets users come and go until `stop`; then brings them all.
pub(crate) async fn run(
    users: Arc<[UserId]>,
    servers: Arc<[AppServer]>,
    board: Arc<Board>,
    stop: CancellationToken,
) -> Result<(), DemoError> {
    let mut crowd = Crowd::new(users.len(), Instant::now(), fastrand::Rng::new());
    let mut tick = tokio::time::interval(STEP);
    let mut is_over = false;
    while !is_over {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => is_over = true,
        }
        let gauges = board.with(|board| board.servers.clone());
        let now = Instant::now();
        let moves = if is_over {
            crowd.gather(now, &gauges)
        } else {
            crowd.step(now, &gauges)
        };
        for Move {
            user,
            server,
            comes,
        } in moves
        {
            let user = users[user].clone();
            servers[server]
                .send(if comes {
                    Event::Comes(user)
                } else {
                    Event::Goes(user)
                })
                .await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(up: [bool; 2], life: u32) -> Vec<Gauge> {
        up.map(|is_up| Gauge {
            is_up,
            life,
            ..Gauge::default()
        })
        .into()
    }

    #[test]
    fn most_are_connected_and_all_in_the_end() {
        let start = Instant::now();
        let mut crowd = Crowd::new(300, start, fastrand::Rng::with_seed(1));
        let both = servers([true; 2], 1);
        let mut moves = 0;
        for step in 0..600 {
            moves += crowd.step(start + STEP * step, &both).len();
            let connected = crowd.places.iter().flatten().count();
            assert!(
                (150..=250).contains(&connected),
                "{connected} after {step} steps"
            );
        }
        assert!(moves > 600, "{moves}");
        crowd.gather(start + STEP * 600, &both);
        assert_eq!(crowd.places.iter().flatten().count(), 299);
        assert_eq!(crowd.places[ALICE], None);
    }

    #[test]
    fn disconnected_user_finds_another_server() {
        let start = Instant::now();
        let mut crowd = Crowd::new(300, start, fastrand::Rng::with_seed(1));
        crowd.step(start, &servers([true; 2], 1));
        let one = servers([true, false], 1);
        for step in 1..100 {
            let moves = crowd.step(start + STEP * step, &one);
            assert!(
                moves.iter().all(|it| it.server == 0),
                "nobody leaves or comes to a server that is down"
            );
        }
        assert!(
            crowd
                .places
                .iter()
                .flatten()
                .all(|(server, _)| *server == 0)
        );
        assert!(crowd.places.iter().flatten().count() > 150);
        assert!(
            crowd
                .step(start + STEP * 100, &servers([false; 2], 1))
                .is_empty()
        );
    }
}
