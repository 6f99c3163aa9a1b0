//! People who use the web terminal, and a business system of their own: it has something for those who are
//! there, at a pace at which people read. None of it is in the account.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use bellhop_client::publisher::{self, Publisher};
use bellhop_client::{Draft, Priority, UserId};
use bellhop_protocol::wire::associates::Associates;
use bellhop_terminal::{Options, SigningKey, Terminal};
use tokio::process::Command;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::catalogue::{self, VISITORS, VISITS};
use crate::chance::between;
use crate::error::{DemoError, During};
use crate::stage::{DELIVERY_TIMEOUT, Stage};

/// The business system.
const SOURCE: &str = "front-desk";
/// Seconds between two of its reminders.
const PAUSE: std::ops::Range<f64> = 1.0..4.0;
/// One in this many is for a user whose associate the visitor is.
const FOR_ANOTHER: usize = 3;

/// Opens the terminal.
pub(crate) async fn open(stage: &Stage, listen: SocketAddr) -> Result<Terminal, DemoError> {
    let options = Options {
        listen,
        instance: "web".parse().expect("it is a name"),
        prefix: stage.names.prefix().to_owned(),
        answer_within: DELIVERY_TIMEOUT / 2,
        names: VISITORS.map(str::to_owned).to_vec(),
        hosts: Vec::new(),
        proxy: None,
        key: SigningKey::random().map_err(|error| DemoError::Io("no key for cookies", error))?,
    };
    let terminal = Terminal::start(stage.client.clone(), options).await?;
    let bucket = stage.bucket(stage.names.associates_bucket()).await?;
    for name in VISITORS {
        let associates = vec![stand_in(name).parse().expect("it is a name")];
        let value = serde_json::to_vec(&Associates { associates }).expect("names are text");
        let put = bucket.put(name, value.into()).await;
        put.during("put the associate of a visitor")?;
    }
    Ok(terminal)
}

/// Each of them has the next one.
fn stand_in(visitor: &str) -> &'static str {
    let place = VISITORS
        .iter()
        .position(|name| *name == visitor)
        .unwrap_or_default();
    VISITORS[(place + 1) % VISITORS.len()]
}

/// Opens the page in a browser, if there is a screen for it.
pub(crate) fn show(url: &str) {
    let has_screen = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some());
    if has_screen {
        let mut command = Command::new("xdg-open");
        // Without that program, the address has been printed all the same.
        let _ = command
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
    }
}

/// Publishes something now and then for the users who are `here`, until `stop`.
pub(crate) async fn entertain(
    nats: async_nats::Client,
    mut here: watch::Receiver<Vec<UserId>>,
    stop: CancellationToken,
) -> Result<(), DemoError> {
    let publisher = Publisher::start(
        nats,
        SOURCE.parse().expect("it is a name"),
        publisher::Options::default(),
    );
    let mut chance = fastrand::Rng::new();
    let mut pause = Duration::ZERO;
    for number in 1_usize.. {
        let next = async {
            tokio::time::sleep(pause).await;
            let here = here.wait_for(|here| !here.is_empty()).await.ok()?;
            Some(here[chance.usize(..here.len())].clone())
        };
        let visitor = tokio::select! {
            visitor = next => visitor,
            () = stop.cancelled() => None,
        };
        let Some(visitor) = visitor else {
            return Ok(());
        };
        let user = if number % FOR_ANOTHER == 0 {
            stands_in_for(visitor)
        } else {
            visitor
        };
        let published = publisher.publish(draft(user, &mut chance)).await;
        published.during(SOURCE)?;
        pause = between(&mut chance, PAUSE);
    }
    Ok(())
}

/// Returns the user whose associate this visitor is; none for other names.
fn stands_in_for(visitor: UserId) -> UserId {
    let other = VISITORS
        .iter()
        .find(|name| stand_in(name) == visitor.as_str());
    other.map_or(visitor, |name| name.parse().expect("it is a name"))
}

fn draft(user: UserId, chance: &mut fastrand::Rng) -> Draft {
    let kind = &VISITS[chance.usize(..VISITS.len())];
    Draft {
        title: Some(kind.title.to_owned()),
        tags: vec![kind.tag.parse().expect("it is a name")],
        priority: Priority::named(kind.priority).unwrap_or_default(),
        ..Draft::new(user, catalogue::fill(kind.content, chance))
    }
}
