//! Checks of refused input, rules, routes, and the history.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::finding::or_ok;
use super::{Case, Finding};
use crate::cli::lookalikes::{Users, shown};
use crate::cli::output::{age, plain, plural, short, thousands};
use crate::cli::rules::store::look;
use crate::cli::scan::timestamp;
use crate::cli::survey::Routes;
use crate::nats::api::{ApiError, ask};
use crate::nats::bucket::{Operation, operation};
use crate::nats::names::bucket_stream;
use crate::nats::raw::{self, RawMessage};
use crate::nats::{Nats, NatsError, chain};
use crate::service::rules::last_good;
use crate::token::InstanceName;
use crate::wire::member::HeldBack;

/// Age up to which a refusal counts as recent. Operators have seen older ones, or never will.
const NEWS: SignedDuration = SignedDuration::from_hours(1);
/// Marks of deleted routes that need no action.
const FEW_MARKS: u64 = 1_000;

pub(super) fn rejected(case: &Case<'_>) -> Vec<Finding> {
    let stream = case.names.rejected_stream();
    let Some(info) = case.now.streams.get(&stream) else {
        return vec![Finding::ok("nothing")];
    };
    let (count, last) = (
        info.state.messages,
        timestamp(info.state.last_timestamp.unix_timestamp_nanos()),
    );
    let found = format!("{} refused and kept", plural(count as usize, "message"));
    let is_news = count > 0 && case.now.server_time.duration_since(last) < NEWS;
    vec![if is_news {
        let found = format!(
            "{found}, the last one {} ago",
            age(case.now.server_time, last)
        );
        Finding::warning(
            found,
            "nothing refused in the last hour",
            "bellhop rejected ls",
        )
    } else {
        Finding::ok(found)
    }]
}

/// Reports app servers that leave a reminder unanswered repeatedly, so that its user's reminders
/// wait.
pub(super) fn unanswered(case: &Case<'_>) -> Vec<Finding> {
    let alive = case.now.alive(case.config.members.ttl);
    let held_back = alive.flat_map(|(_, member)| &member.card.held_back);
    let finding = |HeldBack {
                       user,
                       source,
                       id,
                       instance,
                       tries,
                   }: &HeldBack| {
        let id = plain(id);
        let found = format!(
            "{instance} left reminder {id} of {source} for {user} unanswered {tries} times, alone"
        );
        let fix = format!(
            "look at the log of {instance}; `bellhop mailbox rm {user} {source} {id} -f` removes it"
        );
        Finding::warning(found, "an answer to every delivery", fix)
    };
    or_ok(held_back.map(finding).collect(), || {
        "no reminder is held back".to_owned()
    })
}

/// Checks that no two app servers answer under one name.
pub(super) fn shared_names(case: &Case<'_>) -> Vec<Finding> {
    let alive = case.now.alive(case.config.members.ttl);
    let named: BTreeSet<_> = alive
        .flat_map(|(_, member)| &member.card.shared_names)
        .collect();
    let finding = |instance: &InstanceName| {
        Finding::warning(
            format!("several app servers answer as {instance}, and only the first answer counts"),
            "a name of its own for each app server",
            format!(
                "find what else runs as {instance}, and rename it; `bellhop instances ls` counts answers"
            ),
        )
    };
    or_ok(named.into_iter().map(finding).collect(), || {
        "each app server answers under a name of its own".to_owned()
    })
}

/// Checks that no reminders wait for a user while another user, whose name looks the same, has a
/// route.
pub(super) async fn lookalikes(case: &Case<'_>, nats: &Nats) -> Vec<Finding> {
    let expected = "one spelling of each user's name";
    let users = match Users::read(nats).await {
        Ok(Some(users)) => users,
        Ok(None) => {
            let found = "too many users to compare their names";
            return vec![Finding::unknown(found, "bellhop mailbox info USER")];
        }
        Err(error) => return vec![unread(case, &error, expected, "bellhop setup")],
    };
    let pairs = users.waiting_beside();
    let Some((user, other)) = pairs.first() else {
        return vec![Finding::ok(
            "no mailbox waits beside a route of a name that looks the same",
        )];
    };
    let (count, waiting, there) = (plural(pairs.len(), "user"), shown(user), shown(other));
    vec![Finding::warning(
        format!(
            "reminders wait for {count} without a route whose names look like those of users with one, \
             such as {waiting} beside {there}"
        ),
        expected,
        format!(
            "if {waiting} is a misspelling, correct it where it is published or connected; `bellhop mailbox info {user}`"
        ),
    )]
}

