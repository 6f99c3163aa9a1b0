//! Documentation, messages, comments and names keep to the words and habits of `docs/glossary.md`.

use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

use crate::harness::page;

/// The columns at which Markdown and comments wrap. Rows of tables may be longer.
const COLUMNS: usize = 100;

/// The maximum number of words in the name of a test.
const WORDS: usize = 8;

const GLOSSARY: &str = "docs/glossary.md";

/// The files that people read: places and file name extensions.
const PLACES: [(&str, &[&str]); 13] = [
    ("README.md", &["md"]),
    ("CONTRIBUTING.md", &["md"]),
    ("ARCHITECTURE.md", &["md"]),
    ("CHANGELOG.md", &["md"]),
    ("benches", &["md", "rs"]),
    ("clients", &["md", "py", "ts", "mjs"]),
    ("crates", &["md", "rs", "html", "js"]),
    ("dashboards", &["md", "yml", "json"]),
    ("deploy", &["yml", "yaml", "service", "conf"]),
    ("docs", &["md", "json"]),
    ("examples", &["md", "py", "mjs"]),
    ("nats-config", &["conf", "sh"]),
    ("src", &["rs"]),
];

/// More places, with the tests.
const TESTS: (&str, &[&str]) = ("tests", &["md", "rs", "py", "mjs"]);

/// Directories of others' files; the file that must name the words, and this one, which tests them;
/// and a file with the system user `nobody`.
const LEFT_OUT: [&str; 7] = [
    "node_modules",
    "dist",
    "target",
    "venv",
    GLOSSARY,
    "tests/it/prose.rs",
    "crates/testkit/src/postgres.rs",
];

/// The demo, whose texts still have words and habits to avoid. Add nothing else.
const NOT_YET: [&str; 2] = ["src/demo", "crates/demo"];

/// A key that was renamed: the changelog must name it.
const RENAMED: &str = "`mend` is `fix`";

/// Returns the files of [`PLACES`] and [`TESTS`] by their path from the repository's root.
fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for (place, endings) in PLACES.into_iter().chain([TESTS]) {
        let mut paths = vec![PathBuf::from(place)];
        while let Some(path) = paths.pop() {
            let mut left_out = LEFT_OUT.iter().chain(&NOT_YET);
            if left_out.any(|left_out| path.ends_with(left_out)) {
                continue;
            }
            if root.join(&path).is_dir() {
                let entries = fs::read_dir(root.join(&path)).unwrap();
                paths.extend(entries.map(|entry| path.join(entry.unwrap().file_name())));
            } else if endings.iter().any(|ending| has_ending(&path, ending)) {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 500, "{} files", found.len());
    found
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|its| its == ending)
}

/// Returns the complaints of `check` about every file with this ending, or with any.
fn complaints(ending: Option<&str>, check: impl Fn(&str) -> Vec<(usize, String)>) -> Vec<String> {
    let files = files().into_iter();
    let files = files.filter(|path| ending.is_none_or(|ending| has_ending(path, ending)));
    let mut complaints = Vec::new();
    for path in files {
        let found = check(&page(path.to_str().unwrap()));
        let complaint = |(line, text)| format!("{}:{line}: {text}", path.display());
        complaints.extend(found.into_iter().map(complaint));
    }
    complaints
}

/// Returns a pattern for the words of the glossary's second table, also as parts of names.
fn forbidden() -> Regex {
    let glossary = page(GLOSSARY);
    let table = glossary.split("## Words to avoid").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let words: Vec<_> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .filter(|word| !["word", "---"].contains(word))
        .map(|word| regex::escape(word).replace(r"\ ", " ").replace(' ', r"\s+"))
        .collect();
    assert!(words.len() > 5, "{words:?}");
    Regex::new(&format!(r"(?i)(?:\b|_)({})(?:\b|_)", words.join("|"))).unwrap()
}

/// Returns the line number and the word of each match.
fn words_in(text: &str, forbidden: &Regex) -> Vec<(usize, String)> {
    let line = |at: usize| text[..at].matches('\n').count() + 1;
    forbidden
        .captures_iter(text)
        .map(|found| found.get(1).unwrap())
        .map(|word| (line(word.start()), word.as_str().to_owned()))
        .collect()
}

/// Returns true for a line that cannot be wrapped: a row of a table, or a single word.
fn is_unbreakable(text: &str) -> bool {
    text.starts_with('|') || !text.trim_start_matches("- ").contains(' ')
}

#[test]
fn texts_have_no_forbidden_words() {
    let forbidden = forbidden();
    let complaints = complaints(None, |text| {
        words_in(&text.replace(RENAMED, ""), &forbidden)
    });
    assert!(complaints.is_empty(), "{GLOSSARY}: {complaints:#?}");
}

#[test]
fn markdown_wraps_at_100_columns() {
    let complaints = complaints(Some("md"), |text| {
        let lines = text.lines().enumerate();
        lines
            .filter(|(_, line)| line.chars().count() > COLUMNS && !is_unbreakable(line.trim()))
            .map(|(at, line)| (at + 1, line.to_owned()))
            .collect()
    });
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn comments_wrap_at_100_columns() {
    let comment = Regex::new(r"^\s*//[/!]? (.*)").unwrap();
    let complaints = complaints(Some("rs"), |text| {
        let long = text.lines().enumerate();
        let long = long.filter(|(_, line)| line.chars().count() > COLUMNS);
        long.filter_map(|(at, line)| Some((at + 1, comment.captures(line)?[1].to_owned())))
            .filter(|(_, text)| !is_unbreakable(text) && !text.starts_with('#'))
            .collect()
    });
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn doc_comments_begin_with_the_thing() {
    let doc = Regex::new(r"^\s*//[/!]").unwrap();
    let question = "(What|Whether|Whose|Whom?|How|Which|Where|When|Why|Tells|Says)";
    let question = Regex::new(&format!(r"^\s*//[/!] {question}\b")).unwrap();
    let complaints = complaints(Some("rs"), |text| {
        let lines: Vec<_> = std::iter::once("").chain(text.lines()).collect();
        let pairs = lines.windows(2).enumerate();
        pairs
            .filter(|(_, pair)| !doc.is_match(pair[0]) && question.is_match(pair[1]))
            .map(|(at, pair)| (at + 1, pair[1].trim().to_owned()))
            .collect()
    });
    assert!(complaints.is_empty(), "{GLOSSARY}: {complaints:#?}");
}

#[test]
fn test_names_have_at_most_eight_words() {
    let name = r"#\[(?:tokio::)?test[^\n]*\n(?:\s*#\[[^\n]*\n)*\s*(?:async )?fn (\w+)";
    let name = Regex::new(name).unwrap();
    let question = "^(what|who|whose|how|whether|which|where|when|why)_";
    let question = Regex::new(question).unwrap();
    let complaints = complaints(Some("rs"), |text| {
        let names = name.captures_iter(text).map(|found| found.get(1).unwrap());
        let bad = names.filter(|name| {
            name.as_str().split('_').count() > WORDS || question.is_match(name.as_str())
        });
        bad.map(|name| {
            let line = text[..name.start()].matches('\n').count() + 1;
            (line, name.as_str().to_owned())
        })
        .collect()
    });
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn forbidden_words_are_found_across_lines() {
    let forbidden = forbidden();
    let text = "Members are Told.\nIt waits for\never, untold.\nfn all_told_once() {}";
    let found = words_in(text, &forbidden);
    let expected = [(1, "Told"), (2, "for\never"), (4, "told")];
    assert_eq!(found, expected.map(|(line, word)| (line, word.to_owned())));
}
