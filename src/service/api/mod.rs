//! The NATS micro service `bellhop`, which answers queries on `bellhop.api.*` and, for app servers,
//! on `bellhop.api.of.*.*`.

pub mod fresh;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Message;
use async_nats::service::error::Error as ServiceError;
use async_nats::service::{Group, Request, Service, ServiceExt};
use bytes::Bytes;
use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;
use serde_json::json;

use fresh::catch_up;

use super::archive::Archive;
use super::asker::Asker;
use super::erasure::{EraseError, erase};
use crate::event::Event;
use crate::history::{Cursor, History, HistoryError, UserReminders};
use crate::metrics::{Answer, Label, Question};
use crate::nats::mailbox::{Pages, ParkedMessage, count};
use crate::nats::subscription::lasting;
use crate::nats::{During, Nats, NatsError, chain, neighbours};
use crate::reminder::finished::{to_the_millisecond, with_fate, with_parked_at};
use crate::token::UserId;
use crate::wire::query::{self, QueryError};

/// Maximum time for a query other than an erasure.
const PATIENCE: Duration = Duration::from_secs(20);
/// Reminders read at a time: they may be large, and an answer has only so much room.
const READ_AT_ONCE: usize = 100;

/// Number of bytes of an answer besides the reminders, and the room for its headers.
const FRAME_BYTES: usize = 4 << 10;

/// The longest text of a refusal.
const MAX_STATUS_CHARS: usize = 500;

impl Question {
    /// Its name where an app server asks, if one may.
    fn of_instance(self) -> Option<&'static str> {
        match self {
            Self::History => Some("history-of"),
            Self::Why => Some("why-of"),
            Self::Mailbox => Some("mailbox-of"),
            Self::Erase => None,
        }
    }
}

/// The reason why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// The request is invalid.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The asker may not know.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such reminder.
    #[error("{0}")]
    Unknown(String),
    /// No history is kept.
    #[error("there is no history: `history.url` is `none`")]
    Off,
    /// It takes too long.
    #[error("no answer within {PATIENCE:?}: the database hangs, or the query is too large")]
    Late,
    /// The database is away.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// JetStream is away.
    #[error(transparent)]
    Nats(#[from] NatsError),
}

impl From<EraseError> for Refusal {
    fn from(error: EraseError) -> Self {
        match error {
            EraseError::History(error) => Self::History(error),
            EraseError::Nats(error) => Self::Nats(error),
        }
    }
}

impl Refusal {
    fn code(&self) -> usize {
        match self {
            Self::Query(_) => 400,
            Self::Forbidden(_) => 403,
            Self::Unknown(_) => 404,
            Self::Off | Self::Late | Self::History(_) | Self::Nats(_) => 503,
        }
    }

    /// Returns the result, as a label of a metric.
    fn result(&self) -> Answer {
        if self.code() < 500 {
            Answer::Refused
        } else {
            Answer::Failed
        }
    }
}

impl From<Refusal> for ServiceError {
    fn from(refusal: Refusal) -> Self {
        // It goes into a header, and may quote a request that is as large as NATS takes.
        let status = chain(&refusal).to_string().replace(char::is_control, " ");
        Self {
            status: status.chars().take(MAX_STATUS_CHARS).collect(),
            code: refusal.code(),
        }
    }
}

/// Answers queries until it is dropped; several at a time, `history.queries_in_flight`.
///
/// # Errors
/// When the service cannot be registered, or its subscriptions end.
pub async fn run(context: &Archive) -> Result<(), NatsError> {
    let action = || format!("answer {}.*", context.nats.names.api());
    let description = "what became of each reminder, and what is kept of each user";
    let queries = context.queries.live().await;
    let metadata = [
        (neighbours::INSTALLATION, context.installation.as_str()),
        (neighbours::PREFIX, context.nats.names.prefix()),
    ];
    let metadata = metadata.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let service = queries.client.service_builder();
    let service = service.description(description).metadata(metadata.into());
    let service = service
        .start(neighbours::SERVICE, env!("CARGO_PKG_VERSION"))
        .await
        .during_with(action)?;
    let group = Arc::new(service.group(context.nats.names.api()));
    let _registered = Registered(Some(service));
    let requests = subscribe(&context.nats.names.api(), &queries, &group);
    let most = context.config.history.queries_in_flight;
    let answer = async |(question, request): (Question, Request)| {
        // Otherwise a user who may ask could have Bellhop, which may do more, publish there: an
        // empty answer to `$JS.API.STREAM.PURGE.…` would remove every mailbox.
        let reply = request.message.reply.as_deref().unwrap_or_default();
        if context.nats.names.is_reserved(reply) {
            tracing::warn!(
                question = question.value(),
                reply,
                "a query names a forbidden reply subject, not answered"
            );
            return;
        }
        let began = Instant::now();
        let answer = answer(context, question, &request.message).await;
        if let Err(error) = &answer {
            tracing::debug!(question = question.value(), error = %chain(error), "query refused");
        }
        let result = answer
            .as_ref()
            .map_or_else(Refusal::result, |_| Answer::Answered);
        context.metrics.queried(question, result, began.elapsed());
        if let Err(error) = request.respond(answer.map_err(ServiceError::from)).await {
            tracing::debug!(question = question.value(), error = %chain(&error), "an answer was not sent");
        }
    };
    requests.for_each_concurrent(most, answer).await;
    Err(NatsError::failed(action(), "the subscriptions ended"))
}

