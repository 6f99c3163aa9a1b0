//! Routes, as anybody may put them. A key has one reading and one writing; a subject can be
//! published to, and is not a pattern and none of the server's.
#![no_main]

use bellhop_protocol::wire::route::{read_key, read_subject};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &[u8])| {
    let (key, value) = input;
    if let Ok((user, instance)) = read_key(key) {
        assert_eq!(format!("{}.{}", user.escaped(), instance.escaped()), key);
    }
    if let Ok(Some(subject)) = read_subject(value) {
        assert!(
            !subject.is_empty() && !subject.starts_with(['$', '_', '.']) && !subject.ends_with('.')
        );
        assert!(!subject.contains("..") && !subject.contains([' ', '\t', '\r', '\n']));
        assert!(!subject.split('.').any(|token| token == "*" || token == ">"));
        let written = serde_json::json!({ "subject": subject }).to_string();
        assert_eq!(
            read_subject(written.as_bytes()).expect("it was one"),
            Some(subject)
        );
    }
});
