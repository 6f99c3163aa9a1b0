//! Tests of rules, which stand beside them in their document: texts, and what is expected to become
//! of them.

use std::sync::Arc;

use serde::Serialize;

use super::Rules;
use super::document::{Document, Expect, ExpectedMark, Test};
use super::engine::Engine;
use super::problem::{Problem, label};
use super::trial::{Delivered, Sample, TrialResult};
use bellhop_protocol::reminder::{Mark, Priority};
use bellhop_protocol::token::Tag;

/// A test that ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The test's name, such as `test 2 "due dates"`.
    pub test: String,
    /// The differences from the expected result. Nowhere: the test passed.
    pub mismatches: Vec<Mismatch>,
}

/// Something that is not as expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// The compared part, such as `content`.
    pub what: &'static str,
    /// The expected value.
    pub expected: String,
    /// The actual value.
    pub got: String,
}

/// Returns the problems of a document's tests.
pub fn check(document: &Document) -> Vec<Problem> {
    let is_rule = |name: &String| document.rules.iter().any(|rule| rule.name == *name);
    let problem = |test: &Test| {
        let Expect {
            title,
            content,
            marks,
            priority,
            blocked,
            unchanged,
        } = &test.expect;
        let results = [
            title.is_some(),
            content.is_some(),
            marks.is_some(),
            priority.is_some(),
            *unchanged,
        ];
        let mut named = blocked
            .iter()
            .chain(marks.iter().flatten().map(|mark| &mark.rule));
        if results.iter().all(|is_set| !is_set) && blocked.is_none() {
            return Some("nothing is expected; say at least `\"unchanged\": true`".to_owned());
        }
        if blocked.is_some() && results.contains(&true) {
            return Some(
                "a blocked reminder is not delivered, so nothing else can be expected of it"
                    .to_owned(),
            );
        }
        if *unchanged && results[..4].contains(&true) {
            return Some("`unchanged` says it all; leave out the rest".to_owned());
        }
        named
            .find(|name| !is_rule(name))
            .map(|name| format!("no rule is called {name:?}"))
    };
    let problems = document.tests.iter().enumerate().filter_map(|(at, test)| {
        Some(
            Problem::error(problem(test)?)
                .at("expect")
                .in_part(label_of(test, at)),
        )
    });
    problems.collect()
}

/// Runs a document's tests on its engine.
pub fn run(document: &Document, engine: &Arc<Engine>) -> Vec<Report> {
    let tag: Tag = "test".to_owned().try_into().expect("a tag");
    let rules = Rules::default().with(tag.clone(), Some(Arc::clone(engine)));
    let report = |(at, test): (usize, &Test)| {
        let result = sample(test).result(&rules, std::slice::from_ref(&tag));
        Report {
            test: label_of(test, at),
            mismatches: mismatches(test, &result),
        }
    };
    document.tests.iter().enumerate().map(report).collect()
}

fn label_of(test: &Test, at: usize) -> String {
    label("test", at, test.name.as_deref().unwrap_or_default())
}

fn sample(test: &Test) -> Sample {
    Sample {
        title: test.title.clone(),
        content: test.content.clone(),
        priority: Priority::default(),
    }
}

fn mismatches(test: &Test, result: &TrialResult) -> Vec<Mismatch> {
    match (&test.expect.blocked, result) {
        (None, TrialResult::Delivered(delivered)) => differences(test, delivered),
        (Some(wanted), TrialResult::Blocked { rule, .. }) if rule == wanted => Vec::new(),
        (wanted, result) => {
            let expected = wanted.as_ref().map_or_else(
                || "delivered".to_owned(),
                |rule| format!("blocked by {rule:?}"),
            );
            vec![Mismatch {
                what: "outcome",
                expected,
                got: result.to_string(),
            }]
        }
    }
}

