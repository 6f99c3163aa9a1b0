//! The nemesis: one fault after the other, each from a shuffled deck that holds every kind once, so
//! that a long run has as many of each. The seed decides kinds, victims and times.

use std::time::Duration;

use fastrand::Rng;
use serde::Serialize;
use tokio::time::sleep;

use crate::hosts;
use crate::logs::{Fault, Log};
use crate::nodes::OTHER_ENV;
use crate::world::{APPS, World};

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// A node is killed, and started again.
    NatsKill,
    /// A node stands still.
    NatsPause,
    /// A node is restarted in good order.
    NatsRestart,
    /// All nodes reload a changed setting while they run.
    NatsReload,
    /// One node after the other is restarted with a changed setting.
    NatsReconfigure,
    /// One node after the other is restarted with another nats-server, where one is named.
    NatsUpgrade,
    BellhopKill,
    BellhopPause,
    BellhopRestart,
    /// One member after the other is restarted with a changed setting.
    BellhopReconfigure,
    AppKill,
    AppPause,
    /// An app server is restarted in good order: its users leave and come again.
    AppRestart,
    /// Everybody leaves who comes and goes, and connects again somewhere else.
    UsersReconnect,
    /// A host's cable is pulled: its node and its member reach only each other.
    HostCut,
    /// Two hosts cannot reach each other; everybody else reaches both.
    LinkCut,
}

use Kind::*;

const ALL: [Kind; 16] = [
    NatsKill,
    NatsPause,
    NatsRestart,
    NatsReload,
    NatsReconfigure,
    NatsUpgrade,
    BellhopKill,
    BellhopPause,
    BellhopRestart,
    BellhopReconfigure,
    AppKill,
    AppPause,
    AppRestart,
    UsersReconnect,
    HostCut,
    LinkCut,
];

/// Does the faults of a run.
pub(crate) struct Nemesis {
    rng: Rng,
    log: Log,
    kinds: Vec<Kind>,
    deck: Vec<Kind>,
}

impl Kind {
    /// As logs and figures name it.
    fn name(self) -> String {
        serde_json::to_value(self)
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    }
}

impl Nemesis {
    /// With these kinds, separated by commas, or all that can be done to this world.
    pub(crate) fn new(rng: Rng, log: Log, names: Option<&str>, world: &World) -> Self {
        let is_asked = |kind: &Kind| {
            names.is_none_or(|names| names.split(',').any(|name| name == kind.name()))
        };
        let is_possible = |kind: &Kind| match kind {
            HostCut | LinkCut => world.hosts.can_cut(),
            NatsUpgrade => std::env::var_os(OTHER_ENV).is_some(),
            _ => true,
        };
        let kinds: Vec<Kind> = ALL
            .into_iter()
            .filter(is_asked)
            .filter(is_possible)
            .collect();
        assert!(!kinds.is_empty(), "none of {names:?} can be done");
        Self {
            rng,
            log,
            kinds,
            deck: Vec::new(),
        }
    }

    /// Does the next fault, and waits until all is well again.
    ///
    /// # Errors
    /// What is not well after a minute.
    pub(crate) async fn strike(&mut self, world: &mut World) -> Result<(), String> {
        let kind = self.draw();
        let name = kind.name();
        let victim = self.rng.usize(0..hosts::COUNT);
        self.log.tell([Fault::Begins {
            kind: name.clone(),
            target: victim.to_string(),
        }]);
        match kind {
            NatsKill | NatsPause | NatsRestart | NatsReload | NatsReconfigure | NatsUpgrade => {
                self.nats(kind, victim, world).await?
            }
            BellhopKill | BellhopPause | BellhopRestart | BellhopReconfigure => {
                self.bellhop(kind, victim, world).await?
            }
            AppKill | AppPause | AppRestart => self.app(kind, victim % APPS, world).await,
            UsersReconnect => self.users(world).await,
            HostCut | LinkCut => self.cut(kind, victim, world).await,
        }
        self.log.tell([Fault::Ends]);
        world
            .heal()
            .await
            .map_err(|state| format!("not well a minute after {name} of {victim}: {state}"))?;
        self.log.tell([Fault::Healed]);
        Ok(())
    }

    fn draw(&mut self) -> Kind {
        if self.deck.is_empty() {
            self.deck.clone_from(&self.kinds);
            self.rng.shuffle(&mut self.deck);
        }
        self.deck.pop().unwrap()
    }

