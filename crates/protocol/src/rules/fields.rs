//! Fields that no document has. In service they are ignored, since a newer program may know them;
//! from people they are refused, since they mistyped.

use serde_json::Value;

use super::document::{Action, Document};
use super::problem::{Problem, label};

const DOCUMENT: &[&str] = &["rules", "allow", "match", "pattern_mib", "tests"];
const RULE: &[&str] = &["name", "keywords", "patterns", "action", "with", "href"];
const MATCH: &[&str] = &[
    "case",
    "width",
    "words",
    "ignorable",
    "typography",
    "language",
    "addresses",
    "skip",
];
const ALLOWED: &[&str] = &["pattern"];
const TEST: &[&str] = &["name", "title", "content", "expect"];
const EXPECT: &[&str] = &[
    "title",
    "content",
    "marks",
    "priority",
    "blocked",
    "unchanged",
];
const MARK: &[&str] = &["rule", "text"];

impl Document {
    /// Unknown fields, probably mistyped.
    pub fn unknown_fields(json: &[u8]) -> Vec<Problem> {
        let Ok(document) = serde_json::from_slice::<Value>(json) else {
            return Vec::new();
        };
        let mut problems: Vec<_> = strange(&document, DOCUMENT).collect();
        problems.extend(strange(&document["match"], MATCH).map(|problem| problem.at("match")));
        for (at, allowed) in items(&document["allow"]).enumerate() {
            let of_one = strange(allowed, ALLOWED);
            problems.extend(of_one.map(|problem| problem.at(format!("allow[{at}]"))));
        }
        for (label, rule) in parts(&document, "rules", "rule") {
            let all = strange(rule, RULE).chain(of_another_action(rule));
            problems.extend(all.map(|problem| problem.in_part(label.clone())));
        }
        for (label, test) in parts(&document, "tests", "test") {
            let expect = &test["expect"];
            let marks = items(&expect["marks"])
                .flat_map(|mark| strange(mark, MARK))
                .map(|p| p.at("expect.marks"));
            let expected = strange(expect, EXPECT).map(|problem| problem.at("expect"));
            let all = strange(test, TEST).chain(expected).chain(marks);
            problems.extend(all.map(|problem| problem.in_part(label.clone())));
        }
        problems
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// The rules or tests of a document, with what they are called.
fn parts<'v>(
    document: &'v Value,
    list: &str,
    kind: &str,
) -> impl Iterator<Item = (String, &'v Value)> {
    let named = move |(at, item): (usize, &'v Value)| {
        (
            label(kind, at, item["name"].as_str().unwrap_or_default()),
            item,
        )
    };
    items(&document[list]).enumerate().map(named)
}

fn strange<'a>(object: &'a Value, known: &'a [&str]) -> impl Iterator<Item = Problem> + 'a {
    let names = object
        .as_object()
        .into_iter()
        .flat_map(|fields| fields.keys());
    names
        .filter(|name| !known.contains(&name.as_str()))
        .map(|name| {
            let hint = near(name, known).map_or_else(
                || {
                    let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
                    format!("there are {}", known.join(", "))
                },
                |near| format!("did you mean `{near}`?"),
            );
            Problem::error(format!("unknown field `{name}`; {hint}"))
        })
}

/// Fields that only other actions have.
fn of_another_action(rule: &Value) -> impl Iterator<Item = Problem> {
    let action = rule["action"].as_str().unwrap_or_default();
    let fields = [
        ("with", &["mask", "replace", "priority"][..]),
        ("href", &["link"]),
    ];
    let strange =
        move |actions: &[&str]| Action::NAMES.contains(&action) && !actions.contains(&action);
    fields
        .into_iter()
        .filter(move |(name, actions)| rule.get(name).is_some() && strange(actions))
        .map(move |(name, actions)| {
            let actions: Vec<_> = actions.iter().map(|action| format!("`{action}`")).collect();
            Problem::error(format!(
                "`{name}` means nothing to `{action}`; it belongs to {}",
                actions.join(", ")
            ))
        })
}

/// Returns the name that was probably meant.
fn near<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |known: &str| strsim::osa_distance(&name.to_lowercase(), known);
    let nearest = known.iter().copied().min_by_key(|known| distance(known))?;
    // A third of a word wrong is still that word.
    (distance(nearest) * 3 <= nearest.len()).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(document: &str) -> Vec<String> {
        Document::unknown_fields(document.as_bytes())
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn unknown_field_is_reported_with_a_suggestion() {
        for (document, expected) in [
            (
                r#"{"rule":[]}"#,
                "unknown field `rule`; did you mean `rules`?",
            ),
            (
                r#"{"rules":[{"name":"x","Keyword":[]}]}"#,
                "rule 1 \"x\": unknown field `Keyword`; did you mean `keywords`?",
            ),
            (
                r#"{"match":{"wrods":"on"}}"#,
                "match: unknown field `wrods`; did you mean `words`?",
            ),
            (
                r#"{"match":{"folding":"de"}}"#,
                "match: unknown field `folding`; there are `case`, `width`, `words`, `ignorable`, `typography`, `language`, `addresses`, `skip`",
            ),
            (
                r#"{"rules":[{"action":"highlight","href":"x"}]}"#,
                "rule 1: `href` means nothing to `highlight`; it belongs to `link`",
            ),
            (
                r#"{"tests":[{"expect":{"block":"x"}}]}"#,
                "test 1: expect: unknown field `block`; did you mean `blocked`?",
            ),
            (
                r#"{"tests":[{"name":"t","expect":{"marks":[{"rules":"x"}]}}]}"#,
                "test 1 \"t\": expect.marks: unknown field `rules`; did you mean `rule`?",
            ),
        ] {
            assert_eq!(problems(document), [expected]);
        }
    }

    /// A new field of a type must be added here, too.
    #[cfg(feature = "schema")]
    #[test]
    fn known_fields_are_those_of_the_types() {
        let schema = serde_json::to_value(schemars::schema_for!(Document)).unwrap();
        let names = |of: &Value| -> std::collections::BTreeSet<String> {
            let alternatives = of["oneOf"].as_array().into_iter().flatten();
            let objects = alternatives
                .chain([of])
                .filter_map(|object| object["properties"].as_object());
            objects.flat_map(|fields| fields.keys().cloned()).collect()
        };
        let types = &schema["$defs"];
        for (of, known) in [
            (&schema, DOCUMENT),
            (&types["Rule"], RULE),
            (&types["Matching"], MATCH),
            (&types["Test"], TEST),
            (&types["Expect"], EXPECT),
            (&types["ExpectedMark"], MARK),
        ] {
            assert_eq!(
                names(of),
                known.iter().map(|name| (*name).to_owned()).collect()
            );
        }
        let actions = types["Rule"]["oneOf"].as_array().unwrap().iter();
        let actions: Vec<_> = actions
            .map(|action| action["properties"]["action"]["const"].as_str().unwrap())
            .collect();
        assert_eq!(actions, Action::NAMES);
    }
}
