//! The order of the crates is the compiler's to keep. Their sources are read here, as text, for
//! what it cannot see: that the crates which decide do no I/O and read no clock, that settings
//! exist which the crates name in their texts, and that the program's modules import downwards
//! only.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bellhop::config::{Layers, load};
use regex::Regex;

/// The crates that decide.
const PURE: [&str; 2] = ["crates/core/src", "crates/protocol/src"];

/// Names that do I/O, read a clock or the environment, start something, log, or are random.
const IMPURE: &str = r"(?x)
    \bstd::(\{[^;]*\b)? (env|fs|io|net|os|process|thread) \b
    | \b(Instant|SystemTime|Timestamp|Zoned)::now\b | \b(fastrand|getrandom|rand)\b
    | \b(async_nats|clap|futures_util|hyper|prometheus|ratatui|reqwest|tokio|tokio_util|tracing)\b";

/// The program's modules. Each may import those before it.
const MODULES: [&str; 6] = ["config", "metrics", "nats", "http", "service", "cli"];

/// Returns the Rust sources below a directory of the repository, each with its path.
fn sources(directory: &str) -> Vec<(String, String)> {
    let (mut found, mut directories) = (
        Vec::new(),
        vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)],
    );
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((
                    path.display().to_string(),
                    fs::read_to_string(&path).unwrap(),
                ));
            }
        }
    }
    assert!(!found.is_empty(), "{directory} has no sources");
    found
}

/// Returns each text outside of comments that the pattern finds, with the path of its source.
fn find(sources: &[(String, String)], pattern: &str) -> Vec<String> {
    let pattern = Regex::new(pattern).unwrap();
    let find = |(path, text): &(String, String)| {
        let code = text
            .lines()
            .map(|line| line.split("//").next().unwrap_or_default());
        let code = code.collect::<Vec<_>>().join("\n");
        pattern
            .find_iter(&code)
            .map(|found| format!("{path}: {}", found.as_str()))
            .collect::<Vec<_>>()
    };
    sources.iter().flat_map(find).collect()
}

/// Returns a pattern for imports of modules that come after this one.
fn upwards(module: usize) -> String {
    format!(
        r"\b(crate|bellhop|super)::(\{{[^;]*\b)?({})\b",
        MODULES[module + 1..].join("|")
    )
}

#[test]
fn deciding_crates_are_pure() {
    for directory in PURE {
        let sources: Vec<_> = sources(directory)
            .into_iter()
            .filter(|(path, _)| !path.contains("/tests"))
            .collect();
        assert_eq!(find(&sources, IMPURE), Vec::<String>::new());
    }
}

#[test]
fn modules_import_downwards_only() {
    for (at, module) in MODULES.iter().enumerate().take(MODULES.len() - 1) {
        assert_eq!(
            find(&sources(&format!("src/{module}")), &upwards(at)),
            Vec::<String>::new()
        );
    }
}

#[test]
fn settings_named_by_crates_exist() {
    let settings = load(&Layers::default()).unwrap().values;
    let sections: BTreeSet<_> = settings
        .keys()
        .filter_map(|name| Some(name.split_once('.')?.0))
        .collect();
    let sections = sections.into_iter().collect::<Vec<_>>().join("|");
    let named = Regex::new(&format!(r"`(({sections})\.[a-z_.]+)`")).unwrap();
    let mut known = 0;
    for (path, text) in sources("crates") {
        for name in named.captures_iter(&text).map(|found| found[1].to_owned()) {
            assert!(
                settings.contains_key(&name),
                "{path}: there is no setting `{name}`"
            );
            known += 1;
        }
    }
    assert!(known > 0, "no text names a setting");
}

#[test]
fn wrong_names_are_found_however_written() {
    let is_found =
        |pattern: &str, code: &str| !find(&[(String::new(), code.to_owned())], pattern).is_empty();
    for code in [
        "use tokio as t;",
        "std::fs::read(path)",
        "use std::{fmt, fs};",
        "let now = Instant::now();",
    ] {
        assert!(is_found(IMPURE, code), "{code}");
    }
    for code in [
        "fn tokio_like() {}",
        "use std::{fmt, sync::Arc};",
        "let now = other.now;",
    ] {
        assert!(!is_found(IMPURE, code), "{code}");
    }
    let nats = upwards(2);
    for code in [
        "use crate::service::Clock;",
        "use crate::{config::Config, service};",
        "super::super::cli::exit()",
    ] {
        assert!(is_found(&nats, code), "{code}");
    }
    assert!(!is_found(
        &nats,
        "use crate::config::Config;\nuse async_nats::service;"
    ));
}
