//! `bellhop top`: what it tells programs, what it prints, and what it does to a terminal.

use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::ChildStdout;

use crate::harness::{LATER, World, bellhop, reminder};

/// The names are what programs rest on.
#[tokio::test]
async fn one_sample_shows_members_and_backlog() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice", "bob"]).await;
    world
        .publish(
            "billing",
            [
                reminder("1", "alice"),
                reminder("2", "carol"),
                reminder("3", "carol"),
            ],
        )
        .await;
    world.settle().await;
    let output = world.run(&["top", "--json", "--once"]).await.succeeded();
    assert_eq!(output.lines().count(), 1, "{output}");
    let frame: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(
        [
            &frame["parked_reminders"],
            &frame["parked_users"],
            &frame["sets"]
        ],
        [2, 1, 0]
    );
    assert_eq!(frame["routes"], json!([["app-1", 2]]), "{frame:#}");
    assert_eq!(
        (&frame["status"], &frame["needs"]),
        (&json!("ok"), &json!([])),
        "{frame:#}"
    );
    let member = &frame["members"][0];
    assert_eq!(
        (&member["name"], &member["state"]),
        (&json!("member-1"), &json!("serving"))
    );
    assert_eq!(
        (&member["partitions"], &member["roles"]),
        (
            &json!([0, 1, 2, 3]),
            &json!(["intake", "escalation", "history"])
        )
    );
    let consumers: Vec<_> = frame["consumers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|consumer| &consumer["name"])
        .collect();
    assert!(
        ["due", "history"]
            .iter()
            .all(|name| consumers.contains(&&json!(name))),
        "{consumers:?}"
    );
    for figure in [
        "sets",
        "reminders",
        "delivered",
        "rerouted",
        "merged",
        "dropped",
        "parked",
        "rejected",
        "failed",
    ] {
        assert!(
            frame["per_second"][figure].is_number(),
            "{figure}: {frame:#}"
        );
    }

    // An output that is not a terminal gets a page.
    for arguments in [&["top"][..], &["top", "--once"]] {
        let page = world.run(arguments).await.succeeded();
        for word in [
            "bellhop top  ok",
            "2 reminders in mailboxes of 1 user",
            "member-1",
            "app-1",
            "due",
            "nothing found",
        ] {
            assert!(page.contains(word), "{word} is not in\n{page}");
        }
        assert!(!page.contains('\u{1b}'), "{page:?}");
    }
    let nowhere = bellhop(&["top", "--nats", "nats://127.0.0.1:1"], &[], b"").await;
    assert_eq!(nowhere.code, Some(1), "{nowhere:?}");
    assert_eq!(world.run(&["top", "--every", "1ms"]).await.code, Some(2));
}

