//! Servers and app servers for Bellhop's tests, demo and benchmarks. It knows nothing of Bellhop
//! but the contract.
//!
//! | module | |
//! | --- | --- |
//! | [`nats_server`] | finds a real nats-server, with pip if there is no other, and runs it |
//! | [`app_server`] | app servers that answer as a test tells them, in the words of the contract alone |
//! | [`local`] | a free port, and the service's probe |
//! | [`mod@signal`] | signals to processes |
//! | `postgres` | a PostgreSQL, with the feature of that name |

#![allow(clippy::disallowed_methods)] // It runs things, so it reads the clock.

pub mod app_server;
pub mod local;
pub mod nats_server;
#[cfg(feature = "postgres")]
#[allow(clippy::unwrap_used)] // A test that cannot go on has failed.
pub mod postgres;
pub mod signal;

/// Returns a name as one token of a subject, by the words of the contract.
pub fn escape(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    text.bytes()
        .map(|byte| {
            if is_plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("={byte:02X}")
            }
        })
        .collect()
}
