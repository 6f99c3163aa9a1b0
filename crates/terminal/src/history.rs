//! Older reminders of a user, a page at a time: `<prefix>.api.history`, asked about that user
//! alone.

use std::time::{Duration, Instant};

use async_nats::{Client, Request};
use axum::http::StatusCode;
use bellhop_protocol::token::UserId;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

/// Reminders of a page.
const PAGE: usize = 40;
/// The time for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Maximum time until the route of a user who has just connected is stored; without it the history
/// is refused.
const ARRIVAL: Duration = Duration::from_secs(2);
/// The pause before it is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// The source of older reminders.
#[derive(Clone)]
pub(super) struct History {
    nats: Client,
    subject: String,
}

/// Reminders, the newest first, and where the next ones are.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Page {
    reminders: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// The reason why there is no page.
#[derive(Debug)]
pub(super) enum HistoryError {
    /// The question was wrong, or is not permitted.
    Refused { status: StatusCode, problem: String },
    /// No answer, or not one that can be read.
    Away(String),
}

impl History {
    /// Returns the history of an installation.
    pub(super) fn new(nats: Client, prefix: &str) -> Self {
        Self {
            nats,
            subject: format!("{prefix}.api.history"),
        }
    }

    /// Returns the newest reminders of a user that may be shown, or those after a cursor. There may
    /// be fewer than a page, or none, and more after them.
    ///
    /// # Errors
    /// When no history is kept, the question is refused, or no member answers.
    pub(super) async fn page(
        &self,
        user: &UserId,
        cursor: Option<String>,
    ) -> Result<Page, HistoryError> {
        let mut question = json!({ "user": user, "limit": PAGE });
        if let Some(cursor) = cursor {
            question["cursor"] = json!(cursor);
        }
        let began = Instant::now();
        let mut page = loop {
            match self.ask(question.to_string()).await {
                Err(HistoryError::Refused {
                    status: StatusCode::FORBIDDEN,
                    ..
                }) if began.elapsed() < ARRIVAL => {
                    tokio::time::sleep(PAUSE).await;
                }
                answer => break answer?,
            }
        };
        page.reminders
            .retain(|reminder| may_be_shown(reminder.get()));
        Ok(page)
    }

    async fn ask(&self, question: String) -> Result<Page, HistoryError> {
        let request = Request::new()
            .payload(question.into())
            .timeout(Some(ANSWER_WITHIN));
        let answer = self.nats.send_request(self.subject.clone(), request).await;
        let answer = answer.map_err(|error| HistoryError::Away(error.to_string()))?;
        let header = |name: &str| Some(answer.headers.as_ref()?.get(name)?.as_str());
        let Some(code) = header("Nats-Service-Error-Code") else {
            return serde_json::from_slice(&answer.payload)
                .map_err(|error| HistoryError::Away(error.to_string()));
        };
        let problem = header("Nats-Service-Error").unwrap_or_default().to_owned();
        Err(match code.parse() {
            Ok(status @ (StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN)) => {
                HistoryError::Refused { status, problem }
            }
            _ => HistoryError::Away(problem),
        })
    }
}

/// Returns whether a reminder of the history is for its user's eyes. A blocked one is not, a
/// rejected one was never a reminder, another one stands for a merged one, and a parked one comes
/// by itself.
fn may_be_shown(reminder: &str) -> bool {
    #[derive(Deserialize)]
    struct Outcome<'a> {
        outcome: &'a str,
    }
    let outcome = serde_json::from_str::<Outcome<'_>>(reminder);
    outcome.is_ok_and(|it| matches!(it.outcome, "delivered" | "rerouted" | "expired"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reminders_for_the_users_eyes_are_shown() {
        let shown = [
            "delivered",
            "rerouted",
            "expired",
            "blocked",
            "rejected",
            "merged",
            "parked",
        ]
        .map(|outcome| may_be_shown(&json!({ "id": "1", "outcome": outcome }).to_string()));
        assert_eq!(shown, [true, true, true, false, false, false, false]);
        assert!(!may_be_shown("{}"));
    }
}
