//! Where clients arrive: at a socket that a service manager has opened, or at one of our own.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};
use tracing::info;

use super::StartError;
use crate::system::Activation;

/// By this name a service manager's socket is known.
const HTTP: &str = "http";

/// Connections that may wait until they are accepted; the kernel has a limit of its own. Where they are
/// fewer, a burst of clients waits a second for its second attempt.
const BACKLOG: u32 = 4096;

/// The listener and the address that it really has.
pub(super) fn http(
    listen: SocketAddr,
    mut activation: Activation,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let bound = |e| StartError::Bind(listen, e);
    let given = activation.tcp(HTTP).map_err(StartError::Activation)?;
    activation.close_the_rest();
    let listener = match given {
        None => listen_on(listen).map_err(bound)?,
        Some(socket) => TcpListener::from_std(socket).map_err(bound)?,
    };
    let address = listener.local_addr().map_err(bound)?;
    if address != listen && listen.port() != 0 {
        info!(http = %address, configured = %listen, "the service manager's socket is served");
    }
    Ok((listener, address))
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
