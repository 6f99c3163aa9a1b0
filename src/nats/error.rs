//! Failures of NATS, with the action and the cause.
//!
//! A [`NatsError`] says what failed and keeps its cause. [`chain`] writes both on one line; logs
//! and the command line print errors through it. Decisions go by the kind of a cause, never by its
//! text.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use async_nats::jetstream::context::{
    ConsumerInfoErrorKind, GetStreamErrorKind, PublishError, PublishErrorKind, RequestErrorKind,
};
use async_nats::jetstream::stream::{
    ConsumerErrorKind, ConsumerResetErrorKind, DeleteMessageErrorKind, LastRawMessageErrorKind,
    PurgeErrorKind,
};
use async_nats::jetstream::{self, ErrorCode};

use super::connect::LEAST_PAYLOAD;

/// Any error, as a cause.
pub type Cause = Box<dyn Error + Send + Sync>;

/// The reason why NATS did not do something.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// No connection could be made.
    #[error(
        "cannot connect to {url}: {}; {hint} Set --nats URL or NATS_URL",
        sentence(.source)
    )]
    Connect {
        /// The address, without credentials.
        url: String,
        /// The cause.
        #[source]
        source: Cause,
        /// A possible explanation.
        hint: &'static str,
    },
    /// A file that a setting names cannot be used.
    #[error("`{setting}` is {path}")]
    Unusable {
        /// The setting.
        setting: &'static str,
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// The server does not know this user, or expects another secret.
    #[error(
        "{url} rejected the connection {who}; set `nats.creds`, `nats.nkey`, `nats.user` and `nats.password`, or `nats.token` to \
         what the server knows"
    )]
    NotLetIn {
        /// The address.
        url: String,
        /// As whom the connection was asked for.
        who: String,
    },
    /// Client and server could not agree on a secure connection.
    #[error(
        "no secure connection to {url}: {}; `nats.ca` must have the certificate of the server's issuer, \
         which must have this address as a name, and a server that verifies its clients needs `nats.cert` and \
         `nats.key`{hint}",
        sentence(.source)
    )]
    Tls {
        /// The address.
        url: String,
        /// The cause.
        #[source]
        source: Cause,
        /// Another possible explanation.
        hint: &'static str,
    },
    /// The server is too old.
    #[error("{url} runs nats-server {found}; Bellhop needs {needed} or later")]
    TooOld {
        /// The address.
        url: String,
        /// Its version.
        found: String,
        /// The least version.
        needed: &'static str,
    },
    /// The server takes too small messages.
    #[error(
        "{url} has max_payload {found}; Bellhop needs {LEAST_PAYLOAD} or more to deliver up to 256 KiB at once"
    )]
    SmallPayload {
        /// The address.
        url: String,
        /// Its limit, in bytes.
        found: usize,
    },
    /// Something failed that may succeed later.
    #[error("{action}")]
    Failed {
        /// The failed action, such as `read BELLHOP_LOG`.
        action: Cow<'static, str>,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// A part of the installation is missing.
    #[error("{what} does not exist; `bellhop setup` creates it")]
    Missing {
        /// The missing part, such as `bucket bellhop_routes`.
        what: String,
    },
    /// The server does not permit this user to ask.
    #[error(
        "{what}: nats does not permit this user to publish to {subject}; docs/security.md lists what each user needs"
    )]
    NotPermitted {
        /// The request.
        what: String,
        /// The subject that the user's permissions lack.
        subject: String,
    },
    /// JetStream refused a message, so it is not stored.
    #[error("{what}: {source} ({code})")]
    Refused {
        /// The request.
        what: String,
        /// The reason, in nats-server's words.
        #[source]
        source: Cause,
        /// nats-server's code of the reason.
        code: u64,
    },
    /// JetStream can never store a message as it is: it is too large, or has too large headers.
    #[error("{what}: {source}; it is never stored as it is")]
    Unstorable {
        /// The object to store.
        what: String,
        /// The problem of the field.
        #[source]
        source: Cause,
    },
    /// There is no room for the limit of a stream.
    #[error(
        "{what}: {problem}. Its limit is {wanted} bytes, its share of `streams.storage`, which nats-server reserves for each \
         copy, and {limit}: raise that, or set `streams.storage` to less"
    )]
    NoRoom {
        /// The object to create.
        what: String,
        /// The stream's limit, in bytes.
        wanted: i64,
        /// The limit that is too small.
        limit: String,
        /// The reason, in nats-server's words.
        problem: String,
    },
    /// An existing object contradicts the configuration, and trying again does not help.
    #[error("{what}: {problem}")]
    Contrary {
        /// The object.
        what: String,
        /// The problem, and a fix.
        problem: String,
    },
    /// JetStream refused a message because its writer no longer owns what it writes to.
    #[error("{0} has a newer owner")]
    Fenced(String),
}

impl NatsError {
    /// Returns the failure of an action.
    pub fn failed(action: impl Into<Cow<'static, str>>, cause: impl Into<Cause>) -> Self {
        Self::Failed {
            action: action.into(),
            source: cause.into(),
        }
    }