fn differences(test: &Test, delivered: &Delivered) -> Vec<Mismatch> {
    let unchanged = || Expect {
        title: test.title.clone(),
        content: Some(test.content.clone()),
        marks: Some(Vec::new()),
        priority: Some(Priority::default()),
        ..Expect::default()
    };
    let expect = if test.expect.unchanged {
        unchanged()
    } else {
        test.expect.clone()
    };
    let Expect {
        title,
        content,
        marks,
        priority,
        ..
    } = expect;
    let marked = |mark: &Mark| ExpectedMark {
        rule: mark.rule.clone(),
        text: delivered.under(mark),
    };
    let got_marks: Vec<_> = delivered.marks.iter().map(marked).collect();
    let name = |priority: Priority| priority.as_str().to_owned();
    [
        mismatch("title", title, delivered.title.clone().unwrap_or_default()),
        mismatch("content", content, delivered.content.clone()),
        mismatch("marks", marks.as_deref().map(list), list(&got_marks)),
        mismatch("priority", priority.map(name), name(delivered.priority)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn mismatch(what: &'static str, expected: Option<String>, got: String) -> Option<Mismatch> {
    let expected = expected.filter(|expected| *expected != got)?;
    Some(Mismatch {
        what,
        expected,
        got,
    })
}

fn list(marks: &[ExpectedMark]) -> String {
    if marks.is_empty() {
        return "none".to_owned();
    }
    let marks: Vec<_> = marks
        .iter()
        .map(|mark| format!("{:?} by {}", mark.text, mark.rule))
        .collect();
    marks.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::lint::{Lint, lint};
    use super::*;

    fn document(tests: &Value) -> Document {
        let document = json!({ "rules": [
            { "name": "due", "keywords": ["due"], "action": "highlight" },
            { "name": "cards", "patterns": [r"\d{16}"], "action": "mask" },
            { "name": "soon", "keywords": ["asap"], "action": "priority", "with": "high" },
            { "name": "no", "keywords": ["verboten"], "action": "block" }], "tests": tests });
        Document::parse(document.to_string().as_bytes()).unwrap()
    }

    /// Returns what the only test of a document finds.
    fn found(test: Value) -> Vec<String> {
        let document = document(&json!([test]));
        assert_eq!(check(&document), []);
        let reports = run(&document, &Arc::new(Engine::new(&document).unwrap()));
        reports[0]
            .mismatches
            .iter()
            .map(|m| format!("{}: {} / {}", m.what, m.expected, m.got))
            .collect()
    }

    #[test]
    fn matching_expectations_pass() {
        for test in [
            json!({ "content": "card 4111111111111111", "expect": { "content": "card ****************" } }),
            json!({ "title": "Due", "content": "due", "expect": { "title": "Due",
                "marks": [{ "rule": "due", "text": "Due" }, { "rule": "due", "text": "due" }] } }),
            json!({ "content": "asap", "expect": { "priority": "high", "marks": [] } }),
            json!({ "content": "verboten", "expect": { "blocked": "no" } }),
            json!({ "title": "t", "content": "overdue", "expect": { "unchanged": true } }),
        ] {
            assert_eq!(found(test.clone()), [""; 0], "{test}");
        }
    }

    #[test]
    fn differences_are_reported() {
        let everything = json!({ "content": "due asap", "expect": { "unchanged": true } });
        assert_eq!(
            found(everything),
            ["marks: none / \"due\" by due", "priority: normal / high"]
        );
        for (test, expected) in [
            (
                json!({ "content": "x", "expect": { "content": "y" } }),
                "content: y / x",
            ),
            (
                json!({ "content": "x", "expect": { "title": "t" } }),
                "title: t / ",
            ),
            (
                json!({ "content": "x", "expect": { "blocked": "no" } }),
                "outcome: blocked by \"no\" / delivered",
            ),
            (
                json!({ "content": "verboten", "expect": { "unchanged": true } }),
                "outcome: delivered / blocked by \"no\"",
            ),
            (
                json!({ "content": "due", "expect": { "marks": [{ "rule": "due", "text": "d" }] } }),
                "marks: \"d\" by due / \"due\" by due",
            ),
        ] {
            assert_eq!(found(test), [expected]);
        }
    }

    #[test]
    fn senseless_test_is_a_problem() {
        for (expect, expected) in [
            (
                json!({}),
                "test 1 \"t\": expect: nothing is expected; say at least `\"unchanged\": true`",
            ),
            (
                json!({ "blocked": "no", "content": "x" }),
                "test 1 \"t\": expect: a blocked reminder is not delivered, so nothing else can be expected of it",
            ),
            (
                json!({ "unchanged": true, "priority": "low" }),
                "test 1 \"t\": expect: `unchanged` says it all; leave out the rest",
            ),
            (
                json!({ "blocked": "unknown" }),
                "test 1 \"t\": expect: no rule is called \"unknown\"",
            ),
        ] {
            let document = document(&json!([{ "name": "t", "content": "x", "expect": expect }]));
            let problems: Vec<_> = check(&document).iter().map(ToString::to_string).collect();
            assert_eq!(problems, [expected]);
        }
        let unreadable = Document::parse(
            br#"{"rules":[],"tests":[{"content":"x"},{"name":"n","content":7,"expect":{}}]}"#,
        );
        let problems: Vec<_> = unreadable
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            problems,
            [
                "test 1: missing field `expect`",
                "test 2 \"n\": invalid type: integer `7`, expected a string"
            ]
        );
    }

    #[test]
    fn the_docs_examples_are_right() {
        let blocks = include_str!("../../../../docs/rules.md")
            .split("```json")
            .skip(1);
        let documents =
            blocks.filter_map(|block| Some(block.split_once('\n')?.1.split_once("```")?.0));
        let mut tests = 0;
        for json in documents {
            let Lint { problems, usable } = lint(json.as_bytes());
            assert_eq!(problems, [], "{json}");
            let (document, engine) = usable.unwrap();
            let wrong: Vec<_> = run(&document, &engine)
                .into_iter()
                .filter(|test| !test.mismatches.is_empty())
                .collect();
            assert_eq!(wrong, [], "{json}");
            tests += document.tests.len();
        }
        assert!(tests >= 20, "{tests}");
    }
}
