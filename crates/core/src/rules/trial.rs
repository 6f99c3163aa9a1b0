//! Tries rules on a text without publishing it: the result, and the matches that the rules found on
//! the way.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::document::Action;
use super::engine::Engine;
use super::spans::Spans;
use super::{Rules, Verdict, addresses};
use bellhop_protocol::reminder::{Field, Mark, Priority, Reminder};
use bellhop_protocol::token::Tag;

/// A text to try rules on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// A short headline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The text.
    pub content: String,
    /// Its priority before the rules.
    #[serde(skip)]
    pub priority: Priority,
}

/// The result for a sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum TrialResult {
    /// It is delivered, like this.
    Delivered(Delivered),
    /// A rule blocks it.
    Blocked {
        /// The document's tag.
        tag: Tag,
        /// Its rule.
        rule: String,
    },
    /// It cannot be processed, so it is refused.
    Rejected {
        /// The reason.
        problem: String,
    },
}

/// A sample as it is delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Delivered {
    /// The headline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The text.
    pub content: String,
    /// Its priority.
    pub priority: Priority,
    /// The marks of the rules.
    pub marks: Vec<Mark>,
}

/// Something that a rule found, in the text as the documents before left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The document's tag.
    pub tag: Tag,
    /// The rule's name.
    pub rule: String,
    /// The rule's action.
    pub action: &'static str,
    /// In which text.
    pub field: Field,
    /// The matched text.
    pub text: String,
    /// Its start, in characters.
    pub start: usize,
    /// Its end.
    pub end: usize,
    /// True if it changes a part of an address, and so breaks the link.
    pub breaks_address: bool,
}

impl Sample {
    /// A sample of this content alone.
    pub fn of(content: impl Into<String>) -> Self {
        Self {
            content: content.into(),
            ..Self::default()
        }
    }

    /// Returns the result of the documents of these tags.
    pub fn result(&self, rules: &Rules, tags: &[Tag]) -> TrialResult {
        let mut reminder = self.reminder(tags);
        match rules.apply(&mut reminder) {
            Ok(Verdict::Pass) => {
                let Reminder {
                    title,
                    content,
                    priority,
                    marks,
                    ..
                } = reminder;
                TrialResult::Delivered(Delivered {
                    title,
                    content,
                    priority,
                    marks,
                })
            }
            Ok(Verdict::Blocked { tag, rule }) => TrialResult::Blocked { tag, rule },
            Err(error) => TrialResult::Rejected {
                problem: error.to_string(),
            },
        }
    }

    /// Everything that the documents of these tags find in it, one document after the other, each
    /// in the order of its texts and their places. A blocked reminder reaches no further document.
    pub fn findings(&self, rules: &Rules, tags: &[Tag]) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut now = self.clone();
        for tag in tags {
            let Some(engine) = rules.engine(tag) else {
                continue;
            };
            findings.extend(now.found(tag, engine));
            let alone = Rules::default().with(tag.clone(), Some(Arc::clone(engine)));
            match now.result(&alone, std::slice::from_ref(tag)) {
                TrialResult::Delivered(Delivered { title, content, .. }) => {
                    now = Self {
                        title,
                        content,
                        ..now
                    }
                }
                TrialResult::Blocked { .. } | TrialResult::Rejected { .. } => break,
            }
        }
        findings
    }

    fn found(&self, tag: &Tag, engine: &Engine) -> Vec<Finding> {
        let texts = [
            (Field::Title, self.title.as_deref()),
            (Field::Content, Some(self.content.as_str())),
        ];
        let mut findings = Vec::new();
        for (field, text) in texts
            .into_iter()
            .filter_map(|(field, text)| Some((field, text?)))
        {
            let mut matches = engine.find(text).unwrap_or_default();
            matches.sort_unstable_by_key(|found| (found.span.start, found.rule, found.span.end));
            matches.dedup();
            let addresses = Spans::new(addresses::find(text));
            findings.extend(matches.into_iter().map(|found| {
                let (rule, chars) = (
                    &engine.rules()[usize::from(found.rule)],
                    chars(text, &found.span),
                );
                let is_rewritten = matches!(
                    rule.action,
                    Action::Mask { .. } | Action::Replace { .. } | Action::Remove
                );
                let breaks_address = is_rewritten && addresses.contains(&found.span);
                let (action, text) = (rule.action.name(), text[found.span].to_owned());
                Finding {
                    tag: tag.clone(),
                    rule: rule.name.clone(),
                    action,
                    field,
                    text,
                    start: chars.start,
                    end: chars.end,
                    breaks_address,
                }
            }));
        }
        findings
    }

    fn reminder(&self, tags: &[Tag]) -> Reminder {
        let name = || "sample".to_owned();
        let (source, user) = (
            name().try_into().expect("a name"),
            name().try_into().expect("a name"),
        );
        Reminder {
            title: self.title.clone(),
            tags: tags.to_vec(),
            priority: self.priority,
            ..Reminder::new(
                name(),
                source,
                name(),
                user,
                self.content.clone(),
                Timestamp::UNIX_EPOCH,
            )
        }
    }
}

