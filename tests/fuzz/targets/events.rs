//! Messages of Bellhop's own streams, as a stranger may write them there. A readable one is written
//! and read back as the same, whole and one reminder at a time.
#![no_main]

use bellhop_core::event::Event;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|message: &[u8]| {
    let Ok(event) = Event::decode(&Bytes::copy_from_slice(message)) else {
        return;
    };
    assert_same(&event);
    for at in 0..event.index.reminders.len() {
        assert_same(&event.only(at));
        let user = event.index.reminders[at].user.clone();
        assert_same(&event.copy_of(at, &user));
        let _ = event.publishable(at);
    }
});

fn assert_same(event: &Event) {
    let read = Event::decode(&event.encode()).expect("it was written by us");
    assert_eq!((&read.index, &read.bodies), (&event.index, &event.bodies));
}
