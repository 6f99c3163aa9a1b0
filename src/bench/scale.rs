//! How many reminders a second with more members, and with more partitions.

use serde::Serialize;

use super::crew::Progress;
use super::stage::{Stage, System, Trial};
use super::{BenchError, Options, Throughput};

/// One installation.
#[derive(Debug, Serialize)]
pub struct Scale {
    /// Which of its numbers differs from the rows beside it.
    pub varied: Varied,
    /// `bellhop serve` processes.
    pub members: usize,
    /// Partitions.
    pub partitions: u16,
    /// What it reached.
    #[serde(flatten)]
    pub found: Throughput,
}

/// What is tried in several sizes while the other stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Varied {
    /// The number of members.
    Members,
    /// The number of partitions.
    Partitions,
}

impl Varied {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Members => "members",
            Self::Partitions => "partitions",
        }
    }
}

pub(super) async fn run(options: &Options, progress: Progress<'_>) -> Result<Vec<Scale>, BenchError> {
    let members = options.scale_members.iter().map(|members| (Varied::Members, *members, options.partitions));
    let partitions =
        options.scale_partitions.iter().map(|partitions| (Varied::Partitions, options.members, *partitions));
    let installations: Vec<_> = members.chain(partitions).collect();
    let trial = Trial::saturating(System::Bellhop, options.set_size(), options.reminders);
    let mut found: Vec<_> = installations.iter().map(|_| Vec::new()).collect();
    for round in 1..=options.rounds {
        for ((_, members, partitions), found) in installations.iter().zip(&mut found) {
            progress(format!("round {round} of {}: members {members}, partitions {partitions}", options.rounds));
            let mut stage =
                Stage::set(&Options { members: *members, partitions: *partitions, ..options.clone() }, progress)
                    .await?;
            found.push(stage.measure(trial, progress).await?);
            stage.clear().await;
        }
    }
    let told = installations.into_iter().zip(&found).map(|((varied, members, partitions), found)| {
        let found = Throughput::of(&trial, found);
        Scale { varied, members, partitions, found }
    });
    Ok(told.collect())
}