    /// Returns the duration of a fault: short enough to go unnoticed, or long enough for a
    /// failover.
    fn moment(&mut self, notice_after: f64) -> Duration {
        let seconds = if self.rng.bool() {
            0.2 + self.rng.f64()
        } else {
            notice_after * (1.2 + self.rng.f64() / 2.0)
        };
        Duration::from_secs_f64(seconds)
    }

    async fn nats(&mut self, kind: Kind, victim: usize, world: &mut World) -> Result<(), String> {
        // A group elects another leader after 4 s to 9 s without one.
        let moment = self.moment(9.0);
        let seconds = self.rng.u32(30..120);
        match kind {
            NatsKill => {
                world.nodes[victim].kill().await;
                sleep(moment).await;
                world.nodes[victim].restart().await;
            }
            NatsPause => {
                world.nodes[victim].signal("STOP");
                sleep(moment).await;
                world.nodes[victim].signal("CONT");
            }
            NatsRestart => world.nodes[victim].restart().await,
            NatsReload => {
                for node in &world.nodes {
                    node.configure("ping_interval", &format!("\"{seconds}s\""));
                    node.signal("HUP");
                }
            }
            _ => {
                for turn in 0..hosts::COUNT {
                    let node = (victim + turn) % hosts::COUNT;
                    if kind == NatsUpgrade {
                        world.nodes[node].switch();
                    }
                    world.nodes[node].configure("ping_interval", &format!("\"{seconds}s\""));
                    world.nodes[node].restart().await;
                    world.heal().await?;
                }
            }
        }
        Ok(())
    }

    async fn bellhop(
        &mut self,
        kind: Kind,
        victim: usize,
        world: &mut World,
    ) -> Result<(), String> {
        // Others take over after `members.ttl`.
        let moment = self.moment(4.0);
        match kind {
            BellhopKill => {
                world.members[victim].kill();
                sleep(moment).await;
                world.members[victim] = world.member(victim);
            }
            BellhopPause => {
                world.members[victim].signal("STOP");
                sleep(moment).await;
                world.members[victim].signal("CONT");
            }
            BellhopRestart => replace(world, victim).await,
            _ => {
                world.lease = if world.lease == "10s" { "5s" } else { "10s" };
                for turn in 0..hosts::COUNT {
                    replace(world, (victim + turn) % hosts::COUNT).await;
                    world.heal().await?;
                }
            }
        }
        Ok(())
    }

    async fn app(&mut self, kind: Kind, victim: usize, world: &mut World) {
        // A delivery is given up after 2 s.
        let moment = self.moment(2.0);
        match kind {
            AppKill => {
                let users = world.apps[victim].kill();
                // Half of them find another app server at once.
                let (quick, patient) = users.split_at(users.len() / 2);
                world.apps[(victim + 1) % APPS].connect(quick.iter().cloned());
                sleep(moment).await;
                world.apps[victim] = world.app(victim);
                world.apps[victim].connect(patient.iter().cloned());
            }
            AppPause => {
                world.apps[victim].signal("STOP");
                sleep(moment).await;
                world.apps[victim].signal("CONT");
            }
            _ => {
                let users = world.apps[victim].stop().await;
                world.apps[victim] = world.app(victim);
                world.apps[victim].connect(users);
            }
        }
    }

    async fn users(&mut self, world: &mut World) {
        let users: Vec<String> = world.apps[..APPS]
            .iter_mut()
            .flat_map(|app| app.clear())
            .collect();
        sleep(self.moment(3.0)).await;
        for user in users {
            world.apps[self.rng.usize(0..APPS)].connect([user]);
        }
    }

    async fn cut(&mut self, kind: Kind, victim: usize, world: &mut World) {
        let moment = self.moment(9.0);
        let other = (victim + 1) % hosts::COUNT;
        let hosts = &world.hosts;
        if kind == HostCut {
            hosts.isolate(victim)
        } else {
            hosts.part(victim, other)
        }
        sleep(moment).await;
        if kind == HostCut {
            hosts.join(victim)
        } else {
            hosts.rejoin(victim, other)
        }
    }
}

/// Ends a member in good order, and starts it again.
async fn replace(world: &mut World, victim: usize) {
    world.members[victim].signal("TERM");
    let ended = async |world: &World| match world.members[victim].status() {
        Some(status) if status.success() => Ok(()),
        status => Err(format!("{status:?}")),
    };
    world.within("a member ends in good order", ended).await;
    world.members[victim] = world.member(victim);
}
