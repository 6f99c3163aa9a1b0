//! App servers that are subscribed to a topic each, QoS 1, in sessions that the broker keeps.

use std::net::SocketAddr;

use rumqttc::{Packet, QoS};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::super::BenchError;
use super::super::load::Load;
use super::super::task::Conversation;
use super::super::verifier::Verifier;
use super::{failed, next_packet, session, topic};

/// Which app servers.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) struct Task {
    /// The broker.
    pub(super) address: SocketAddr,
    /// Whose users are connected where.
    pub(super) load: Load,
}

pub(in super::super) async fn run(task: Task, conversation: Conversation) -> Result<(), BenchError> {
    let verifier = Verifier::new(task.load);
    let mut instances = JoinSet::new();
    for number in 0..task.load.instances {
        let name = task.load.instance_name(number);
        let (client, mut events) = session(&name, task.address);
        client.subscribe(topic(&task.load, number), QoS::AtLeastOnce).await.map_err(|error| failed(&name, error))?;
        while !matches!(next_packet(&mut events).await.map_err(|error| failed(&name, error))?, Packet::SubAck(_)) {}
        let verifier = verifier.clone();
        instances.spawn(async move {
            let _client = client; // The session ends with it.
            while let Ok(packet) = next_packet(&mut events).await {
                if let Packet::Publish(message) = packet {
                    verifier.take(number, &message.payload);
                }
            } // What does not arrive any more is missing, and told.
        });
    }
    verifier.run(conversation, async |_, _| Ok(())).await
}
