//! Takes in operators.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use proto::admin::reply::Code;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::command::{Desk, error_line, failure};
use super::peer::{Peer, Rights};
use super::seats::Seats;
use super::session::{PATIENCE, Session};
use super::socket::AdminSocket;
use super::wire::Wire;

/// Before another try where the kernel has nothing to accept a connection with.
const PAUSE: Duration = Duration::from_millis(100);
/// How long those who are connected may take to hear of the end.
const FAREWELL: Duration = Duration::from_millis(500);
/// From one refusal that is written down to the next: whoever may not must not fill the log either.
const BETWEEN_REFUSALS: Duration = Duration::from_secs(1);

/// Until `stopped`; then the socket is removed.
pub async fn serve(
    socket: AdminSocket,
    (desk, rights, most): (Desk, Rights, u32),
    stopped: impl Future<Output = ()>,
) {
    let (ends, running) = watch::channel(true);
    let mut door = Door {
        desk: Arc::new(desk),
        rights,
        seats: Seats::new(usize::try_from(most).unwrap_or(usize::MAX)),
        running,
        sessions: JoinSet::new(),
        refused: None,
    };
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            () = &mut stopped => break,
            Some(_) = door.sessions.join_next() => {}
            accepted = socket.listener.accept() => match accepted {
                Ok((stream, _)) => door.open(stream),
                Err(error) => {
                    warn!(%error, "an operator cannot be heard");
                    sleep(PAUSE).await;
                }
            },
        }
    }
    ends.send_replace(false);
    let all = async { while door.sessions.join_next().await.is_some() {} };
    let _late = timeout(FAREWELL, all).await;
}

struct Door {
    desk: Arc<Desk>,
    rights: Rights,
    seats: Seats,
    running: watch::Receiver<bool>,
    sessions: JoinSet<()>,
    /// When somebody was refused and that was written down.
    refused: Option<Instant>,
}

impl Door {
    fn open(&mut self, stream: UnixStream) {
        let Ok(peer) = Peer::of(&stream) else { return };
        if !self.rights.admit(peer, &stream) {
            self.note_refused(peer);
            let message = format!("user {} may not command this server", peer.uid);
            return turn_away(stream, &error_line(failure(Code::Refused, message)));
        }
        let Some(seat) = self.seats.take() else {
            let message = "admin.max_connections operators are being served";
            return turn_away(stream, &error_line(failure(Code::Busy, message)));
        };
        let session = Session {
            wire: Wire::new(stream, PATIENCE),
            peer,
            seat,
            desk: Arc::clone(&self.desk),
            running: self.running.clone(),
        };
        self.sessions.spawn(session.run());
    }

    fn note_refused(&mut self, peer: Peer) {
        if self.refused.is_some_and(|last| last.elapsed() < BETWEEN_REFUSALS) {
            return;
        }
        self.refused = Some(Instant::now());
        let desk = Arc::clone(&self.desk);
        self.sessions.spawn(async move { desk.note_refused(peer).await });
    }
}

/// A line fits what the kernel keeps for a new connection; nobody waits for whoever gets it.
fn turn_away(stream: UnixStream, line: &str) {
    let written = stream.into_std().and_then(|mut stream| stream.write_all(line.as_bytes()));
    if let Err(error) = written {
        debug!(%error, "an operator was turned away without a word");
    }
}
