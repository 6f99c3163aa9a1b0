//! The permissions that a user needs for `bellhop serve`, and the missing ones.

use super::super::survey::{Allowed, Permissions};
use crate::config::Config;
use crate::nats::names::{Names, bucket_stream};
use crate::nats::topology::consumers_of;
use crate::partition::Role;

/// Subjects, with wildcards where any of them may be needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) publish: Vec<String>,
    pub(super) subscribe: Vec<String>,
}

/// Returns what a member needs once everything is set up. Creating streams and consumers needs
/// more, and can be left to an operator.
pub(super) fn needs(names: &Names, config: &Config) -> Needs {
    let own = Role::all(config.partitions).flat_map(|role| consumers_of(names, config, role));
    let [log, parked, outcomes, ..] = names.streams();
    let mut publish: Vec<String> = names
        .streams()
        .iter()
        .map(|stream| format!("$JS.API.STREAM.INFO.{stream}"))
        .collect();
    let scheduled = names.scheduled_stream();
    publish.extend(
        [&scheduled, &parked, &outcomes].map(|stream| format!("$JS.API.CONSUMER.LIST.{stream}")),
    );
    for (stream, consumer) in own {
        publish.extend(
            ["INFO", "UNPIN", "RESET", "MSG.NEXT"]
                .map(|call| format!("$JS.API.CONSUMER.{call}.{stream}.{consumer}")),
        );
        publish.push(format!("$JS.ACK.{stream}.{consumer}.>"));
    }
    // Readers of streams from their beginning, and watchers of buckets, are consumers for a while.
    let buckets = [
        names.routes_bucket(),
        names.rules_bucket(),
        names.associates_bucket(),
        names.members_bucket(),
    ];
    let watched = buckets.clone().map(|bucket| bucket_stream(&bucket));
    let seen = names.seen_stream();
    for stream in [&log, &parked, &outcomes, &seen]
        .into_iter()
        .chain(&watched)
    {
        publish.push(format!("$JS.API.CONSUMER.CREATE.{stream}"));
        publish.extend(
            ["DELETE", "INFO", "MSG.NEXT"]
                .map(|call| format!("$JS.API.CONSUMER.{call}.{stream}.*")),
        );
        publish.push(format!("$JS.FC.{stream}.>"));
    }
    publish.extend(
        watched
            .iter()
            .map(|stream| format!("$JS.API.CONSUMER.CREATE.{stream}.*.>")),
    );
    let [routes, _, associates, _] = &watched;
    publish.extend(
        [&parked, &scheduled, routes, associates]
            .map(|stream| format!("$JS.API.DIRECT.GET.{stream}")),
    );
    publish.extend(
        ["PURGE", "MSG.DELETE", "MSG.GET"].map(|call| format!("$JS.API.STREAM.{call}.{parked}")),
    );
    publish
        .extend(["MSG.DELETE", "MSG.GET"].map(|call| format!("$JS.API.STREAM.{call}.{scheduled}")));
    // Positions, what they lead to, and the front of the log.
    let positions = bucket_stream(&names.positions_bucket());
    publish.extend(
        [&outcomes, &seen, &positions].map(|stream| format!("$JS.API.STREAM.MSG.GET.{stream}")),
    );
    publish.push(format!("$JS.API.DIRECT.GET.{positions}"));
    publish.push(format!("$JS.API.CONSUMER.CREATE.{positions}"));
    publish.push(format!("$JS.API.CONSUMER.DELETE.{positions}.*"));
    publish.push(format!("$JS.API.STREAM.PURGE.{log}"));
    // Messages that the client library cannot read.
    publish.extend(["MSG.DELETE", "MSG.GET"].map(|call| format!("$JS.API.STREAM.{call}.{log}")));
    publish.extend(
        watched
            .iter()
            .map(|stream| format!("$JS.API.STREAM.MSG.GET.{stream}")),
    );
    publish.extend([
        names.all_sets(),
        names.all_scheduled(),
        names.all_mailboxes(),
        names.all_fences(),
        names.all_outcomes_fences(),
        names.all_outcomes(),
        names.all_rejected(),
        names.all_seen(),
        format!("$KV.{}.*", names.positions_bucket()),
    ]);
    let [routes, _, associates, members] = &buckets;
    publish.extend([
        format!("$KV.{routes}.*.*"),
        format!("$KV.{associates}.*"),
        format!("$KV.{members}.*"),
    ]);
    publish.extend(["deliver", "heartbeat"].map(|call| names.all_instances(call)));
    publish.push(REPLIES.to_owned());
    publish.sort();
    publish.dedup();
    let inbox = format!("{}.>", config.nats.inbox_prefix);
    Needs {
        publish,
        subscribe: vec![
            inbox,
            format!("{}.*", names.api()),
            format!("{}.of.*.*", names.api()),
            names.metrics(),
            "$SRV.>".to_owned(),
        ],
    }
}

