//! Every channel of the contract: where it is, what travels there, and which way. Names of subjects are those that are used.

use crate::headers;
use crate::names::Names;
use crate::trace;
use crate::wire::cloud_event;

/// Where messages travel.
pub(super) struct Channel {
    pub(super) name: &'static str,
    /// With `{parameters}`; none, if the request names where its answer goes.
    pub(super) address: Option<String>,
    pub(super) about: &'static str,
    pub(super) messages: Vec<Message>,
}

/// A message.
pub(super) struct Message {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// Its content type, where that is not JSON.
    pub(super) content_type: Option<&'static str>,
    /// The bodies that it may have. None has no schema.
    pub(super) bodies: &'static [&'static str],
    pub(super) headers: Vec<Header>,
}

/// A header of a message, from [`HEADERS`].
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub(super) name: &'static str,
    pub(super) is_required: bool,
}

/// What Bellhop does.
pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) act: Act,
    pub(super) channel: &'static str,
    /// The one message of the channel that it is about, where not all are.
    pub(super) message: Option<&'static str>,
    /// Where answers come or go.
    pub(super) answers: Option<&'static str>,
}

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Bellhop sends.
    Send,
    /// Bellhop receives; every member does.
    Receive,
    /// One member answers: those of the NATS micro service share a queue.
    Serve,
}

/// What stands in the braces of addresses.
pub(super) const PARAMETERS: &[(&str, &str)] = &[
    ("source", "The business system: its name as one token."),
    (
        "instance",
        "The app-server instance: its name as one token. A route may give it other subjects than these.",
    ),
    ("user", "The user's id as one token."),
    ("tag", "The tag as one token."),
];

/// What headers mean, and what they are in examples.
const HEADERS: &[(&str, &str, &str)] = &[
    (
        "Nats-Msg-Id",
        "The sets of a source that have the same one are one set, within the idempotency window.",
        "",
    ),
    (
        trace::HEADER,
        "W3C Trace Context: the trace that it belongs to.",
        "",
    ),
    (
        headers::TRACES,
        "The traces of all reminders, separated by commas, where they are several.",
        "",
    ),
    ("Content-Type", "A media type.", cloud_event::STRUCTURED),
    (
        "ce-specversion",
        "The version of CloudEvents: 1.0.",
        cloud_event::VERSION,
    ),
    (
        "ce-id",
        "The event's own name, percent-encoded or as it is; unique within its source.",
        "981",
    ),
    (
        "ce-source",
        "Where the event comes from: a URI, percent-encoded or as it is.",
        "/billing/invoices",
    ),
    (
        "ce-type",
        "What kind of event it is.",
        "com.example.invoice.due",
    ),
    ("ce-datacontenttype", "What the body is: some JSON.", ""),
    (
        "ce-traceparent",
        "The event's trace, where no header traceparent is there.",
        "",
    ),
    (headers::ERROR, "Why it is refused: a stable code.", ""),
    (
        headers::ERROR_DETAIL,
        "What was wrong, where, and what would be right.",
        "",
    ),
    (
        headers::REQUEUE,
        "It was refused before: its reminders are no repeats.",
        "",
    ),
    (
        headers::SET,
        "The set that a reminder came in which was refused alone.",
        "",
    ),
    (
        headers::ID,
        "The id of a reminder which was refused alone.",
        "",
    ),
    (
        "Nats-Service-Error-Code",
        "400: the request is wrong. 403: the app server may not know. 404: nothing is known of it. 503: it cannot be answered now.",
        "",
    ),
    ("Nats-Service-Error", "What is wrong, in a sentence.", ""),
    ("KV-Operation", "DEL or PURGE: the key is gone.", ""),
    (headers::MEMBER, "Whose figures they are.", ""),
];

const fn must(name: &'static str) -> Header {
    Header {
        name,
        is_required: true,
    }
}

const fn may(name: &'static str) -> Header {
    Header {
        name,
        is_required: false,
    }
}

