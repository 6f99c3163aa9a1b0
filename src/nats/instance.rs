//! Requests to app-server instances: deliveries and heartbeats, and what their answers mean.

use std::time::Duration;

use async_nats::client::{Request, RequestErrorKind};
use async_nats::{Client, Message};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::router::{Instance, NoAnswer, Refusal};
use crate::token::UserId;

/// One refused reminder of a delivery's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The reminder's id.
    pub id: String,
    /// Its source.
    pub source: String,
    /// Whom it was for.
    pub user: String,
    /// `not_connected` or `busy`.
    pub reason: Reason,
}

/// Why a reminder is refused, as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The user is not connected there.
    NotConnected,
    /// Not now.
    Busy,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::NotConnected => Self::NotConnected,
            Reason::Busy => Self::Busy,
        }
    }
}

/// An answer to a delivery. Empty, it accepts all.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryAnswer {
    /// What is not accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refused>,
}

/// A heartbeat: who is asked about.
#[derive(Debug, Serialize, Deserialize)]
pub struct Heartbeat<U> {
    /// The users.
    pub users: Vec<U>,
}

/// An answer to a heartbeat: who is connected.
#[derive(Debug, Serialize, Deserialize)]
pub struct HeartbeatAnswer<U> {
    /// The users that are. Names that nobody asked about say nothing.
    pub connected: Vec<U>,
}

/// Puts finished reminders into the body of a delivery request.
pub fn delivery_body<'a>(reminders: impl Iterator<Item = &'a [u8]>) -> Bytes {
    let mut body = br#"{"reminders":["#.to_vec();
    for (place, reminder) in reminders.enumerate() {
        if place > 0 {
            body.push(b',');
        }
        body.extend_from_slice(reminder);
    }
    body.extend_from_slice(b"]}");
    body.into()
}

/// Asks an instance to take reminders.
///
/// # Errors
/// When nothing in the request counts as delivered.
pub async fn deliver(
    client: &Client,
    instance: &Instance,
    body: Bytes,
    timeout: Duration,
) -> Result<DeliveryAnswer, NoAnswer> {
    ask(client, format!("{}.deliver", instance.subject), body, timeout).await
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
    let users = users.iter().map(UserId::as_str).collect();
    let body = serde_json::to_vec(&Heartbeat { users }).expect("names are text");
    let subject = format!("{}.heartbeat", instance.subject);
    let answer: HeartbeatAnswer<String> = ask(client, subject, body.into(), timeout).await?;
    // A name that is none cannot be one that was asked about.
    Ok(answer.connected.iter().filter_map(|user| user.parse().ok()).collect())
}

async fn ask<A: for<'a> Deserialize<'a>>(
    client: &Client,
    subject: String,
    body: Bytes,
    timeout: Duration,
) -> Result<A, NoAnswer> {
    let request = Request::new().payload(body).timeout(Some(timeout));
    match client.send_request(subject.clone(), request).await {
        Ok(answer) => read(&answer).ok_or_else(|| {
            let shown = String::from_utf8_lossy(&answer.payload[..answer.payload.len().min(200)]).into_owned();
            tracing::warn!(subject, answer = shown, "the instance's answer is none of the contract's");
            NoAnswer::Garbage
        }),
        Err(error) if error.kind() == RequestErrorKind::NoResponders => Err(NoAnswer::NoResponders),
        Err(error) => {
            if error.kind() != RequestErrorKind::TimedOut {
                tracing::warn!(subject, %error, "request failed");
            }
            Err(NoAnswer::TimedOut)
        }
    }
}

/// An answer's JSON object. An answer with a service error is none, whatever its body.
fn read<A: for<'a> Deserialize<'a>>(answer: &Message) -> Option<A> {
    let has_error = answer.headers.as_ref().is_some_and(|headers| {
        headers.iter().any(|(name, _)| AsRef::<str>::as_ref(name).eq_ignore_ascii_case("Nats-Service-Error-Code"))
    });
    let is_object = answer.payload.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    if has_error || !is_object {
        return None;
    }
    serde_json::from_slice(&answer.payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str, headers: Option<async_nats::HeaderMap>) -> Option<DeliveryAnswer> {
        read(&Message {
            subject: "s".into(),
            reply: None,
            payload: Bytes::copy_from_slice(body.as_bytes()),
            headers,
            status: None,
            description: None,
            length: body.len(),
        })
    }

    #[test]
    fn only_the_contracts_answers_are_answers() {
        assert_eq!(answer("{}", None), Some(DeliveryAnswer::default()));
        assert_eq!(answer(r#" {"note":"unknown fields are ignored"}"#, None), Some(DeliveryAnswer::default()));
        let refused = r#"{"refused":[{"id":"i","source":"s","user":"u","reason":"busy"}]}"#;
        assert_eq!(answer(refused, None).unwrap().refused[0].reason, Reason::Busy);
        for garbage in ["", "ok", "null", "[]", "[[]]", "{", r#"{"refused":7}"#, &refused.replace("busy", "tired")] {
            assert_eq!(answer(garbage, None), None, "{garbage}");
        }
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("nats-service-error-code", "500");
        assert_eq!(answer("{}", Some(headers)), None);
    }

    #[test]
    fn a_body_is_a_json_list_of_the_reminders() {
        let body = |reminders: &[&str]| delivery_body(reminders.iter().map(|r| r.as_bytes()));
        assert_eq!(body(&[]), r#"{"reminders":[]}"#);
        assert_eq!(body(&["{\"a\":1}", "{}"]), r#"{"reminders":[{"a":1},{}]}"#);
    }
}
