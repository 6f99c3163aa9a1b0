//! The outcomes of one reminder, step by step: a JSON array of objects, oldest first.
//!
//! Steps have an order of their own, so it does not matter in which order they arrive, or how
//! often.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::Problem;

/// One step. Their order: what waits comes before what is final, since members' clocks differ; then
/// by time; then by text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Step {
    pub(crate) is_final: bool,
    pub(crate) at_ms: i64,
    pub(crate) outcome: String,
    /// Its JSON.
    pub(crate) text: String,
}

/// The fields of a step that are read.
#[derive(Deserialize)]
struct Read<'t> {
    #[serde(borrow)]
    outcome: Cow<'t, str>,
    at: Timestamp,
    #[serde(borrow)]
    to: Option<Cow<'t, str>>,
}

impl Step {
    pub(crate) fn new(at_ms: i64, outcome: String, text: String) -> Self {
        Self {
            at_ms,
            is_final: outcome != "parked",
            outcome,
            text,
        }
    }

    fn read(text: &str) -> serde_json::Result<Self> {
        let Read { outcome, at, .. } = serde_json::from_str(text)?;
        Ok(Self::new(
            at.as_millisecond(),
            outcome.into_owned(),
            text.to_owned(),
        ))
    }

    /// Returns the associate who got the reminder.
    pub(crate) fn to(&self) -> Option<String> {
        let is_rerouted = self.outcome == "rerouted";
        is_rerouted
            .then(|| {
                serde_json::from_str::<Read>(&self.text)
                    .ok()?
                    .to
                    .map(Cow::into_owned)
            })
            .flatten()
    }

    /// Takes the associate's name out.
    pub(crate) fn blank_to(&mut self) {
        let fields = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&self.text);
        if let Ok(mut fields) = fields {
            fields.insert("to".to_owned(), serde_json::Value::Null);
            self.text = serde_json::Value::Object(fields).to_string();
        }
    }
}

/// Steps in order, each of them once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trail(Vec<Step>);

impl Trail {
    /// The trail of this row.
    ///
    /// # Errors
    /// If it is not an array of steps: another program has written it.
    pub(crate) fn stored(n: i64, json: &str) -> Result<Self, Problem> {
        Self::read(json).map_err(|error| {
            Problem::broken(format!("the trail of row {n} cannot be read: {error}"))
        })
    }

    fn read(json: &str) -> serde_json::Result<Self> {
        let steps: Vec<&RawValue> = serde_json::from_str(json)?;
        steps
            .into_iter()
            .map(|step| Step::read(step.get()))
            .collect::<serde_json::Result<_>>()
            .map(Self)
    }

    /// Puts a step in its place. Answers whether it was not there before.
    pub(crate) fn add(&mut self, step: Step) -> bool {
        let Err(place) = self.0.binary_search(&step) else {
            return false;
        };
        self.0.insert(place, step);
        true
    }

    /// Takes an associate's name out of all steps up to this time.
    pub(crate) fn blank_to(&mut self, user: &str, at_ms: i64) {
        for step in &mut self.0 {
            if step.at_ms <= at_ms && step.to().as_deref() == Some(user) {
                step.blank_to();
            }
        }
        self.0.sort();
        self.0.dedup();
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.0
    }

    pub(crate) fn into_steps(self) -> Vec<Step> {
        self.0
    }

    /// Returns the last step's outcome, and its time in milliseconds since 1970.
    pub(crate) fn latest(&self) -> (&str, i64) {
        self.0
            .last()
            .map_or(("", 0), |step| (&step.outcome, step.at_ms))
    }

    /// Returns whether it says that this user got the reminder as an associate.
    pub(crate) fn names(&self, user: &str) -> bool {
        self.0.iter().any(|step| step.to().as_deref() == Some(user))
    }

    pub(crate) fn to_json(&self) -> String {
        let mut json =
            String::with_capacity(2 + self.0.iter().map(|step| step.text.len() + 1).sum::<usize>());
        json.push('[');
        for (nth, step) in self.0.iter().enumerate() {
            if nth > 0 {
                json.push(',');
            }
            json.push_str(&step.text);
        }
        json.push(']');
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(at: &str, outcome: &str, more: &str) -> Step {
        Step::read(&format!(r#"{{"outcome":"{outcome}","at":"{at}"{more}}}"#)).unwrap()
    }

    #[test]
    fn steps_are_in_one_order_however_they_arrive() {
        let parked = step("2026-11-22T08:00:00.001Z", "parked", "");
        let escalated = step("2026-11-22T08:01:00Z", "parked", r#","escalated":true"#);
        let delivered = step(
            "2026-11-22T08:01:00Z",
            "delivered",
            r#","instance":"app-1""#,
        );
        let mut trail = Trail::default();
        for one in [&delivered, &parked, &escalated, &parked, &delivered] {
            trail.add(one.clone());
        }
        assert_eq!(trail.steps(), [parked, escalated, delivered.clone()]);
        assert_eq!(trail.latest(), ("delivered", delivered.at_ms));
        assert_eq!(Trail::read(&trail.to_json()).unwrap(), trail);
        assert_eq!(Trail::read("[]").unwrap().to_json(), "[]");
    }

    #[test]
    fn final_outcome_is_latest_by_any_clock() {
        let mut trail = Trail::default();
        assert!(trail.add(step(
            "2026-11-22T08:00:00Z",
            "delivered",
            r#","instance":"app-1""#
        )));
        assert!(trail.add(step(
            "2026-11-22T08:00:00.050Z",
            "parked",
            r#","escalated":true"#
        )));
        assert_eq!(trail.latest().0, "delivered");
    }

    #[test]
    fn an_associate_can_be_taken_out() {
        let rerouted = step(
            "2026-11-22T08:00:00Z",
            "rerouted",
            r#","to":"bob","instance":"app-1""#,
        );
        assert_eq!(rerouted.to().as_deref(), Some("bob"));
        let mut trail = Trail(vec![rerouted]);
        trail.blank_to("carol", i64::MAX);
        assert!(trail.to_json().contains("bob"));
        trail.blank_to("bob", 0);
        assert!(trail.to_json().contains("bob"));
        trail.blank_to("bob", i64::MAX);
        assert!(
            !trail.to_json().contains("bob") && trail.to_json().contains("app-1"),
            "{}",
            trail.to_json()
        );
        assert!(!trail.names("bob"));
    }
}
