//! Sets as anybody may publish them. A valid set keeps to the bounds; published again as it would
//! be delivered it is the same; and an event of it is written and read back as the same.
#![no_main]

use std::sync::LazyLock;

use bellhop_core::event::{Event, Index, IndexEntry, OfSet};
use bellhop_protocol::reminder::id::MAX_ID_BYTES;
use bellhop_protocol::reminder::set::{self, Origin};
use bellhop_protocol::reminder::{MAX_REMINDER_BYTES, Reminder, finished};
use bellhop_protocol::token::MAX_NAME_BYTES;
use bytes::Bytes;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;

static ORIGIN: LazyLock<Origin> = LazyLock::new(|| Origin {
    source: "billing".parse().expect("it is a name"),
    sequence: 7,
    published_at: Timestamp::UNIX_EPOCH,
});

fuzz_target!(|body: &[u8]| {
    let Ok(set) = set::parse(&ORIGIN, body) else {
        return;
    };
    assert!((1..=set::MAX_REMINDERS).contains(&set.reminders.len()));
    let valid: Vec<Reminder> = set
        .reminders
        .into_iter()
        .filter_map(|candidate| candidate.parsed.ok())
        .collect();
    valid
        .iter()
        .for_each(|reminder| check(&set.common.id, reminder));
    let Some(first) = valid.first() else { return };
    let event = event(&set.common.id, &valid);
    let read = Event::decode(&event.encode()).expect("it was written by us");
    assert_eq!((&read.index, &read.bodies), (&event.index, &event.bodies));
    let associate = first.user.clone();
    let copy = Event::decode(&event.copy_of(0, &associate).encode()).expect("it was written by us");
    assert_eq!(copy.index.reminders[0].rerouted_to, Some(associate));
});

fn check(set: &str, reminder: &Reminder) {
    let json = reminder.to_json();
    assert!(json.len() <= MAX_REMINDER_BYTES && reminder.id.len() <= MAX_ID_BYTES);
    assert!(reminder.user.as_str().len() <= MAX_NAME_BYTES && reminder.tags.len() <= set::MAX_TAGS);
    assert!((1..=set::MAX_CONTENT_BYTES).contains(&reminder.content.len()));
    assert!(
        reminder
            .title
            .as_ref()
            .is_none_or(|title| title.len() <= set::MAX_TITLE_BYTES)
    );
    let rerouted = finished::rerouted(&json, &reminder.user).expect("it is an object");
    assert!(rerouted.len() <= json.len() + finished::REROUTED_BYTES);
    assert!(serde_json::from_slice::<serde_json::Value>(&rerouted).is_ok());

    // Published again, as it is delivered.
    let id = serde_json::to_string(set).expect("text is JSON");
    let body = finished::as_published(json.clone(), reminder.stays, reminder.is_single);
    let again = [
        format!(r#"{{"id":{id},"reminders":["#).as_bytes(),
        &body,
        b"]}",
    ]
    .concat();
    let again = set::parse(&ORIGIN, &again).expect("it was one");
    let parsed = again.reminders[0].parsed.as_ref().expect("it was one");
    assert_eq!(
        String::from_utf8_lossy(&parsed.to_json()),
        String::from_utf8_lossy(&json)
    );
    assert_eq!(
        (parsed.stays, parsed.is_single),
        (reminder.stays, reminder.is_single)
    );
}

fn event(set: &str, valid: &[Reminder]) -> Event {
    let bodies: Vec<Bytes> = valid
        .iter()
        .map(|reminder| reminder.to_json().into())
        .collect();
    let entry = |(place, (reminder, body)): (usize, (&Reminder, &Bytes))| IndexEntry {
        set: 0,
        place,
        id: reminder.id.clone(),
        user: reminder.user.clone(),
        expires_at: reminder.expires_at.map(Timestamp::as_millisecond),
        priority: reminder.priority,
        text: Some(reminder.text_hash()),
        rerouted_to: None,
        stays: reminder.stays,
        is_single: reminder.is_single,
        bytes: body.len(),
    };
    let reminders = valid.iter().zip(&bodies).enumerate().map(entry).collect();
    let published_ms = ORIGIN.published_at.as_millisecond();
    let source = ORIGIN.source.clone();
    let sets = vec![OfSet {
        source,
        id: set.to_owned(),
        sequence: ORIGIN.sequence,
        published_ms,
        trace: None,
    }];
    Event {
        index: Index { sets, reminders },
        bodies,
    }
}
