//! Workers that publish to an MQTT broker, and subscribe there: QoS 1, in sessions that the broker
//! keeps.

use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::{
    AsyncClient, ClientError, ConnectionError, Event, EventLoop, MqttOptions, Packet, QoS,
};
use tokio::task::JoinSet;

use super::app_servers::Verifier;
use super::error::{BenchError, During};
use super::load::Load;
use super::mosquitto::{TOPICS, Task};
use super::publisher::{Batch, Order, Published, Report, now_us};
use super::worker::Conversation;

/// Most messages without acknowledgement: as many as on the way to JetStream.
const WINDOW: u16 = 4_000;

const ACTION: &str = "publish over MQTT";

/// Runs a publisher that sends a message for each reminder to the topic of its user's instance.
pub(super) async fn publish(mut conversation: Conversation) -> Result<(), BenchError> {
    let task: Task = conversation.task().await?;
    let (client, mut events) = session("bench-publisher", task.address);
    while let Some(order) = conversation.next::<Order>().await? {
        if let Order::Publish(batch) = order {
            let began_us = now_us();
            let all = async { send(&client, &task.load, &batch).await.during(ACTION) };
            let acknowledged =
                async { acknowledged(&mut events, batch.count).await.during(ACTION) };
            tokio::try_join!(all, acknowledged)?;
            let published = Published {
                began_us,
                ended_us: now_us(),
                end: batch.first + batch.count,
            };
            conversation.report(&Report::Done(published)).await?;
        }
    }
    Ok(())
}

async fn send(client: &AsyncClient, load: &Load, batch: &Batch) -> Result<(), ClientError> {
    let topics: Vec<_> = (0..load.instances)
        .map(|instance| topic(load, instance))
        .collect();
    for number in batch.first..batch.first + batch.count {
        let topic = &topics[load.instance_of(load.user_of(number))];
        client
            .publish(
                topic,
                QoS::AtLeastOnce,
                false,
                load.set(number, 1, now_us()),
            )
            .await?;
    }
    Ok(())
}

async fn acknowledged(events: &mut EventLoop, mut count: usize) -> Result<(), ConnectionError> {
    while count > 0 {
        count -= usize::from(matches!(next_packet(events).await?, Packet::PubAck(_)));
    }
    Ok(())
}

/// Runs app servers that subscribe to one topic each.
pub(super) async fn subscribe(mut conversation: Conversation) -> Result<(), BenchError> {
    let task: Task = conversation.task().await?;
    let verifier = Verifier::new(task.load);
    let mut instances = JoinSet::new();
    for number in 0..task.load.instances {
        let name = task.load.instance_name(number);
        let (client, mut events) = session(&name, task.address);
        let subscribed = client
            .subscribe(topic(&task.load, number), QoS::AtLeastOnce)
            .await;
        subscribed.during(format!("subscribe {name}"))?;
        let packet = async |events: &mut EventLoop| {
            let packet = next_packet(events).await;
            packet.during(format!("subscribe {name}"))
        };
        while !matches!(packet(&mut events).await?, Packet::SubAck(_)) {}
        let verifier = verifier.clone();
        instances.spawn(async move {
            let _client = client; // The session ends with it.
            // If the connection breaks, the verification shows what is missing.
            while let Ok(packet) = next_packet(&mut events).await {
                if let Packet::Publish(message) = packet {
                    verifier.take(number, &message.payload);
                }
            }
        });
    }
    verifier.run(conversation, async |_, _| Ok(())).await
}

fn topic(load: &Load, instance: usize) -> String {
    format!("{TOPICS}/{}", load.instance_name(instance))
}

/// Opens a session that the broker keeps. Nothing happens unless the event loop is polled.
fn session(name: &str, address: SocketAddr) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(name, address.ip().to_string(), address.port());
    options.set_clean_session(false).set_inflight(WINDOW);
    // Between measurements nothing polls, so keep-alive would time out.
    options.set_keep_alive(Duration::ZERO);
    AsyncClient::new(options, WINDOW.into())
}

/// Waits for the next packet from the broker.
async fn next_packet(events: &mut EventLoop) -> Result<Packet, ConnectionError> {
    loop {
        if let Event::Incoming(packet) = events.poll().await? {
            return Ok(packet);
        }
    }
}
