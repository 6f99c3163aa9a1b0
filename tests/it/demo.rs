//! The demo, as newcomers run it.

use std::net::TcpStream;
use std::time::Duration;

use bellhop_testkit::nats_server;

use crate::harness::{LATER, Member, bellhop_within};

/// A demo of three seconds, and time to settle everything on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(90);

/// Returns the variable that makes the demo run the nats-server of the tests.
async fn server() -> String {
    let found = nats_server::find().await.unwrap();
    found.path.display().to_string()
}

/// Returns whether the nats-server that the demo named still listens.
fn is_running(text: &str) -> bool {
    let (_, rest) = text.split_once("nats://127.0.0.1:").expect(text);
    let port = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap();
    TcpStream::connect(("127.0.0.1", port.parse::<u16>().unwrap())).is_ok()
}

/// Waits for a condition.
async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LATER, wait).await.expect("in time");
}

#[tokio::test]
async fn short_demo_has_a_good_end() {
    let server = server().await;
    let arguments = ["demo", "--for", "3s", "--rate", "300"];
    let variables = [("BELLHOP_NATS_SERVER", server.as_str())];
    let ended = bellhop_within(DEADLINE, &arguments, &variables, b"").await;
    let text = ended.succeeded();
    for expected in [
        "alice is back",
        "alice has them all, in order",
        "What became of every reminder",
        "Nothing lost",
    ] {
        assert!(text.contains(expected), "no `{expected}` in:\n{text}");
    }
    assert!(!is_running(&text));
}

#[tokio::test]
async fn demo_left_at_once_leaves_nothing_running() {
    let directory = tempfile::tempdir().unwrap();
    let with_server = [
        "env".to_owned(),
        format!("BELLHOP_NATS_SERVER={}", server().await),
    ];
    let arguments = ["demo", "--rate", "300"].map(str::to_owned);
    let demo = Member::spawn("demo", &with_server, &arguments, directory.path());
    until(|| demo.log().contains("published")).await;
    assert!(is_running(&demo.log()));
    // Two different signals, since the same one twice may arrive once.
    demo.signal("INT");
    demo.signal("TERM");
    until(|| demo.status().is_some()).await;
    let text = demo.log();
    assert_eq!(demo.status().unwrap().code(), Some(1), "{text}");
    assert!(text.contains("left at once"), "{text}");
    assert!(!is_running(&text));
}
