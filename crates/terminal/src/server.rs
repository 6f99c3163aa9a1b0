//! The connections of browsers, bounded in number and in time. `axum::serve` bounds neither: a head
//! that never ends, or an answer that is never read, would hold its connection for as long as the
//! browser likes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

/// The most connections at a time. Others wait until one of these ends.
const MAX_CONNECTIONS: usize = 20_000;
/// The time for a request's head, and the time that a connection may be idle between two requests.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// Maximum time for which a browser may leave sent data unread.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// The pause after a connection could not be accepted, most likely since all file descriptors are
/// in use.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections and serves each in a task of `connections`.
pub(super) async fn serve(
    listener: TcpListener,
    pages: Router,
    connections: &mut JoinSet<()>,
) -> Infallible {
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, peer)) => drop(connections.spawn(serve_connection(stream, peer, pages.clone()))),
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_connection(stream: TcpStream, peer: SocketAddr, pages: Router) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        pages.clone().oneshot(request)
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(READ_WITHIN));
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN);
    if let Err(error) = server
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
        .await
    {
        tracing::debug!(%error, "http connection");
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use bytes::Bytes;
    use futures_util::stream;
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_browser_that_does_not_read_is_dropped() {
        tokio::time::pause();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut browser = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let endless = || async {
            Body::from_stream(stream::repeat(Ok::<_, Infallible>(Bytes::from_static(
                &[0; 1 << 16],
            ))))
        };
        let (stream, peer) = listener.accept().await.unwrap();
        browser
            .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        serve_connection(stream, peer, Router::new().route("/", get(endless))).await;
    }
}
