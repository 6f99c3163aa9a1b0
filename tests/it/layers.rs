//! The program's imports point downwards only, and the crates that decide do no I/O. A wrong import is one line that a
//! review overlooks; so the sources are read, as text. The order of the crates is the compiler's to keep.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A module of the program, and what it may use of the program.
struct Layer {
    name: &'static str,
    may_use: &'static [&'static str],
}

/// What the program has from the crates that decide. Every layer may use it.
const PURE: &[&str] = &[
    "event",
    "fair_queue",
    "log",
    "merge",
    "partition",
    "printable",
    "reminder",
    "router",
    "rules",
    "token",
    "trace",
    "wire",
];

/// The crates that decide: no I/O, no clock, no task.
const PURE_CRATES: [&str; 2] = ["core", "protocol"];

const fn layer(name: &'static str, may_use: &'static [&'static str]) -> Layer {
    Layer { name, may_use }
}

/// From the bottom up. Everything may use [`PURE`] and itself.
const LAYERS: &[Layer] = &[
    layer("config", &[]),
    layer("metrics", &[]),
    layer("nats", &["config"]),
    layer("history", &["config"]),
    layer("http", &["config", "metrics"]),
    // For the demo and the tests; `serve` connects to the server it is given.
    layer("nats_server", &[]),
    layer("local", &[]),
    // For programs of others: of Bellhop it knows the contract and the names.
    layer("client", &["nats"]),
    layer("service", &["config", "metrics", "nats", "history", "http"]),
    layer("schema", &["nats", "service"]),
    layer("terminal", &["client"]),
    layer("demo", &["client", "config", "local", "nats", "nats_server", "service", "terminal"]),
    layer("bench", &["local", "nats", "nats_server"]),
    layer(
        "cli",
        &[
            "client",
            "config",
            "metrics",
            "history",
            "nats",
            "http",
            "nats_server",
            "service",
            "schema",
            "terminal",
            "demo",
            "bench",
        ],
    ),
    layer("main", &["cli"]),
];

/// What no crate that decides may name: whatever does I/O, reads a clock or the environment, spawns or logs.
const IMPURE: &[&str] = &[
    "async_nats",
    "clap",
    "crossterm",
    "fastrand",
    "futures_util",
    "http_body_util",
    "hyper",
    "hyper_util",
    "prometheus",
    "ratatui",
    "rumqttc",
    "std::env",
    "std::fs",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "tokio",
    "tokio_util",
    "toml",
    "tracing",
    "tracing_subscriber",
];

/// Returns what a file of the program imports that it must not. `path` is below `src`.
fn violations(path: &str, text: &str) -> Vec<String> {
    let module: Vec<&str> = path.trim_end_matches(".rs").trim_end_matches("/mod").split('/').collect();
    if module == ["lib"] {
        return Vec::new(); // It names every module, and that is all it does.
    }
    let Some(layer) = LAYERS.iter().find(|layer| layer.name == module[0]) else {
        return vec![format!("{path}: `{}` is in no layer; give it one in tests/it/layers.rs", module[0])];
    };
    let is_allowed =
        |used: &String| used == layer.name || PURE.contains(&used.as_str()) || layer.may_use.contains(&used.as_str());
    let used = crate_modules(&without_comments(text), module.len());
    used.iter()
        .filter(|used| !is_allowed(used))
        .map(|used| format!("{path}: {} must not use {used}", layer.name))
        .collect()
}

/// Returns what a file of a crate that decides names that it must not.
fn impurities(path: &str, text: &str) -> Vec<String> {
    let code = without_comments(text);
    let impure = IMPURE.iter().filter(|name| names(&code, name));
    impure.map(|name| format!("{path} is pure and must not use {name}")).collect()
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Whether code names a crate or module: as the beginning of a path, or in a `use` by itself.
fn names(code: &str, name: &str) -> bool {
    let (crate_name, item) = name.split_once("::").map_or((name, None), |(crate_name, item)| (crate_name, Some(item)));
    let starts = code.match_indices(crate_name).map(|(at, _)| at).filter(|&at| {
        let before = code[..at].chars().next_back();
        let is_inside = before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '.');
        !is_inside || code[..at].ends_with(" ::") || code[..at].ends_with("(::")
    });
    starts.map(|at| &code[at + crate_name.len()..]).any(|rest| match item {
        None => rest.starts_with("::") || is_whole_import(code, crate_name),
        Some(item) => rest.strip_prefix("::").is_some_and(|tree| heads(tree).iter().any(|head| head == item)),
    })
}

fn is_whole_import(code: &str, name: &str) -> bool {
    [";", " as "].iter().any(|end| code.contains(&format!("use {name}{end}")))
}

/// The crate's own modules that code names, by `crate::…`, or by as many `super::` as lead to the top.
fn crate_modules(code: &str, depth: usize) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::").filter(|(at, _)| begins_path(code, *at)) {
        found.extend(heads(&code[at + "crate::".len()..]));
    }
    // The library by its name, as `main` has it.
    for (at, _) in code.match_indices("bellhop::").filter(|(at, _)| begins_path(code, *at)) {
        found.extend(heads(&code[at + "bellhop::".len()..]));
    }
    for (at, _) in code.match_indices("super::").filter(|(at, _)| begins_path(code, *at)) {
        let tail = code[at..].trim_start_matches("super::");
        let ups = (code.len() - at - tail.len()) / "super::".len();
        // In an inline module, the last one leads only to the file's own module: what is found then is a name of that
        // module, and no layer.
        if ups >= depth {
            let is_layer = |name: &String| LAYERS.iter().any(|layer| layer.name == name);
            found.extend(heads(tail).into_iter().filter(is_layer));
        }
    }
    found.sort();
    found.dedup();
    found
}