impl Delivered {
    /// The text that a mark is in.
    pub fn text(&self, field: Field) -> &str {
        match field {
            Field::Title => self.title.as_deref().unwrap_or_default(),
            Field::Content => &self.content,
        }
    }

    /// The text under a mark.
    pub fn under(&self, mark: &Mark) -> String {
        self.text(mark.field)
            .chars()
            .skip(mark.start)
            .take(mark.end - mark.start)
            .collect()
    }
}

impl fmt::Display for TrialResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivered(_) => f.write_str("delivered"),
            Self::Blocked { rule, .. } => write!(f, "blocked by {rule:?}"),
            Self::Rejected { problem } => write!(f, "refused: {problem}"),
        }
    }
}

fn chars(text: &str, bytes: &Range<usize>) -> Range<usize> {
    let start = text[..bytes.start].chars().count();
    start..start + text[bytes.clone()].chars().count()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::document::Document;
    use super::*;

    fn rules(documents: &[(&str, serde_json::Value)]) -> Rules {
        let compiled = documents.iter().map(|(tag, document)| {
            let document = Document::parse(document.to_string().as_bytes()).unwrap();
            (
                tag.parse().unwrap(),
                Arc::new(Engine::new(&document).unwrap()),
            )
        });
        Rules::new(compiled.collect())
    }

    fn tags(tags: &[&str]) -> Vec<Tag> {
        tags.iter().map(|tag| tag.parse().unwrap()).collect()
    }

    #[test]
    fn each_document_sees_the_previous_ones_result() {
        let first = json!({ "rules": [{ "name": "r", "keywords": ["œuvre"], "action": "replace", "with": "work" }] });
        let second = json!({ "rules": [{ "name": "h", "keywords": ["work", "due"], "action": "highlight" }] });
        let rules = rules(&[("1", first), ("2", second)]);
        let sample = Sample {
            title: Some("Œuvre".into()),
            ..Sample::of("é: œuvre due")
        };
        let found: Vec<_> = sample.findings(&rules, &tags(&["1", "none", "2"]));
        let reported: Vec<_> = found
            .iter()
            .map(|f| {
                (
                    f.tag.as_str(),
                    f.action,
                    f.field,
                    f.text.as_str(),
                    f.start,
                    f.end,
                )
            })
            .collect();
        assert_eq!(
            reported,
            [
                ("1", "replace", Field::Title, "Œuvre", 0, 5),
                ("1", "replace", Field::Content, "œuvre", 3, 8),
                ("2", "highlight", Field::Title, "work", 0, 4),
                ("2", "highlight", Field::Content, "work", 3, 7),
                ("2", "highlight", Field::Content, "due", 8, 11),
            ]
        );
        let TrialResult::Delivered(delivered) = sample.result(&rules, &tags(&["1", "2"])) else {
            panic!("it is delivered")
        };
        let marked: Vec<_> = delivered
            .marks
            .iter()
            .map(|mark| delivered.under(mark))
            .collect();
        assert_eq!(marked, ["work", "work", "due"]);
    }

    #[test]
    fn a_changed_address_is_noted() {
        let action = |action: &str| json!({ "rules": [{ "name": "r", "keywords": ["falcon"], "action": action }] });
        for (name, is_changed) in [("mask", true), ("remove", true), ("highlight", false)] {
            let rules = rules(&[("t", action(name))]);
            let sample =
                Sample::of("falcon: https://intranet.example/falcon/981 falcon@example.com");
            let found = sample.findings(&rules, &tags(&["t"]));
            let noted: Vec<_> = found.iter().map(|found| found.breaks_address).collect();
            assert_eq!(noted, [false, is_changed, is_changed], "{name}");
        }
    }

    #[test]
    fn blocked_reminder_skips_later_documents() {
        let block = json!({ "rules": [{ "name": "b", "keywords": ["no"], "action": "block" }] });
        let rules = rules(&[("1", block.clone()), ("2", block)]);
        let sample = Sample::of("no");
        let (tag, rule) = ("1".parse().unwrap(), "b".to_owned());
        assert_eq!(
            sample.result(&rules, &tags(&["1", "2"])),
            TrialResult::Blocked { tag, rule }
        );
        assert_eq!(sample.findings(&rules, &tags(&["1", "2"])).len(), 1);
    }
}
