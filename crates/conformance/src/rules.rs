//! The rules, in the order in which they are tried: what the others need comes first, what may kill
//! an app server last.

use futures_util::future::LocalBoxFuture;

use super::peer::Ask::{self, Delivery, Heartbeat};
use super::peer::{Kept, Peer};
use super::{deliveries, endurance, fields, heartbeats, leaving, routes};

/// A rule of the contract, as far as it can be seen from outside.
pub struct Rule {
    /// The rule's name for people and programs; it does not change.
    pub name: &'static str,
    /// The sentence of `docs/protocol.md`.
    pub sentence: &'static str,
    /// The requests that it sends.
    pub(super) asks: &'static [Ask],
    /// True if an app server that breaks it cannot be tested by similar requests of other rules.
    pub(super) is_basic: bool,
    /// True if it is about a user who leaves, and is tried only if there is one.
    pub is_of_leaving: bool,
    check: Check,
}

type Check = for<'a> fn(&'a Peer) -> LocalBoxFuture<'a, Kept>;

impl Rule {
    const fn new(
        name: &'static str,
        asks: &'static [Ask],
        sentence: &'static str,
        check: Check,
    ) -> Self {
        Self {
            name,
            sentence,
            asks,
            is_basic: false,
            is_of_leaving: false,
            check,
        }
    }

    /// Tries it.
    pub(super) async fn check(&self, peer: &Peer) -> Kept {
        (self.check)(peer).await
    }

    const fn basic(self) -> Self {
        Self {
            is_basic: true,
            ..self
        }
    }

    const fn of_leaving(self) -> Self {
        Self {
            is_of_leaving: true,
            ..self
        }
    }
}

/// The rules of these names, and those that come first for them; all, if none is named.
///
/// # Errors
/// The first name that no rule has.
pub fn chosen(names: &[String]) -> Result<Vec<&'static Rule>, &str> {
    if let Some(unknown) = names
        .iter()
        .find(|name| !RULES.iter().any(|rule| rule.name == **name))
    {
        return Err(unknown);
    }
    let is_named = |rule: &Rule| names.is_empty() || names.iter().any(|name| rule.name == name);
    let asked: Vec<Ask> = RULES
        .iter()
        .filter(|rule| is_named(rule))
        .flat_map(|rule| rule.asks)
        .copied()
        .collect();
    let is_needed = |rule: &Rule| rule.is_basic && rule.asks.iter().any(|ask| asked.contains(ask));
    Ok(RULES
        .iter()
        .filter(|rule| is_named(rule) || is_needed(rule))
        .collect())
}

macro_rules! rule {
    ($name:literal, [$($ask:expr),*], $sentence:expr, $check:path) => {
        Rule::new($name, &[$($ask),*], $sentence, |peer| Box::pin($check(peer)))
    };
    // Reminders that are to be accepted.
    ($name:literal, accepts $samples:path, $sentence:expr) => {
        Rule::new($name, &[Delivery], $sentence, |peer| Box::pin(fields::taken(peer, $samples(peer))))
    };
}

const BY_ALL_THREE: &str = "To refuse some, such as those for a user who is not connected to you, name each by all three fields, and accept the others";
const UNREADABLE: &str =
    "You may ignore a request you cannot parse, but you must answer the ones after it.";
const UNKNOWN: &str = "unknown fields are ignored";
const UP_TO: &str = "A request on `<subject>.deliver`, up to 256 KiB";

