//! Accepts connections, up to a limit, and lets them finish at the end.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use super::connection::{Limits, Server, Service, serve_connection};
use crate::system::Answers;

/// After a failure to accept, for example for want of descriptors, which connections that end
/// give back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

enum Event {
    Shutdown,
    Answered,
    /// There are other limits.
    Changed,
    Accepted(std::io::Result<TcpStream>),
    Left(Result<(), JoinError>),
}

/// Serves `listener` until `shutdown`, then takes no more connections and returns when the
/// requests in progress are answered. How long that may take is the caller's to say: dropping the
/// future ends every connection at once.
///
/// The newest of `limits` hold for connections that come from then on. `pulse` is that of this loop,
/// if anybody feels it.
pub(in crate::frontend) async fn serve<S: Service>(
    listener: TcpListener,
    service: S,
    mut limits: watch::Receiver<Limits>,
    mut pulse: Option<Answers>,
    shutdown: impl Future<Output = ()>,
) {
    let server = Arc::new(Server::new(service, limits.clone()));
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let has_room = connections.len() < server.limits().max_connections;
        let event = tokio::select! {
            biased;
            () = &mut shutdown => Event::Shutdown,
            () = answer(&mut pulse) => Event::Answered,
            Some(left) = connections.join_next() => Event::Left(left),
            Ok(()) = limits.changed() => Event::Changed,
            accepted = listener.accept(), if has_room => {
                Event::Accepted(accepted.map(|(socket, _)| socket))
            }
        };
        match event {
            Event::Shutdown => break,
            // There may be room now.
            Event::Answered | Event::Changed => {}
            Event::Left(left) => report(left),
            Event::Accepted(Ok(socket)) => {
                connections.spawn(serve_connection(Arc::clone(&server), socket, stopped.clone()));
            }
            Event::Accepted(Err(error)) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // What the kernel has let in would be cut off with the listener.
    while connections.len() < server.limits().max_connections
        && let Some(Ok((socket, _))) = listener.accept().now_or_never()
    {
        connections.spawn(serve_connection(Arc::clone(&server), socket, stopped.clone()));
    }
    drop(listener);
    stop.send_replace(());
    while let Some(left) = connections.join_next().await {
        report(left);
    }
}

/// For ever if nobody asks.
async fn answer(pulse: &mut Option<Answers>) {
    match pulse {
        Some(pulse) => pulse.answer().await,
        None => std::future::pending().await,
    }
}

/// A panic stays within its connection, and is a bug.
fn report(left: Result<(), JoinError>) {
    if let Err(error) = left {
        tracing::error!(%error, "a connection's task failed");
    }
}