/// Returns the requests of all endpoints.
fn subscribe(
    api: &str,
    queries: &Nats,
    group: &Arc<Group>,
) -> SelectAll<BoxStream<'static, (Question, Request)>> {
    let mut endpoints = SelectAll::new();
    for question in Question::all().iter().copied() {
        let of_instance = question
            .of_instance()
            .map(|name| (name, format!("of.*.{}", question.value())));
        for (name, subject) in [(question.value(), question.value().to_owned())]
            .into_iter()
            .chain(of_instance)
        {
            let (group, whole) = (group.clone(), format!("{api}.{subject}"));
            let subscribe = move || group.endpoint_builder().name(name).add(subject.clone());
            endpoints.push(
                lasting(queries, whole, subscribe)
                    .map(move |request| (question, request))
                    .boxed(),
            );
        }
    }
    endpoints
}

/// A service that tools see until this is dropped. By itself it would go on telling them that it is
/// there.
struct Registered(Option<Service>);

impl Drop for Registered {
    fn drop(&mut self) {
        // It stops without waiting for anything.
        let _ = self
            .0
            .take()
            .and_then(|service| service.stop().now_or_never());
    }
}

/// Handles a query within a time limit: a database that hangs must not block the others. An erasure
/// that has begun is completed.
async fn answer(
    context: &Archive,
    question: Question,
    request: &Message,
) -> Result<Bytes, Refusal> {
    let answering = answer_at_leisure(context, question, request);
    match question {
        Question::Erase => answering.await,
        _ => tokio::time::timeout(PATIENCE, answering)
            .await
            .unwrap_or(Err(Refusal::Late)),
    }
}

async fn answer_at_leisure(
    context: &Archive,
    question: Question,
    request: &Message,
) -> Result<Bytes, Refusal> {
    let asker = Asker::of(&context.nats.names, &request.subject);
    let asker = asker
        .map_err(|error| Refusal::Forbidden(format!("the subject names no app server: {error}")))?;
    let body = &request.payload;
    match question {
        Question::History => history(context, &asker, body).await,
        Question::Why => why(context, &asker, body).await,
        Question::Mailbox => mailbox(context, &asker, body).await,
        Question::Erase => {
            let erased = erase(context, &query::erase(body)?).await?;
            Ok(json!({ "erased": erased }).to_string().into())
        }
    }
}

/// Refuses questions about users whom the asker may not know of.
async fn permit(context: &Archive, asker: &Asker, user: &str) -> Result<(), Refusal> {
    if asker.may_know_of(&context.nats, user).await? {
        return Ok(());
    }
    Err(Refusal::Forbidden(format!(
        "`{user}` has no route at {asker}, which may ask about its own users alone"
    )))
}

/// The history, as fresh as the stream of outcomes.
async fn opened(context: &Archive) -> Result<&History, Refusal> {
    let history = context.history.open().await?.ok_or(Refusal::Off)?;
    catch_up(&context.nats).await?;
    Ok(history)
}

