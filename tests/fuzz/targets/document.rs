//! Documents as anybody may store them: bytes. What can be read and compiled works on any text, and is written and read
//! back as the same.
#![no_main]
#![allow(dead_code)] // Of the modules, only what rules need is used.

#[path = "../../../src/printable.rs"]
mod printable;
#[path = "../../../src/reminder/mod.rs"]
mod reminder;
#[path = "../../../src/rules/mod.rs"]
mod rules;
#[path = "../../../src/token.rs"]
mod token;

use libfuzzer_sys::fuzz_target;
use rules::document::Document;
use rules::engine::Engine;
use rules::rewrite::Text;

fuzz_target!(|input: (Vec<u8>, String)| {
    let (json, text) = input;
    let _ = Document::unknown_fields(&json);
    let Ok(document) = Document::parse(&json) else { return };
    let written = serde_json::to_vec(&document).expect("a document is JSON");
    assert_eq!(Document::parse(&written).as_ref(), Ok(&document));
    let Ok(engine) = Engine::new(&document) else { return };
    let Ok(matches) = engine.find(&text) else { return };
    let _ = Text::new(text).rewrite(&engine, 0, &matches, 1 << 20);
});