    /// Reports that `what` is missing, if that is the cause.
    pub fn or_missing(self, what: String) -> Self {
        if self.is_of_missing() {
            Self::Missing { what }
        } else {
            self
        }
    }

    /// Returns whether the cause is that JetStream has no such stream or consumer, so that `bellhop
    /// setup` helps.
    pub fn is_of_missing(&self) -> bool {
        let Self::Failed { source, .. } = self else {
            return false;
        };
        causes(source.as_ref()).any(is_missing)
    }

    /// Returns whether a message may be stored although publishing it failed: JetStream had the
    /// time to store it, and its answer did not arrive.
    pub fn is_of_lost_answer(&self) -> bool {
        let Self::Failed { source, .. } = self else {
            return false;
        };
        let kind = source.downcast_ref().map(PublishError::kind);
        matches!(
            kind,
            Some(PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe)
        )
    }
}

/// Names the action that failed.
pub trait During<T> {
    /// Turns an error into the failure of `action`.
    ///
    /// # Errors
    /// When this is one.
    fn during(self, action: &'static str) -> Result<T, NatsError>;

    /// The same for an action whose name has to be put together.
    ///
    /// # Errors
    /// When this is one.
    fn during_with(self, action: impl FnOnce() -> String) -> Result<T, NatsError>;
}

impl<T, E: Into<Cause>> During<T> for Result<T, E> {
    fn during(self, action: &'static str) -> Result<T, NatsError> {
        self.map_err(|cause| NatsError::failed(action, cause))
    }

    fn during_with(self, action: impl FnOnce() -> String) -> Result<T, NatsError> {
        self.map_err(|cause| NatsError::failed(action(), cause))
    }
}

/// Returns whether JetStream's code says that the key or subject was written since.
pub(super) fn is_code_of_outdated(code: u64) -> bool {
    // async-nats 0.51 has no kind for the second code. A server of a cluster may answer either.
    let codes = [
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE,
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT,
    ];
    codes.iter().any(|known| known.0 == code)
}

/// Returns whether JetStream refused a write because the key or subject was written since.
pub fn is_outdated(error: &(dyn Error + 'static)) -> bool {
    let is_one = |error| {
        kind(error) == Some(PublishErrorKind::WrongLastSequence)
            || refusal(error).is_some_and(|refusal| is_code_of_outdated(refusal.error_code().0))
    };
    causes(error).any(is_one)
}

/// Returns an error with its causes for people: on one line, separated by `: `.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl fmt::Display + use<'a> {
    Chain(error)
}

struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut written = String::new();
        for cause in causes(self.0) {
            let text = cause.to_string();
            // Errors of async-nats 0.51 write their causes themselves, and so do some of ours,
            // before what to do.
            if written.is_empty() {
                f.write_str(&text)?;
            } else if !written.contains(unended(&text)) {
                write!(f, ": {text}")?;
            } else {
                continue;
            }
            written = text;
        }
        match causes(self.0).any(is_of_no_jetstream) {
            true => f.write_str(NO_JETSTREAM),
            false => Ok(()),
        }
    }
}

/// Returns an error as a part of a sentence that goes on.
fn sentence(error: &Cause) -> String {
    unended(&error.to_string()).to_owned()
}

/// Returns a text without what ends it: something follows.
fn unended(text: &str) -> &str {
    text.trim_end_matches(['.', ':'])
}

/// Advice for an operator when no JetStream answers.
const NO_JETSTREAM: &str = "; is JetStream enabled for this account? Where it is at the hub of a leaf node set \
                            `nats.domain`, where the account imports it set `nats.api_prefix`";

/// Returns whether an error says that no JetStream is there for this account.
fn is_of_no_jetstream(error: &(dyn Error + 'static)) -> bool {
    let of_account = [
        ErrorCode::JETSTREAM_NOT_ENABLED,
        ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT,
    ];
    kind(error) == Some(RequestErrorKind::NoResponders)
        || refusal(error).is_some_and(|refusal| of_account.contains(&refusal.error_code()))
}

/// Iterates over an error and its causes.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| <dyn Error>::source(*error))
}

