//! The way out: readiness first, then a grace time in which everything is served as before, then new
//! connections, then the workers when the last request was answered.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep, timeout_at};
use tracing::{info, warn};

use crate::config::Shutdown;
use crate::exit::Exit;
use crate::frontend::http::{Tally, Turnover};
use crate::lifecycle::catalog::Ending;
use crate::route::Routes;
use crate::status::Board;
use crate::system::{Asked, Signals};

/// How long workers may take to end after the last connection, at least.
const LAST_UNLOADS: Duration = Duration::from_secs(2);

/// What has to end.
#[derive(Debug)]
pub(super) struct Drain {
    pub(super) routes: Routes,
    pub(super) board: Board,
    /// Told of each SIGHUP, which is refused from now on.
    pub(super) hangups: Arc<Notify>,
    pub(super) turnover: Arc<Turnover>,
    pub(super) shutdown: Shutdown,
    /// Ends new connections.
    pub(super) stop: oneshot::Sender<()>,
    pub(super) http: JoinHandle<()>,
    /// Ends the catalog, and with it all workers.
    pub(super) end: mpsc::Sender<Ending>,
}

impl Drain {
    /// Until everything has ended, or a second signal asks to end at once. Says what became of the
    /// requests that there were from the first signal on.
    pub(super) async fn run(self, signal: &str, signals: &mut Signals) -> (Exit, Tally) {
        let Self { routes, board, hangups, turnover, shutdown, stop, http, end } = self;
        let before = turnover.tally();
        info!(
            signal,
            requests = before.in_progress(),
            grace = ?shutdown.grace,
            "draining: not ready any more, requests in progress may finish"
        );
        routes.drain();
        // Whoever watches is shown that.
        board.changed();
        let drain = async {
            sleep(shutdown.grace).await;
            info!("draining: no new connections");
            drop(stop);
            let until = Instant::now() + shutdown.drain_timeout;
            close_connections(http, until).await;
            unload(&end, until).await;
        };
        let exit = tokio::select! {
            () = drain => Exit::Ok,
            signal = next_end(signals, &hangups) => {
                warn!(signal, "second signal: workers are killed");
                let _ended = end.send(Ending::Kill).await;
                Exit::Forced
            }
        };
        (exit, turnover.tally().at_the_end().since(&before))
    }
}

/// Waits for the next signal that asks for an end, and names it.
async fn next_end(signals: &mut Signals, hangups: &Notify) -> &'static str {
    loop {
        match signals.next().await {
            Asked::End(signal) => return signal,
            Asked::Reload => hangups.notify_one(),
        }
    }
}

async fn close_connections(mut http: JoinHandle<()>, until: Instant) {
    if timeout_at(until, &mut http).await.is_err() {
        warn!("shutdown.drain_timeout has passed; connections are closed");
        http.abort();
        // Its connections end with it.
        let _aborted = http.await;
    }
}

/// The catalog lives until it is told to end. Nobody waits for an answer any more, so its workers have
/// little to finish.
async fn unload(end: &mpsc::Sender<Ending>, until: Instant) {
    let (drained, unloaded) = oneshot::channel();
    let _ended = end.send(Ending::Drain(drained)).await;
    if timeout_at(until.max(Instant::now() + LAST_UNLOADS), unloaded).await.is_err() {
        warn!("some workers did not end in time and are killed");
        let _ended = end.send(Ending::Kill).await;
    }
}
