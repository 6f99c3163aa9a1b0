//! App servers' answers to deliveries and heartbeats, with any bytes. A valid one is written and
//! read back as the same.
#![no_main]

use bellhop_protocol::wire::answer::{DeliveryAnswer, HeartbeatAnswer, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Some(answer) = read::<DeliveryAnswer>(body) {
        let written = serde_json::to_vec(&answer).expect("an answer is JSON");
        assert_eq!(read::<DeliveryAnswer>(&written), Some(answer));
    }
    if let Some(answer) = read::<HeartbeatAnswer<String>>(body) {
        let written = serde_json::to_vec(&answer).expect("an answer is JSON");
        let again = read::<HeartbeatAnswer<String>>(&written).expect("it was one");
        assert_eq!(again.connected, answer.connected);
    }
});
