//! Errors in a document, and likely mistakes of its author.
//!
//! Errors are what the engine refuses, unknown fields ([`Document::unknown_fields`]) and tests
//! that make no sense. Warnings are only what is surely without effect, or surely not what it looks
//! like: an author who gets warnings for nothing reads none.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use unicode_normalization::char::is_combining_mark;

use super::document::{Action, Allowed, Difference, Document, Words};
use super::engine::Engine;
use super::fold::Fold;
use super::folding::{Folding, clusters};
use super::pattern::Reader;
use super::problem::Problem;
use super::suite;

/// The findings about a document.
#[derive(Debug)]
pub struct Lint {
    /// Errors, or, where there are none, warnings.
    pub problems: Vec<Problem>,
    /// The document, ready for work, if it has no errors.
    pub usable: Option<(Document, Arc<Engine>)>,
}

/// Looks at a document as its author wrote it.
pub fn lint(json: &[u8]) -> Lint {
    let mut problems = Document::unknown_fields(json);
    let document = match Document::parse(json) {
        Ok(document) => document,
        Err(unreadable) => {
            problems.extend(unreadable);
            return Lint {
                problems,
                usable: None,
            };
        }
    };
    let engine = Engine::new(&document).map_err(|wrong| problems.extend(wrong));
    problems.extend(suite::check(&document));
    match engine {
        Ok(engine) if problems.is_empty() => Lint {
            problems: warnings(&document),
            usable: Some((document, Arc::new(engine))),
        },
        _ => Lint {
            problems,
            usable: None,
        },
    }
}

/// Returns the likely mistakes in a document without errors.
fn warnings(document: &Document) -> Vec<Problem> {
    let mut warnings = Vec::new();
    if document.rules.is_empty() {
        warnings.push(Problem::error(
            "there are no rules, so nothing happens to any reminder",
        ));
    }
    let reader = Reader::new(&document.matching);
    warnings.extend(idle_phrases(document));
    for (at, allowed) in document.allow.iter().enumerate() {
        if let Allowed::Pattern { pattern } = allowed {
            warnings.extend(
                odd_pattern(&reader, pattern).map(|problem| problem.at(format!("allow[{at}]"))),
            );
        }
    }
    for (at, rule) in document.rules.iter().enumerate() {
        let of_rule = rule
            .keywords
            .iter()
            .enumerate()
            .filter_map(|(place, keyword)| {
                let is_taken_out = rule.action == Action::Remove;
                odd_shape(keyword, is_taken_out, document)
                    .map(|problem| problem.at(format!("keywords[{place}]")))
            });
        let patterns = rule
            .patterns
            .iter()
            .enumerate()
            .filter_map(|(place, pattern)| {
                odd_pattern(&reader, pattern)
                    .map(|problem| problem.at(format!("patterns[{place}]")))
            });
        let all = of_rule.chain(patterns).chain(long_mask(&rule.action));
        warnings.extend(all.map(|problem| problem.in_rule(at, &rule.name)));
    }
    warnings.extend(repeated_keywords(document));
    warnings.into_iter().map(Problem::warning).collect()
}

/// Allowed phrases in which there is nothing to allow.
fn idle_phrases(document: &Document) -> Vec<Problem> {
    // A pattern's matches can depend on the text around the phrase; and a phrase that is found
    // inside of words can be a part of what a reader sees as one character, and then covers all of
    // it.
    let has_patterns = document.rules.iter().any(|rule| !rule.patterns.is_empty());
    if document.allow.is_empty() || has_patterns || document.matching.words == Words::Off {
        return Vec::new();
    }
    let mut bare = Document {
        allow: Vec::new(),
        tests: Vec::new(),
        ..document.clone()
    };
    bare.matching.words = Words::Off;
    let Ok(engine) = Engine::new(&bare) else {
        return Vec::new();
    };
    let is_idle = |phrase: &str| engine.find(phrase).is_ok_and(|found| found.is_empty());
    let idle = document
        .allow
        .iter()
        .enumerate()
        .filter_map(|(at, allowed)| Some((at, allowed.phrase()?)))
        .filter(|(_, phrase)| is_idle(phrase));
    let problem = |phrase: &str| {
        Problem::error(format!(
            "{phrase:?} has no keyword in it, so there is nothing to allow"
        ))
    };
    idle.map(|(at, phrase)| problem(phrase).at(format!("allow[{at}]")))
        .collect()
}

/// A keyword with an end at which it will rarely be found.
fn odd_shape(keyword: &str, is_taken_out: bool, document: &Document) -> Option<Problem> {
    if keyword.starts_with(is_combining_mark) {
        let problem = format!(
            "{keyword:?} begins with a combining mark, which is a part of the letter before it"
        );
        return Some(Problem::error(problem));
    }
    let is_one_space = document.matching.typography == Difference::Fold;
    if is_one_space && keyword.trim().is_empty() && keyword.chars().count() > 1 {
        let problem = format!(
            "{keyword:?} is found at every space: any white space is one space, unless `match.typography` is `exact`"
        );
        return Some(Problem::error(problem));
    }
    // An author who removes a word may want to remove the space, too.
    let has_space = keyword.trim() != keyword && !keyword.trim().is_empty();
    if !has_space || is_taken_out || document.matching.skip.contains(char::is_whitespace) {
        return None;
    }
    let problem = format!(
        "{keyword:?} has a space at its end: it is not found next to a full stop or the text's end"
    );
    Some(Problem::error(problem))
}

