//! Subjects and keys, as they come from the wire. A token names one thing, and that is written as
//! the same token.
#![no_main]

use bellhop_protocol::token::{InstanceName, Source, Tag, UserId};
use libfuzzer_sys::fuzz_target;

macro_rules! check {
    ($token:expr, $($name:ty),*) => {
        $(if let Ok(name) = <$name>::from_token($token) {
            assert_eq!(name.escaped(), $token);
            let text = name.as_str();
            assert!(!text.is_empty() && text.len() <= 128 && !text.contains(char::is_control));
        })*
    };
}

fuzz_target!(|subject: &str| {
    let token = subject.rsplit('.').next().unwrap_or_default();
    check!(token, InstanceName, Source, Tag, UserId);
});
