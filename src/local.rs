//! What programs need that run a whole installation on this machine: a directory that goes away, a free port, a word from
//! the service when it is ready.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A directory below the system's for temporary ones. Dropping it removes it and all that is in it.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one whose name begins with `bellhop-<purpose>`.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn new(purpose: &str) -> io::Result<Self> {
        let name = format!("bellhop-{purpose}-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An address on loopback whose port nobody has at this moment.
///
/// # Errors
/// When there is none.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Asks the service's probe, as a container platform does.
///
/// # Errors
/// When nobody answers there.
pub async fn is_ready(probes: SocketAddr) -> io::Result<bool> {
    let mut connection = TcpStream::connect(probes).await?;
    connection.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}
