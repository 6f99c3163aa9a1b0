//! Reads single messages of a stream as JSON. Nothing that their publishers wrote can disturb the
//! client then.
//!
//! nats-server passes on messages whose headers or subject are not well formed, and the client
//! library can end its connection over one (`docs/security.md`). So this is how Bellhop looks at a
//! message that did not arrive.

use std::str::FromStr;

use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::{During, Nats, NatsError};
use crate::wire::header_block;

/// A message as its stream holds it.
#[derive(Debug)]
pub struct RawMessage {
    /// Its sequence.
    pub sequence: u64,
    /// Its subject. Bytes that are not text are replaced.
    pub subject: String,
    /// Its block of headers, as published; empty if it has none.
    pub headers: Vec<u8>,
    /// Its body.
    pub payload: Bytes,
    /// Time at which JetStream stored it.
    pub stored_at: Timestamp,
}

/// Reads the first message at or behind a sequence whose subject fits. Returns none if there is
/// none so far.
///
/// # Errors
/// When JetStream does not answer, or not as expected.
pub async fn next(
    nats: &Nats,
    stream: &str,
    subject: &str,
    from: u64,
) -> Result<Option<RawMessage>, NatsError> {
    #[derive(Deserialize)]
    struct Answer {
        message: Stored,
    }
    #[derive(Deserialize)]
    struct Stored {
        subject: String,
        seq: u64,
        #[serde(default)]
        hdrs: String,
        #[serde(default)]
        data: String,
        time: Timestamp,
    }
    let action = || format!("read a message of {stream}");
    let request = json!({ "seq": from.max(1), "next_by_subj": subject });
    let subject = format!("STREAM.MSG.GET.{stream}");
    let asking = nats.jetstream.request(subject.clone(), &request);
    let answer = nats
        .if_permitted(&subject, || format!("read a message of {stream}"), asking)
        .await?;
    match answer.during_with(action)? {
        Response::Ok(Answer {
            message:
                Stored {
                    subject,
                    seq,
                    hdrs,
                    data,
                    time,
                },
        }) => {
            let headers = STANDARD.decode(hdrs).during_with(action)?;
            let payload = STANDARD.decode(data).during_with(action)?.into();
            Ok(Some(RawMessage {
                sequence: seq,
                subject,
                headers,
                payload,
                stored_at: time,
            }))
        }
        Response::Err { error } if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => Ok(None),
        Response::Err { error } => Err(NatsError::failed(action(), error)),
    }
}

/// Returns the sequence of the last message of a subject, by the word of the stream's leader; none
/// if it has none.
///
/// # Errors
/// When JetStream does not answer, or not as expected.
pub async fn last(nats: &Nats, stream: &str, subject: &str) -> Result<Option<u64>, NatsError> {
    #[derive(Deserialize)]
    struct Answer {
        message: Stored,
    }
    #[derive(Deserialize)]
    struct Stored {
        seq: u64,
    }
    let action = || format!("look at the last message of {subject}");
    let request = json!({ "last_by_subj": subject });
    let answer = nats
        .jetstream
        .request(format!("STREAM.MSG.GET.{stream}"), &request)
        .await;
    match answer.during_with(action)? {
        Response::Ok(Answer {
            message: Stored { seq },
        }) => Ok(Some(seq)),
        Response::Err { error } if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => Ok(None),
        Response::Err { error } => Err(NatsError::failed(action(), error)),
    }
}

impl RawMessage {
    /// Returns its headers if the client library can read it, else what is wrong with it.
    ///
    /// # Errors
    /// Names the part that cannot be read.
    pub fn read_headers(&self) -> Result<HeaderMap, &'static str> {
        if !self.subject.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("its subject has a character that is not one of printable ASCII");
        }
        parse(&self.headers).ok_or("its headers are not well formed")
    }
}

/// Returns a block's headers, if the library's own rules for names and values take them, too.
fn parse(block: &[u8]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in header_block::parse(block)? {
        headers.append(
            HeaderName::from_str(name).ok()?,
            HeaderValue::from_str(value).ok()?,
        );
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(subject: &str, headers: &str) -> RawMessage {
        let (headers, payload) = (headers.as_bytes().to_vec(), Bytes::new());
        RawMessage {
            sequence: 1,
            subject: subject.to_owned(),
            headers,
            payload,
            stored_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn well_formed_headers_are_read() {
        let block = "NATS/1.0\r\nce-id: 981\r\nX-Odd_1:  été: \"a\"=b \r\nX-Long: one\r\n  two\r\nX-None:\r\n\r\n";
        let read = message("bellhop.sets.billing", block)
            .read_headers()
            .unwrap();
        let text = |name: &str| read.get(name).unwrap().as_str().to_owned();
        assert_eq!(
            [text("ce-id"), text("X-Odd_1"), text("X-None")],
            ["981", "été: \"a\"=b", ""]
        );
        assert!(
            message("bellhop.sets.=E5=BC=A0", "")
                .read_headers()
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_subject_beyond_ascii_is_not_read() {
        assert!(message("bellhop.sets.été", "").read_headers().is_err());
    }

    proptest! {
        /// Whatever a publisher sends, and what looks like headers.
        #[test]
        fn no_block_is_read_otherwise_than_written(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                "NATS/1\\.0\r\n([!-9;-~]{0,5}[:; ]{0,2}[ -~\t\u{e9}\r\n]{0,8}\r\n){0,4}\r\n".prop_map(String::into_bytes),
            ],
            subject in "\\PC{0,20}",
        ) {
            let message = RawMessage {
                sequence: 1, subject, headers: bytes, payload: Bytes::new(), stored_at: Timestamp::UNIX_EPOCH,
            };
            if let Ok(headers) = message.read_headers() {
                prop_assert!(message.subject.is_ascii());
                let mut block = "NATS/1.0\r\n".to_owned();
                for (name, values) in headers.iter() {
                    for value in values {
                        block += &format!("{}: {}\r\n", AsRef::<str>::as_ref(name), value.as_str());
                    }
                }
                prop_assert_eq!(parse(block.as_bytes()), Some(headers));
            }
        }
    }
}
