//! Properties that hold for every document and text, and the engine held against a naive reference.

use proptest::prelude::*;
use unicode_segmentation::UnicodeSegmentation;

use crate::rules::document::{
    Action, Allowed, Difference, Document, Language, Matching, Rule, Words,
};
use crate::rules::engine::{Engine, Match};
use crate::rules::lint::lint;
use crate::rules::problem::Problem;
use crate::rules::reference;
use crate::rules::rewrite::Text;
use crate::rules::unicode::{is_ignorable, is_invisible};

/// Difficult texts: case with several letters, compatibility forms, marks, conjoining Hangul, emoji
/// sequences, scripts with and without spaces, right to left, and characters between words.
const PIECES: &[&str] = &[
    "a",
    "A",
    "b",
    "ab",
    "e",
    "é",
    "e\u{301}",
    "É",
    "ß",
    "ẞ",
    "ss",
    "İ",
    "i",
    "ı",
    "I",
    "i\u{307}",
    "ﬁ",
    "f",
    "fi",
    "ﬀ",
    "Ａ",
    "ａ",
    "１",
    "1",
    "①",
    "㎏",
    "kg",
    "K",
    "Ω",
    "Ω",
    "手",
    "机",
    "手机",
    "號",
    "が",
    "カ",
    "ｶ",
    "ﾞ",
    "ガ",
    "ー",
    "ｰ",
    "가",
    "각",
    "ᄀ",
    "ᅡ",
    "ᆨ",
    "ㄱ",
    "न",
    "ि",
    "्",
    "द",
    "ก",
    "ำ",
    "ิ",
    "ש",
    "\u{5b8}",
    "ا",
    "ل",
    "ﷺ",
    "ς",
    "σ",
    "Σ",
    "\u{345}",
    "ᾳ",
    "ǆ",
    "ǅ",
    "\u{600}",
    "\u{301}",
    "\u{20dd}",
    "\u{fe0f}",
    "❤",
    "👩",
    "\u{200d}",
    "👧",
    "🏽",
    "🇩",
    "🇪",
    "\u{200b}",
    "\u{ad}",
    "\u{640}",
    "™",
    "¹",
    "⚠",
    "\u{20e3}",
    "น\u{e49}ำ",
    "น\u{e4d}\u{e49}า",
    "ꦗꦮ",
    "々",
    "’",
    "‑",
    "\t",
    "*",
    "-",
    "－",
    " ",
    "\u{a0}",
    "_",
    "'",
    ".",
    "\r",
    "\n",
    "\r\n",
    "д",
    "Д",
    "й",
    "и\u{306}",
];

fn text(most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES), 0..most).prop_map(|pieces| pieces.concat())
}

fn keyword() -> impl Strategy<Value = String> {
    text(4).prop_filter("a keyword is not empty", |text| !text.is_empty())
}

fn matching() -> impl Strategy<Value = Matching> {
    let difference = || prop::sample::select(vec![Difference::Fold, Difference::Exact]);
    let language = prop::sample::select(vec![None, None, None, Some(Language::Tr)]);
    let words = prop::sample::select(vec![Words::Auto, Words::On, Words::Off]);
    let skip = prop::sample::select(vec![
        "",
        "",
        "*-",
        " ",
        "\u{200b}\u{200d}\u{ad}",
        "ａ",
        "\u{301}",
    ]);
    let differences = (difference(), difference(), difference(), difference());
    (differences, words, skip, language).prop_map(
        |((case, width, ignorable, typography), words, skip, language)| Matching {
            case,
            width,
            ignorable,
            typography,
            words,
            skip: skip.to_owned(),
            language,
            ..Matching::default()
        },
    )
}

fn action() -> impl Strategy<Value = Action> {
    prop::sample::select(vec![
        Action::Mask { with: "*".into() },
        Action::Mask { with: "<>".into() },
        Action::Replace { with: "ab".into() },
        Action::Replace { with: "手".into() },
        Action::Remove,
        Action::Highlight,
        Action::Link {
            href: "https://h/".into(),
        },
    ])
}

