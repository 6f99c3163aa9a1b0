//! Rules about what reminders have in them: fields that are there now and then, and texts as people
//! and systems write them.

use bellhop_protocol::reminder::duplicate::Duplicate;
use bellhop_protocol::reminder::finished::{
    rerouted, with_field, with_parked_at, with_rerouted_to,
};
use bellhop_protocol::reminder::readable::{MAX_DEPTH, MAX_NUMBER_BYTES};
use bellhop_protocol::reminder::{Field, Mark, MarkAction, Priority, Reminder};
use bellhop_protocol::wire::answer::DeliveryAnswer;
use jiff::{SignedDuration, Timestamp};
use serde_json::value::RawValue;

use super::SOURCE;
use super::peer::{Ask, Kept, Peer};
use super::sample::Sample;

/// A reminder for a connected user, changed in some way.
fn changed(peer: &Peer, change: impl FnOnce(&mut Reminder)) -> Sample {
    let mut reminder = peer.reminder(&peer.user());
    change(&mut reminder);
    Sample::of(&reminder)
}

/// Fields that a publisher may leave out.
pub(super) fn optional(peer: &Peer) -> Vec<Sample> {
    let tags = (1..=16)
        .map(|n| format!("tag {n} 费用").parse().expect("it is a name"))
        .collect();
    let tomorrow = Timestamp::now() + SignedDuration::from_hours(24);
    vec![changed(peer, |reminder| {
        (reminder.title, reminder.tags, reminder.expires_at) =
            (Some("Test".to_owned()), tags, Some(tomorrow));
    })]
}

/// The publisher's own JSON, of every kind.
pub(super) fn data(peer: &Peer) -> Vec<Sample> {
    let object = r#"{"": {"id": 1, "user": null, "reminders": []}, "a": 1.10}"#;
    [
        "null",
        "false",
        "-0.0",
        "12345678901234567890123",
        r#""\u0000\ud83d\ude00""#,
        "[]",
        object,
    ]
    .map(|json| with_data(peer, json))
    .into()
}

