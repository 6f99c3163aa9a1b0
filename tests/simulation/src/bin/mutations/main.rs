//! The simulation's own test: faults are put into a copy of the router, one at a time, and the
//! simulation must find each.
//!
//! The sources stay as they are; a copy of the pure ones and of the simulation is changed, built
//! and run. A fault whose text is not in its file exactly once is an error, so the list cannot
//! outlive the code.

#![allow(clippy::disallowed_methods)] // How long a run takes is real time.

mod list;

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use list::{MUTATIONS, Mutation};
use toml::Table;

/// The copied directories.
const SOURCES: [&str; 3] = ["crates/core", "crates/protocol", "tests/simulation"];
/// The seeds within which a fault must be found.
const SEEDS: u64 = 20_000;
/// Without a fault fewer runs are enough: every `cargo test` makes 20,000 of them.
const SEEDS_WITHOUT_FAULT: u64 = 1_000;
/// A machine that is stuck within one step is found, too.
const STUCK: Duration = Duration::from_secs(120);
/// With this fault it is tried, too, whether what a failure prints can be run again.
const REPORTED: &str = "refused reminders return behind later ones";
/// So many steps are a short plan, where a whole one has up to seventy.
const SHORT: usize = 12;
/// The copy's profiles: it is built often and run shortly.
const PROFILES: &str = "[dev]\ndebug = false\n\n[dev.package.\"*\"]\nopt-level = 1\n\n\
    [dev.package.bellhop-core]\nopt-level = 1\n\n[dev.package.bellhop-simulation]\nopt-level = 1\n";

/// Puts faults into a copy of the router, one at a time, and fails unless the simulation finds each
/// within 20,000 seeds.
#[derive(Debug, Parser)]
struct Cli {
    /// Only those with this text in their name
    filter: Option<String>,
}