/// Returns whether an error says that a stream or a consumer does not exist.
fn is_missing(error: &(dyn Error + 'static)) -> bool {
    let of_missing = [ErrorCode::STREAM_NOT_FOUND, ErrorCode::CONSUMER_NOT_FOUND];
    let kind_says_so = kind(error) == Some(PublishErrorKind::StreamNotFound)
        || matches!(
            kind(error),
            Some(ConsumerInfoErrorKind::StreamNotFound | ConsumerInfoErrorKind::NotFound)
        )
        || kind(error) == Some(ConsumerResetErrorKind::NotFound);
    kind_says_so || refusal(error).is_some_and(|refusal| of_missing.contains(&refusal.error_code()))
}

/// Returns the kind of an error of async-nats, if its kinds are these.
fn kind<K: Clone + fmt::Debug + fmt::Display + PartialEq + 'static>(
    error: &(dyn Error + 'static),
) -> Option<K> {
    error
        .downcast_ref::<async_nats::error::Error<K>>()
        .map(async_nats::error::Error::kind)
}

/// Returns JetStream's refusal, if an error is one. Most of async-nats's errors hold it in their
/// kind and not as their cause.
fn refusal(error: &(dyn Error + 'static)) -> Option<jetstream::Error> {
    macro_rules! in_kind {
        ($($kinds:ident),+) => {
            $(if let Some($kinds::JetStream(refusal)) = kind(error) {
                return Some(refusal);
            })+
        };
    }
    in_kind!(
        ConsumerErrorKind,
        ConsumerInfoErrorKind,
        ConsumerResetErrorKind,
        DeleteMessageErrorKind,
        GetStreamErrorKind,
        LastRawMessageErrorKind,
        PurgeErrorKind
    );
    error.downcast_ref::<jetstream::Error>().cloned()
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream::context::{GetStreamError, KeyValueError, KeyValueErrorKind};
    use async_nats::jetstream::kv::{UpdateError, UpdateErrorKind};
    use async_nats::jetstream::stream::ConsumerError;
    use async_nats::{ConnectError, ConnectErrorKind};

    use super::*;

    fn refused(code: ErrorCode) -> jetstream::Error {
        serde_json::from_value(
            serde_json::json!({ "code": 400, "err_code": code.0, "description": "refused" }),
        )
        .unwrap()
    }

    fn failed(cause: impl Into<Cause>) -> NatsError {
        NatsError::failed("read BELLHOP_LOG", cause)
    }

    #[test]
    fn chain_writes_each_cause_once() {
        assert_eq!(
            chain(&failed("it ended")).to_string(),
            "read BELLHOP_LOG: it ended"
        );
        let timed_out = PublishError::with_source(
            PublishErrorKind::TimedOut,
            std::io::Error::other("no route"),
        );
        let text = chain(&NatsError::failed(
            "take partition 7 over",
            failed(timed_out),
        ))
        .to_string();
        let timed_out = "timed out: didn't receive ack in time: no route";
        assert_eq!(
            text,
            format!("take partition 7 over: read BELLHOP_LOG: {timed_out}")
        );
    }

    #[test]
    fn causes_inside_a_text_are_not_repeated() {
        let source = ConnectError::with_source(
            ConnectErrorKind::Io,
            std::io::Error::other("connection refused."),
        );
        let error = NatsError::Connect {
            url: "nats://here".to_owned(),
            source: source.into(),
            hint: "is it there?",
        };
        assert_eq!(
            chain(&error).to_string(),
            "cannot connect to nats://here: IO error: connection refused; is it there? Set --nats URL or NATS_URL"
        );
        assert!(causes(&error).any(|cause| cause.is::<ConnectError>()));
    }

    #[test]
    fn missing_streams_and_consumers_are_known_by_kind() {
        let missing = || refused(ErrorCode::STREAM_NOT_FOUND);
        let get = || GetStreamError::new(GetStreamErrorKind::JetStream(missing()));
        assert!(failed(missing()).is_of_missing());
        assert!(failed(get()).is_of_missing());
        assert!(
            failed(KeyValueError::with_source(
                KeyValueErrorKind::GetBucket,
                get()
            ))
            .is_of_missing()
        );
        assert!(
            failed(ConsumerError::new(ConsumerErrorKind::JetStream(refused(
                ErrorCode::CONSUMER_NOT_FOUND
            ))))
            .is_of_missing()
        );
        assert!(failed(PublishError::new(PublishErrorKind::StreamNotFound)).is_of_missing());
    }

    #[test]
    fn texts_decide_nothing() {
        assert!(!failed("stream not found").is_of_missing());
        assert!(!failed("timed out").is_of_lost_answer());
        assert!(!is_outdated(&failed("wrong last sequence: 7")));
    }

    #[test]
    fn lost_answers_are_known_by_kind() {
        assert!(failed(PublishError::new(PublishErrorKind::TimedOut)).is_of_lost_answer());
        assert!(!failed(PublishError::new(PublishErrorKind::StreamNotFound)).is_of_lost_answer());
    }

    #[test]
    fn both_codes_of_an_outdated_write_are_known() {
        let one = PublishError::with_source(
            PublishErrorKind::WrongLastSequence,
            refused(ErrorCode::STREAM_WRONG_LAST_SEQUENCE),
        );
        assert!(is_outdated(&one));
        let other = refused(ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT);
        let other = PublishError::with_source(PublishErrorKind::Other, other);
        assert!(is_outdated(&UpdateError::with_source(
            UpdateErrorKind::Other,
            other
        )));
        assert!(!is_outdated(&PublishError::with_source(
            PublishErrorKind::Other,
            refused(ErrorCode::STREAM_NOT_FOUND)
        )));
    }
}
