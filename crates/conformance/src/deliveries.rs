//! Rules about deliveries: what the app server takes, and how it refuses the rest.

use bellhop_protocol::reminder::{MAX_DELIVERY_BYTES, MAX_REMINDER_BYTES};
use bellhop_protocol::token::Source;
use bellhop_protocol::wire::answer::DeliveryAnswer;

use super::peer::{Ask, Kept, Peer, body};
use super::sample::{Sample, filled, padded};

/// Reminders for connected users in the largest request; the others are for strangers, so that no
/// user sees hundreds.
const SHOWN: usize = 4;

/// An answer comes, and soon.
pub(super) async fn in_time(peer: &Peer) -> Kept {
    peer.ask_in_time(Ask::Delivery, body(&[peer.sample(&peer.user())]))
        .await
        .map(drop)
}

/// It has the contract's form, whether it accepts or refuses.
pub(super) async fn form(peer: &Peer) -> Kept {
    for user in [peer.user(), peer.stranger()] {
        peer.ask(Ask::Delivery, body(&[peer.sample(&user)]))
            .await?
            .read::<DeliveryAnswer>()?;
    }
    Ok(())
}

/// Checks that reminders for connected users are accepted.
pub(super) async fn accepted(peer: &Peer) -> Kept {
    let samples: Vec<_> = peer.users.iter().map(|user| peer.sample(user)).collect();
    peer.accepts(&samples).await
}

/// Checks that reminders for strangers are refused.
pub(super) async fn stranger(peer: &Peer) -> Kept {
    let (own, other) = (peer.sample(&peer.user()), peer.sample(&peer.stranger()));
    let refused = peer.deliver(&[own, other.clone()]).await?;
    if other.is_among(&refused) {
        Ok(())
    } else {
        Err(format!(
            "it did not refuse {}, which is for {}",
            other.id, other.user
        ))
    }
}

/// Reminders of one id: of two sources, and for three users, of whom one is connected.
fn namesakes(peer: &Peer) -> (Sample, [Sample; 2]) {
    let own = peer.reminder(&peer.user());
    let (mut of_other_source, mut same) = (
        peer.reminder(&peer.stranger()),
        peer.reminder(&peer.stranger()),
    );
    of_other_source.source = format!("{}-2", own.source)
        .parse::<Source>()
        .expect("it is short");
    (of_other_source.id, same.id) = (own.id.clone(), own.id.clone());
    (
        Sample::of(&own),
        [Sample::of(&of_other_source), Sample::of(&same)],
    )
}

/// A stranger's reminder in a request does not take the others along, not even those with its id.
pub(super) async fn others(peer: &Peer) -> Kept {
    let (own, [one, two]) = namesakes(peer);
    let refused = peer.deliver(&[one, own.clone(), two]).await?;
    if own.is_among(&refused) {
        Err(format!(
            "with two for strangers it refused {} for {}",
            own.id, own.user
        ))
    } else {
        Ok(())
    }
}

/// Checks that refused reminders are named by all of id, source and user.
pub(super) async fn exact(peer: &Peer) -> Kept {
    let (own, [one, two]) = namesakes(peer);
    let samples = [own, one, two];
    for refused in peer.deliver_once(&samples).await? {
        if !samples.iter().any(|sample| sample.is(&refused)) {
            let refused = serde_json::to_string(&refused).expect("it has only string keys");
            return Err(format!(
                "it refused {refused}, which was not in the request"
            ));
        }
    }
    Ok(())
}

/// Checks that a redelivery is accepted again. Whether it is shown once only is not seen from
/// outside.
pub(super) async fn repeat(peer: &Peer) -> Kept {
    let once = [peer.sample(&peer.user())];
    peer.accepts(&once).await?;
    peer.accepts(&once)
        .await
        .map_err(|problem| format!("the second time {problem}"))
}

/// As many reminders as go into a request.
pub(super) async fn full(peer: &Peer) -> Kept {
    let shown: Vec<Sample> = (0..SHOWN).map(|_| peer.sample(&peer.user())).collect();
    let samples = filled(
        shown.clone(),
        || peer.reminder(&peer.stranger()),
        MAX_DELIVERY_BYTES,
    );
    let refused = peer.deliver(&samples).await?;
    match shown.iter().find(|sample| sample.is_among(&refused)) {
        None => Ok(()),
        Some(sample) => Err(format!(
            "of {} it refused {}, which is for {}",
            samples.len(),
            sample.id,
            sample.user
        )),
    }
}

/// The largest reminder that there can be.
pub(super) async fn largest(peer: &Peer) -> Kept {
    peer.accepts(&[padded(peer.reminder(&peer.user()), MAX_REMINDER_BYTES)])
        .await
}
