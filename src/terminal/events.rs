//! Server-Sent Events: what a window's connection carries.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use serde_json::json;
use tokio::sync::mpsc;

/// A comment, which browsers pass over.
pub(super) const PING: &[u8] = b":\n\n";
/// How long a browser waits, in milliseconds, until it asks again after its connection broke.
const RETRY_MS: u32 = 500;

/// What a window is told first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hello<'a> {
    /// Whose window it is.
    pub user: &'a str,
    /// Which instance holds the connection.
    pub instance: &'a str,
}

impl Hello<'_> {
    /// The event. `resumed`: what follows it is all that the window lacks.
    pub(super) fn event(&self, resumed: bool) -> Vec<u8> {
        let hello = json!({ "user": self.user, "instance": self.instance, "resumed": resumed });
        format!("retry: {RETRY_MS}\nevent: hello\ndata: {hello}\n\n").into_bytes()
    }
}

/// The event that brings a reminder's JSON.
pub(super) fn reminder(number: u64, json: &str) -> Bytes {
    let mut event = format!("id: {number}\nevent: reminder\n");
    // A publisher's own `data` is kept byte for byte, so the JSON may have lines; and they end where the stream's do.
    for line in json.split(['\n', '\r']) {
        event.push_str("data: ");
        event.push_str(line);
        event.push('\n');
    }
    event.push('\n');
    event.into()
}

/// The body of a window's connection. It ends when the desk closes the window.
#[derive(Debug)]
pub(super) struct Events(pub mpsc::Receiver<Bytes>);

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_json_are_lines_of_the_event() {
        let event = reminder(7, "{\"data\":{\n\"a\":\r\n1}}");
        assert_eq!(event, "id: 7\nevent: reminder\ndata: {\"data\":{\ndata: \"a\":\ndata: \ndata: 1}}\n\n");
    }
}
