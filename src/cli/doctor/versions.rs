//! Releases of nats-server: which are enough, which are recommended, and what is known against the
//! others.

use std::collections::BTreeMap;

use super::Finding;

/// Major, minor, patch.
type Version = (u64, u64, u64);

/// The recommended versions.
const RECOMMENDED: &str = "nats-server 2.15.1, or 2.14.7";

/// A fault of nats-server that Bellhop's users can meet.
struct Fault {
    /// The first release that has it.
    since: Version,
    /// The first release in which it is fixed, or the first that is known to be later than the fix.
    fixed: Version,
    /// The problem, and its number.
    what: &'static str,
}

/// Bellhop does not start with less than 2.14, so faults of earlier releases are not listed.
const FIRST: Version = (2, 14, 0);

const FAULTS: [Fault; 9] = [
    Fault {
        since: FIRST,
        fixed: (2, 14, 3),
        what: "compaction damages blocks of compressed or encrypted streams (#8312)",
    },
    Fault {
        since: FIRST,
        fixed: (2, 14, 3),
        what: "byte limits of pull requests shrink while the requests wait (#8314)",
    },
    Fault {
        since: FIRST,
        fixed: (2, 14, 3),
        what: "a skipped message sets the time of a stream's last message to now (#8327)",
    },
    Fault {
        since: FIRST,
        fixed: (2, 14, 4),
        what: "expected sequences of one batch are mixed up (#8376)",
    },
    Fault {
        since: (2, 14, 4),
        fixed: (2, 14, 5),
        what: "a node mistakes a stream for another one and deletes its data (#8449)",
    },
    Fault {
        since: FIRST,
        fixed: (2, 14, 6),
        what: "a stream's time of creation changes with restarts (#8471)",
    },
    // Their fixes are later than 2.14.5; whether 2.14.6 has them is not known.
    Fault {
        since: FIRST,
        fixed: (2, 14, 7),
        what: "with sync_interval: always, compacted blocks are not flushed (#8456, #8475)",
    },
    Fault {
        since: FIRST,
        fixed: (2, 14, 7),
        what: "a replicated consumer with flow control stalls after a change of leader (#8488)",
    },
    Fault {
        since: FIRST,
        fixed: (2, 14, 7),
        what: "a consumer with several filters skips messages (#8572)",
    },
];

/// Returns whether Bellhop works with a release.
pub(super) fn is_new_enough(version: &str) -> bool {
    parse(version).is_some_and(|version| version >= FIRST)
}

/// Judges servers by the releases that they run: each release that has known faults is a warning.
pub(super) fn faults<'a>(servers: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Finding> {
    let mut by_version = BTreeMap::<&str, Vec<&str>>::new();
    for (server, version) in servers {
        by_version.entry(version).or_default().push(server);
    }
    let finding = |(version, servers): (&str, Vec<&str>)| {
        let known = known_against(version);
        let found = format!(
            "{} with nats-server {version}, which has known faults: {}",
            servers.join(", "),
            known.join("; ")
        );
        (!known.is_empty()).then(|| {
            Finding::warning(
                found,
                RECOMMENDED,
                "upgrade nats-server, one node after the other: docs/nats.md",
            )
        })
    };
    by_version.into_iter().filter_map(finding).collect()
}

fn known_against(version: &str) -> Vec<&'static str> {
    let Some(version) = parse(version) else {
        return Vec::new();
    };
    let is_here = |fault: &&Fault| fault.since <= version && version < fault.fixed;
    let here = FAULTS.iter().filter(is_here);
    here.map(|fault| fault.what).collect()
}

/// Returns the numbers of a release. Of a pre-release it is the release that follows.
fn parse(version: &str) -> Option<Version> {
    let mut numbers = version
        .split(['.', '-'])
        .map_while(|part| part.parse::<u64>().ok());
    Some((
        numbers.next()?,
        numbers.next()?,
        numbers.next().unwrap_or(0),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(
            ["2.14.0", "2.15.1", "3.0.0", "2.100.0", "2.14.0-RC.1"]
                .iter()
                .all(|version| is_new_enough(version))
        );
        assert!(
            ["2.9.9", "2.12.1", "1.99.0", "", "dev"]
                .iter()
                .all(|version| !is_new_enough(version))
        );
    }

    #[test]
    fn each_release_has_its_known_faults() {
        let has = |version, number: &str| {
            known_against(version)
                .iter()
                .any(|fault| fault.contains(number))
        };
        assert!(has("2.14.2", "#8312") && !has("2.14.3", "#8312"));
        assert!(!has("2.14.3", "#8449") && has("2.14.4", "#8449") && !has("2.14.5", "#8449"));
        assert!(has("2.14.6", "#8572"));
        for recommended in ["2.14.7", "2.15.1", "2.16.0", "dev"] {
            assert!(known_against(recommended).is_empty(), "{recommended}");
        }
    }

    #[test]
    fn one_finding_names_all_servers_of_a_release() {
        let servers = [("n1", "2.14.6"), ("n2", "2.15.1"), ("n3", "2.14.6")];
        let [finding] = faults(servers.into_iter()).try_into().unwrap();
        assert!(finding.found.starts_with("n1, n3 with nats-server 2.14.6"));
    }

    #[test]
    fn documentation_lists_every_known_fault() {
        let page = include_str!("../../../docs/nats.md");
        for fault in &FAULTS {
            let (major, minor, patch) = fault.fixed;
            let row = format!("| {major}.{minor}.{patch} | {} |", fault.what);
            assert!(page.contains(&row), "docs/nats.md lacks {row}");
        }
        assert!(page.contains(RECOMMENDED));
    }
}
