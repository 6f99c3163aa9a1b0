//! Bellhop's client: what a business system and an app server written in Rust need of Bellhop, over their own connection to NATS.
//!
//! - [`Publisher`] is for business systems: it publishes reminders in sets, and tells when JetStream has them.
//! - [`AppServer`] is for the programs that hold users' connections: it tells Bellhop who is connected, and hands over their
//!   reminders.
//!
//! Both speak the two requests, the one bucket and the one stream of `docs/protocol.md`, as any program in any language can. They need no
//! more rights in NATS than `nats-config/accounts.conf` gives an app server or a business system.
//!
//! ```
//! use bellhop::client::{AppServer, Draft, Publisher, app_server, publisher};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let scratch = bellhop::local::Scratch::new("client")?;
//! # let server = bellhop::nats_server::NatsServer::start(scratch.path(), Default::default()).await?;
//! # let probes = bellhop::local::free_address()?;
//! # let mut config = bellhop::config::Config { partitions: 1, http: probes.to_string(), ..Default::default() };
//! # config.nats.url = server.url().to_owned();
//! # config.history.url = "none".to_owned();
//! # tokio::spawn(bellhop::service::serve(config, tokio_util::sync::CancellationToken::new()));
//! # while !bellhop::local::is_ready(probes).await.unwrap_or(false) {
//! #     tokio::time::sleep(std::time::Duration::from_millis(5)).await;
//! # }
//! # let url = server.url();
//! let nats = async_nats::connect(url).await?;
//!
//! // Alice's terminal connects to an app server.
//! let (app, mut deliveries) =
//!     AppServer::start(nats.clone(), "app-1".parse()?, app_server::Options::default()).await?;
//! app.connect("alice".parse()?).await?;
//!
//! // A business system has something to say to her.
//! let billing = Publisher::start(nats, "billing".parse()?, publisher::Options::default());
//! let reminder = Draft::new("alice".parse()?, "Invoice 981 is due on Friday");
//! let receipt = billing.publish(reminder).await?.await?;
//!
//! // It comes to where she is.
//! let delivery = deliveries.next().await.expect("it has not drained");
//! assert_eq!(delivery.reminder.id, receipt.id);
//! println!("{}", delivery.accept().content);
//!
//! // The app server stops: what it still has in its stream comes before the end.
//! app.drain();
//! while let Some(delivery) = deliveries.next().await {
//!     println!("{}", delivery.accept().content);
//! }
//! # Ok(())
//! # }
//! ```

pub mod app_server;
mod draft;
pub mod publisher;
mod reminder;

pub use app_server::{AppServer, Deliveries, Delivery};
pub use draft::Draft;
pub use publisher::{Publisher, Publishing, Receipt};
pub use reminder::Reminder;

pub use crate::reminder::{Field, Mark, MarkAction, Priority};
pub use crate::token::{InstanceName, NameError, Source, Tag, UserId};
pub use crate::wire::answer::Reason;