/// The default reply subjects of queries.
const REPLIES: &str = "_INBOX.>";

/// Returns the missing permissions, by subject.
pub(super) fn missing(
    permissions: &Permissions,
    needs: &Needs,
) -> [(&'static str, Vec<String>); 2] {
    let may_answer = permissions.responses.is_some();
    let publish = not_allowed(permissions.publish.as_ref(), &needs.publish);
    // A user who may answer needs no permission for the reply subject.
    let publish = publish
        .into_iter()
        .filter(|subject| !(may_answer && subject == REPLIES))
        .collect();
    [
        ("publish", publish),
        (
            "subscribe",
            not_allowed(permissions.subscribe.as_ref(), &needs.subscribe),
        ),
    ]
}

fn not_allowed(allowed: Option<&Allowed>, needs: &[String]) -> Vec<String> {
    let Some(Allowed { allow, deny }) = allowed else {
        return Vec::new();
    };
    let is_allowed = |need: &String| {
        let is_in = allow.is_empty() || allow.iter().any(|pattern| covers(pattern, need));
        is_in && !deny.iter().any(|pattern| overlap(pattern, need))
    };
    needs
        .iter()
        .filter(|need| !is_allowed(need))
        .cloned()
        .collect()
}

/// Returns true if a pattern matches every subject that another one matches. The text after a space
/// is a queue group.
fn covers(pattern: &str, other: &str) -> bool {
    let (mut pattern, mut other) = (tokens(pattern), tokens(other));
    loop {
        match (pattern.next(), other.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(token), Some(same)) if token == same => {}
            _ => return false,
        }
    }
}

/// Returns true if some subject matches both.
fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (tokens(one), tokens(other));
    loop {
        match (one.next(), other.next()) {
            (Some(">"), Some(_)) | (Some(_), Some(">")) | (None, None) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            _ => return false,
        }
    }
}

fn tokens(pattern: &str) -> std::str::Split<'_, char> {
    pattern.split(' ').next().unwrap_or_default().split('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_covers_exactly_its_matches() {
        for (pattern, other) in [
            ("a.b", "a.b"),
            ("a.*", "a.b"),
            ("a.*", "a.*"),
            ("a.>", "a.*.c"),
            (">", "a"),
            ("a.b q", "a.b"),
        ] {
            assert!(covers(pattern, other), "{pattern} {other}");
        }
        for (pattern, other) in [
            ("a.b", "a.c"),
            ("a.b", "a.*"),
            ("a.*", "a.b.c"),
            ("a.*", "a.>"),
            ("a.>", "a"),
            ("a", "a.b"),
        ] {
            assert!(!covers(pattern, other), "{pattern} {other}");
        }
    }

    #[test]
    fn patterns_overlap_where_one_subject_matches_both() {
        for (one, other) in [
            ("a.*", "*.b"),
            ("a.>", "a.b.c"),
            ("a.b.*", "a.>"),
            ("a", "a"),
        ] {
            assert!(overlap(one, other) && overlap(other, one), "{one} {other}");
        }
        for (one, other) in [
            ("a.*", "b.*"),
            ("a.*", "a.b.c"),
            ("a.>", "a"),
            ("a.b", "a.c"),
        ] {
            assert!(
                !overlap(one, other) && !overlap(other, one),
                "{one} {other}"
            );
        }
    }

    #[test]
    fn unallowed_and_denied_subjects_are_missing() {
        let allowed = |allow: &[&str], deny: &[&str]| {
            let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
            Some(Allowed {
                allow: owned(allow),
                deny: owned(deny),
            })
        };
        let needs = Needs {
            publish: vec!["_INBOX.>".into(), "a.b".into(), "a.c".into()],
            subscribe: vec!["x".into()],
        };
        let of = |publish, subscribe, responses| {
            missing(
                &Permissions {
                    publish,
                    subscribe,
                    responses,
                },
                &needs,
            )
            .map(|(_, missing)| missing)
        };
        assert_eq!(of(None, None, None), [vec![], Vec::<String>::new()]);
        assert_eq!(
            of(allowed(&["a.*"], &["a.c"]), allowed(&[], &[">"]), None),
            [vec!["_INBOX.>", "a.c"], vec!["x"]]
        );
        assert_eq!(
            of(allowed(&["a.>"], &[]), None, Some(true.into())),
            [Vec::<String>::new(), vec![]]
        );
    }
}
