//! The log of `bellhop serve` on stderr.

use serde_json::Value;

use crate::harness::{Member, Reply, World, reminder};

#[tokio::test]
async fn json_log_has_one_object_per_line() {
    let world = World::without_members("", &[]).await;
    let member = world.launch("member-1", &[("log.format", "json")]);
    let line = world
        .eventually("it serves", async || {
            let log = member.log();
            log.lines()
                .find(|line| line.contains("serving"))
                .map(ToOwned::to_owned)
                .ok_or(log)
        })
        .await;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["message"], "serving");
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["member"], "member-1");
    assert!(
        line["timestamp"]
            .as_str()
            .is_some_and(|at| at.ends_with('Z')),
        "{line}"
    );
    member.signal("TERM");
    world.ended(&member).await;
    for line in member.log().lines() {
        assert!(
            serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()),
            "{line}"
        );
    }
}

#[tokio::test]
async fn redirected_log_has_no_colour() {
    let world = World::start(&[]).await;
    assert!(!world.member().log().contains('\u{1b}'));
    assert!(world.member().log().contains("serving"));
}

/// A text of a stranger's: it forges lines, moves the cursor, turns the direction of writing, and
/// is long.
fn hostile() -> String {
    let forged = "\n2026-11-30T08:00:00Z ERROR bellhop: forged\r\n\u{1b}[2J\u{202e}\u{2066}\u{200f}\u{61c}\u{2028}\u{85}";
    format!("hostile{forged}{}", "x".repeat(100_000))
}

/// Has hostile text come in at every entrance, until the member has logged it from each.
async fn attack(world: &World, member: &Member) {
    let text = hostile();
    let app = world.app("app-1", &["alice"]).await;
    let answer = text.clone();
    app.on_heartbeat(move |_| Reply::say(&answer));
    world
        .publish("billing", vec![reminder("r-1", "alice")])
        .await;
    let subject = serde_json::json!({ "subject": text }).to_string();
    let variant = serde_json::json!([{ text.clone(): 1 }]).to_string();
    let puts = [
        ("$KV.bellhop_routes.bob.app-1".to_owned(), subject),
        (
            "$KV.bellhop_routes.carol.\u{202e}hostile-key".to_owned(),
            String::new(),
        ),
        ("$KV.bellhop_associates.alice".to_owned(), variant.clone()),
        (
            "$KV.bellhop_rules.billing".to_owned(),
            serde_json::json!({ "rules": [], text.clone(): 1 }).to_string(),
        ),
        (
            format!("bellhop.sets.billing.{}", "=".repeat(2)),
            variant.clone(),
        ),
        (
            "bellhop.sets.billing".to_owned(),
            serde_json::json!({ "reminders": [], "id": text }).to_string(),
        ),
    ];
    for (subject, body) in puts {
        let _ = world.client.publish(subject, body.into()).await;
    }
    let asked = serde_json::json!({ "user": text, text.clone(): 1 }).to_string();
    world
        .client
        .publish_with_reply(
            "bellhop.api.history",
            "bellhop.sets.\u{202e}hostile-reply",
            "{}".into(),
        )
        .await
        .unwrap();
    let _ = world
        .client
        .request("bellhop.api.history", asked.into())
        .await;
    let entrances = [
        "the instance sent an invalid answer",
        "hostile-key",
        "not a route",
        "not a list",
        "rules",
        "set refused",
        "hostile-reply",
        "query refused",
    ];
    let all_there = async || {
        let log = member.log();
        let missing: Vec<_> = entrances
            .iter()
            .filter(|entrance| !log.contains(**entrance))
            .collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("{missing:?} in no line"))
        }
    };
    world
        .eventually("every entrance is logged", all_there)
        .await;
}

/// The longest line: some fields of 500 bytes each, and what surrounds them.
const MOST_LINE_BYTES: usize = 2_000;

fn is_obeyed(c: char) -> bool {
    c.is_control()
        || ('\u{2028}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c)
        || ['\u{200e}', '\u{200f}', '\u{61c}'].contains(&c)
}

#[tokio::test]
async fn hostile_text_stays_on_its_log_line() {
    let world = World::start(&[]).await;
    let member = world.member();
    attack(&world, &member).await;
    let log = member.log();
    for line in log.split('\n').filter(|line| !line.is_empty()) {
        let is_ours = line
            .get(28..33)
            .is_some_and(|level| ["DEBUG", " INFO", " WARN"].contains(&level));
        assert!(is_ours, "{line:?}");
        assert!(!line.contains(is_obeyed), "{line:?}");
        assert!(
            line.len() <= MOST_LINE_BYTES,
            "{} bytes: {line:?}",
            line.len()
        );
    }
}

#[tokio::test]
async fn hostile_text_stays_bounded_in_json() {
    let world = World::without_members("", &[("log.format", "json")]).await;
    let member = world.launch("member-1", &[]);
    let is_at_work = async || match member.log() {
        log if log.contains("intake taken") => Ok(()),
        log => Err(log),
    };
    world.eventually("it is at work", is_at_work).await;
    attack(&world, &member).await;
    for line in member.log().lines() {
        assert!(
            serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()),
            "{line:?}"
        );
        assert!(
            !line.contains(is_obeyed) && line.len() <= MOST_LINE_BYTES,
            "{} bytes: {line:?}",
            line.len()
        );
    }
}
