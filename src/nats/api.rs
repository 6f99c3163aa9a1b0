//! Asks the micro service `bellhop`, as any program could.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::{HeaderMap, Request, service};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{During, Nats, NatsError};

/// Maximum time for an answer: erasing a user with a million reminders takes a while.
const PATIENCE: Duration = Duration::from_secs(60);

/// The reason why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No member answers queries.
    #[error(
        "no member answers queries: `bellhop members ls` shows the running ones; with a history in SQLite one member answers, and another \
         one takes over within seconds"
    )]
    NoResponder,
    /// This asker may not know.
    #[error("{0}")]
    Forbidden(String),
    /// There is nothing to tell.
    #[error("{0}")]
    Unknown(String),
    /// The request is invalid.
    #[error("{0}")]
    Invalid(String),
    /// The database is away, or there is none.
    #[error("{0}")]
    Away(String),
    /// The user is not permitted to ask.
    #[error("nats does not permit this user to query `{0}`")]
    NotPermitted(String),
    /// The member failed.
    #[error("{0}")]
    Failed(String),
    /// Anything else.
    #[error(transparent)]
    Nats(#[from] NatsError),
}

/// Asks `bellhop.api.<question>`.
///
/// # Errors
/// If no member answers in time, or the answer is an error.
pub async fn ask<T: DeserializeOwned>(
    nats: &Nats,
    question: &str,
    body: &impl Serialize,
) -> Result<T, ApiError> {
    let action = || format!("ask for {question}");
    let body = serde_json::to_vec(body).during_with(action)?;
    let request = Request::new().payload(body.into()).timeout(Some(PATIENCE));
    let subject = format!("{}.{question}", nats.names.api());
    let asked = tokio::select! {
        asked = nats.client.send_request(subject.clone(), request) => asked,
        () = nats.refusals.of_publishing_to(&subject) => return Err(ApiError::NotPermitted(subject)),
    };
    let answer = match asked {
        Ok(answer) => answer,
        Err(error) if error.kind() == RequestErrorKind::NoResponders => {
            return Err(ApiError::NoResponder);
        }
        Err(error) => return Err(NatsError::failed(action(), error).into()),
    };
    match answer.headers.as_ref().and_then(refusal) {
        Some(refusal) => Err(refusal),
        None => Ok(serde_json::from_slice(&answer.payload).during_with(action)?),
    }
}

fn refusal(headers: &HeaderMap) -> Option<ApiError> {
    let code = headers.get(service::NATS_SERVICE_ERROR_CODE)?.as_str();
    let problem = headers
        .get(service::NATS_SERVICE_ERROR)
        .map(|text| text.as_str().to_owned())
        .unwrap_or_default();
    Some(match code {
        "400" => ApiError::Invalid(problem),
        "403" => ApiError::Forbidden(problem),
        "404" => ApiError::Unknown(problem),
        "503" => ApiError::Away(problem),
        _ => ApiError::Failed(problem),
    })
}
