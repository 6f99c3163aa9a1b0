//! Requests to app-server instances: deliveries and heartbeats.
//! [`wire::answer`](crate::wire::answer) describes the answers.

use std::time::Duration;

use async_nats::client::{Request, RequestErrorKind};
use async_nats::{Client, HeaderMap, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;

use crate::headers;
use crate::nats::chain;
use crate::router::{Instance, NoAnswer};
use crate::token::UserId;
use crate::trace::{self, TraceParent};
use crate::wire::answer;
pub use crate::wire::answer::{
    DeliveryAnswer, Heartbeat, HeartbeatAnswer, Reason, Refused, delivery_body,
};

/// The time that later answers may take after the first one. Copies of one program answer about
/// equally fast.
const OTHERS_WITHIN: Duration = Duration::from_millis(500);

/// Asks an instance to take reminders, in the trace `trace`; `traces` are all those that the
/// reminders belong to.
///
/// # Errors
/// When nothing in the request counts as delivered.
pub async fn deliver(
    client: &Client,
    instance: &Instance,
    body: Bytes,
    (trace, traces): (Option<&TraceParent>, &[TraceParent]),
    timeout: Duration,
) -> Result<DeliveryAnswer, NoAnswer> {
    let mut request = Request::new().payload(body).timeout(Some(timeout));
    if let Some(trace) = trace {
        let mut headers = HeaderMap::new();
        headers.insert(trace::HEADER, trace.as_str());
        if traces.len() > 1 {
            headers.insert(
                headers::TRACES,
                traces
                    .iter()
                    .map(TraceParent::as_str)
                    .collect::<Vec<_>>()
                    .join(","),
            );
        }
        request = request.headers(headers);
    }
    ask(client, format!("{}.deliver", instance.subject), request).await
}

/// Asks an instance who of these users is connected.
///
/// # Errors
/// When the instance did not answer as the contract says.
pub async fn heartbeat(
    client: &Client,
    instance: &Instance,
    users: &[UserId],
    timeout: Duration,
) -> Result<Vec<UserId>, NoAnswer> {
    let request = Request::new()
        .payload(heartbeat_body(users))
        .timeout(Some(timeout));
    Ok(names(
        ask(client, format!("{}.heartbeat", instance.subject), request).await?,
    ))
}

/// Asks an instance which of these users are connected, and listens for the answers of others
/// under the same name.
///
/// # Errors
/// When the first answer did not come within `timeout`, or is not a valid answer.
pub async fn heartbeat_of_all(
    client: &Client,
    instance: &Instance,
    users: &[UserId],
    timeout: Duration,
) -> Result<(Vec<UserId>, Others), NoAnswer> {
    let inbox = client.new_inbox();
    let subject = format!("{}.heartbeat", instance.subject);
    let subscribed = client.subscribe(inbox.clone()).await;
    let mut answers = subscribed.map_err(|_| NoAnswer::TimedOut)?;
    let sent = client.publish_with_reply(subject.clone(), inbox, heartbeat_body(users));
    sent.await.map_err(|_| NoAnswer::TimedOut)?;
    let first = tokio::time::timeout(timeout, answers.next()).await;
    let first = first.ok().flatten().ok_or(NoAnswer::TimedOut)?;
    if first.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(NoAnswer::NoResponders);
    }
    Ok((names(read_or_warn(&subject, &first)?), Others(answers)))
}

/// Later answers to a heartbeat.
#[derive(Debug)]
pub struct Others(Subscriber);

impl Others {
    /// Returns how many come within `OTHERS_WITHIN` from now.
    pub async fn count(mut self) -> usize {
        let mut count = 0;
        let counting = async {
            while self.0.next().await.is_some() {
                count += 1;
            }
        };
        let _ = tokio::time::timeout(OTHERS_WITHIN, counting).await;
        count
    }
}

fn heartbeat_body(users: &[UserId]) -> Bytes {
    let users = users.iter().map(UserId::as_str).collect();
    serde_json::to_vec(&Heartbeat { users })
        .expect("names are text")
        .into()
}

/// The users in an answer. An invalid name cannot be one that was asked about.
fn names(answer: HeartbeatAnswer<String>) -> Vec<UserId> {
    let connected = answer.connected.iter();
    connected.filter_map(|user| user.parse().ok()).collect()
}

async fn ask<A: for<'a> Deserialize<'a>>(
    client: &Client,
    subject: String,
    request: Request,
) -> Result<A, NoAnswer> {
    match client.send_request(subject.clone(), request).await {
        Ok(answer) => read_or_warn(&subject, &answer),
        Err(error) if error.kind() == RequestErrorKind::NoResponders => Err(NoAnswer::NoResponders),
        Err(error) => {
            if error.kind() != RequestErrorKind::TimedOut {
                tracing::warn!(subject, error = %chain(&error), "request failed");
            }
            Err(NoAnswer::TimedOut)
        }
    }
}

fn read_or_warn<A: for<'a> Deserialize<'a>>(
    subject: &str,
    answer: &Message,
) -> Result<A, NoAnswer> {
    read(answer).ok_or_else(|| {
        let shown = String::from_utf8_lossy(&answer.payload[..answer.payload.len().min(200)]);
        tracing::warn!(
            subject,
            answer = %shown,
            "the instance sent an invalid answer"
        );
        NoAnswer::Garbage
    })
}

/// An answer's JSON object. An answer with a service error is none, whatever its body.
pub fn read<A: for<'a> Deserialize<'a>>(answer: &Message) -> Option<A> {
    let has_error = super::header(answer.headers.as_ref(), "Nats-Service-Error-Code").is_some();
    if has_error {
        None
    } else {
        answer::read(&answer.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_a_service_error_is_none() {
        let answer = |headers: Option<async_nats::HeaderMap>| {
            read::<DeliveryAnswer>(&Message {
                subject: "s".into(),
                reply: None,
                payload: "{}".into(),
                headers,
                status: None,
                description: None,
                length: 2,
            })
        };
        assert_eq!(answer(None), Some(DeliveryAnswer::default()));
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("nats-service-error-code", "500");
        assert_eq!(answer(Some(headers)), None);
    }
}
