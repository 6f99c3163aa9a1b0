//! The build script: looks for the programs that some tests need.
//!
//! A test whose program is missing is ignored, and says how to have it. With `CI=true` every test
//! runs, and fails where its program is missing. A program counts as missing, too, where its
//! variable says `none`.

use std::env;
use std::path::{Path, PathBuf};

/// Each `cfg`, its programs, and the variable that names another place of them.
const NEEDED: [(&str, &[&str], Option<&str>); 5] = [
    ("has_faketime", &["libfaketimeMT.so.1"], None),
    ("has_openssl", &["openssl"], None),
    (
        "has_postgres",
        &["initdb", "postgres"],
        Some("BELLHOP_TEST_POSTGRES"),
    ),
    (
        "has_prometheus",
        &["prometheus", "promtool"],
        Some("BELLHOP_TEST_PROMETHEUS"),
    ),
    ("has_systemd", &["systemd-analyze"], None),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let directories = directories();
    for directory in &directories {
        println!("cargo::rerun-if-changed={}", directory.display());
    }
    for variable in ["PATH", "CI"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let is_ci = env::var("CI").is_ok_and(|value| value == "true");
    for (cfg, programs, variable) in NEEDED {
        println!("cargo::rustc-check-cfg=cfg({cfg})");
        variable
            .iter()
            .for_each(|name| println!("cargo::rerun-if-env-changed={name}"));
        let named = variable.and_then(env::var_os);
        let is_there = match named {
            Some(place) => place != "none",
            None => {
                is_ci
                    || directories
                        .iter()
                        .any(|directory| has_all(directory, programs))
            }
        };
        if is_there {
            println!("cargo::rustc-cfg={cfg}");
        }
    }
}

fn has_all(directory: &Path, programs: &[&str]) -> bool {
    programs
        .iter()
        .all(|program| directory.join(program).is_file())
}

/// `PATH`, and where Debian has what is not on it.
fn directories() -> Vec<PathBuf> {
    let below = |directory: &str, end: &str| {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path().join(end))
            .filter(|path| path.is_dir())
            .collect::<Vec<_>>()
    };
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<_> = env::split_paths(&path)
        .filter(|directory| directory.is_dir())
        .collect();
    directories.extend(below("/usr/lib/postgresql", "bin"));
    directories.extend(below("/usr/lib", "faketime"));
    directories
}
