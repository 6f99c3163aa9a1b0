//! Messages of the log as they come from the wire: a subject, an empty line, a block of headers up
//! to its empty line, and the body. Each ends in a split, and every reminder of it in one place.
#![no_main]

use std::collections::BTreeSet;

use bellhop_core::log::done;
use bellhop_core::log::split::{Message, SetWork, Split, split};
use bellhop_core::partition::of_user;
use bellhop_protocol::wire::cloud_event::Published;
use bellhop_protocol::wire::header_block;
use libfuzzer_sys::fuzz_target;

const PARTITIONS: u16 = 4;

/// Returns what is before a separator, and what is behind it.
fn cut<'b>(bytes: &'b [u8], separator: &[u8]) -> Option<(&'b [u8], &'b [u8])> {
    let mut windows = bytes.windows(separator.len());
    let at = windows.position(|window| window == separator)?;
    Some((&bytes[..at], &bytes[at + separator.len()..]))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((subject, rest)) = cut(bytes, b"\n\n") else {
        return;
    };
    let (Ok(subject), Some((block, body))) = (std::str::from_utf8(subject), cut(rest, b"\r\n\r\n"))
    else {
        return;
    };
    let Some(headers) = header_block::parse(block) else {
        return;
    };
    for (name, value) in &headers {
        assert!(name.is_ascii() && !value.contains(['\r', '\n']));
    }
    let header = |wanted: &str| {
        let mut found = headers.iter();
        let found = found.find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| *value)
    };
    // Bellhop's own header, where a stranger has written it.
    let _names = done::decode(header("Bellhop-Settles").unwrap_or_default()).count();
    let published = Published::read(header, body);
    let message = Message {
        source_token: subject.rsplit('.').next().unwrap_or_default(),
        sequence: 7,
        stored_ms: 1_000,
        body,
        set: published.set.as_deref().map_err(Clone::clone),
        message_id: header("Nats-Msg-Id"),
        is_requeued: header("Bellhop-Requeue").is_some(),
        is_due: false,
        trace: published.trace,
    };
    check(split(&message, PARTITIONS), body);
});

fn check(Split { of_set, slices }: Split, body: &[u8]) {
    let mut places = BTreeSet::new();
    for (partition, slice) in &slices {
        assert!(!slice.reminders.is_empty() && slice.bytes > 0);
        for one in &slice.reminders {
            assert_eq!(of_user(&one.reminder.user, PARTITIONS), *partition);
            assert!(places.insert(one.place), "one place, one end");
        }
    }
    match of_set.map(|of_set| of_set.work) {
        None => assert!(!slices.is_empty(), "no message is lost"),
        Some(SetWork::Refuse { body: refused, .. }) => {
            assert!(slices.is_empty() && refused == body, "byte for byte");
        }
        Some(SetWork::Parts(parts)) => {
            let refused = parts.refused.iter().map(|refused| refused.place);
            let scheduled = parts.scheduled.iter().map(|scheduled| scheduled.place);
            refused
                .chain(scheduled)
                .for_each(|place| assert!(places.insert(place), "one place, one end"));
        }
    }
}
