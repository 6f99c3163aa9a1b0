//! A business system that publishes a message for each reminder, QoS 1, to the topic of the user's instance.

use std::net::SocketAddr;

use rumqttc::{AsyncClient, EventLoop, Packet, QoS};
use serde::{Deserialize, Serialize};
use tokio::try_join;

use super::super::BenchError;
use super::super::load::Load;
use super::super::publisher::{Batch, Order, Published, Report, now_us};
use super::super::task::Conversation;
use super::{failed, next_packet, session, topic};

/// Where it publishes what.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) struct Task {
    /// The broker.
    pub(super) address: SocketAddr,
    /// The reminders.
    pub(super) load: Load,
}

pub(in super::super) async fn run(task: Task, mut conversation: Conversation) -> Result<(), BenchError> {
    let (client, mut events) = session("bench-publisher", task.address);
    while let Some(order) = conversation.next::<Order>().await? {
        if let Order::Publish(batch) = order {
            let began_us = now_us();
            let all = publish(&client, &task.load, &batch);
            try_join!(all, acknowledged(&mut events, batch.count)).map_err(|why| failed("MQTT publisher", why))?;
            let published = Published { began_us, ended_us: now_us(), end: batch.first + batch.count };
            conversation.say(&Report::Done(published)).await?;
        }
    }
    Ok(())
}

async fn publish(client: &AsyncClient, load: &Load, batch: &Batch) -> Result<(), String> {
    let topics: Vec<_> = (0..load.instances).map(|instance| topic(load, instance)).collect();
    for number in batch.first..batch.first + batch.count {
        let topic = &topics[load.instance_of(load.user_of(number))];
        let body = load.set(number, 1, now_us());
        client.publish(topic, QoS::AtLeastOnce, false, body).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn acknowledged(events: &mut EventLoop, mut count: usize) -> Result<(), String> {
    while count > 0 {
        count -= usize::from(matches!(next_packet(events).await?, Packet::PubAck(_)));
    }
    Ok(())
}
