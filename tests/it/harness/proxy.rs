//! A proxy between a member and its nats-server that cuts connections: a message that ends the client's connection, as a
//! test can have one without knowing any.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::World;

#[derive(Default)]
struct State {
    /// A connection ends when nats-server sends these bytes on it.
    markers: Vec<Vec<u8>>,
    /// Ends all connections of now.
    connections: CancellationToken,
    /// How many a marker has ended.
    cuts: usize,
}

/// Listens for as long as it is not dropped.
pub(crate) struct Proxy {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts one before this world's nats-server.
    pub(crate) async fn before(world: &World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let server = world.url.rsplit('/').next().unwrap().to_owned();
        let state = Arc::<Mutex<State>>::default();
        let task = tokio::spawn(accept(listener, server, state.clone()));
        Self { url, state, task }
    }

    /// Cuts each connection on which nats-server sends a message with these bytes, before they arrive.
    pub(crate) fn cut_at(&self, marker: &str) {
        self.state.lock().unwrap().markers.push(marker.as_bytes().to_vec());
    }

    /// How many connections a marker has ended.
    pub(crate) fn cuts(&self) -> usize {
        self.state.lock().unwrap().cuts
    }

    /// Cuts all connections of now, once.
    pub(crate) fn cut_all(&self) {
        std::mem::take(&mut self.state.lock().unwrap().connections).cancel();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut_all();
    }
}

async fn accept(listener: TcpListener, server: String, state: Arc<Mutex<State>>) {
    while let Ok((client, _)) = listener.accept().await {
        let (server, state) = (server.clone(), state.clone());
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(server).await else { return };
            let cut = state.lock().unwrap().connections.clone();
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            // When one of them ends, the connections of both are dropped.
            tokio::select! {
                () = cut.cancelled() => {}
                () = pass_on(from_client, to_server, |_| false) => {}
                () = pass_on(from_server, to_client, |bytes| is_cut(&state, bytes)) => {}
            }
        });
    }
}

fn is_cut(state: &Mutex<State>, bytes: &[u8]) -> bool {
    let mut state = state.lock().unwrap();
    let has = |marker: &Vec<u8>| bytes.windows(marker.len()).any(|window| window == marker.as_slice());
    let is_cut = state.markers.iter().any(has);
    state.cuts += usize::from(is_cut);
    is_cut
}

/// Bytes that are looked at once more with those behind them, since a marker may come in two parts.
const OVERLAP: usize = 64;

async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, is_cut: impl Fn(&[u8]) -> bool) {
    let (mut seen, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        seen.extend_from_slice(&buffer[..count]);
        if is_cut(&seen) || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        seen.drain(..seen.len().saturating_sub(OVERLAP));
    }
}
