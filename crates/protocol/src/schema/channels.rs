//! Every channel of the contract: where it is, what travels there, and which way. Names of subjects
//! are those that are used.

use crate::headers;
use crate::names::Names;
use crate::trace;
use crate::wire::cloud_event;

/// A channel of messages.
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

/// An operation of Bellhop.
pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) act: Act,
    pub(super) channel: &'static str,
    /// The one message of the channel that it is about, where not all are.
    pub(super) message: Option<&'static str>,
    /// The channel of the replies.
    pub(super) answers: Option<&'static str>,
}

/// The direction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Bellhop sends.
    Send,
    /// Bellhop receives; every member does.
    Receive,
    /// One member answers: those of the NATS micro service share a queue.
    Serve,
}

/// The parameters in addresses.
pub(super) const PARAMETERS: &[(&str, &str)] = &[
    ("source", "The business system: its name as one token."),
    (
        "instance",
        "The app-server instance: its name as one token. A route can name other subjects.",
    ),
    ("user", "The user's id as one token."),
    ("tag", "The tag as one token."),
];

/// The meanings of headers, with examples.
const HEADERS: &[(&str, &str, &str)] = &[
    (
        "Nats-Msg-Id",
        "Within the idempotency window, sets of a source with the same id are one set.",
        "",
    ),
    (
        trace::HEADER,
        "W3C Trace Context: the trace of the message.",
        "",
    ),
    (
        headers::TRACES,
        "The traces of all reminders, separated by commas, if there are several.",
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
        "The event's id, percent-encoded or plain; unique within its source.",
        "981",
    ),
    (
        "ce-source",
        "The event's source: a URI, percent-encoded or plain.",
        "/billing/invoices",
    ),
    ("ce-type", "The event's type.", "com.example.invoice.due"),
    (
        "ce-datacontenttype",
        "The media type of the body: a JSON type.",
        "",
    ),
    (
        "ce-traceparent",
        "The event's trace, if the header traceparent is missing.",
        "",
    ),
    (
        headers::ERROR,
        "The reason of the refusal: a stable code.",
        "",
    ),
    (
        headers::ERROR_DETAIL,
        "The problem, its position, and the fix.",
        "",
    ),
    (
        headers::REQUEUE,
        "It was refused before: Bellhop accepts its reminders even if it has seen their ids.",
        "",
    ),
    (
        headers::SET,
        "The set of a reminder that was refused alone.",
        "",
    ),
    (
        headers::ID,
        "The id of a reminder that was refused alone.",
        "",
    ),
    (
        "Nats-Service-Error-Code",
        "400: invalid request. 403: not permitted for this app server. 404: unknown reminder. 503: temporarily unavailable.",
        "",
    ),
    ("Nats-Service-Error", "The problem, in a sentence.", ""),
    ("KV-Operation", "DEL or PURGE: the key was deleted.", ""),
    (headers::MEMBER, "The name of the member.", ""),
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
    /// Returns its meaning, and an example. Both are empty where nothing is known, which a test
    /// finds.
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
                    "A CloudEvent that contains one, in structured mode.",
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
            about: "Outcomes of reminders, in JetStream.",
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
                    "A refused set or reminder, with its publisher's headers.",
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
                    "The instance holds a connection of the user. An empty value is valid, too.",
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
                    "The users who may get the user's reminders.",
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
            about: "A request that asks which users are connected.",
            messages: vec![Message::new(
                "heartbeat",
                "The users in question.",
                &["heartbeat"],
            )],
        },
        answers(
            "heartbeatAnswers",
            vec![Message::new(
                "heartbeatAnswer",
                "Those of them who are connected.",
                &["heartbeat-answer"],
            )],
        ),
        Channel {
            name: "deliver",
            address: with(&names.all_instances("deliver"), &["instance"]),
            about: "A request with reminders for connected users.",
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
                    "The refused reminders; the others are accepted.",
                    &["delivery-answer"],
                ),
                Message::new("deliveryFailed", "No reminder is accepted.", &[])
                    .with([must("Nats-Service-Error-Code")]),
            ],
        ),
    ]
}

fn questions(names: &Names) -> Vec<Channel> {
    let error = || {
        let headers = [must("Nats-Service-Error-Code"), must("Nats-Service-Error")];
        Message::new("queryError", "An error instead of an answer.", &[]).with(headers)
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
            "Erase all data about this user.",
            &["erase-query"],
        ),
        answer("eraseAnswers", "eraseAnswer", &["erase-answer"]),
        Channel {
            name: "metrics",
            address: Some(names.metrics()),
            about: "An empty request for the metrics of each member.",
            messages: vec![Message::new("metricsQuery", "The request.", &[]).of_type("text/plain")],
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

/// Returns the channel of replies, which go to the subject that the request names.
fn answers(name: &'static str, messages: Vec<Message>) -> Channel {
    Channel {
        name,
        address: None,
        about: "Replies.",
        messages,
    }
}

/// Bellhop's operations on the channels.
pub(super) const OPERATIONS: &[Operation] = &[
    operation(
        "takeIn",
        "Processes published sets.",
        Act::Receive,
        "sets",
        None,
    ),
    operation(
        "tellOutcomes",
        "Publishes outcomes of reminders.",
        Act::Send,
        "outcomes",
        None,
    ),
    operation(
        "reject",
        "Sets refused input aside.",
        Act::Send,
        "rejected",
        None,
    ),
    operation(
        "followRoutes",
        "Watches the routes.",
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
        "Watches the associates.",
        Act::Receive,
        "associates",
        None,
    ),
    operation(
        "forgetUser",
        "Removes an erased user from the lists.",
        Act::Send,
        "associates",
        None,
    ),
    operation(
        "followRules",
        "Watches the rules.",
        Act::Receive,
        "rules",
        None,
    ),
    operation(
        "askWhoIsConnected",
        "Asks an instance which users are connected.",
        Act::Send,
        "heartbeat",
        Some("heartbeatAnswers"),
    ),
    operation(
        "deliver",
        "Delivers reminders.",
        Act::Send,
        "deliver",
        Some("deliveryAnswers"),
    ),
    operation(
        "answerHistory",
        "Searches the history.",
        Act::Serve,
        "historyQuery",
        Some("historyAnswers"),
    ),
    operation(
        "answerWhy",
        "Returns the outcomes of one reminder.",
        Act::Serve,
        "whyQuery",
        Some("whyAnswers"),
    ),
    operation(
        "answerMailbox",
        "Returns the content of a mailbox.",
        Act::Serve,
        "mailboxQuery",
        Some("mailboxAnswers"),
    ),
    operation(
        "answerHistoryOfInstance",
        "Searches the history of a user who has a route at the instance.",
        Act::Serve,
        "historyQueryOfInstance",
        Some("historyAnswers"),
    ),
    operation(
        "answerWhyOfInstance",
        "Returns the outcomes of a reminder whose user has a route at the instance.",
        Act::Serve,
        "whyQueryOfInstance",
        Some("whyAnswers"),
    ),
    operation(
        "answerMailboxOfInstance",
        "Returns the mailbox of a user who has a route at the instance.",
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
        "Returns the metrics of every member.",
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
