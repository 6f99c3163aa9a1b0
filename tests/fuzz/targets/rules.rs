//! Documents and texts of every kind: the engine agrees with the naive reference.
#![no_main]

use arbitrary::Arbitrary;
use bellhop_core::rules::document::{
    Action, Allowed, Difference, Document, Language, Matching, Rule, Words,
};
use bellhop_core::rules::engine::Engine;
use bellhop_core::rules::reference;
use bellhop_core::rules::rewrite::Text;
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Input {
    rules: Vec<(Vec<String>, Option<u8>, u8)>,
    allow: Vec<String>,
    is_exact: (bool, bool, bool, bool),
    is_turkish: bool,
    words: u8,
    skip: String,
    text: Vec<Piece>,
}

#[derive(Debug, Arbitrary)]
enum Piece {
    Keyword(u8),
    Other(String),
}

const PATTERNS: [&str; 8] = [
    "a+", r"\b\w+\b", "[A-Z]", r"\p{M}", r"\d", ".", "x*", r"[^a]\z",
];

impl Input {
    fn document(&self) -> Document {
        let rule =
            |(at, (keywords, pattern, action)): (usize, &(Vec<String>, Option<u8>, u8))| Rule {
                name: at.to_string(),
                keywords: keywords.clone(),
                patterns: pattern
                    .map(|pattern| PATTERNS[usize::from(pattern) % PATTERNS.len()].to_owned())
                    .into_iter()
                    .collect(),
                action: match action % 7 {
                    0 => Action::Mask { with: "*".into() },
                    1 => Action::Mask { with: "é".into() },
                    2 => Action::Replace { with: "ab".into() },
                    3 => Action::Replace {
                        with: String::new(),
                    },
                    4 => Action::Remove,
                    5 => Action::Highlight,
                    _ => Action::Link {
                        href: "https://h/".into(),
                    },
                },
            };
        let difference = |is_exact| {
            if is_exact {
                Difference::Exact
            } else {
                Difference::Fold
            }
        };
        let matching = Matching {
            case: difference(self.is_exact.0),
            width: difference(self.is_exact.1),
            ignorable: difference(self.is_exact.2),
            typography: difference(self.is_exact.3),
            language: self.is_turkish.then_some(Language::Tr),
            words: [Words::Auto, Words::On, Words::Off][usize::from(self.words % 3)],
            skip: self.skip.clone(),
            ..Matching::default()
        };
        Document {
            rules: self.rules.iter().enumerate().map(rule).collect(),
            allow: self.allow.iter().cloned().map(Allowed::Phrase).collect(),
            matching,
            ..Document::default()
        }
    }

    fn text(&self, document: &Document) -> String {
        let keywords: Vec<_> = document
            .rules
            .iter()
            .flat_map(|rule| &rule.keywords)
            .chain(&self.allow)
            .collect();
        let piece = |piece: &Piece| match piece {
            Piece::Keyword(number) => keywords
                .get(usize::from(*number) % keywords.len().max(1))
                .map_or("", |text| text.as_str())
                .to_owned(),
            Piece::Other(text) => text.clone(),
        };
        self.text.iter().map(piece).collect()
    }
}

fuzz_target!(|input: Input| {
    let document = input.document();
    let Ok(engine) = Engine::new(&document) else {
        return;
    };
    let text = input.text(&document);
    let Ok(matches) = engine.find(&text) else {
        return;
    };
    let mut rewritten = Text::new(text.clone());
    rewritten
        .rewrite(&engine, 0, &matches, usize::MAX)
        .expect("there is no limit");

    let expected = reference::apply(&document, &text);
    let mut found: Vec<_> = matches
        .into_iter()
        .map(|found| (found.span, usize::from(found.rule)))
        .collect();
    found.sort_by_key(|(span, rule)| (span.start, span.end, *rule));
    found.dedup();
    assert_eq!(found, expected.matches);
    let mut marks: Vec<_> = rewritten
        .marks
        .iter()
        .map(|mark| (mark.span.clone(), usize::from(mark.rule)))
        .collect();
    marks.sort_by_key(|(span, rule)| (span.start, span.end, *rule));
    assert_eq!((rewritten.text, marks), (expected.text, expected.marks));
});
