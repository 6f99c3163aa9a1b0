//! Three nats-servers of one cluster, on loopback.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use futures_util::future::try_join_all;

use super::{NatsServer, Options, StartError};

const NODES: usize = 3;

/// Starts the servers of a cluster, each in a directory of its own below `dir`, and does not wait
/// until they have found each other. `extra_config` is what [`Options::extra_config`] is for one
/// server.
///
/// # Errors
/// As for [`NatsServer::start`]; nothing is left running then.
pub async fn start_cluster(dir: &Path, extra_config: &str) -> Result<Vec<NatsServer>, StartError> {
    let addresses = free_addresses().map_err(|why| StartError::Io(dir.into(), why))?;
    let routes: Vec<_> = addresses
        .iter()
        .map(|address| format!("\"nats://{address}\""))
        .collect();
    let routes = routes.join(", ");
    try_join_all(addresses.iter().enumerate().map(|(node, address)| {
        let (dir, routes) = (dir.join(format!("nats-{node}")), &routes);
        async move {
            let extra_config = &format!(
                "server_name: nats-{node}\n\
                 cluster {{ name: local, listen: \"{address}\", routes: [{routes}] }}\n\
                 {extra_config}\n"
            );
            NatsServer::start(
                &dir,
                Options {
                    extra_config,
                    ..Options::default()
                },
            )
            .await
        }
    }))
    .await
}

/// Each server must know the others' ports before any is started.
fn free_addresses() -> io::Result<Vec<SocketAddr>> {
    let bound = (0..NODES).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let listeners: Vec<_> = bound.collect::<io::Result<_>>()?;
    listeners.iter().map(TcpListener::local_addr).collect()
}