fn document() -> impl Strategy<Value = Document> {
    let pattern = prop::sample::select(vec![
        "a+",
        r"\bab\b",
        r"\b[a-f手]{1,3}\b",
        "[A-H]",
        r"\p{M}",
        r"\d",
        "手.",
        "x*",
    ]);
    let rule = (
        prop::collection::vec(keyword(), 1..4),
        prop::collection::vec(pattern, 0..2),
        action(),
    );
    let rules = prop::collection::vec(rule, 1..4).prop_map(|rules| {
        let numbered = rules.into_iter().enumerate();
        let rule = |(at, (keywords, patterns, action)): (usize, (_, Vec<&str>, _))| {
            let patterns = patterns.into_iter().map(ToOwned::to_owned).collect();
            Rule {
                name: at.to_string(),
                keywords,
                patterns,
                action,
            }
        };
        numbered.map(rule).collect()
    });
    let allowed = prop_oneof![
        3 => keyword().prop_map(Allowed::Phrase),
        1 => Just(Allowed::Pattern { pattern: "手.|b+".into() }),
    ];
    (rules, prop::collection::vec(allowed, 0..3), matching()).prop_map(
        |(rules, allow, matching)| Document {
            rules,
            allow,
            matching,
            ..Document::default()
        },
    )
}

/// A text in which the document's own keywords are likely.
fn document_and_text() -> impl Strategy<Value = (Document, String)> {
    document().prop_flat_map(|document| {
        let keywords = document.rules.iter().flat_map(|rule| rule.keywords.clone());
        let phrases = document.allow.iter().filter_map(Allowed::phrase);
        let own: Vec<String> = keywords.chain(phrases.map(str::to_owned)).collect();
        let piece = prop_oneof![prop::sample::select(own), text(3)];
        let text = prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat());
        (Just(document), text)
    })
}

fn found(engine: &Engine, text: &str) -> Vec<(std::ops::Range<usize>, usize)> {
    let mut matches: Vec<_> = engine
        .find(text)
        .unwrap()
        .into_iter()
        .map(|Match { span, rule }| (span, rule.into()))
        .collect();
    matches.sort_by_key(|(span, rule)| (span.start, span.end, *rule));
    matches.dedup();
    matches
}

/// None where some keyword has nothing but characters that are left out: such a document does not
/// compile.
fn compiled(document: &Document) -> Option<Engine> {
    Engine::new(document).ok()
}

/// The document without the keyword or phrase that a warning says is without effect; none where it
/// says something else.
fn without_useless(document: &Document, warning: &Problem) -> Option<Document> {
    let says = |what: &str| warning.problem.contains(what);
    let place = warning.place.as_ref()?;
    let (list, at) = place.strip_suffix(']')?.split_once('[')?;
    let (at, mut without): (usize, _) = (at.parse().ok()?, document.clone());
    if list == "allow" && says("nothing to allow") {
        without.allow.remove(at);
    } else if says("is the same") || says("does nothing about it") {
        let number: usize = warning.part.as_ref()?.split(' ').nth(1)?.parse().ok()?;
        without.rules[number - 1].keywords.remove(at);
        // A rule with nothing to find is an error of its own.
        without.rules[number - 1]
            .patterns
            .push("[^\\s\\S]".to_owned());
    } else {
        return None;
    }
    Some(without)
}

