//! `bellhop top`: the figures of an installation, live in a terminal, or as text or JSON for
//! whatever else reads them.

mod figures;
mod flow;
mod model;
mod sample;
mod screen;
mod view;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::doctor::Case;
use super::output::{Output, complain};
use super::survey::{Routes, Survey};
use super::{CliError, SettingsArgs};
use crate::config::{Config, parse_duration};
use crate::nats::names::bucket_stream;
use crate::nats::{Nats, NatsError};
use model::Model;
use sample::{Sample, Uncounted};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "It needs only a NATS connection, since members publish their metrics there. It is read-only.

Keys: q quit, s sort, p pause, ? help.

If standard output is not a terminal, it prints one page of text, as with --once.

Examples:
  bellhop top
  bellhop top --json | jq -c '[.at, .per_second.delivered, .parked_reminders]'
  bellhop top --once"
)]
pub(super) struct Args {
    /// Refresh interval
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    every: Duration,
    /// Print one page of text and exit
    #[arg(long)]
    once: bool,
    /// Print one line of JSON at each refresh, with --once only one
    #[arg(long)]
    json: bool,
}

/// A look more often than this would be a load.
const LEAST: Duration = Duration::from_millis(200);
/// Columns of a page.
const PAGE: u16 = 120;
/// Interval at which routes are counted.
const ROUTES_EVERY: Duration = Duration::from_secs(10);

fn interval(text: &str) -> Result<Duration, String> {
    let every = parse_duration(text)?;
    if every < LEAST {
        Err(format!("at least {LEAST:?}"))
    } else {
        Ok(every)
    }
}

pub(super) async fn run(settings: &SettingsArgs, args: Args) -> Result<(), CliError> {
    let (config, nats) = settings.connect().await?;
    let (sender, mut looks) = mpsc::channel(1);
    tokio::spawn(look(config, nats, args.every, sender));
    if !args.json && !args.once && std::io::stdout().is_terminal() {
        return screen::show(looks).await;
    }
    let mut model = Model::default();
    loop {
        match looks.recv().await {
            Some(Ok(sample)) => model.take(sample),
            // A program that reads lines continues where it was.
            Some(Err(error)) if args.json && !args.once => {
                complain(&error);
                continue;
            }
            Some(Err(error)) => return Err(error.into()),
            None => return Ok(()),
        }
        let Some(frame) = model.frame().filter(|_| model.has_rates()) else {
            continue;
        };
        let mut output = Output::new();
        if args.json {
            output.json(&frame)?;
        } else {
            view::page(&frame, PAGE)
                .iter()
                .try_for_each(|line| output.line(line))?;
        }
        output.flush()?;
        if args.once || !args.json {
            return Ok(());
        }
    }
}

/// A sample, or the reason why there is none.
type Look = Result<Sample, NatsError>;

/// Takes samples until the receiver is dropped.
async fn look(config: Config, nats: Nats, every: Duration, sender: mpsc::Sender<Look>) {
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut earlier = Earlier {
        before: None,
        routes: Err(Uncounted::Unreadable),
        counted_at: None,
    };
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = sender.closed() => return,
        }
        match earlier.sample(&config, &nats).await {
            Ok(None) => {}
            Ok(Some(sample)) => _ = sender.send(Ok(sample)).await,
            Err(error) => _ = sender.send(Err(error)).await,
        }
    }
}

/// The earlier samples.
struct Earlier {
    before: Option<Survey>,
    routes: Result<Routes, Uncounted>,
    counted_at: Option<Timestamp>,
}

impl Earlier {
    /// Takes a sample. None the first time: rates, and many checks, are about two surveys.
    async fn sample(&mut self, config: &Config, nats: &Nats) -> Result<Option<Sample>, NatsError> {
        let now = Survey::take(nats).await?;
        let figures = match now.alive(config.members.ttl).count() {
            0 => BTreeMap::new(),
            alive => figures::ask(nats, alive).await?,
        };
        self.count_routes(nats, &now).await;
        let Some(before) = self.before.replace(now.clone()) else {
            return Ok(None);
        };
        let case = Case {
            config,
            names: &nats.names,
            before: &before,
            now: &now,
        };
        Ok(Some(Sample::new(&case, figures, self.routes.clone())))
    }

