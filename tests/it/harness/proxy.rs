//! A proxy between a member and its nats-server that cuts connections: a message that ends the
//! client's connection, as a test can have one without knowing any.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::World;

/// Clients' bytes that are held back.
#[derive(Clone)]
pub(crate) struct Hold {
    marker: Vec<u8>,
    is_reached: CancellationToken,
    is_over: CancellationToken,
}

impl Hold {
    /// Waits until a client has sent the marker.
    pub(crate) async fn reached(&self) {
        self.is_reached.cancelled().await;
    }

    /// Passes the bytes on.
    pub(crate) fn release(self) {
        self.is_over.cancel();
    }
}

#[derive(Default)]
struct State {
    holds: Vec<Hold>,
    /// A connection ends when nats-server sends these bytes on it.
    markers: Vec<Vec<u8>>,
    /// Ends all connections of now.
    connections: CancellationToken,
    /// Number of connections that a marker has ended.
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

    /// Cuts each connection on which nats-server sends a message with these bytes, before they
    /// arrive.
    pub(crate) fn cut_at(&self, marker: &str) {
        self.state
            .lock()
            .unwrap()
            .markers
            .push(marker.as_bytes().to_vec());
    }

    /// Holds back what a client sends from these bytes on, until that is released.
    pub(crate) fn hold_at(&self, marker: &str) -> Hold {
        let (is_reached, is_over) = Default::default();
        let hold = Hold {
            marker: marker.as_bytes().to_vec(),
            is_reached,
            is_over,
        };
        self.state.lock().unwrap().holds.push(hold.clone());
        hold
    }

    /// Returns the number of connections that a marker has ended.
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
            let Ok(server) = TcpStream::connect(server).await else {
                return;
            };
            let cut = state.lock().unwrap().connections.clone();
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            // When one of them ends, the connections of both are dropped.
            tokio::select! {
                () = cut.cancelled() => {}
                () = pass_on(from_client, to_server, &state, Side::Client) => {}
                () = pass_on(from_server, to_client, &state, Side::Server) => {}
            }
        });
    }
}

fn is_cut(state: &Mutex<State>, bytes: &[u8]) -> bool {
    let mut state = state.lock().unwrap();
    let is_cut = state.markers.iter().any(|marker| has(bytes, marker));
    state.cuts += usize::from(is_cut);
    is_cut
}

fn has(bytes: &[u8], marker: &[u8]) -> bool {
    bytes.windows(marker.len()).any(|window| window == marker)
}

/// Waits while these bytes are held back.
async fn wait(state: &Mutex<State>, bytes: &[u8]) {
    let holds = state.lock().unwrap().holds.clone();
    for hold in holds.iter().filter(|hold| has(bytes, &hold.marker)) {
        hold.is_reached.cancel();
        hold.is_over.cancelled().await;
    }
}

/// The sender of data.
#[derive(Clone, Copy)]
enum Side {
    Client,
    Server,
}

/// Bytes that are looked at once more with those behind them, since a marker may come in two parts.
const OVERLAP: usize = 64;

async fn pass_on(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &Mutex<State>,
    from_whom: Side,
) {
    let (mut seen, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        seen.extend_from_slice(&buffer[..count]);
        let is_cut = match from_whom {
            Side::Client => {
                wait(state, &seen).await;
                false
            }
            Side::Server => is_cut(state, &seen),
        };
        if is_cut || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        seen.drain(..seen.len().saturating_sub(OVERLAP));
    }
}
