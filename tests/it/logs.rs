//! What `bellhop serve` tells its operator on stderr.

use serde_json::Value;

use crate::harness::World;

#[tokio::test]
async fn a_log_in_json_has_an_object_on_each_line_and_no_colour() {
    let world = World::without_members("", &[]).await;
    let member = world.launch("member-1", &[("log.format", "json")]);
    let line = world
        .eventually("it serves", async || {
            let log = member.log();
            log.lines().find(|line| line.contains("serving")).map(ToOwned::to_owned).ok_or(log)
        })
        .await;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["message"], "serving");
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["member"], "member-1");
    assert!(line["timestamp"].as_str().is_some_and(|at| at.ends_with('Z')), "{line}");
    member.signal("TERM");
    world.ended(&member).await;
    for line in member.log().lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()), "{line}");
    }
}

#[tokio::test]
async fn a_log_that_is_no_terminal_has_no_colour() {
    let world = World::start(&[]).await;
    assert!(!world.member().log().contains('\u{1b}'));
    assert!(world.member().log().contains("serving"));
}
