//! Where clients arrive: at sockets that a service manager has opened, or at our own.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};

use tokio::net::{TcpListener, TcpSocket};
use tokio::time::{Duration, timeout};
use tracing::{info, warn};

use super::StartError;
use crate::config::{Http, Metrics};
use crate::route::Routes;
use crate::system::Activation;

/// By these names a service manager's sockets are known.
const HTTP: &str = "http";
const METRICS: &str = "metrics";

/// Connections that may wait until they are accepted; the kernel has a limit of its own. Where they are
/// fewer, a burst of clients waits a second for its second attempt.
const BACKLOG: u32 = 4096;

#[derive(Debug)]
pub(super) struct Listening {
    pub(super) listener: TcpListener,
    /// The one that it really has.
    pub(super) address: SocketAddr,
    /// How long clients may wait in the backlog for models.
    hold: Duration,
}

impl Listening {
    pub(super) fn http(config: &Http, activation: &mut Activation) -> Result<Self, StartError> {
        let listen = config.listen;
        let bound = |e| StartError::Bind(listen, e);
        let given = activation.tcp(HTTP).map_err(StartError::Activation)?;
        let hold = match given {
            // Whoever looks at a server that is starting wants to see it start.
            None => Duration::ZERO,
            Some(_) => config.activation_wait,
        };
        Self::of(given, listen, hold).map_err(bound)
    }

    /// Nothing if metrics are off, whatever socket there is for them.
    pub(super) fn metrics(
        config: &Metrics,
        activation: &mut Activation,
    ) -> Result<Option<Self>, StartError> {
        let Some(listen) = config.listen else { return Ok(None) };
        let given = activation.tcp(METRICS).map_err(StartError::Activation)?;
        let listening = Self::of(given, listen, Duration::ZERO);
        listening.map(Some).map_err(|e| StartError::BindMetrics(listen, e))
    }

    fn of(given: Option<StdListener>, listen: SocketAddr, hold: Duration) -> io::Result<Self> {
        let listener = match given {
            None => listen_on(listen)?,
            Some(socket) => TcpListener::from_std(socket)?,
        };
        let address = listener.local_addr()?;
        if address != listen && listen.port() != 0 {
            let what =
                "the service manager's socket is served, and not what the configuration names";
            warn!(%address, configured = %listen, "{what}");
        }
        Ok(Self { listener, address, hold })
    }

    /// Until clients may be let in: those that have waited for this server since before it was there
    /// were meant for one that serves.
    pub(super) fn hold(&self, routes: Routes) -> impl Future<Output = ()> + Send + 'static {
        let hold = self.hold;
        async move {
            let mut changes = routes.changes();
            let served = async {
                while !routes.server_ready()
                    && !routes.draining()
                    && changes.changed().await.is_ok()
                {}
            };
            if hold > Duration::ZERO && timeout(hold, served).await.is_err() {
                info!(?hold, "http.activation_wait has passed; connections are accepted");
            }
        }
    }
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