    /// Reading all routes is no small thing, so it is done now and then, and not where there are
    /// too many.
    async fn count_routes(&mut self, nats: &Nats, now: &Survey) {
        let is_due = self
            .counted_at
            .is_none_or(|at| now.at.duration_since(at).unsigned_abs() >= ROUTES_EVERY);
        if !is_due {
            return;
        }
        self.counted_at = Some(now.at);
        let keys = now.messages(&bucket_stream(&nats.names.routes_bucket()));
        self.routes = match keys {
            0..=Routes::MOST => Routes::read(nats).await.map_err(|_| Uncounted::Unreadable),
            _ => Err(Uncounted::TooMany),
        };
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::figures::Figures;
    use super::model::{Frame, Model};
    use super::sample::{Consumer, Member, Sample};
    use super::*;
    use crate::cli::doctor::{CheckResult, Finding, Status};
    use crate::cli::survey::Parked;

    /// A look at a second, after so many sets, with what members tell of themselves.
    pub(super) fn sample(second: i64, sets: u64, metrics: &[(&str, &str)]) -> Sample {
        let began: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let member = |(name, _): &(&str, &str)| Member {
            name: (*name).to_owned(),
            version: "0.1.0".to_owned(),
            state: "serving",
            roles: vec!["intake", "history"],
            partitions: vec![0, 1, 2, 3],
            silent_seconds: 0.4,
        };
        Sample {
            at: began + SignedDuration::from_secs(second),
            server: "nats-1".to_owned(),
            version: "2.15.1".to_owned(),
            round_trip_seconds: 0.0004,
            sets,
            waiting: 33,
            oldest_seconds: 0.8,
            parked: Parked {
                reminders: 12_345,
                users: 678,
            },
            rejected: 4,
            routes: Ok(Routes {
                by_instance: [("app-east".to_owned(), 1_200), ("app-west".to_owned(), 31)].into(),
                marks: 7,
            }),
            members: metrics.iter().map(member).collect(),
            figures: metrics
                .iter()
                .map(|(name, text)| ((*name).to_owned(), Figures::parse(text)))
                .collect(),
            consumers: Vec::new(),
            needs: Vec::new(),
        }
    }

    /// Returns the frame after two samples of a busy installation.
    pub(super) fn frame() -> Frame {
        let metrics = |count: u32| {
            format!(
                "bellhop_reminders_total{{result=\"new\"}} {}\nbellhop_outcomes_total{{outcome=\"delivered\"}} {count}\n\
                 bellhop_outcomes_total{{outcome=\"parked\"}} {}\n\
                 bellhop_published_to_accepted_seconds_bucket{{priority=\"low\",way=\"direct\",le=\"0.005\"}} {count}\n\
                 bellhop_published_to_accepted_seconds_bucket{{priority=\"low\",way=\"direct\",le=\"+Inf\"}} {count}\n",
                count * 2,
                count / 10,
            )
        };
        let mut model = Model::default();
        for (second, count) in [(0, 0), (1, 500), (2, 4_000)] {
            let mut sample = sample(
                second,
                u64::from(count) / 10,
                &[("one", &metrics(count)), ("two", &metrics(count / 2))],
            );
            let consumer = |n: u64| Consumer {
                stream: "BELLHOP_PARKED".to_owned(),
                name: format!("reader-{n}"),
                pending: 1_500 - n * 500,
                in_work: n,
                redelivered: 0,
                is_read: Some(n != 3),
            };
            sample.consumers = (0..4)
                .map(|n| {
                    if n < 3 {
                        consumer(n)
                    } else {
                        Consumer {
                            pending: 0,
                            ..consumer(3.min(n))
                        }
                    }
                })
                .collect();
            let finding = Finding {
                status: Status::Critical,
                found: "no member reads consumer reader-3 of BELLHOP_PARKED".to_owned(),
                expected: None,
                fix: Some("bellhop members ls".to_owned()),
            };
            sample.needs = vec![CheckResult {
                check: "consumers",
                finding,
            }];
            model.take(sample);
        }
        model.frame().unwrap()
    }
}