/// Checks that queries are answered, which needs a readable database, with the right schema, and an
/// up-to-date history.
pub(super) async fn history(case: &Case<'_>, nats: &Nats) -> Vec<Finding> {
    if !case.config.history.is_on() {
        return vec![Finding::ok("no history is kept (history.url)")];
    }
    let began = Timestamp::now();
    let asked = tokio::time::timeout(
        PATIENCE,
        ask::<Value>(nats, "history", &json!({ "limit": 1 })),
    )
    .await;
    let took = Duration::try_from(Timestamp::now().duration_since(began)).unwrap_or_default();
    let expected = "an answer to `bellhop history`";
    vec![match asked {
        Ok(Ok(_)) => Finding::ok(format!(
            "answers within {}",
            crate::cli::output::duration(took)
        )),
        Ok(Err(error @ ApiError::NoResponder)) => unread(case, &error, expected, "bellhop serve"),
        Ok(Err(error @ ApiError::NotPermitted(_))) => Finding::unknown(
            chain(&error).to_string(),
            "run it as a user who may ask, such as an operator",
        ),
        Ok(Err(error)) => Finding::critical(
            chain(&error).to_string(),
            expected,
            "start its database; the members' logs have its errors",
        ),
        Err(_) => Finding::critical(
            format!("no answer within {PATIENCE:?}"),
            expected,
            "look at the load of its database",
        ),
    }]
}

/// Judges that something cannot be read. An account that imports JetStream's figures need not be
/// allowed to read content.
fn unread(case: &Case<'_>, error: &(dyn Error + 'static), expected: &str, fix: &str) -> Finding {
    match case.config.nats.api().as_str() {
        "$JS.API" => Finding::critical(chain(error).to_string(), expected, fix),
        _ => Finding::unknown(
            "it cannot be read from this account",
            "run it as an operator, in Bellhop's own account",
        ),
    }
}

/// Maximum time that an operator waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// Judges documents that members cannot use. An earlier version applies in their place; where there
/// is none, reminders with the tag are refused.
pub(super) async fn rules(case: &Case<'_>, nats: &Nats) -> Vec<Finding> {
    let (mut good, mut bad, mut findings) = (0, Vec::new(), Vec::new());
    let documents = match documents(nats).await {
        Ok(documents) => documents,
        Err(error) => return vec![unread(case, &error, "a bucket of rules", "bellhop setup")],
    };
    for (key, message) in documents {
        let (tag, looked) = look(&key, &message.payload);
        if let Err(problem) = message.read_headers() {
            findings.push(Finding::warning(
                format!("the rules of {tag} cannot be read by NATS clients like Bellhop's: {problem}; each start takes a second longer"),
                "a message that is well formed",
                format!("`bellhop rules rm {tag}`, then `bellhop rules put {tag} FILE`"),
            ));
        }
        match looked {
            Ok(_) => good += 1,
            Err(problem) => bad.push((key, tag, message.sequence, problem)),
        }
    }
    for (key, tag, revision, problem) in bad {
        let instead = match last_good(nats, &key, revision).await {
            Ok(Some((earlier, _))) => format!("revision {earlier} is used instead"),
            Ok(None) => "reminders with this tag are refused".to_owned(),
            Err(error) => format!("it is unknown whether an earlier one is used ({error})"),
        };
        findings.push(Finding::critical(
            format!("the rules of {tag} cannot be used: {}; {instead}", short(&problem, 120)),
            "a document that members can use",
            format!(
                "`bellhop rules get {tag} > {tag}.json`, correct it (`bellhop rules lint {tag}.json`), `bellhop rules put {tag} {tag}.json`"
            ),
        ));
    }
    or_ok(findings, || format!("{} in use", plural(good, "document")))
}

/// Returns the latest version of each document, by key. They are read as JSON: one could end the
/// client's connection.
async fn documents(nats: &Nats) -> Result<BTreeMap<String, RawMessage>, NatsError> {
    let bucket = nats.names.rules_bucket();
    let (stream, prefix) = (bucket_stream(&bucket), format!("$KV.{bucket}."));
    let (mut documents, mut from) = (BTreeMap::new(), 1);
    while let Some(message) = raw::next(nats, &stream, &format!("{prefix}>"), from).await? {
        from = message.sequence + 1;
        let key = message
            .subject
            .strip_prefix(&prefix)
            .unwrap_or(&message.subject)
            .to_owned();
        documents.insert(key, message);
    }
    documents.retain(|_, message| {
        message
            .read_headers()
            .map_or(true, |headers| operation(&headers) == Operation::Put)
    });
    Ok(documents)
}

/// App servers delete the routes of users who left. Each leaves a mark, which goes by itself; where
/// no member runs, or it is an old one, some stay.
pub(super) async fn routes(case: &Case<'_>, nats: &Nats) -> Vec<Finding> {
    let stream = bucket_stream(&nats.names.routes_bucket());
    let all = case.now.messages(&stream);
    if all > Routes::MOST {
        let found = format!(
            "{} keys, too many to tell routes from marks of deleted ones",
            thousands(all as usize)
        );
        return vec![Finding::unknown(found, "bellhop instances ls")];
    }
    let routes = match Routes::read(nats).await {
        Ok(routes) => routes,
        Err(error) => return vec![unread(case, &error, "a bucket of routes", "bellhop setup")],
    };
    let (live, marks) = (routes.count(), routes.marks);
    let found = format!(
        "{}, and {} of deleted ones",
        plural(live as usize, "route"),
        plural(marks as usize, "mark")
    );
    vec![if marks > FEW_MARKS.max(live) {
        let fix = format!("nats kv compact {} --force", nats.names.routes_bucket());
        Finding::warning(
            found,
            "fewer marks than routes: each costs memory, and time when a member starts",
            fix,
        )
    } else {
        Finding::ok(found)
    }]
}