proptest! {
    #[test]
    fn keywords_that_lint_calls_useless_change_nothing((document, text) in document_and_text()) {
        let rewritten = |document: &Document| {
            let engine = compiled(document).unwrap();
            let mut rewritten = Text::new(text.clone());
            rewritten.rewrite(&engine, 0, &engine.find(&text).unwrap(), 1 << 20).unwrap();
            rewritten
        };
        let problems = lint(&serde_json::to_vec(&document).unwrap()).problems;
        for warning in problems.iter().filter(|problem| !problem.is_error) {
            if let Some(without) = without_useless(&document, warning) {
                prop_assert_eq!(rewritten(&document), rewritten(&without), "{}", warning);
            }
        }
    }

    #[test]
    fn the_engine_agrees_with_the_reference((document, text) in document_and_text()) {
        let Some(engine) = compiled(&document) else { return Ok(()) };
        let expected = reference::apply(&document, &text);
        prop_assert_eq!(found(&engine, &text), expected.matches.clone());
        let mut rewritten = Text::new(text.clone());
        rewritten.rewrite(&engine, 0, &engine.find(&text).unwrap(), 1 << 20).unwrap();
        let mut marks: Vec<_> = rewritten.marks.iter().map(|mark| (mark.span.clone(), usize::from(mark.rule))).collect();
        marks.sort_by_key(|(span, rule)| (span.start, span.end, *rule));
        prop_assert_eq!((rewritten.text, marks), (expected.text, expected.marks));
    }

    #[test]
    fn every_keyword_matches_itself_under_every_option(keyword in keyword(), matching in matching(), others in prop::collection::vec(keyword(), 0..4)) {
        let keywords = others.into_iter().chain([keyword.clone()]).collect();
        let rule = Rule { name: "r".into(), keywords, patterns: Vec::new(), action: Action::Remove };
        let document = Document { rules: vec![rule], matching, ..Document::default() };
        let Some(engine) = compiled(&document) else { return Ok(()) };
        let whole = found(&engine, &keyword).into_iter().map(|(span, _)| span.len()).max();
        // Skipped characters at its ends are not part of the match.
        let is_skipped = |c: char| document.matching.skip.contains(c) || c == 'ａ' || c == 'a' || c == 'A' || c == 'Ａ' || c == '－';
        let is_left_out = |c: char| is_ignorable(c) || c.is_whitespace();
        let is_kept = document.matching.skip.is_empty() && !keyword.contains(is_left_out);
        let least = if is_kept { keyword.len() } else { keyword.trim_matches(is_skipped).len().min(1) };
        prop_assert!(whole.is_some_and(|whole| whole >= least), "{whole:?} of {}", keyword.len());
    }

    #[test]
    fn matches_never_split_a_grapheme_cluster((document, text) in document_and_text()) {
        let Some(engine) = compiled(&document) else { return Ok(()) };
        let ends: Vec<usize> = text.grapheme_indices(true).map(|(at, _)| at).chain([text.len()]).collect();
        for (span, _) in found(&engine, &text) {
            prop_assert!(ends.contains(&span.start) && ends.contains(&span.end), "{span:?} in {ends:?}");
        }
    }

    #[test]
    fn the_order_of_keywords_does_not_matter((document, text) in document_and_text()) {
        let mut turned = document.clone();
        turned.rules.iter_mut().for_each(|rule| rule.keywords.reverse());
        turned.allow.reverse();
        let (Some(engine), Some(turned)) = (compiled(&document), compiled(&turned)) else { return Ok(()) };
        prop_assert_eq!(found(&engine, &text), found(&turned, &text));
    }

    #[test]
    fn masking_changes_matches_and_nothing_else(keywords in prop::collection::vec(keyword(), 1..4), matching in matching(), text in text(20)) {
        let hides = matching.ignorable == Difference::Fold;
        let rule = Rule { name: "r".into(), keywords, patterns: Vec::new(), action: Action::Mask { with: "\u{1}".into() } };
        let Some(engine) = compiled(&Document { rules: vec![rule], matching, ..Document::default() }) else { return Ok(()) };
        let mut masked = Text::new(text.clone());
        masked.rewrite(&engine, 0, &engine.find(&text).unwrap(), 1 << 20).unwrap();
        let masked: Vec<&str> = masked.text.split_inclusive('\u{1}').collect();
        let spans = found(&engine, &text);
        let expected: String = text
            .grapheme_indices(true)
            .map(|(at, cluster)| match spans.iter().any(|(span, _)| span.contains(&at)) {
                true if hides && cluster.chars().all(is_invisible) => "",
                true => "\u{1}",
                false => cluster,
            })
            .collect();
        prop_assert_eq!(masked.concat(), expected);
    }
}
