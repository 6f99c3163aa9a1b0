//! Abuse: one user, one instance, one source or one clock misbehaves as hard as it can, and the
//! others are watched. They are sent a reminder every 20 ms all the time, quiet times and abuse
//! taking turns, so that both are measured on the same machine in the same minute.
//!
//! Each test prints a row: resident memory of `bellhop serve` and its bound, and the others'
//! latency from publishing to acceptance. The checker of the chaos test judges all logs, and
//! excuses nothing here.
//!
//! `cargo test --test abuse -- --nocapture` is a short run. The full size, with an optimised
//! `serve`: `BELLHOP_ABUSE=100000 cargo test --release --test abuse -- --nocapture`.

#![allow(clippy::unwrap_used)] // A test that cannot go on has failed.
#![allow(clippy::disallowed_methods)] // Deadlines and latencies are real time.

// The modules of the chaos test. It uses all of it.
#[path = "../chaos/app.rs"]
mod app;
#[allow(dead_code)]
#[path = "../chaos/apps.rs"]
mod apps;
#[path = "../chaos/arrivals.rs"]
mod arrivals;
#[allow(dead_code)]
#[path = "../chaos/check/mod.rs"]
mod check;
#[path = "../chaos/client.rs"]
mod client;
#[path = "../chaos/installation.rs"]
mod installation;
#[allow(dead_code)]
#[path = "../chaos/logs.rs"]
mod logs;
#[allow(dead_code)]
#[path = "../it/harness/program.rs"]
mod program;
#[allow(dead_code)]
#[path = "../chaos/publisher.rs"]
mod publisher;

mod clock;
mod figures;
mod instance;
mod mailboxes;
mod memory;
mod source;
mod start;
mod world;

/// The number of reminders, and of users, of the full size.
const SIZE_ENV: &str = "BELLHOP_ABUSE";
/// Those of a short run: more than `mailbox.limit`.
const SHORT: usize = 11_000;

/// Returns the size of every scenario.
fn size() -> usize {
    std::env::var(SIZE_ENV).map_or(SHORT, |text| text.parse().expect("a number of reminders"))
}

/// An app server, as a process of its own.
#[tokio::test]
#[ignore = "run by the other tests"]
async fn app_server() {
    let Some((name, url, logs)) = apps::asked_to_be() else {
        return;
    };
    app::serve(&name, &url, &logs).await;
}