fn begins_path(code: &str, at: usize) -> bool {
    !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
}

/// The first names of a path or of a braced list of paths: `a` of `a::b`, `a` and `c` of `{a::b, c}`.
fn heads(tree: &str) -> Vec<String> {
    let name =
        |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == '*').collect();
    let Some(list) = tree.trim_start().strip_prefix('{') else { return vec![name(tree)] };
    let (mut heads, mut depth, mut begin) = (Vec::new(), 0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                heads.push(name(&list[begin..at]));
                begin = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    heads.retain(|head: &String| !head.is_empty());
    heads
}

/// Returns every source file below a directory of the repository, by its path there.
fn sources(directory: &str) -> BTreeMap<String, String> {
    fn read(dir: &Path, root: &Path, into: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, root, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
                into.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut sources = BTreeMap::new();
    read(&root, &root, &mut sources);
    sources
}

#[test]
fn imports_point_downwards_only() {
    let sources = sources("src");
    for known in ["service/members.rs", "cli/mod.rs"] {
        assert!(sources.contains_key(known), "{known} is not among {:?}", sources.keys());
    }
    let found: Vec<_> = sources.iter().flat_map(|(path, text)| violations(path, text)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn deciding_crates_do_no_io() {
    for name in PURE_CRATES {
        let sources = sources(&format!("crates/{name}/src"));
        assert!(sources.contains_key("lib.rs"), "{name}: {:?}", sources.keys());
        // What only tests have may do I/O.
        let code = sources.iter().filter(|(path, _)| !path.contains("tests"));
        let found: Vec<_> = code.flat_map(|(path, text)| impurities(path, text)).collect();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

#[test]
fn a_wrong_import_is_found_however_it_is_written() {
    for (path, text) in [
        ("config/mod.rs", "use crate::nats::Nats;"),
        ("config/mod.rs", "pub use crate::*;"),
        ("nats/raw.rs", "fn now() -> crate::service::Clock { todo!() }"),
        ("nats/raw.rs", "use crate::{\n    token::UserId,\n    service::{Context, Clock},\n};"),
        ("nats/raw.rs", "use {std::fmt, crate::cli::Cli};"),
        ("config/layers.rs", "use crate::service::seen;"),
        ("nats/mod.rs", "use crate::service::Context;"),
        ("nats/mailbox.rs", "use super::super::cli::exit;"),
        ("nats/mod.rs", "use crate::nats_server::NatsServer;"),
        ("http/mod.rs", "use crate::service::Context;"),
        ("service/mod.rs", "use crate::cli::CliError;"),
        ("service/mod.rs", "use crate::demo::run;"),
        ("service/mod.rs", "use crate::nats_server::NatsServer;"),
        ("nats_server.rs", "use crate::config::Config;"),
        ("main.rs", "use bellhop::service::serve;"),
        ("unheard_of.rs", ""),
    ] {
        let found = violations(path, text);
        assert_eq!(found.len(), 1, "{path}: {text}: {found:?}");
    }
}

#[test]
fn impure_names_are_found_however_written() {
    for text in [
        "use tokio::time;",
        "use tokio as t;",
        "use {std::fmt, tokio::time::sleep};",
        "async fn wait() { tokio::select! {} }",
        "fn connect(client: async_nats::Client) {}",
        "fn connect(client: ::async_nats::Client) {}",
        "use std::{collections::BTreeMap, fs};",
        "let text = std::fs::read(path);",
        "tracing::debug!(\"chosen\");",
    ] {
        assert_eq!(impurities("lib.rs", text).len(), 1, "{text}");
    }
    let pure =
        "pub(crate) fn tokio_like() {}\nlet x = other::tokio::y;\nuse std::{fmt, sync::Arc};\n// use tokio::time;";
    assert_eq!(impurities("lib.rs", pure), Vec::<String>::new());
}

#[test]
fn a_right_import_is_left_alone() {
    for (path, text) in [
        ("config/mod.rs", "use std::fs;\nuse crate::reminder::MAX_DELIVERY_BYTES;"),
        ("nats/mod.rs", "use crate::config::Config;\nuse crate::router::Instance;\nuse async_nats::Client;"),
        ("service/mod.rs", "use crate::nats::{Nats, topology};\nuse crate::http::{self, Readiness};"),
        ("service/intake.rs", "use super::seen::Window;\nuse super::{Context, rejected};"),
        ("cli/serve.rs", "use super::{CliError, SettingsArgs};\ncrate::service::serve(config, stop);"),
        ("main.rs", "use bellhop::cli::Cli;"),
        ("lib.rs", "pub mod cli;"),
    ] {
        assert_eq!(violations(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}