/// Rates need two samples, so one page takes two.
#[tokio::test]
async fn page_shows_rates() {
    let world = World::start(&[]).await;
    let publishing = async {
        for number in 0.. {
            world
                .publish("billing", [reminder(format!("{number}"), "alice")])
                .await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let output = tokio::select! {
        output = world.run(&["top", "--json", "--once"]) => output.succeeded(),
        () = publishing => unreachable!("it publishes on and on"),
    };
    let frame: Value = serde_json::from_str(&output).unwrap();
    assert!(
        frame["per_second"]["sets"].as_f64().unwrap() > 0.0,
        "{frame:#}"
    );
}

/// Figures of all members, by NATS alone.
#[tokio::test]
async fn rates_are_those_of_all_members() {
    let world = World::start(&[]).await;
    world.serve_as("second").await;
    world.app("app-1", &["alice", "bob", "carol", "dave"]).await;
    let (mut top, mut lines) = follow(&world);
    let (mut n, mut busy) = (0, 0);
    let deadline = std::time::Instant::now() + LATER;
    while busy < 2 {
        let users = ["alice", "bob", "carol", "dave"];
        world
            .publish(
                "billing",
                users.map(|user| reminder(format!("{n}-{user}"), user)),
            )
            .await;
        n += 1;
        let frame: Value =
            serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
        let is_some = |figure: &Value| figure.as_f64().is_some_and(|figure| figure > 0.0);
        let flow = &frame["per_second"];
        let is_seen = ["sets", "reminders", "delivered"]
            .iter()
            .all(|figure| is_some(&flow[figure]))
            && is_some(&frame["latency"]["median_seconds"]);
        busy = frame["members"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|member| is_seen && is_some(&member["delivered_per_second"]))
            .count();
        assert!(std::time::Instant::now() < deadline, "last seen: {frame:#}");
    }
    top.kill().await.unwrap();
    world.settle().await;
}

/// Starts a `bellhop top` that tells a program line after line.
fn follow(world: &World) -> (tokio::process::Child, Lines<BufReader<ChildStdout>>) {
    let mut top = tokio::process::Command::new(env!("CARGO_BIN_EXE_bellhop"))
        .args(["top", "--json", "--every", "200ms", "--nats", &world.url])
        .args(["--set", "partitions=4", "--set", "nats.timeout=1s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let lines = BufReader::new(top.stdout.take().unwrap()).lines();
    (top, lines)
}

#[tokio::test]
async fn lines_go_on_when_nats_is_back() {
    let world = World::without_members("", &[]).await;
    world.run(&["setup"]).await.succeeded();
    let (mut top, mut lines) = follow(&world);
    let mut problems = BufReader::new(top.stderr.take().unwrap()).lines();
    let next = async |lines: &mut Lines<BufReader<ChildStdout>>| {
        let line = tokio::time::timeout(LATER, lines.next_line())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        let frame: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(frame["needs"][0]["check"], "members", "{frame:#}");
        frame["at"].as_str().unwrap().to_owned()
    };
    next(&mut lines).await;
    world.kill_nats().await;
    let output = tokio::time::timeout(LATER, problems.next_line())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(output.starts_with("bellhop: "), "{output}");
    let since = jiff::Timestamp::now().to_string();
    world.restart_nats().await;
    while next(&mut lines).await < since {}
    top.kill().await.unwrap();
}

/// A terminal with a program in it. util-linux's `script` makes it, and ends when the program does.
struct Terminal {
    child: std::process::Child,
    screen: Arc<Mutex<vt100::Parser>>,
}

const ROWS: u16 = 30;
const COLUMNS: u16 = 120;

impl Terminal {
    /// Runs a command of the shell in a new terminal.
    fn run(command: &str, dir: &std::path::Path) -> Self {
        let mut child = std::process::Command::new("script")
            .args([
                "-qfec",
                &format!("stty rows {ROWS} cols {COLUMNS}; {command}"),
                "/dev/null",
            ])
            .current_dir(dir)
            .env("TERM", "xterm-256color")
            .env("SHELL", "/bin/sh")
            .env_remove("NO_COLOR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(ROWS, COLUMNS, 0)));
        let (mut output, seen) = (child.stdout.take().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                seen.lock().unwrap().process(&buffer[..count]);
            }
        });
        Self { child, screen }
    }

    fn press(&mut self, keys: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(keys.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    async fn shows(&self, world: &World, what: &str, is_it: impl Fn(&str) -> bool) {
        world
            .within(LATER, what, async || {
                Some(())
                    .filter(|()| is_it(&self.text()))
                    .ok_or_else(|| self.text())
            })
            .await;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn screen_draws_reacts_and_restores() {
    let world = World::start(&[]).await;
    world.app("app-1", &["alice"]).await;
    let program = env!("CARGO_BIN_EXE_bellhop");
    let top = format!(
        "{program} top --every 200ms --nats {} --set partitions=4 --set nats.timeout=1s",
        world.url
    );
    let command = format!("stty -g > before; {top}; echo \"ended with $?\"; stty -g > after");
    let mut terminal = Terminal::run(&command, world.dir());
    terminal
        .shows(&world, "it is drawn", |text| {
            text.contains("bellhop top  ok") && text.contains("app-1") && text.contains("due")
        })
        .await;
    assert!(terminal.screen.lock().unwrap().screen().alternate_screen());
    terminal.press("?");
    terminal
        .shows(&world, "the help is shown", |text| {
            text.contains("pause or resume")
        })
        .await;
    terminal.press("?s");
    terminal
        .shows(&world, "the order is another", |text| {
            text.contains("(by name)") && !text.contains("pause or resume")
        })
        .await;
    terminal.press("p");
    terminal
        .shows(&world, "it stands still", |text| text.contains("paused"))
        .await;
    terminal.press("p");

    world.kill_nats().await;
    terminal
        .shows(&world, "the loss is shown", |text| {
            text.contains("no data for")
        })
        .await;
    world.restart_nats().await;
    terminal
        .shows(&world, "it recovers", |text| {
            text.contains("bellhop top") && !text.contains("no data")
        })
        .await;

    terminal.press("q");
    terminal
        .shows(&world, "it ends", |text| text.contains("ended with 0"))
        .await;
    let settings = |name: &str| std::fs::read_to_string(world.dir().join(name)).unwrap_or_default();
    world
        .eventually("the terminal is as it was", async || {
            let (before, after) = (settings("before"), settings("after"));
            if !before.is_empty() && before == after {
                Ok(())
            } else {
                Err(format!("{before:?}, then {after:?}"))
            }
        })
        .await;
    assert!(!terminal.screen.lock().unwrap().screen().alternate_screen());
    assert!(!terminal.screen.lock().unwrap().screen().hide_cursor());
}

/// A signal from outside also restores the terminal.
#[tokio::test]
async fn a_signal_gives_the_terminal_back() {
    let world = World::start(&[]).await;
    let program = env!("CARGO_BIN_EXE_bellhop");
    let top = format!(
        "{program} top --every 200ms --nats {} --set partitions=4",
        world.url
    );
    let terminal = Terminal::run(
        &format!("sh -c 'echo $$ > pid; exec {top}'; echo \"ended with $?\""),
        world.dir(),
    );
    terminal
        .shows(&world, "it is drawn", |text| text.contains("bellhop top"))
        .await;
    let kill = "kill -TERM $(cat pid)";
    let killed = std::process::Command::new("sh")
        .args(["-c", kill])
        .current_dir(world.dir())
        .status()
        .unwrap();
    assert!(killed.success());
    terminal
        .shows(&world, "it ends", |text| text.contains("ended with 0"))
        .await;
    assert!(!terminal.screen.lock().unwrap().screen().alternate_screen());
}
