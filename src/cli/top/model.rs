//! The state of the screen, and the effects of keys. Pure: samples and keys come in, a frame comes
//! out.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};

use super::flow::{Flow, Latency, flow, latency};
use super::sample::{Consumer, Member, Sample, Uncounted};
use crate::cli::doctor::{CheckResult, Status};

/// Samples kept: as many as the widest curve has columns.
const MEMORY: usize = 120;
/// Rates are those of the last seconds: one second is too rough.
const RATE_OVER: SignedDuration = SignedDuration::from_secs(5);
/// Latency is that of the last minute: quiet installations deliver little.
const LATENCY_OVER: SignedDuration = SignedDuration::from_secs(60);

/// The order of consumers and members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// The most work first.
    #[default]
    Load,
    /// By name.
    Name,
}

/// The command of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// End it.
    Quit,
    /// Show or hide what keys do.
    Help,
    /// Sort by something else.
    Sort,
    /// Stand still, or go on.
    Pause,
}

/// All that is known.
#[derive(Debug, Default)]
pub(super) struct Model {
    samples: VecDeque<Sample>,
    /// Since when nothing is learnt, and why.
    trouble: Option<(Timestamp, String)>,
    /// The frame that is shown while it stands still.
    still: Option<Frame>,
    sort: Sort,
    is_help_shown: bool,
}

/// The data that is shown, and printed for programs.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Frame {
    pub(super) at: Timestamp,
    pub(super) server: String,
    pub(super) version: String,
    pub(super) round_trip_seconds: f64,
    /// The worst finding.
    pub(super) status: Status,
    /// A second, over the last five.
    pub(super) per_second: Flow,
    /// Of the last minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) latency: Option<Latency>,
    /// Sets of which not everything is settled.
    pub(super) sets: u64,
    pub(super) oldest_seconds: f64,
    pub(super) parked_reminders: u64,
    pub(super) parked_users: u64,
    pub(super) rejected: u64,
    /// Users' connections, by app-server instance, where they are counted.
    #[serde(skip_serializing_if = "Result::is_err", serialize_with = "counted")]
    pub(super) routes: Result<Vec<(String, u64)>, Uncounted>,
    pub(super) members: Vec<MemberRow>,
    pub(super) consumers: Vec<Consumer>,
    pub(super) needs: Vec<CheckResult>,
    /// Delivered a second, one figure for each sample.
    #[serde(skip)]
    pub(super) curve: Vec<u64>,
    /// Since when nothing is learnt, and why.
    #[serde(skip)]
    pub(super) trouble: Option<(Timestamp, String)>,
    #[serde(skip)]
    pub(super) is_still: bool,
    #[serde(skip)]
    pub(super) sort: Sort,
}

/// A member and how fast it is.
#[derive(Debug, Clone, Serialize)]
pub(super) struct MemberRow {
    #[serde(flatten)]
    pub(super) member: Member,
    pub(super) delivered_per_second: f64,
    pub(super) parked_per_second: f64,
}

impl Model {
    /// Takes a sample in.
    pub(super) fn take(&mut self, sample: Sample) {
        self.trouble = None;
        if self.samples.len() == MEMORY {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// Returns true if rates are known: that takes two samples.
    pub(super) fn has_rates(&self) -> bool {
        self.samples.len() > 1
    }

    /// Nothing could be learnt.
    pub(super) fn lose(&mut self, now: Timestamp, problem: String) {
        let since = self.trouble.take().map_or(now, |(since, _)| since);
        self.trouble = Some((since, problem));
    }

    /// Does what a key asks for. Answers whether to go on.
    pub(super) fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Quit => return false,
            Command::Help => self.is_help_shown ^= true,
            Command::Sort => {
                self.sort = if self.sort == Sort::Load {
                    Sort::Name
                } else {
                    Sort::Load
                }
            }
            Command::Pause => {
                self.still = if self.still.is_some() {
                    None
                } else {
                    self.current()
                }
            }
        }
        true
    }

    /// Returns true if the help on keys is shown.
    pub(super) fn is_help_shown(&self) -> bool {
        self.is_help_shown
    }

    /// Returns the text before the first sample.
    pub(super) fn opening(&self) -> String {
        self.trouble.as_ref().map_or_else(
            || "loading …".to_owned(),
            |(_, problem)| format!("no data yet: {problem}"),
        )
    }

    /// Returns the frame to show. None before the first sample.
    pub(super) fn frame(&self) -> Option<Frame> {
        let frame = match &self.still {
            Some(still) => Frame {
                is_still: true,
                ..still.clone()
            },
            None => self.current()?,
        };
        Some(sorted(Frame {
            trouble: self.trouble.clone(),
            sort: self.sort,
            ..frame
        }))
    }