/// All rules. Each is described by a sentence of the contract, word for word.
pub static RULES: &[Rule] = &[
    rule!("route", [], "add the user to your own table; then put the route", routes::put),
    rule!("route-key", [], "key `<user>.<instance>`, both escaped", routes::keys),
    rule!(
        "route-value",
        [],
        "value empty, or `subject`, without wildcards: the beginning of the instance's subjects.",
        routes::values
    ),
    rule!("heartbeat-in-time", [Heartbeat], "Answer within `heartbeat.timeout` (1 s)", heartbeats::in_time).basic(),
    rule!(
        "heartbeat-answer",
        [Heartbeat],
        "Answer within `heartbeat.timeout` (1 s) which of them are connected",
        heartbeats::form
    )
    .basic(),
    rule!(
        "heartbeat-connected",
        [Heartbeat],
        "A user left out is not connected, and the route is dropped.",
        heartbeats::connected
    )
    .basic(),
    rule!(
        "heartbeat-stranger",
        [Heartbeat],
        "Name no other users: their reminders would be sent here.",
        heartbeats::strangers
    ),
    rule!("heartbeat-asked", [Heartbeat], "Name no other users", heartbeats::asked_only),
    rule!("heartbeat-names", [Heartbeat], "JSON bodies carry the name itself.", heartbeats::names),
    rule!("heartbeat-largest", [Heartbeat], "asks about up to 1,000 users", heartbeats::largest),
    rule!("heartbeat-unknown-fields", [Heartbeat], UNKNOWN, heartbeats::unknown_fields),
    rule!("delivery-in-time", [Delivery], "Answer within `delivery.timeout` (2 s).", deliveries::in_time).basic(),
    rule!(
        "delivery-answer",
        [Delivery],
        "another answer, or an answer with `Nats-Service-Error-Code`: nothing in the request counts as delivered.",
        deliveries::form
    )
    .basic(),
    rule!("delivery-accepted", [Delivery], "`{}` accepts everything.", deliveries::accepted).basic(),
    rule!("delivery-stranger", [Delivery], BY_ALL_THREE, deliveries::stranger),
    rule!("delivery-others", [Delivery], BY_ALL_THREE, deliveries::others),
    rule!("delivery-refused", [Delivery], BY_ALL_THREE, deliveries::exact),
    rule!("delivery-repeat", [Delivery], "Drop redeliveries by these four, and accept them.", deliveries::repeat),
    rule!("delivery-full", [Delivery], UP_TO, deliveries::full),
    rule!("delivery-largest", [Delivery], UP_TO, deliveries::largest),
    rule!("delivery-unknown-fields", [Delivery], UNKNOWN, fields::unknown),
    rule!(
        "field-optional",
        accepts fields::optional,
        "`title`, `deliver_at`, `expires_at`, `data` if published"
    ),
    rule!("field-data", accepts fields::data, "any JSON, delivered byte for byte"),
    rule!("field-data-odd", accepts fields::odd_data, "any JSON, delivered byte for byte"),
    rule!("field-merged", accepts fields::merged, "`count`, `merged` if duplicates were merged"),
    rule!("field-parked-at", accepts fields::parked, "`parked_at` if it waited in a mailbox"),
    rule!("field-marks", accepts fields::marks, "`marks` if a rule marked something"),
    rule!("field-for", accepts fields::meant_for_another, "`for` if `user` is an [associate](#associates)"),
    rule!(
        "field-rerouted-to",
        accepts fields::copy,
        "`rerouted_to` if it is a copy the associate who got it, while `user` was away"
    ),
    rule!("field-priority", accepts fields::priorities, "`low`, `normal`, `high`, `urgent`"),
    rule!("field-id", accepts fields::ids, "1 to 256 bytes without control characters"),
    rule!("text-odd", accepts fields::texts, "Bodies are UTF-8 JSON"),
    rule!("text-empty", accepts fields::empty, "A text is empty if a rule removed all of it"),
    rule!("text-longest", accepts fields::long, "1 byte to 64 KiB"),
    rule!(
        "at-once",
        [Heartbeat, Delivery],
        "Requests can arrive while others are unanswered; each has an answer of its own.",
        endurance::at_once
    ),
    rule!("unreadable-heartbeat", [Heartbeat], UNREADABLE, endurance::unreadable_heartbeats),
    rule!("unreadable-delivery", [Delivery], UNREADABLE, endurance::unreadable_deliveries),
    rule!("oversize", [Delivery], UNREADABLE, endurance::oversize),
    rule!("leaving-route", [Heartbeat], "Delete it when the user's last connection closes.", leaving::route).of_leaving(),
    rule!("leaving-heartbeat", [Heartbeat], "Name no other users", leaving::heartbeat).of_leaving(),
    rule!("leaving-delivery", [Delivery], BY_ALL_THREE, leaving::delivery).of_leaving(),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_rule_is_a_sentence_of_the_contract() {
        let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        // Some stand in tables.
        let contract = one_line(&include_str!("../../../docs/protocol.md").replace('|', " "));
        for Rule { name, sentence, .. } in RULES {
            assert!(
                contract.contains(sentence),
                "{name}: docs/protocol.md does not say `{sentence}`"
            );
        }
    }

    #[test]
    fn names_are_unique_and_lower_case() {
        let names: BTreeSet<_> = RULES.iter().map(|rule| rule.name).collect();
        assert_eq!(names.len(), RULES.len());
        assert!(
            names
                .iter()
                .all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')),
            "{names:?}"
        );
    }

    #[test]
    fn prerequisites_of_a_rule_are_tried() {
        let names = |only: &[&str]| -> Vec<&str> {
            let only: Vec<String> = only.iter().map(ToString::to_string).collect();
            chosen(&only)
                .unwrap()
                .iter()
                .map(|rule| rule.name)
                .collect()
        };
        assert_eq!(names(&["route"]), ["route"]);
        assert_eq!(
            names(&["field-for"]),
            [
                "delivery-in-time",
                "delivery-answer",
                "delivery-accepted",
                "field-for"
            ]
        );
        assert_eq!(names(&[]).len(), RULES.len());
        assert_eq!(
            chosen(&["route".to_owned(), "rout".to_owned()]).err(),
            Some("rout")
        );
    }
}
