//! `data` of any kind. Checking it never fails in another way than by its result, and what it lets
//! through, a reader of common bounds reads.
#![no_main]

use bellhop_protocol::reminder::readable;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;

fuzz_target!(|json: &str| {
    let is_readable = readable::check(json).is_ok();
    if is_readable && serde_json::from_str::<&RawValue>(json).is_ok() {
        serde_json::from_str::<Value>(json).expect("common readers read it");
    }
});