    fn current(&self) -> Option<Frame> {
        let now = self.samples.back()?;
        let rates_since = self.since(RATE_OVER);
        let row = |member: &Member| {
            let own = flow(rates_since, now, Some(&member.name));
            let delivered_per_second = own.delivered + own.rerouted;
            MemberRow {
                member: member.clone(),
                delivered_per_second,
                parked_per_second: own.parked,
            }
        };
        Some(Frame {
            at: now.at,
            server: now.server.clone(),
            version: now.version.clone(),
            round_trip_seconds: now.round_trip_seconds,
            status: now
                .needs
                .first()
                .map_or(Status::Ok, |result| result.finding.status),
            per_second: flow(rates_since, now, None),
            latency: latency(self.since(LATENCY_OVER), now),
            sets: now.waiting,
            oldest_seconds: now.oldest_seconds,
            parked_reminders: now.parked.reminders,
            parked_users: now.parked.users,
            rejected: now.rejected,
            routes: now
                .routes
                .as_ref()
                .map(|routes| routes.by_instance.clone().into_iter().collect())
                .map_err(|why| *why),
            members: now.members.iter().map(row).collect(),
            consumers: now.consumers.clone(),
            needs: now.needs.clone(),
            curve: self.curve(),
            trouble: None,
            is_still: false,
            sort: self.sort,
        })
    }

    /// The youngest sample that is so much older than the last one, or the oldest that there is.
    fn since(&self, age: SignedDuration) -> &Sample {
        let last = &self.samples[self.samples.len() - 1];
        let is_so_old = |sample: &&Sample| last.at.duration_since(sample.at) >= age;
        self.samples
            .iter()
            .rev()
            .find(is_so_old)
            .unwrap_or(&self.samples[0])
    }

    fn curve(&self) -> Vec<u64> {
        let pairs = self.samples.iter().zip(self.samples.iter().skip(1));
        pairs
            .map(|(before, now)| flow(before, now, None))
            .map(|flow| (flow.delivered + flow.rerouted).round() as u64)
            .collect()
    }
}

/// Writes routes that are counted.
fn counted<S: Serializer>(
    routes: &Result<Vec<(String, u64)>, Uncounted>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    routes.as_ref().ok().serialize(serializer)
}

fn sorted(mut frame: Frame) -> Frame {
    if frame.sort == Sort::Load {
        frame
            .consumers
            .sort_by_key(|consumer| std::cmp::Reverse((consumer.pending, consumer.in_work)));
        frame
            .members
            .sort_by(|a, b| b.delivered_per_second.total_cmp(&a.delivered_per_second));
        frame
            .routes
            .iter_mut()
            .for_each(|routes| routes.sort_by_key(|(_, users)| std::cmp::Reverse(*users)));
    }
    frame
}

/// Returns the time since the last sample, if samples are missing.
pub(super) fn lost_for(frame: &Frame, now: Timestamp) -> Option<Duration> {
    frame
        .trouble
        .as_ref()
        .map(|(since, _)| Duration::try_from(now.duration_since(*since)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    fn delivered(count: u32) -> String {
        format!("bellhop_outcomes_total{{outcome=\"delivered\"}} {count}\n")
    }

    #[test]
    fn rates_are_those_of_the_last_five_seconds() {
        let mut model = Model::default();
        assert!(model.frame().is_none());
        for (second, count) in [
            (0, 0),
            (1, 1_000),
            (2, 1_010),
            (3, 1_020),
            (4, 1_030),
            (5, 1_040),
            (6, 1_050),
        ] {
            model.take(sample(second, 0, &[("one", &delivered(count))]));
        }
        let frame = model.frame().unwrap();
        assert_eq!(
            (
                frame.per_second.delivered,
                frame.members[0].delivered_per_second
            ),
            (10.0, 10.0)
        );
        assert_eq!(frame.curve, [1_000, 10, 10, 10, 10, 10]);
    }

    #[test]
    fn samples_are_bounded() {
        let mut model = Model::default();
        (0..MEMORY as i64 + 10).for_each(|second| model.take(sample(second, 0, &[])));
        assert_eq!(model.samples.len(), MEMORY);
    }

    #[test]
    fn pause_keeps_frame_and_shows_lost_connection() {
        let mut model = Model::default();
        model.take(sample(1, 0, &[]));
        let first = model.frame().unwrap().at;
        assert!(model.obey(Command::Pause));
        model.take(sample(2, 0, &[]));
        let (lost_at, later) = (
            first + SignedDuration::from_secs(5),
            first + SignedDuration::from_secs(8),
        );
        model.lose(lost_at, "timed out".into());
        model.lose(later, "no responders".into());
        let frame = model.frame().unwrap();
        assert_eq!((frame.at, frame.is_still), (first, true));
        assert_eq!(frame.trouble, Some((lost_at, "no responders".into())));
        assert_eq!(lost_for(&frame, later), Some(Duration::from_secs(3)));
        assert!(model.obey(Command::Pause));
        model.take(sample(3, 0, &[]));
        let frame = model.frame().unwrap();
        assert!(frame.at > first && !frame.is_still && frame.trouble.is_none());
        assert!(!model.obey(Command::Quit));
    }

    #[test]
    fn rows_sort_by_load_or_name() {
        let mut model = Model::default();
        let mut one = sample(1, 0, &[]);
        let consumer = |name: &str, pending| Consumer {
            stream: "S".into(),
            name: name.into(),
            pending,
            in_work: 0,
            redelivered: 0,
            is_read: None,
        };
        one.consumers = vec![consumer("a", 1), consumer("b", 9)];
        model.take(one);
        let first = |model: &Model| model.frame().unwrap().consumers[0].name.clone();
        assert_eq!(first(&model), "b");
        model.obey(Command::Sort);
        assert_eq!(first(&model), "a");
        assert!(!model.is_help_shown());
        model.obey(Command::Help);
        assert!(model.is_help_shown());
    }
}
