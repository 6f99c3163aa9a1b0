//! The pages for users show commands that work. Those of the guides are run, one after the other,
//! as a reader would; all others of Bellhop's are at least understood by its parser.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use clap::Parser;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::harness::{World, blocks, page, shell};

const COMMAND: Duration = Duration::from_secs(20);

/// Pages whose commands are run in this order in one world, and what of them is not, since the
/// world of the test has it already, asks a person, or is another program's.
const GUIDES: [(&str, &[&str]); 6] = [
    (
        "README.md",
        &["cargo ", "export PATH", "nats-server ", "bellhop serve"],
    ),
    ("docs/tutorial.md", &[]),
    ("docs/business-systems.md", &[]),
    ("docs/app-servers.md", &[]),
    ("docs/history.md", &["nats request", "bellhop erase"]),
    ("docs/terminal.md", &["bellhop demo", "bellhop terminal"]),
];

/// These go on until they are stopped.
const ENDLESS: [&str; 3] = ["bellhop connect-as", "bellhop terminal", "--follow"];

/// The commands of a page's shell blocks, each with the lines that belong to it.
fn commands(page: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    for (kind, text) in blocks(page).filter(|(kind, _)| ["sh", "console"].contains(kind)) {
        let mut is_open = false;
        // A console shows what commands say, too.
        for line in text.lines().filter_map(|line| {
            if kind == "sh" {
                Some(line)
            } else {
                line.strip_prefix("$ ")
            }
        }) {
            match commands.last_mut().filter(|_| is_open) {
                Some(command) => *command += &format!("\n{line}"),
                None => commands.push(line.to_owned()),
            }
            // A quoted text, or a line that ends with a backslash, continues on the next line.
            is_open = commands.last().is_some_and(|command| {
                command.ends_with('\\') || command.matches('\'').count() % 2 == 1
            });
        }
    }
    commands
}

fn in_world(world: &World, dir: &TempDir, command: &str) -> Command {
    let mut shell = shell(command, dir.path());
    shell
        .env("NATS_URL", &world.url)
        .env("BELLHOP_PARTITIONS", "4")
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    shell
}

/// Starts what goes on, and waits for its first word.
async fn start(world: &World, dir: &TempDir, command: &str) -> Child {
    let mut child = in_world(world, dir, &format!("exec {command}"))
        .spawn()
        .unwrap();
    let mut words = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = tokio::time::timeout(COMMAND, words.next_line()).await;
    let first = first
        .unwrap_or_else(|_| panic!("`{command}` says nothing"))
        .unwrap();
    assert!(first.is_some(), "`{command}` ended");
    tokio::spawn(async move { while let Ok(Some(_)) = words.next_line().await {} });
    child
}

#[tokio::test]
async fn commands_of_the_guides_work() {
    let world = World::start(&[]).await;
    let (dir, mut running) = (TempDir::with_prefix("bellhop-guide-").unwrap(), Vec::new());
    for (name, passed_over) in GUIDES {
        let mut run = 0;
        for command in commands(&page(name)) {
            let command = command.split("   #").next().unwrap().trim_end();
            if passed_over.iter().any(|begin| command.starts_with(begin)) {
                continue;
            }
            run += 1;
            if ENDLESS.iter().any(|part| command.contains(part)) {
                running.push(start(&world, &dir, command).await);
                continue;
            }
            // Outcomes are known a moment after publishing.
            world
                .eventually(&format!("{name}: `{command}` succeeds"), async || {
                    let ended =
                        tokio::time::timeout(COMMAND, in_world(&world, &dir, command).output())
                            .await;
                    let ended = ended.map_err(|_| "it does not end".to_owned())?.unwrap();
                    let stdout_text = String::from_utf8_lossy(&ended.stdout).into_owned();
                    if ended.status.success() {
                        Ok(())
                    } else {
                        Err(format!("{}: {stdout_text}", ended.status))
                    }
                })
                .await;
        }
        assert!(run > 0, "{name}");
    }
}

#[test]
fn all_pages_show_commands_that_exist() {
    let docs = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")).unwrap();
    let docs = docs.map(|entry| format!("docs/{}", entry.unwrap().file_name().to_str().unwrap()));
    let others = [
        "README.md",
        "CONTRIBUTING.md",
        "examples/README.md",
        "dashboards/README.md",
    ]
    .map(str::to_owned);
    let mut read = 0;
    for name in docs.filter(|name| name.ends_with(".md")).chain(others) {
        for command in commands(&page(&name)) {
            let own = command.split(['|', ';', '&']).map(str::trim);
            for own in own.filter_map(|part| {
                part.strip_prefix("./target/release/")
                    .unwrap_or(part)
                    .strip_prefix("bellhop ")
            }) {
                let own = own
                    .split("   #")
                    .next()
                    .unwrap()
                    .split(" > ")
                    .next()
                    .unwrap();
                let own = own.replace("\\\n", " ");
                let words = shlex::split(&own).unwrap_or_else(|| panic!("{name}: {own}"));
                let parsed = bellhop::cli::Cli::try_parse_from(
                    std::iter::once("bellhop".to_owned()).chain(words),
                );
                assert!(
                    parsed.is_ok(),
                    "{name}: bellhop {own}\n{}",
                    parsed.unwrap_err()
                );
                read += 1;
            }
        }
    }
    // Those of `bellhop-bench` are parsed by its own tests.
    assert!(read > 44, "{read}");
}
