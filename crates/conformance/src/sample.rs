//! Reminders that are sent: what Bellhop itself makes of a published one.

use bellhop_protocol::reminder::finished::to_the_millisecond;
use bellhop_protocol::reminder::{DELIVERY_FRAME_BYTES, Reminder};
use bellhop_protocol::token::UserId;
use bellhop_protocol::wire::answer::Refused;
use jiff::Timestamp;
use serde_json::value::RawValue;

use super::SOURCE;

/// A finished reminder, and what answers call it by.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) id: String,
    pub(super) source: String,
    pub(super) user: UserId,
    pub(super) json: Vec<u8>,
}

impl Sample {
    pub(super) fn of(reminder: &Reminder) -> Self {
        let (id, source) = (reminder.id.clone(), reminder.source.to_string());
        Self {
            id,
            source,
            user: reminder.user.clone(),
            json: reminder.to_json(),
        }
    }

    /// Changes its JSON as Bellhop does on the way.
    pub(super) fn with(self, change: impl FnOnce(&[u8]) -> Vec<u8>) -> Self {
        Self {
            json: change(&self.json),
            ..self
        }
    }

    /// Returns true if this reminder was refused by this entry.
    pub(super) fn is(&self, refused: &Refused) -> bool {
        (self.id.as_str(), self.source.as_str(), self.user.as_str())
            == (
                refused.id.as_str(),
                refused.source.as_str(),
                refused.user.as_str(),
            )
    }

    /// Returns true if this reminder was refused.
    pub(super) fn is_among(&self, refused: &[Refused]) -> bool {
        refused.iter().any(|refused| self.is(refused))
    }
}

/// The reminder of this number, with the fields that every reminder has.
pub(super) fn reminder(run: &str, number: usize, user: &UserId) -> Reminder {
    let (id, source) = (
        format!("{run}-{number}"),
        SOURCE.parse().expect("it is a name"),
    );
    let content = format!("This tests the app server ({number}). Nothing is to be done.");
    Reminder::new(
        id,
        source,
        run.to_owned(),
        user.clone(),
        content,
        to_the_millisecond(Timestamp::now()),
    )
}

/// The minimum number of bytes that [`padded`] adds.
const PADDING_FRAME_BYTES: usize = r#","data":"""#.len();

/// The reminder with data that makes it exactly this long when it is finished, in bytes. It must
/// leave room for the data.
pub(super) fn padded(mut reminder: Reminder, bytes: usize) -> Sample {
    let missing = bytes - Sample::of(&reminder).json.len() - PADDING_FRAME_BYTES;
    let data = format!("\"{}\"", "x".repeat(missing));
    reminder.data = Some(RawValue::from_string(data).expect("a text without quotes is JSON"));
    Sample::of(&reminder)
}

/// These, and as many more as there is room for in a request of exactly this size, in bytes.
pub(super) fn filled(
    mut samples: Vec<Sample>,
    mut next: impl FnMut() -> Reminder,
    bytes: usize,
) -> Vec<Sample> {
    // A comma stands behind each but the last.
    let mut left = bytes + 1
        - DELIVERY_FRAME_BYTES
        - samples
            .iter()
            .map(|sample| sample.json.len() + 1)
            .sum::<usize>();
    loop {
        let reminder = next();
        let sample = Sample::of(&reminder);
        let taken = sample.json.len() + 1;
        // The last one is stretched. Ids grow by a digit now and then.
        if left < 2 * (taken + PADDING_FRAME_BYTES) {
            samples.push(padded(reminder, left - 1));
            return samples;
        }
        left -= taken;
        samples.push(sample);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellhop_protocol::reminder::{MAX_DELIVERY_BYTES, MAX_REMINDER_BYTES};
    use bellhop_protocol::wire::answer::delivery_body;

    #[test]
    fn sizes_are_exact() {
        let user = "alice".parse().unwrap();
        assert_eq!(
            padded(reminder("run", 1, &user), MAX_REMINDER_BYTES)
                .json
                .len(),
            MAX_REMINDER_BYTES
        );
        let first = vec![Sample::of(&reminder("run", 0, &user))];
        let mut more = (1..).map(|number| reminder("run", number, &user));
        let samples = filled(first, || more.next().unwrap(), MAX_DELIVERY_BYTES);
        let body = delivery_body(samples.iter().map(|sample| sample.json.as_slice()));
        assert!(samples.len() > 500);
        assert_eq!(body.len(), MAX_DELIVERY_BYTES);
    }
}
