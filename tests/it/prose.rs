//! Documentation, messages, comments and names keep to the words of `docs/glossary.md`, and Markdown keeps to its width.

use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

use crate::harness::page;

/// The columns at which Markdown wraps. Tables and code may be as wide as their longest cell or line.
const COLUMNS: usize = 100;

const GLOSSARY: &str = "docs/glossary.md";

/// Where people read, and with which file names.
const PLACES: [(&str, &[&str]); 11] = [
    ("clients", &["md", "py", "ts"]),
    ("README.md", &["md"]),
    ("CONTRIBUTING.md", &["md"]),
    ("ARCHITECTURE.md", &["md"]),
    ("docs", &["md", "json"]),
    ("dashboards", &["md", "yml", "json"]),
    ("examples", &["md", "py", "mjs"]),
    ("crates", &["md", "rs", "html", "js"]),
    ("src", &["rs"]),
    ("nats-config", &["conf"]),
    ("deploy", &["yml", "yaml", "service", "conf"]),
];

/// Directories of others' files, the file that must name the words, and one with the system user `nobody`.
const LEFT_OUT: [&str; 6] = [
    "node_modules",
    "dist",
    "target",
    "venv",
    GLOSSARY,
    "crates/testkit/src/postgres.rs",
];

/// Files and directories that still have words to avoid. Add none.
const NOT_YET: &[&str] = &["crates/core/src/rules", "docs/rules.md"];

/// Returns the files of [`PLACES`] by their path from the repository's root.
fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for (place, endings) in PLACES {
        let mut paths = vec![PathBuf::from(place)];
        while let Some(path) = paths.pop() {
            if LEFT_OUT.iter().any(|left_out| path.ends_with(left_out)) {
                continue;
            }
            if root.join(&path).is_dir() {
                let entries = fs::read_dir(root.join(&path)).unwrap();
                paths.extend(entries.map(|entry| path.join(entry.unwrap().file_name())));
            } else if path
                .extension()
                .is_some_and(|ending| endings.iter().any(|wanted| ending == *wanted))
            {
                found.push(path);
            }
        }
    }
    found
}

/// Returns a pattern for the words of the glossary's second table.
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
    Regex::new(&format!(r"(?i)\b({})\b", words.join("|"))).unwrap()
}

/// Returns the line number and the word of each match, without the unit tests at the end of a source.
fn words_in(text: &str, forbidden: &Regex) -> Vec<(usize, String)> {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let line = |at: usize| text[..at].matches('\n').count() + 1;
    forbidden
        .find_iter(text)
        .map(|found| (line(found.start()), found.as_str().to_owned()))
        .collect()
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs")
}

#[test]
fn texts_have_no_forbidden_words() {
    let forbidden = forbidden();
    let mut complaints = Vec::new();
    for path in files() {
        if is_test(&path) || NOT_YET.iter().any(|known| path.starts_with(known)) {
            continue;
        }
        let found = words_in(&page(path.to_str().unwrap()), &forbidden);
        let complaint = |(line, word)| format!("{}:{line}: \"{word}\"", path.display());
        complaints.extend(found.into_iter().map(complaint));
    }
    assert!(complaints.is_empty(), "{GLOSSARY}: {complaints:#?}");
}

#[test]
fn markdown_wraps_at_100_columns() {
    let mut complaints = Vec::new();
    for path in files()
        .into_iter()
        .filter(|path| path.extension().unwrap() == "md")
    {
        let mut is_code = false;
        for (at, line) in page(path.to_str().unwrap()).lines().enumerate() {
            is_code ^= line.trim_start().starts_with("```");
            let is_free = is_code || line.trim_start().starts_with('|') || !line.contains(' ');
            if !is_free && line.chars().count() > COLUMNS {
                complaints.push(format!("{}:{}", path.display(), at + 1));
            }
        }
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn forbidden_words_are_found_across_lines() {
    let forbidden = forbidden();
    let text = "Members are Told.\nIt waits for\never, untold.\n#[cfg(test)]\nmod tests {\n// told";
    let found = words_in(text, &forbidden);
    assert_eq!(found, [(1, "Told".to_owned()), (2, "for\never".to_owned())]);
}
