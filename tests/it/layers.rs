//! Imports point downwards only. The order of the layers is what keeps the deciding part pure, and a wrong import is
//! one line that a review overlooks; so the sources are read, as text.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A module of the crate, what it may use of the crate, and whether it is pure.
struct Layer {
    name: &'static str,
    may_use: &'static [&'static str],
    is_pure: bool,
}

const PURE: &[&str] = &["event", "partition", "printable", "reminder", "router", "rules", "token", "trace", "wire"];

const fn pure(name: &'static str) -> Layer {
    Layer { name, may_use: PURE, is_pure: true }
}

const fn layer(name: &'static str, may_use: &'static [&'static str]) -> Layer {
    Layer { name, may_use, is_pure: false }
}

/// From the bottom up. Everything may use [`PURE`] and itself.
const LAYERS: &[Layer] = &[
    pure("event"),
    pure("partition"),
    pure("printable"),
    pure("reminder"),
    pure("router"),
    pure("rules"),
    pure("token"),
    pure("trace"),
    pure("wire"),
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
    layer("terminal", &["client", "config", "http", "nats"]),
    layer("demo", &["client", "config", "local", "nats", "nats_server", "service", "terminal"]),
    layer("bench", &["local", "nats", "nats_server"]),
    layer("conformance", &["nats"]),
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
            "conformance",
        ],
    ),
    layer("main", &["cli"]),
];

/// What no pure module may name: whatever does I/O, reads a clock or the environment, spawns or logs.
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

/// Packages of their own include these modules as they are, and must name the libraries they use.
const INCLUDED: [(&str, &[&str]); 4] = [
    ("benches/history/Cargo.toml", &["history", "reminder", "token", "trace", "wire"]),
    ("tests/fuzz/Cargo.toml", &["event", "printable", "reminder", "rules", "token", "trace", "wire"]),
    ("benches/rules/Cargo.toml", &["printable", "reminder", "rules", "token"]),
    ("tests/simulation/Cargo.toml", &["reminder", "router", "token"]),
];

/// What a file imports that it must not. `path` is below `src`. A file that only tests have may do I/O, but no layer
/// above its own is its business either.
fn violations(path: &str, text: &str, is_test: bool) -> Vec<String> {
    let module: Vec<&str> = path.trim_end_matches(".rs").trim_end_matches("/mod").split('/').collect();
    if module == ["lib"] {
        return Vec::new(); // It names every module, and that is all it does.
    }
    let Some(layer) = LAYERS.iter().find(|layer| layer.name == module[0]) else {
        return vec![format!("{path}: `{}` is in no layer; give it one in tests/it/layers.rs", module[0])];
    };
    let code = without_comments(text);
    let mut found = Vec::new();
    for used in crate_modules(&code, module.len()) {
        let is_allowed = used == layer.name || PURE.contains(&used.as_str()) || layer.may_use.contains(&used.as_str());
        if !is_allowed {
            found.push(format!("{path}: {} must not use {used}", layer.name));
        }
    }
    if layer.is_pure && !is_test {
        let impure = IMPURE.iter().filter(|name| names(&code, name));
        found.extend(impure.map(|name| format!("{path}: {} is pure and must not use {name}", layer.name)));
    }
    found
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

/// Paths, without their ends, of the modules that a file declares for tests alone.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let home = path.trim_end_matches(".rs").trim_end_matches("mod").trim_end_matches('/');
    let declared = text.split("#[cfg(test)]").skip(1).filter_map(|rest| {
        let item = rest.trim_start().lines().next()?;
        item.strip_prefix("mod ")?.strip_suffix(';')
    });
    declared.map(|name| format!("{home}/{name}")).collect()
}

/// Every source file, by its path below `src`.
fn sources() -> BTreeMap<String, String> {
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
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = BTreeMap::new();
    read(&root, &root, &mut sources);
    sources
}

