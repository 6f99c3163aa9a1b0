//! Looks for a PostgreSQL, without which some tests are ignored; with `CI=true` they run, and fail.
//! The program's build script does the same for its own tests.

use std::env;
use std::path::PathBuf;

const VARIABLE: &str = "BELLHOP_TEST_POSTGRES";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(has_postgres)");
    for variable in [VARIABLE, "CI", "PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let is_ci = env::var("CI").is_ok_and(|value| value == "true");
    let is_there = match env::var_os(VARIABLE) {
        Some(place) => place != "none",
        None => {
            is_ci
                || directories()
                    .iter()
                    .any(|directory| directory.join("initdb").is_file())
        }
    };
    if is_there {
        println!("cargo::rustc-cfg=has_postgres");
    }
}

/// `PATH`, and where Debian has PostgreSQL.
fn directories() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let path = env::var_os("PATH").unwrap_or_default();
    versions
        .map(|version| version.path().join("bin"))
        .chain(env::split_paths(&path))
        .collect()
}
