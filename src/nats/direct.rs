//! Direct gets: messages of a stream by one request, without a consumer. Several in one go since
//! nats-server 2.11.

use async_nats::{Message, StatusCode, Subject};
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::{During, Nats, NatsError};

/// Asks a stream for messages of a subject, which may have wildcards, from a sequence on. Answers
/// them, so many and about so many bytes at most, and whether nothing lay behind them.
///
/// # Errors
/// When JetStream does not answer.
pub(super) async fn page(
    nats: &Nats,
    stream: &str,
    subject: &str,
    from: u64,
    messages: usize,
    bytes: usize,
) -> Result<(Vec<Message>, bool), NatsError> {
    let request = json!({ "seq": from.max(1), "next_by_subj": subject, "batch": messages, "max_bytes": bytes });
    get(nats, stream, &request).await
}

/// Asks a stream for messages. Answers them, and whether nothing lay behind them.
///
/// # Errors
/// When JetStream does not answer.
pub(super) async fn get(
    nats: &Nats,
    stream: &str,
    request: &Value,
) -> Result<(Vec<Message>, bool), NatsError> {
    let action = || format!("read {stream}");
    let inbox = Subject::from(nats.client.new_inbox());
    let mut answers = nats
        .client
        .subscribe(inbox.clone())
        .await
        .during_with(action)?;
    let api = format!("{}.DIRECT.GET.{stream}", nats.api);
    let sent = nats
        .client
        .publish_with_reply(api, inbox, request.to_string().into())
        .await;
    sent.during_with(action)?;
    let mut messages = Vec::new();
    loop {
        let answer = tokio::time::timeout(nats.timeout, answers.next())
            .await
            .during_with(action)?;
        let answer = answer.ok_or("the connection closed").during_with(action)?;
        match answer.status {
            None | Some(StatusCode::OK) => messages.push(answer),
            Some(status) if status.as_u16() == 204 => {
                let left =
                    text(&answer, "Nats-Num-Pending").and_then(|text| text.parse::<u64>().ok());
                return Ok((messages, left == Some(0)));
            }
            Some(StatusCode::NOT_FOUND) => return Ok((messages, true)),
            Some(status) => {
                return Err(NatsError::failed(
                    action(),
                    format!("{status} {}", answer.description.unwrap_or_default()),
                ));
            }
        }
    }
}

/// Asks a stream for one message by its sequence, which takes no search. None if the answering
/// server does not have it.
///
/// # Errors
/// When JetStream does not answer.
pub(super) async fn get_one(
    nats: &Nats,
    stream: &str,
    sequence: u64,
) -> Result<Option<Message>, NatsError> {
    let action = || format!("read {stream}");
    let (api, request) = (
        format!("{}.DIRECT.GET.{stream}", nats.api),
        json!({ "seq": sequence }).to_string(),
    );
    let answer = nats
        .client
        .request(api, request.into())
        .await
        .during_with(action)?;
    match answer.status {
        None | Some(StatusCode::OK) => Ok(Some(answer)),
        Some(StatusCode::NOT_FOUND) => Ok(None),
        Some(status) => Err(NatsError::failed(
            action(),
            format!("{status} {}", answer.description.unwrap_or_default()),
        )),
    }
}

/// The sequence of a message that was got.
pub(super) fn sequence(message: &Message) -> Option<u64> {
    text(message, "Nats-Sequence")?.parse().ok()
}

/// A header of a message.
pub(super) fn text<'a>(message: &'a Message, header: &'static str) -> Option<&'a str> {
    message
        .headers
        .as_ref()?
        .get(header)
        .map(|value| value.as_str())
}