impl Header {
    /// What it means, and what it is in examples. Both are empty where nothing is known, which a test finds.
    pub(super) fn meaning(&self) -> (&'static str, &'static str) {
        let known = HEADERS.iter().find(|(name, ..)| *name == self.name);
        known.map_or(("", ""), |(_, about, example)| (about, example))
    }
}

impl Message {
    fn new(name: &'static str, about: &'static str, bodies: &'static [&'static str]) -> Self {
        Self {
            name,
            about,
            content_type: None,
            bodies,
            headers: Vec::new(),
        }
    }

    fn with(self, headers: impl Into<Vec<Header>>) -> Self {
        Self {
            headers: headers.into(),
            ..self
        }
    }

    fn of_type(self, content_type: &'static str) -> Self {
        Self {
            content_type: Some(content_type),
            ..self
        }
    }
}

/// Puts names of parameters in the place of wildcards.
fn with(pattern: &str, parameters: &[&str]) -> Option<String> {
    let parts: Vec<&str> = pattern.split('*').collect();
    let named = parameters
        .iter()
        .zip(&parts[1..])
        .map(|(name, part)| format!("{{{name}}}{part}"));
    Some(format!("{}{}", parts[0], named.collect::<String>()))
}

pub(super) fn channels(names: &Names) -> Vec<Channel> {
    [
        reminders(names),
        buckets(names),
        instances(names),
        questions(names),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn reminders(names: &Names) -> Vec<Channel> {
    let attributes = ["ce-specversion", "ce-id", "ce-source", "ce-type"].map(must);
    let optional = ["ce-datacontenttype", "ce-traceparent"].map(may);
    let any = ["Nats-Msg-Id", trace::HEADER, headers::REQUEUE].map(may);
    vec![
        Channel {
            name: "sets",
            address: with(&names.all_sets(), &["source"]),
            about: "Reminder sets, in JetStream: publish, and wait for the acknowledgement.",
            messages: vec![
                Message::new("set", "A reminder set.", &["set"]).with(any),
                Message::new(
                    "cloudEvent",
                    "A CloudEvent that carries one, in structured mode.",
                    &["cloud-event"],
                )
                .with([&[must("Content-Type")][..], &any].concat())
                .of_type(cloud_event::STRUCTURED),
                Message::new(
                    "cloudEventData",
                    "The same in binary mode.",
                    &["set", "published-reminder"],
                )
                .with([&attributes[..], &optional, &any].concat()),
            ],
        },
        Channel {
            name: "outcomes",
            address: with(&names.all_outcomes(), &["source"]),
            about: "What became of each reminder, in JetStream.",
            messages: vec![Message::new(
                "outcomes",
                "Outcomes of one source.",
                &["outcomes"],
            )],
        },
        Channel {
            name: "rejected",
            address: with(&names.all_rejected(), &["source"]),
            about: "Refused input, byte for byte, in JetStream.",
            messages: vec![
                Message::new(
                    "rejected",
                    "A set or a reminder that is refused. Its publisher's headers are there, too.",
                    &[],
                )
                .with([
                    must(headers::ERROR),
                    must(headers::ERROR_DETAIL),
                    may(headers::SET),
                    may(headers::ID),
                ])
                .of_type("application/octet-stream"),
            ],
        },
    ]
}

fn buckets(names: &Names) -> Vec<Channel> {
    let key = |bucket: String, parameters: &[&str]| {
        with(
            &format!("$KV.{bucket}{}", ".*".repeat(parameters.len())),
            parameters,
        )
    };
    let gone = |name| Message::new(name, "The key is deleted.", &[]).with([must("KV-Operation")]);
    vec![
        Channel {
            name: "routes",
            address: key(names.routes_bucket(), &["user", "instance"]),
            about: "Keys of the bucket of routes.",
            messages: vec![
                Message::new(
                    "route",
                    "The instance holds a connection of the user. An empty value is one, too.",
                    &["route"],
                ),
                gone("routeGone"),
            ],
        },
        Channel {
            name: "associates",
            address: key(names.associates_bucket(), &["user"]),
            about: "Keys of the bucket of associates.",
            messages: vec![
                Message::new(
                    "associates",
                    "Who may get the user's reminders.",
                    &["associates"],
                ),
                gone("associatesGone"),
            ],
        },
        Channel {
            name: "rules",
            address: key(names.rules_bucket(), &["tag"]),
            about: "Keys of the bucket of rules.",
            messages: vec![
                Message::new("rules", "The rules of the tag.", &["rules"]),
                gone("rulesGone"),
            ],
        },
    ]
}

fn instances(names: &Names) -> Vec<Channel> {
    vec![
        Channel {
            name: "heartbeat",
            address: with(&names.all_instances("heartbeat"), &["instance"]),
            about: "Who is connected? A request.",
            messages: vec![Message::new(
                "heartbeat",
                "The users who are asked about.",
                &["heartbeat"],
            )],
        },
        answers(
            "heartbeatAnswers",
            vec![Message::new(
                "heartbeatAnswer",
                "Who of them is.",
                &["heartbeat-answer"],
            )],
        ),
        Channel {
            name: "deliver",
            address: with(&names.all_instances("deliver"), &["instance"]),
            about: "Reminders for connected users. A request.",
            messages: vec![
                Message::new("delivery", "The reminders.", &["delivery"])
                    .with([may(trace::HEADER), may(headers::TRACES)]),
            ],
        },
        answers(
            "deliveryAnswers",
            vec![
                Message::new(
                    "deliveryAnswer",
                    "What is refused; the rest is accepted.",
                    &["delivery-answer"],
                ),
                Message::new("deliveryFailed", "Nothing is accepted.", &[])
                    .with([must("Nats-Service-Error-Code")]),
            ],
        ),
    ]
}

fn questions(names: &Names) -> Vec<Channel> {
    let error = || {
        let headers = [must("Nats-Service-Error-Code"), must("Nats-Service-Error")];
        Message::new("queryError", "There is no answer.", &[]).with(headers)
    };
    let asked_at = |at: &str, name, message, about, body| Channel {
        name,
        address: Some(format!("{}.{at}", names.api())),
        about,
        messages: vec![Message::new(message, about, body)],
    };
    let question = |at: &str, name, about, body| asked_at(at, name, name, about, body);
    // Of an app server, about a user who has a route there.
    let of_instance = |question: &str, name, message, about, body| {
        asked_at(
            &format!("of.{{instance}}.{question}"),
            name,
            message,
            about,
            body,
        )
    };
    let answer = |name, message, body| {
        answers(
            name,
            vec![Message::new(message, "The answer.", body), error()],
        )
    };
    vec![
        question(
            "history",
            "historyQuery",
            "Which reminders were there, and what became of them?",
            &["history-query"],
        ),
        of_instance(
            "history",
            "historyQueryOfInstance",
            "historyQuery",
            "Which reminders were there, and what became of them?",
            &["history-query"],
        ),
        answer("historyAnswers", "historyAnswer", &["history-answer"]),
        question(
            "why",
            "whyQuery",
            "What became of this reminder?",
            &["why-query"],
        ),
        of_instance(
            "why",
            "whyQueryOfInstance",
            "whyQuery",
            "What became of this reminder?",
            &["why-query"],
        ),
        answer("whyAnswers", "whyAnswer", &["why-answer"]),
        question(
            "mailbox",
            "mailboxQuery",
            "What waits for this user?",
            &["mailbox-query"],
        ),
        of_instance(
            "mailbox",
            "mailboxQueryOfInstance",
            "mailboxQuery",
            "What waits for this user?",
            &["mailbox-query"],
        ),
        answer("mailboxAnswers", "mailboxAnswer", &["mailbox-answer"]),
        question(
            "erase",
            "eraseQuery",
            "Erase what is kept of this user.",
            &["erase-query"],
        ),
        answer("eraseAnswers", "eraseAnswer", &["erase-answer"]),
        Channel {
            name: "metrics",
            address: Some(names.metrics()),
            about: "What does each member count? An empty request.",
            messages: vec![
                Message::new("metricsQuery", "The question.", &[]).of_type("text/plain"),
            ],
        },
        answers(
            "metricsAnswers",
            vec![
                Message::new(
                    "metrics",
                    "A member's metrics, in the text format of Prometheus.",
                    &[],
                )
                .with([must(headers::MEMBER)])
                .of_type("text/plain"),
            ],
        ),
    ]
}

/// Answers, which go to the subject that the request names.
fn answers(name: &'static str, messages: Vec<Message>) -> Channel {
    Channel {
        name,
        address: None,
        about: "Answers.",
        messages,
    }
}

/// What Bellhop does with the channels.
pub(super) const OPERATIONS: &[Operation] = &[
    operation("takeIn", "Takes sets in.", Act::Receive, "sets", None),
    operation(
        "tellOutcomes",
        "Tells what became of reminders.",
        Act::Send,
        "outcomes",
        None,
    ),
    operation(
        "reject",
        "Puts refused input aside.",
        Act::Send,
        "rejected",
        None,
    ),
    operation(
        "followRoutes",
        "Learns who holds whose connection.",
        Act::Receive,
        "routes",
        None,
    ),
    Operation {
        message: Some("routeGone"),
        ..operation(
            "dropRoute",
            "Deletes a route that turned out wrong.",
            Act::Send,
            "routes",
            None,
        )
    },
    operation(
        "followAssociates",
        "Learns who stands in for whom.",
        Act::Receive,
        "associates",
        None,
    ),
    operation(
        "forgetUser",
        "Takes an erased user out of the lists.",
        Act::Send,
        "associates",
        None,
    ),
    operation(
        "followRules",
        "Learns the rules.",
        Act::Receive,
        "rules",
        None,
    ),
    operation(
        "askWhoIsConnected",
        "Asks an instance.",
        Act::Send,
        "heartbeat",
        Some("heartbeatAnswers"),
    ),
    operation(
        "deliver",
        "Hands reminders over.",
        Act::Send,
        "deliver",
        Some("deliveryAnswers"),
    ),
    operation(
        "answerHistory",
        "Looks into the history.",
        Act::Serve,
        "historyQuery",
        Some("historyAnswers"),
    ),
    operation(
        "answerWhy",
        "Tells one reminder's fate.",
        Act::Serve,
        "whyQuery",
        Some("whyAnswers"),
    ),
    operation(
        "answerMailbox",
        "Looks into a mailbox.",
        Act::Serve,
        "mailboxQuery",
        Some("mailboxAnswers"),
    ),
    operation(
        "answerHistoryOfInstance",
        "Looks into the history of a user who has a route at the instance.",
        Act::Serve,
        "historyQueryOfInstance",
        Some("historyAnswers"),
    ),
    operation(
        "answerWhyOfInstance",
        "Tells the fate of a reminder whose user has a route at the instance.",
        Act::Serve,
        "whyQueryOfInstance",
        Some("whyAnswers"),
    ),
    operation(
        "answerMailboxOfInstance",
        "Looks into the mailbox of a user who has a route at the instance.",
        Act::Serve,
        "mailboxQueryOfInstance",
        Some("mailboxAnswers"),
    ),
    operation(
        "erase",
        "Erases a user.",
        Act::Serve,
        "eraseQuery",
        Some("eraseAnswers"),
    ),
    operation(
        "answerMetrics",
        "Every member answers.",
        Act::Receive,
        "metrics",
        Some("metricsAnswers"),
    ),
];

const fn operation(
    name: &'static str,
    about: &'static str,
    act: Act,
    channel: &'static str,
    answers: Option<&'static str>,
) -> Operation {
    Operation {
        name,
        about,
        act,
        channel,
        message: None,
        answers,
    }
}