/// A pattern that matches nothing, now and then or ever.
fn odd_pattern(reader: &Reader, pattern: &str) -> Option<Problem> {
    let hir = reader.read(pattern).ok()?;
    let problem = if reader.is_futile(&hir) {
        "can never match: it asks for characters that no text has after `match.width`, `match.ignorable` and \
         `match.typography` are applied"
    } else if hir.properties().minimum_len() == Some(0) {
        "matches the empty text, too, which is passed over"
    } else {
        return None;
    };
    Some(Problem::error(format!("{pattern:?} {problem}")))
}

/// A mask of several characters stands for every single one.
fn long_mask(action: &Action) -> Option<Problem> {
    let Action::Mask { with } = action else {
        return None;
    };
    let problem = format!("every character becomes {with:?}; `replace` puts it there once");
    (clusters(with).count() > 1).then(|| Problem::error(problem).at("with"))
}

/// The position of a keyword: its rule and index, from 0.
type Place = (usize, usize);

/// Keywords that stand twice, to no effect.
fn repeated_keywords(document: &Document) -> Vec<Problem> {
    let fold = Fold::new(Folding::of(&document.matching), &document.matching.skip);
    let mut places: HashMap<String, Vec<Place>> = HashMap::new();
    for (at, rule) in document.rules.iter().enumerate() {
        for (place, keyword) in rule.keywords.iter().enumerate() {
            places
                .entry(fold.fold(keyword).text().to_owned())
                .or_default()
                .push((at, place));
        }
    }
    let phrases = document
        .allow
        .iter()
        .enumerate()
        .filter_map(|(at, allowed)| Some((fold.fold(allowed.phrase()?).text().to_owned(), at)));
    let allowed: HashMap<String, usize> = phrases.collect();
    // In the document's order.
    let mut warnings = BTreeMap::new();
    for (keyword, places) in &places {
        for (nth, &(at, place)) in places.iter().enumerate() {
            let useless = match allowed.get(keyword) {
                Some(phrase) => Some(format!("allow[{phrase}] is the same, so it is never found")),
                None => useless(document, &places[..nth], places, at),
            };
            warnings.extend(useless.map(|problem| ((at, place), problem)));
        }
    }
    let described = |((at, place), problem): (Place, String)| {
        let rule = &document.rules[at];
        let problem = Problem::error(format!("{:?}: {problem}", rule.keywords[place]));
        problem
            .in_rule(at, &rule.name)
            .at(format!("keywords[{place}]"))
    };
    warnings.into_iter().map(described).collect()
}

/// Returns the reason why a rule's keyword, which also appears at these places, has no effect.
fn useless(
    document: &Document,
    before: &[Place],
    everywhere: &[Place],
    at: usize,
) -> Option<String> {
    let action = |at: usize| &document.rules[at].action;
    let name = |at: usize| super::problem::label("rule", at, &document.rules[at].name);
    if let Some((_, place)) = before.iter().find(|(other, _)| *other == at) {
        return Some(format!("keywords[{place}] is the same"));
    }
    if let Some((other, _)) = before
        .iter()
        .find(|(other, _)| competes(action(*other), action(at)))
    {
        return Some(format!(
            "{} comes first and has it, too, so this rule does nothing about it",
            name(*other)
        ));
    }
    let is_mark = matches!(action(at), Action::Highlight | Action::Link { .. });
    let (remover, _) = everywhere
        .iter()
        .find(|(other, _)| *action(*other) == Action::Remove)?;
    is_mark.then(|| format!("{} removes it, so nothing is left to mark", name(*remover)))
}

