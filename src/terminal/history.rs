//! What a user was told before, a page at a time: `bellhop.api.history`, asked about that user alone.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::nats::Nats;
use crate::nats::api::{ApiError, ask};
use crate::token::UserId;

/// Reminders that are asked for at a time.
const PAGE: usize = 40;

/// Reminders, the newest first, and where the next ones are.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Page {
    reminders: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// How long it may take until the route of a user who has just come is stored, without which the history is refused.
const ARRIVAL: Duration = Duration::from_secs(2);
/// The pause before it is asked again.
const AGAIN: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
struct Fate<'a> {
    outcome: &'a str,
}

/// The newest reminders of a user that may be seen, or those after a cursor. There may be fewer than a page, or none, and
/// more after them.
///
/// # Errors
/// When no history is kept, or nobody answers.
pub(super) async fn page(nats: &Nats, user: &UserId, cursor: Option<&str>) -> Result<Page, ApiError> {
    let mut question = json!({ "user": user, "limit": PAGE });
    if let Some(cursor) = cursor {
        question["cursor"] = json!(cursor);
    }
    let began = Instant::now();
    let mut page: Page = loop {
        match ask(nats, "history", &question).await {
            Err(ApiError::Forbidden(_)) if began.elapsed() < ARRIVAL => tokio::time::sleep(AGAIN).await,
            answer => break answer?,
        }
    };
    page.reminders.retain(|reminder| may_be_seen(reminder.get()));
    Ok(page)
}

/// What a rule blocked is not for the user's eyes, what was refused was never a reminder, another one stands for what was
/// merged, and what is parked comes by itself.
fn may_be_seen(reminder: &str) -> bool {
    let fate = serde_json::from_str::<Fate<'_>>(reminder);
    fate.is_ok_and(|fate| matches!(fate.outcome, "delivered" | "rerouted" | "expired"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_user_was_to_see_is_seen() {
        let seen = ["delivered", "rerouted", "expired", "blocked", "rejected", "merged", "parked"]
            .map(|outcome| may_be_seen(&json!({ "id": "1", "outcome": outcome }).to_string()));
        assert_eq!(seen, [true, true, true, false, false, false, false]);
        assert!(!may_be_seen("{}"));
    }
}