fn main() -> ExitCode {
    let filter = Cli::parse().filter.unwrap_or_default();
    match check(&filter) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(missed) => {
            eprintln!("{missed} faults were not found");
            ExitCode::FAILURE
        }
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Returns how many were missed.
fn check(filter: &str) -> Result<usize, String> {
    let copy = Copy::make().map_err(|error| format!("the sources could not be copied: {error}"))?;
    MUTATIONS
        .iter()
        .try_for_each(|mutation| copy.changed(mutation).map(drop))?;
    if let Some(failure) = copy.simulate(SEEDS_WITHOUT_FAULT)? {
        return Err(format!("the router as it is fails: {failure}"));
    }
    println!("without a fault: {SEEDS_WITHOUT_FAULT} runs, all well");
    let mut missed = 0;
    for mutation in MUTATIONS
        .iter()
        .filter(|mutation| mutation.name.contains(filter))
    {
        match copy.simulate_with(mutation)? {
            Some(failure) => println!("{}: found, {failure}", mutation.name),
            None => {
                missed += 1;
                println!("{}: NOT FOUND in {SEEDS} runs", mutation.name);
            }
        }
    }
    Ok(missed)
}

/// A copy of the sources that may be changed.
struct Copy {
    /// The directory from which they are copied.
    root: PathBuf,
    tree: PathBuf,
    build: PathBuf,
}

impl Copy {
    fn make() -> io::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .canonicalize()?;
        let home = root.join("target/mutations");
        let copy = Self {
            tree: home.join("tree"),
            build: home.join("build"),
            root,
        };
        for source in SOURCES {
            copy_all(&copy.root.join(source), &copy.tree.join(source))?;
        }
        let manifest = workspace(&fs::read_to_string(copy.root.join("Cargo.toml"))?)
            .map_err(io::Error::other)?;
        write_if_new(&copy.tree.join("Cargo.toml"), manifest.as_bytes())?;
        // Cargo leaves out the packages that the copy does not need.
        fs::copy(copy.root.join("Cargo.lock"), copy.tree.join("Cargo.lock"))?;
        Ok(copy)
    }

    /// The file with the fault.
    fn changed(
        &self,
        Mutation {
            name,
            file,
            old,
            new,
        }: &Mutation,
    ) -> Result<String, String> {
        let text =
            fs::read_to_string(self.root.join(file)).map_err(|error| format!("{file}: {error}"))?;
        match text.matches(old).count() {
            1 => Ok(text.replacen(old, new, 1)),
            times => Err(format!(
                "`{name}`: its text is {times} times in {file}, not once; the list is out of date:\n{old}"
            )),
        }
    }

    fn simulate_with(&self, mutation: &Mutation) -> Result<Option<String>, String> {
        let text = self.changed(mutation)?;
        let (original, file) = (self.root.join(mutation.file), self.tree.join(mutation.file));
        fs::write(&file, text).map_err(|error| format!("{}: {error}", mutation.file))?;
        let found = self.simulate(SEEDS);
        let reported = if mutation.name == REPORTED {
            self.check_report()
        } else {
            Ok(())
        };
        fs::copy(original, file).map_err(|error| format!("{}: {error}", mutation.file))?;
        reported
            .and(found)
            .map_err(|error| format!("`{}`: {error}", mutation.name))
    }

    /// A failure is printed with a short plan, and with options that make it fail at the same place
    /// again.
    fn check_report(&self) -> Result<(), String> {
        let Some(report) = self.run(&["--first", "0", "--seeds", "100"])? else {
            return Err("nothing is found".into());
        };
        let again = report
            .lines()
            .find_map(|line| line.strip_prefix("run it again:")?.split_once(" -- "));
        let Some((_, options)) = again else {
            return Err(format!("it does not say how to run it again:\n{report}"));
        };
        let place = report
            .split(" fails at ")
            .nth(1)
            .and_then(|rest| rest.split_once(": "))
            .map_or("", |(place, _)| place);
        let replayed = self
            .run(&options.split(' ').collect::<Vec<_>>())?
            .unwrap_or_default();
        let is_short = options
            .split_once("--only ")
            .is_some_and(|(_, steps)| steps.split(',').count() <= SHORT);
        if !is_short || !replayed.contains(&format!("fails at {place}:")) {
            return Err(format!(
                "run with {options} it is another failure:\n{report}\n\n{replayed}"
            ));
        }
        println!("its failure was shrunk to {options}, and fails again");
        Ok(())
    }

    /// Builds the copy as it is, and runs it: first by what can be seen from outside, then with the
    /// machine's own audit. Answers the failure that was found.
    fn simulate(&self, seeds: u64) -> Result<Option<String>, String> {
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["build", "--quiet", "--bin", "simulate"])
            .arg("--target-dir")
            .arg(&self.build);
        // A fault leaves code unused.
        cargo.current_dir(&self.tree).env("RUSTFLAGS", "-Awarnings");
        if !cargo.status().map_err(|error| error.to_string())?.success() {
            return Err("it cannot be built".into());
        }
        let found = |by: &str, failure: String| {
            let last: String = failure
                .lines()
                .last()
                .unwrap_or_default()
                .chars()
                .take(120)
                .collect();
            format!("{by} {last}")
        };
        let seeds = seeds.to_string();
        let options = ["--brief", "--first", "0", "--seeds", &seeds, "--unaudited"];
        match self.run(&options)? {
            Some(failure) => Ok(Some(found("seen from outside:", failure))),
            None => Ok(self
                .run(&options[..5])?
                .map(|failure| found("by the machine's audit alone:", failure))),
        }
    }

    /// Returns what it prints, if it fails.
    fn run(&self, options: &[&str]) -> Result<Option<String>, String> {
        let failed = |error: io::Error| error.to_string();
        let mut simulate = Command::new(self.build.join("debug/simulate"));
        simulate.args(options);
        // A pipe without a reader would fill.
        let printed = self.build.join("printed");
        simulate
            .stdout(fs::File::create(&printed).map_err(failed)?)
            .stderr(Stdio::null());
        let mut running = simulate.spawn().map_err(failed)?;
        let began = Instant::now();
        loop {
            match running.try_wait().map_err(failed)? {
                Some(status) if status.success() => return Ok(None),
                Some(_) => return fs::read_to_string(printed).map(Some).map_err(failed),
                None if began.elapsed() > STUCK => {
                    running.kill().map_err(failed)?;
                    return Ok(Some(format!("stuck for {} s", STUCK.as_secs())));
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

/// Returns the manifest of the copy, a workspace of [`SOURCES`] with what the original's packages
/// inherit.
fn workspace(original: &str) -> Result<String, Box<dyn Error + Send + Sync>> {
    let mut manifest: Table = toml::from_str(original)?;
    let mut workspace = manifest
        .remove("workspace")
        .ok_or("Cargo.toml has no [workspace]")?;
    let inherited = workspace
        .as_table_mut()
        .ok_or("[workspace] of Cargo.toml is no table")?;
    inherited.remove("default-members");
    inherited.insert("members".into(), SOURCES.to_vec().into());
    inherited.insert("resolver".into(), "3".into());
    let profiles: Table = toml::from_str(PROFILES)?;
    Ok(toml::to_string(&Table::from_iter([
        ("workspace".into(), workspace),
        ("profile".into(), profiles.into()),
    ]))?)
}

/// Files that are the same stay untouched, so that they are not built again.
fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        return write_if_new(to, &fs::read(from)?);
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy_all(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

fn write_if_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    fs::write(path, bytes)
}