/// Returns true if only one of two rules can apply to a match of both.
fn competes(one: &Action, other: &Action) -> bool {
    let is_rewrite = |action: &Action| matches!(action, Action::Replace { .. } | Action::Remove);
    let is_mask = |action: &Action| matches!(action, Action::Mask { .. });
    (is_rewrite(one) && is_rewrite(other)) || (is_mask(one) && is_mask(other))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn warnings_of(document: &Value) -> Vec<String> {
        let Lint { problems, usable } = lint(document.to_string().as_bytes());
        assert_eq!(
            usable.is_none(),
            problems.iter().any(|problem| problem.is_error),
            "{problems:?}"
        );
        problems.iter().map(ToString::to_string).collect()
    }

    fn rule(name: &str, action: &str, keywords: &[&str]) -> Value {
        let mut rule = json!({ "name": name, "action": action, "keywords": keywords });
        if ["mask", "replace"].contains(&action) {
            rule["with"] = "x".into();
        }
        rule
    }

    fn warned(rules: &[Value], more: Value) -> Vec<String> {
        let mut document = json!({ "rules": rules });
        document
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        warnings_of(&document)
    }

    #[test]
    fn valid_document_has_no_problems() {
        let rules = [
            rule("a", "mask", &["falcon", "project falcon", "Straße"]),
            rule("b", "highlight", &["falcon", "due"]),
            rule("c", "remove", &["damn ", " very"]),
            rule("d", "block", &["falcon", "*", "क्षि"]),
            json!({ "name": "e", "patterns": [r"\d+"], "action": "mask", "with": "👨‍👩‍👧" }),
        ];
        assert_eq!(
            warned(&rules, json!({ "allow": ["peregrine falcon"] })),
            [""; 0]
        );
        assert_eq!(
            warned(
                &[rule("a", "mask", &["f "])],
                json!({ "match": { "skip": " " } })
            ),
            [""; 0]
        );
    }

    #[test]
    fn useless_keywords_are_reported_once_each() {
        let rules = [
            rule("a", "replace", &["Due", "ｄｕｅ", "STRASSE"]),
            rule("b", "remove", &["due", "straße", "gone"]),
            rule("c", "highlight", &["gone", "due"]),
            rule("d", "mask", &["own", "kept"]),
            rule("e", "mask", &["own", "Allowed"]),
        ];
        assert_eq!(
            warned(&rules, json!({ "allow": ["allowed", "kept apart"] })),
            [
                r#"rule 1 "a": keywords[1]: "ｄｕｅ": keywords[0] is the same"#,
                r#"rule 2 "b": keywords[0]: "due": rule 1 "a" comes first and has it, too, so this rule does nothing about it"#,
                r#"rule 2 "b": keywords[1]: "straße": rule 1 "a" comes first and has it, too, so this rule does nothing about it"#,
                r#"rule 3 "c": keywords[0]: "gone": rule 2 "b" removes it, so nothing is left to mark"#,
                r#"rule 3 "c": keywords[1]: "due": rule 2 "b" removes it, so nothing is left to mark"#,
                r#"rule 5 "e": keywords[0]: "own": rule 4 "d" comes first and has it, too, so this rule does nothing about it"#,
                r#"rule 5 "e": keywords[1]: "Allowed": allow[0] is the same, so it is never found"#,
            ]
        );
        let exact = json!({ "match": { "case": "exact", "width": "exact" } });
        assert_eq!(warned(&rules[..1], exact), [""; 0]);
    }

    #[test]
    fn misleading_rules_are_reported() {
        for (rules, more, expected) in [
            (
                vec![],
                json!({}),
                "there are no rules, so nothing happens to any reminder",
            ),
            (
                vec![rule("a", "block", &["x"])],
                json!({ "allow": ["x ray", "peregrin"] }),
                r#"allow[1]: "peregrin" has no keyword in it, so there is nothing to allow"#,
            ),
            (
                vec![rule("a", "block", &["\u{301}e"])],
                json!({}),
                "rule 1 \"a\": keywords[0]: \"\\u{301}e\" begins with a combining mark, which is a part of the letter before it",
            ),
            (
                vec![rule("a", "block", &["due "])],
                json!({}),
                r#"rule 1 "a": keywords[0]: "due " has a space at its end: it is not found next to a full stop or the text's end"#,
            ),
            (
                vec![json!({ "name": "a", "patterns": ["x*"], "action": "block" })],
                json!({}),
                r#"rule 1 "a": patterns[0]: "x*" matches the empty text, too, which is passed over"#,
            ),
            (
                vec![
                    json!({ "name": "a", "patterns": [r"\d+\p{Variation_Selector}"], "action": "block" }),
                ],
                json!({}),
                r#"rule 1 "a": patterns[0]: "\\d+\\p{Variation_Selector}" can never match: it asks for characters that no text has after `match.width`, `match.ignorable` and `match.typography` are applied"#,
            ),
            (
                vec![rule("a", "block", &["  "])],
                json!({}),
                r#"rule 1 "a": keywords[0]: "  " is found at every space: any white space is one space, unless `match.typography` is `exact`"#,
            ),
            (
                vec![
                    json!({ "name": "a", "keywords": ["x"], "action": "mask", "with": "[hidden]" }),
                ],
                json!({}),
                r#"rule 1 "a": with: every character becomes "[hidden]"; `replace` puts it there once"#,
            ),
        ] {
            assert_eq!(warned(&rules, more), [expected]);
        }
    }

    #[test]
    fn errors_come_all_at_once_and_alone() {
        let document = json!({ "rule": [], "rules": [
            { "name": "a", "keywords": ["x", "x"], "patterns": ["("], "action": "block" }],
            "tests": [{ "content": "x", "expect": {} }] });
        assert_eq!(
            warnings_of(&document).len(),
            3,
            "{:?}",
            warnings_of(&document)
        );
        assert_eq!(
            warnings_of(
                &json!({ "rules": [{ "name": "a", "keywords": ["x", 7, null], "action": "hide" }], "allow": [{}] })
            ),
            [
                "allow[0]: an object, neither a text nor `{\"pattern\": \"...\"}`",
                "rule 1 \"a\": keywords[1]: a number, not a text",
                "rule 1 \"a\": keywords[2]: null, not a text"
            ]
        );
    }
}