#[test]
fn imports_point_downwards_only() {
    let sources = sources();
    for known in ["router/partition.rs", "service/members.rs", "cli/mod.rs"] {
        assert!(sources.contains_key(known), "{known} is not among {:?}", sources.keys());
    }
    let for_tests: Vec<_> = sources.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    let is_test = |path: &str| {
        let is_of =
            |module: &&String| path.strip_prefix(*module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'));
        for_tests.iter().any(|module| is_of(&module))
    };
    let found: Vec<_> = sources.iter().flat_map(|(path, text)| violations(path, text, is_test(path))).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_wrong_import_is_found_however_it_is_written() {
    for (path, text) in [
        ("router/mod.rs", "use crate::nats::Names;"),
        ("router/mod.rs", "use super::service::Context;"),
        ("router/user.rs", "use super::super::config::Config;"),
        ("router/user.rs", "fn now() -> crate::service::Clock { todo!() }"),
        ("router/user.rs", "use crate::{\n    token::UserId,\n    nats::{Nats, NatsError},\n};"),
        ("token.rs", "use super::config::Config;"),
        ("token.rs", "use {std::fmt, crate::cli::Cli};"),
        ("token.rs", "pub use crate::*;"),
        ("token.rs", "use tokio::time;"),
        ("token.rs", "use tokio as t;"),
        ("token.rs", "use {std::fmt, tokio::time::sleep};"),
        ("event.rs", "async fn wait() { tokio::select! {} }"),
        ("event.rs", "fn connect(client: async_nats::Client) {}"),
        ("event.rs", "fn connect(client: ::async_nats::Client) {}"),
        ("reminder/set.rs", "use std::{collections::BTreeMap, fs};"),
        ("reminder/set.rs", "let text = std::fs::read(path);"),
        ("partition.rs", "tracing::debug!(\"chosen\");"),
        ("config/mod.rs", "use crate::nats::Nats;"),
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
        let found = violations(path, text, false);
        assert_eq!(found.len(), 1, "{path}: {text}: {found:?}");
    }
}

#[test]
fn a_right_import_is_left_alone() {
    for (path, text) in [
        ("router/mod.rs", "//! The shell is [`crate::service`].\n// use tokio::time;\nuse crate::token::UserId;"),
        ("router/partition.rs", "use super::lane::Lane;\nuse crate::token::{InstanceName, UserId};"),
        ("router/lane.rs", "mod tests { use super::*; }"),
        ("reminder/merge.rs", "mod tests { use super::super::{Priority, set}; }"),
        ("token.rs", "pub(crate) fn tokio_like() {}\nlet x = other::tokio::y;\nuse std::{fmt, sync::Arc};"),
        ("config/mod.rs", "use std::fs;\nuse crate::reminder::MAX_DELIVERY_BYTES;"),
        ("nats/mod.rs", "use crate::config::Config;\nuse crate::router::Instance;\nuse async_nats::Client;"),
        ("service/mod.rs", "use crate::nats::{Nats, topology};\nuse crate::http::{self, Readiness};"),
        ("service/intake.rs", "use super::seen::Window;\nuse super::{Context, rejected};"),
        ("cli/serve.rs", "use super::{CliError, SettingsArgs};\ncrate::service::serve(config, stop);"),
        ("main.rs", "use bellhop::cli::Cli;"),
        ("lib.rs", "pub mod cli;"),
    ] {
        assert_eq!(violations(path, text, false), Vec::<String>::new(), "{path}: {text}");
    }
}

#[test]
fn files_for_tests_alone_may_do_io_and_look_no_higher() {
    assert_eq!(test_modules("router/mod.rs", "#[cfg(test)]\nmod tests;\nmod lane;"), ["router/tests"]);
    assert_eq!(test_modules("router/partition.rs", "#[cfg(test)]\nmod audit;\n"), ["router/partition/audit"]);
    assert_eq!(test_modules("token.rs", "#[cfg(test)]\nmod tests {\n"), Vec::<String>::new());
    assert_eq!(violations("router/tests.rs", "use std::env;", true), Vec::<String>::new());
    assert_eq!(violations("router/tests.rs", "use crate::service::Context;", true).len(), 1);
}

#[test]
fn packages_that_include_modules_name_their_libraries() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let libraries = |manifest: &str| -> Vec<String> {
        let manifest: toml::Table = toml::from_str(&fs::read_to_string(root.join(manifest)).unwrap()).unwrap();
        manifest["dependencies"].as_table().unwrap().keys().cloned().collect()
    };
    let sources = sources();
    for (manifest, modules) in INCLUDED {
        let is_included =
            |path: &&String| modules.iter().any(|module| path.starts_with(module)) && !path.contains("/tests");
        let included: Vec<String> =
            sources.keys().filter(is_included).map(|path| without_comments(&sources[path])).collect();
        let is_used = |library: &String| included.iter().any(|code| names(code, &library.replace('-', "_")));
        let used: Vec<String> = libraries("Cargo.toml").into_iter().filter(is_used).collect();
        assert!(used.contains(&"siphasher".to_owned()) && !used.contains(&"clap".to_owned()), "{used:?}");
        let there = libraries(manifest);
        let missing: Vec<_> = used.iter().filter(|library| !there.contains(library)).collect();
        assert!(missing.is_empty(), "{manifest} lacks {missing:?}");
    }
}
