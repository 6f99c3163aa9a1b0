//! Three nats-servers of one cluster, on the loopback.

use std::net::TcpListener;
use std::path::Path;

use bellhop::nats_server::{NatsServer, Options};

const NODES: usize = 3;

/// Starts them, and does not wait until they have found each other.
pub(crate) async fn start(dir: &Path) -> Vec<NatsServer> {
    let ports: Vec<TcpListener> = (0..NODES).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<_> = ports.iter().map(|port| port.local_addr().unwrap()).collect();
    drop(ports);
    let routes: Vec<_> = addresses.iter().map(|address| format!("\"nats://{address}\"")).collect();
    let starting = addresses.iter().enumerate().map(|(node, address)| {
        let (dir, routes) = (dir.join(format!("nats-{node}")), routes.join(", "));
        async move {
            let extra_config = &format!(
                "server_name: nats-{node}\ncluster {{ name: it, listen: \"{address}\", routes: [{routes}] }}\n"
            );
            NatsServer::start(&dir, Options { extra_config, ..Options::default() }).await.unwrap()
        }
    });
    futures_util::future::join_all(starting).await
}
