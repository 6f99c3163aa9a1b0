//! Reads many texts to try rules on. Pure.

use serde::Deserialize;
use serde_json::Value;

use crate::reminder::Priority;
use crate::rules::trial::Sample;

/// A text, and where it stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) place: String,
    pub(super) sample: Sample,
}

/// Reads one text a line, or what `bellhop publish` takes: a set, a list of reminders, or one of
/// these a line. The first line tells which.
///
/// # Errors
/// What is not a reminder, and where.
pub(super) fn read(input: &str) -> Result<Vec<Text>, String> {
    let mut texts = Vec::new();
    if let Ok(document @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(input) {
        items(String::new(), document, &mut texts)?;
        return Ok(texts);
    }
    let mut lines = input
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .peekable();
    let is_json = lines
        .peek()
        .is_some_and(|(_, line)| matches!(serde_json::from_str(line), Ok(Value::Object(_))));
    for (at, line) in lines {
        let place = format!("line {}", at + 1);
        if is_json {
            let item = serde_json::from_str(line)
                .map_err(|error| format!("{place} is not JSON: {error}"))?;
            items(place, item, &mut texts)?;
        } else {
            texts.push(Text {
                place,
                sample: Sample::of(line),
            });
        }
    }
    Ok(texts)
}

/// The fields of a reminder that rules look at.
#[derive(Deserialize)]
struct Reminder {
    title: Option<String>,
    content: String,
    #[serde(default)]
    priority: Priority,
}

fn items(place: String, item: Value, texts: &mut Vec<Text>) -> Result<(), String> {
    let list = match item {
        Value::Array(list) => list,
        Value::Object(mut set) if set.contains_key("reminders") => match set.remove("reminders") {
            Some(Value::Array(list)) => list,
            _ => {
                return Err(format!("{place}: `reminders` is not a list")
                    .trim_start_matches(": ")
                    .to_owned());
            }
        },
        reminder => {
            let Reminder {
                title,
                content,
                priority,
            } = serde_json::from_value(reminder).map_err(|error| {
                format!(
                    "{} is not a reminder: {error}",
                    if place.is_empty() { "it" } else { &place }
                )
            })?;
            texts.push(Text {
                place,
                sample: Sample {
                    title,
                    content,
                    priority,
                },
            });
            return Ok(());
        }
    };
    let before = if place.is_empty() {
        place
    } else {
        place + ", "
    };
    list.into_iter()
        .enumerate()
        .try_for_each(|(at, item)| items(format!("{before}reminders[{at}]"), item, texts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts_of(input: &str) -> Vec<(String, String)> {
        read(input)
            .unwrap()
            .into_iter()
            .map(|text| (text.place, text.sample.content))
            .collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected
            .iter()
            .map(|(place, content)| ((*place).to_owned(), (*content).to_owned()))
            .collect()
    }

    #[test]
    fn texts_are_lines_reminders_or_sets() {
        assert_eq!(
            texts_of("a due\n\n7\r\n{x\n"),
            pairs(&[("line 1", "a due"), ("line 3", "7"), ("line 4", "{x")])
        );
        let lines = "{\"content\":\"a\"}\n{\"id\":\"s\",\"reminders\":[{\"content\":\"b\"},{\"content\":\"c\",\"user\":\"u\"}]}";
        let expected = [
            ("line 1", "a"),
            ("line 2, reminders[0]", "b"),
            ("line 2, reminders[1]", "c"),
        ];
        assert_eq!(texts_of(lines), pairs(&expected));
        assert_eq!(
            texts_of("[\n{\"content\":\"a\"}]"),
            pairs(&[("reminders[0]", "a")])
        );
        let one = read(r#"{"title":"t","content":"c","priority":"high"}"#).unwrap();
        let sample = Sample {
            title: Some("t".into()),
            content: "c".into(),
            priority: Priority::High,
        };
        assert_eq!(one[0].sample, sample);
        assert_eq!(read(""), Ok(vec![]));
    }

    #[test]
    fn invalid_reminder_is_named_with_its_place() {
        for (input, expected) in [
            (
                "{\"content\":\"a\"}\noops",
                "line 2 is not JSON: expected value at line 1 column 1",
            ),
            (
                "[{\"content\":\"a\"},7]",
                "reminders[1] is not a reminder: invalid type: integer `7`, expected struct Reminder",
            ),
            ("{\"reminders\":7}", "`reminders` is not a list"),
            ("{\"x\":7}", "it is not a reminder: missing field `content`"),
        ] {
            assert_eq!(read(input).unwrap_err(), expected);
        }
    }
}
