//! Messages that may be CloudEvents, as anybody may publish them: lines of headers, an empty line,
//! and the body. A valid one becomes a set that is read like any other, and has an id that is valid
//! for a set.
#![no_main]

use bellhop_protocol::reminder::id::MAX_ID_BYTES;
use bellhop_protocol::reminder::reject::RejectCode;
use bellhop_protocol::reminder::set::{self, Origin};
use bellhop_protocol::wire::cloud_event::Published;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|message: &[u8]| {
    let Some(end) = message.windows(2).position(|two| two == b"\n\n") else {
        return;
    };
    let Ok(headers) = std::str::from_utf8(&message[..end]) else {
        return;
    };
    let body = &message[end + 2..];
    let header = |name: &str| {
        let mut lines = headers.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    };
    let published = match Published::read(header, body).set {
        Ok(published) => published,
        Err(rejection) => {
            return assert!(matches!(
                rejection.code,
                RejectCode::InvalidCloudEvent | RejectCode::NotJson
            ));
        }
    };
    let origin = Origin {
        source: "billing".parse().expect("it is a name"),
        sequence: 7,
        published_at: Timestamp::UNIX_EPOCH,
    };
    if let Ok(set) = set::parse(&origin, &published) {
        assert!((1..=MAX_ID_BYTES).contains(&set.common.id.len()));
    }
});
