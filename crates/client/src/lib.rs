//! A Rust client for Bellhop, a reminder router on NATS.
//!
//! - [`Publisher`] is for business systems: it publishes reminders, and reports when JetStream has
//!   stored them.
//! - [`AppServer`] is for programs that hold users' connections (WebSocket, Server-Sent Events, a
//!   desktop application): it registers who is connected, and hands over their reminders.
//! - [`Queries`] asks for the history, one reminder's fate and mailboxes, and erases users.
//!
//! All work over your own connection of [async-nats](https://crates.io/crates/async-nats), and need
//! no more rights in NATS than such a program has. Bellhop itself (`bellhop serve`) must run on the
//! same NATS.
//!
//! ## Publish
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/installation/mod.rs"));
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let installation = Installation::start().await?;
//! # let url = installation.server.url();
//! use bellhop_client::{Draft, Priority, Publisher, publisher};
//!
//! let nats = async_nats::connect(url).await?;
//! let billing = Publisher::start(nats, "billing".parse()?, publisher::Options::default());
//!
//! let reminder = Draft {
//!     id: Some("inv-981".to_owned()),
//!     priority: Priority::High,
//!     ..Draft::new("alice".parse()?, "Invoice 981 is due on Friday")
//! };
//! let receipt = billing.publish(reminder).await?.await?;
//! assert_eq!(receipt.id, "inv-981");
//! # Ok(())
//! # }
//! ```
//!
//! The first `await` takes the reminder into a bounded queue, the second waits until JetStream has
//! stored it. From then on Bellhop delivers it, or keeps it until the user is connected. Reminders
//! that wait at the same time go out as one set. Several sets are under way, each with other users,
//! so each user's reminders keep their order. A set that JetStream does not acknowledge is
//! published again under the same message id, so it is stored once.
//!
//! A reminder with a `deliver_at` is delivered then, and one with a `repeat` again and again.
//! [`Publisher::cancel`] takes it back for all users, and [`Publisher::cancel_for`] for one.
//!
//! ## Receive
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/installation/mod.rs"));
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let installation = Installation::start().await?;
//! # let url = installation.server.url();
//! # let nats = async_nats::connect(url).await?;
//! # let billing = bellhop_client::Publisher::start(nats, "billing".parse()?, Default::default());
//! # billing.publish(bellhop_client::Draft::new("alice".parse()?, "Invoice 981 is due on Friday")).await?.await?;
//! use bellhop_client::{AppServer, app_server};
//!
//! let nats = async_nats::connect(url).await?;
//! let options = app_server::Options::default();
//! let (app, mut deliveries) = AppServer::start(nats, "app-1".parse()?, options).await?;
//!
//! // A terminal of Alice connects.
//! app.connect("alice".parse()?).await?;
//!
//! // Her reminders arrive. Accept one when it is safe with you: Bellhop forgets it then.
//! if let Some(delivery) = deliveries.next().await {
//!     println!("for {}: {}", delivery.reminder.user, delivery.reminder.content);
//!     delivery.accept();
//! }
//!
//! // Stop: routes are deleted, and what is on its way still arrives.
//! app.drain();
//! while let Some(delivery) = deliveries.next().await {
//!     delivery.accept();
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Reminders of one source for one user arrive in the order of publishing. A delivery that you drop
//! is refused as busy and comes again. One that was accepted and comes again, since an answer was
//! lost, is accepted for you and not handed over twice. When your application falls behind, the
//! client refuses what does not fit, and Bellhop keeps it.
//!
//! ## Ask
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/installation/mod.rs"));
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let installation = Installation::start().await?;
//! # let nats = async_nats::connect(installation.server.url()).await?;
//! use bellhop_client::{Queries, queries};
//!
//! let queries = Queries::new(nats, queries::Options::default());
//! match queries.mailbox(&"alice".parse()?, None).await {
//!     Ok(mailbox) => println!("{} reminders wait for Alice", mailbox.parked),
//!     Err(queries::QueryError::Unavailable(problem)) => println!("ask again later: {problem}"),
//!     Err(error) => return Err(error.into()),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! ## Credentials
//!
//! JWTs expire and keys are rotated. [`credentials::Credentials`] makes options of a connection
//! that reads the files of credentials at each attempt to connect; async-nats itself reads them
//! once.
//!
//! ## Versions
//!
//! The client speaks the protocol of the Bellhop of the same version. It needs Rust 1.89 and a
//! Tokio runtime.

pub mod app_server;
pub mod credentials;
mod draft;
pub mod publisher;
pub mod queries;
mod reminder;

pub use app_server::{AppServer, Deliveries, Delivery};
pub use draft::Draft;
pub use publisher::{Publisher, Publishing, Receipt};
pub use queries::Queries;
pub use reminder::Reminder;

pub use bellhop_protocol::reminder::duplicate::Duplicate;
pub use bellhop_protocol::reminder::history::Step;
pub use bellhop_protocol::reminder::reject::{RejectCode, Rejection};
pub use bellhop_protocol::reminder::repeat::RawRepeat as Repeat;
pub use bellhop_protocol::reminder::{Field, Mark, MarkAction, Priority};
pub use bellhop_protocol::token::{InstanceName, NameError, Source, Tag, UserId};
pub use bellhop_protocol::wire::answer::Reason;
pub use bellhop_protocol::wire::erased::Erased;

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// README.md is the documentation above, without the lines that only the doctests need.
    #[test]
    fn readme_is_the_crate_documentation() {
        let docs = include_str!("lib.rs")
            .lines()
            .map_while(|line| line.strip_prefix("//!"));
        let (mut readme, mut is_code) = (String::from("# bellhop-client\n\n"), false);
        for line in docs.map(|line| line.strip_prefix(' ').unwrap_or(line)) {
            match line {
                "```" if is_code => readme += "```",
                "```" => readme += "```rust",
                hidden if is_code && hidden.starts_with("# ") => continue,
                code if is_code => readme += code,
                text => readme += &text.replace("[`", "`").replace("`]", "`"),
            }
            is_code ^= line == "```";
            readme.push('\n');
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
        if std::env::var_os("BELLHOP_BLESS").is_some() {
            std::fs::write(&path, &readme).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            readme,
            "`BELLHOP_BLESS=1 cargo test -p bellhop-client --lib`"
        );
    }
}
