//! The positions in the log of published sets: which of them holds the front of the log back?

use std::time::Duration;

use super::finding::or_ok;
use super::work::{WAIT_CRITICAL, WAIT_WARNING};
use super::{Case, Finding};
use crate::cli::output::{duration, plural};
use crate::log::Subscriber;
use crate::nats::behind::{self, Behind, Oldest, furthest};
use crate::nats::{Nats, NatsError, chain};

pub(super) async fn positions(case: &Case<'_>, nats: &Nats) -> Vec<Finding> {
    let look = async || -> Result<_, NatsError> {
        let found = behind::all(nats).await?;
        let oldest = match furthest(&found) {
            Some(one) => behind::oldest(nats, one)
                .await?
                .map(|oldest| (one.clone(), oldest)),
            None => None,
        };
        Ok((found.len(), oldest))
    };
    match look().await {
        Err(error) => vec![Finding::unknown(
            format!("the positions in the log cannot be read: {}", chain(&error)),
            "permit this user to read the bucket of positions and the stream of sets",
        )],
        Ok((count, oldest)) => {
            let late = oldest.and_then(|(one, oldest)| {
                let waits = case.now.server_time.duration_since(oldest.stored_at);
                is_late(&one, oldest, waits.try_into().unwrap_or_default())
            });
            or_ok(late.into_iter().collect(), || {
                format!("{} keep up with the log", plural(count, "position"))
            })
        }
    }
}

/// Returns what is wrong where a subscriber's oldest set has waited for so long.
fn is_late(one: &Behind, oldest: Oldest, waits: Duration) -> Option<Finding> {
    if waits <= WAIT_WARNING {
        return None;
    }
    let who = match one.subscriber {
        Subscriber::Sets => "the intake".to_owned(),
        Subscriber::Partition(partition) => format!("partition {partition}"),
    };
    let owner = one.stored.as_ref().and_then(|(owner, _)| owner.as_deref());
    let owner = owner.map_or_else(
        || "which has no owner".to_owned(),
        |owner| format!("owned by {owner}"),
    );
    let sets = plural(usize::try_from(one.sets).unwrap_or(usize::MAX), "set");
    let found = format!(
        "{who}, {owner}, holds the log back: set {} has waited for {}, and {sets} lie behind the position",
        oldest.sequence,
        duration(waits)
    );
    let (expected, fix) = (
        format!("less than {}", duration(WAIT_WARNING)),
        "`bellhop partitions ls` shows all positions; look at the owner's log, and at `bellhop instances ls` for app servers \
         that do not answer",
    );
    Some(if waits > WAIT_CRITICAL {
        Finding::critical(found, expected, fix)
    } else {
        Finding::warning(found, expected, fix)
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::cli::doctor::Status;
    use crate::partition::Partition;

    #[test]
    fn partition_that_holds_the_log_back_is_named() {
        let one = Behind {
            subscriber: Subscriber::Partition(Partition(7)),
            stored: Some((Some("member-1 3".to_owned()), Timestamp::UNIX_EPOCH)),
            sequence: 41,
            sets: 9,
        };
        let oldest = Oldest {
            sequence: 42,
            stored_at: Timestamp::UNIX_EPOCH,
        };
        let after = |seconds| is_late(&one, oldest, Duration::from_secs(seconds));
        assert!(after(10).is_none());
        let warning = after(11).unwrap();
        assert_eq!(warning.status, Status::Warning);
        for part in ["partition 7", "member-1 3", "set 42", "9 sets"] {
            assert!(warning.found.contains(part), "{}", warning.found);
        }
        assert_eq!(after(61).unwrap().status, Status::Critical);
    }
}