async fn history(context: &Archive, asker: &Asker, body: &[u8]) -> Result<Bytes, Refusal> {
    let mut query = query::history(body)?;
    match &query.user {
        Some(user) => permit(context, asker, user).await?,
        None if asker.may_know_all() => {}
        None => {
            return Err(Refusal::Forbidden(format!(
                "`user` is missing: {asker} asks about one of its users"
            )));
        }
    }
    let history = opened(context).await?;
    let (mut list, mut left) = (List::new(context), query.limit);
    loop {
        query.limit = left.min(READ_AT_ONCE);
        let page = history.find(&query).await?;
        for found in &page.reminders {
            let at = Timestamp::from_millisecond(found.at_ms).unwrap_or_default();
            if !list.add(&with_fate(
                found.body.as_bytes(),
                &found.outcome,
                at,
                &found.trail,
            )) {
                return Ok(list.finish(&cursor(query.before)));
            }
            query.before = Some(found.cursor);
        }
        left -= page.reminders.len();
        if left == 0 || page.next.is_none() {
            return Ok(list.finish(&cursor(page.next)));
        }
    }
}

fn cursor(next: Option<Cursor>) -> String {
    next.map_or_else(String::new, |cursor| format!(r#","cursor":"{cursor}""#))
}

async fn why(context: &Archive, asker: &Asker, body: &[u8]) -> Result<Bytes, Refusal> {
    let (source, id, user) = query::why(body)?;
    let history = opened(context).await?;
    let user = user.as_ref().map(UserId::as_str);
    let mut permitted = Vec::new();
    for found in history.why(source.as_str(), &id, user).await? {
        if asker
            .may_know_reminder(&context.nats, &found.newest.body)
            .await?
        {
            permitted.push(found);
        }
    }
    let Some(UserReminders { newest, .. }) = permitted.first() else {
        // The same for a reminder that there is and one that there is not.
        return Err(match asker.may_know_all() {
            true => Refusal::Unknown(format!("nothing is known of reminder `{id}` of `{source}`")),
            false => Refusal::Forbidden(format!(
                "reminder `{id}` of `{source}` is of no user who has a route at {asker}"
            )),
        });
    };
    let users: Vec<_> = permitted
        .iter()
        .filter_map(|one| one.user.as_ref())
        .collect();
    let users = match users.len() {
        0 | 1 => String::new(),
        _ => format!(r#","users":{}"#, json!(users)),
    };
    let (body, trail) = (&newest.body, &newest.trail);
    Ok(format!(r#"{{"reminder":{body},"trail":{trail}{users}}}"#).into())
}

async fn mailbox(context: &Archive, asker: &Asker, body: &[u8]) -> Result<Bytes, Refusal> {
    let (user, limit) = query::mailbox(body)?;
    permit(context, asker, user.as_str()).await?;
    let nats = &context.nats;
    let subject = context.mailbox_of(&user);
    let parked = count(nats, &nats.names.parked_stream(), &subject).await?;
    let (mut pages, mut list, mut oldest, mut left) =
        (Pages::of(nats, &subject), List::new(context), None, limit);
    loop {
        let page = pages.next(left).await?;
        left -= page.len();
        oldest = oldest.or(page
            .first()
            .map(|message| to_the_millisecond(message.parked_at)));
        if page.is_empty() || !page.iter().all(|message| list.add_parked(message)) {
            break;
        }
    }
    let oldest = oldest.map_or_else(String::new, |oldest| format!(r#","oldest":"{oldest}""#));
    Ok(list.finish(&format!(r#","parked":{parked}{oldest}"#)))
}

/// An answer's list of reminders, as long as the server takes it.
struct List {
    body: Vec<u8>,
    room: usize,
}

impl List {
    fn new(context: &Archive) -> Self {
        let room = context
            .nats
            .client
            .max_payload()
            .saturating_sub(FRAME_BYTES);
        Self {
            body: br#"{"reminders":["#.to_vec(),
            room,
        }
    }

    /// Adds one, if there is room. The first one has room in any message that it came in.
    fn add(&mut self, reminder: &[u8]) -> bool {
        let is_first = self.body.ends_with(b"[");
        if !is_first && self.body.len() + reminder.len() > self.room {
            return false;
        }
        if !is_first {
            self.body.push(b',');
        }
        self.body.extend_from_slice(reminder);
        true
    }

    /// Adds one that is parked, if there is room. A message that is not a reminder needs none.
    fn add_parked(
        &mut self,
        ParkedMessage {
            parked_at, message, ..
        }: &ParkedMessage,
    ) -> bool {
        let Ok(event) = Event::decode(message) else {
            return true;
        };
        event
            .bodies
            .first()
            .is_none_or(|reminder| self.add(&with_parked_at(reminder, *parked_at)))
    }

    /// The answer, with the rest of its fields.
    fn finish(mut self, fields: &str) -> Bytes {
        self.body.push(b']');
        self.body.extend_from_slice(fields.as_bytes());
        self.body.push(b'}');
        self.body.into()
    }
}
