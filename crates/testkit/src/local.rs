//! A free port, and the service's probe, for programs that run a whole installation on this
//! machine.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Returns an address on loopback whose port is free at this moment.
///
/// # Errors
/// When there is none.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Asks the service's probe, as a container platform does. Returns whether the service is ready.
///
/// # Errors
/// When nothing listens there.
pub async fn is_ready(probes: SocketAddr) -> io::Result<bool> {
    let mut connection = TcpStream::connect(probes).await?;
    connection
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}