/// The publisher's own JSON at the bounds of what Bellhop takes: depth, a long number, one that is
/// next to nothing, a name twice.
pub(super) fn odd_data(peer: &Peer) -> Vec<Sample> {
    let lists = MAX_DEPTH - 1;
    let deep = format!(r#"{{"a": {}1{}}}"#, "[".repeat(lists), "]".repeat(lists));
    let long = format!(r#"{{"a": {}}}"#, "7".repeat(MAX_NUMBER_BYTES));
    [&long, r#"{"a": 1e-400}"#, r#"{"a": 1, "a": 2}"#, &deep]
        .map(|json| with_data(peer, json))
        .into()
}

fn with_data(peer: &Peer, json: &str) -> Sample {
    changed(peer, |reminder| {
        reminder.data = Some(RawValue::from_string(json.to_owned()).expect("it is JSON"))
    })
}

/// Returns merged reminders.
pub(super) fn merged(peer: &Peer) -> Vec<Sample> {
    let merged = [("a", None), ("b", Some(r#"{"n": 1.10}"#))].map(|(name, json)| Duplicate {
        id: format!("{SOURCE}-{name}"),
        data: json.map(|json| RawValue::from_string(json.to_owned()).expect("it is JSON")),
    });
    vec![changed(peer, |reminder| {
        (reminder.count, reminder.merged) = (Some(3), merged.into())
    })]
}

/// Returns reminders with marks of rules: overlapping, with and without a link.
pub(super) fn marks(peer: &Peer) -> Vec<Sample> {
    let mark = |field, (start, end), action, href: Option<&str>| Mark {
        tag: "test".parse().expect("it is a name"),
        rule: "due".to_owned(),
        field,
        start,
        end,
        action,
        href: href.map(ToOwned::to_owned),
    };
    let marks = vec![
        mark(Field::Title, (0, 2), MarkAction::Highlight, None),
        mark(Field::Content, (0, 4), MarkAction::Highlight, None),
        mark(
            Field::Content,
            (2, 5),
            MarkAction::Link,
            Some("https://example.org/?a=1&b=%20"),
        ),
    ];
    vec![changed(peer, |reminder| {
        (reminder.title, reminder.content, reminder.marks) =
            ("👩‍🚀 up".to_owned().into(), "Test 👩‍🚀".to_owned(), marks);
    })]
}

/// Returns reminders that waited in a mailbox.
pub(super) fn parked(peer: &Peer) -> Vec<Sample> {
    let then = Timestamp::now() - SignedDuration::from_hours(1);
    vec![
        peer.sample(&peer.user())
            .with(|json| with_parked_at(json, then)),
    ]
}

/// A reminder for another user, whose associate the user is.
pub(super) fn meant_for_another(peer: &Peer) -> Vec<Sample> {
    let user = peer.user();
    let meant = peer.sample(&peer.stranger());
    let to = |json: &[u8]| rerouted(json, &user).expect("a reminder is an object");
    vec![Sample {
        user: user.clone(),
        ..meant.with(to)
    }]
}

/// A copy of what an associate got.
pub(super) fn copy(peer: &Peer) -> Vec<Sample> {
    let associate = peer.stranger();
    vec![
        peer.sample(&peer.user())
            .with(|json| with_rerouted_to(&with_parked_at(json, Timestamp::now()), &associate)),
    ]
}

/// Every priority.
pub(super) fn priorities(peer: &Peer) -> Vec<Sample> {
    Priority::ALL
        .map(|priority| changed(peer, |reminder| reminder.priority = priority))
        .into()
}

/// Texts of all kinds.
pub(super) fn texts(peer: &Peer) -> Vec<Sample> {
    let texts = [
        "👩‍👩‍👧‍👦 🇺🇳 e\u{301} Z͑ͫ̓ͪ",
        "\u{202e}שלום \u{200f}مرحبا",
        "费用 １２３ ｶﾞ",
        "\u{0}\u{1b}[2J\u{7f}\u{85}\u{feff}\u{fffd}\u{10ffff}",
        "line\r\n\ttab \\ \" ' ` </script> ${x} {{x}} %s",
        "\u{2028}\u{2029}",
    ];
    texts
        .map(|text| {
            changed(peer, |it| {
                (it.title, it.content) = (Some(text.to_owned()), text.to_owned())
            })
        })
        .into()
}

/// Texts of which rules have left nothing.
pub(super) fn empty(peer: &Peer) -> Vec<Sample> {
    vec![changed(peer, |reminder| {
        (reminder.title, reminder.content) = (Some(String::new()), String::new())
    })]
}

/// The longest texts.
pub(super) fn long(peer: &Peer) -> Vec<Sample> {
    vec![changed(peer, |reminder| {
        (reminder.title, reminder.content) = (Some("t".repeat(1 << 10)), "c".repeat(64 << 10))
    })]
}

/// The longest and oddest id.
pub(super) fn ids(peer: &Peer) -> Vec<Sample> {
    let fill = |id: &str| {
        format!("{id} * > . \" \\ 张三 ")
            .chars()
            .cycle()
            .take(180)
            .collect::<String>()
    };
    vec![changed(peer, |reminder| reminder.id = fill(&reminder.id))]
}

/// All of these are accepted.
pub(super) async fn taken(peer: &Peer, samples: Vec<Sample>) -> Kept {
    peer.accepts(&samples).await
}

/// Fields that a later Bellhop might add, in a reminder and around all of them.
pub(super) async fn unknown(peer: &Peer) -> Kept {
    let sample = peer
        .sample(&peer.user())
        .with(|json| with_field(json, r#""later":{"a":[1,null]},"seen":true"#));
    let reminder = String::from_utf8_lossy(&sample.json);
    let body = format!(
        r#"{{"member":"{SOURCE}","more":false,"reminders":[{reminder}],"version":{{"major":2}}}}"#
    );
    let answer: DeliveryAnswer = peer.ask_in_time(Ask::Delivery, body.into()).await?.read()?;
    if sample.is_among(&answer.refused) {
        Err(format!("it refused {}", sample.id))
    } else {
        Ok(())
    }
}
