//! Associates, as anybody may write them down. A valid list is written and read back as the same,
//! and every name in it is valid.
#![no_main]

use bellhop_protocol::token::UserId;
use bellhop_protocol::wire::associates::Associates;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|value: &[u8]| {
    let Ok(found) = Associates::read(value) else {
        return;
    };
    for associate in &found.associates {
        assert_eq!(
            UserId::from_token(&associate.escaped()).as_ref(),
            Ok(associate)
        );
    }
    let written = serde_json::to_vec(&found).expect("names are text");
    assert_eq!(Associates::read(&written).expect("it was one"), found);
});
