//! Documents as anybody may store them: bytes. A document that can be read and compiled works on
//! any text, and is written and read back as the same.
#![no_main]

use bellhop_core::rules::document::Document;
use bellhop_core::rules::engine::Engine;
use bellhop_core::rules::rewrite::Text;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, String)| {
    let (json, text) = input;
    let _ = Document::unknown_fields(&json);
    let Ok(document) = Document::parse(&json) else {
        return;
    };
    let written = serde_json::to_vec(&document).expect("a document is JSON");
    assert_eq!(Document::parse(&written).as_ref(), Ok(&document));
    let Ok(engine) = Engine::new(&document) else {
        return;
    };
    let Ok(matches) = engine.find(&text) else {
        return;
    };
    let _ = Text::new(text).rewrite(&engine, 0, &matches, 1 << 20);
});
