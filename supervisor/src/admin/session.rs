//! One operator: a line in, its answer out, and the next.

use std::sync::Arc;
use std::time::Duration;

use proto::admin::reply::Code;
use proto::admin::request::{BadRequest, Command, MAX_LINE_BYTES};
use tokio::io::{AsyncRead, AsyncWrite};

use super::command::{Desk, error_line, failure};
use super::peer::Peer;
use super::seats::{Lost, Seat};
use super::stream::{self, Running, Stops};
use super::wire::{Deaf, NoLine, Patience, Stir, Wire};

/// A person at a prompt has this time between two commands; a line comes in one piece.
pub(super) const PATIENCE: Patience = Patience {
    idle: Duration::from_secs(60),
    line: Duration::from_secs(10),
    write: Duration::from_secs(10),
};

pub(super) struct Session<S> {
    pub(super) wire: Wire<S>,
    pub(super) peer: Peer,
    pub(super) seat: Seat,
    pub(super) desk: Arc<Desk>,
    pub(super) running: Running,
}

impl<S: AsyncRead + AsyncWrite> Session<S> {
    /// Until the operator goes, is too slow, or must make room for another one.
    pub(super) async fn run(mut self) {
        loop {
            let line = tokio::select! {
                line = self.wire.line() => line,
                _lost = &mut self.seat.lost => return,
                // A stream has its end; where none runs there is nothing to say.
                _ended = self.running.changed() => return,
            };
            if self.seat.serve().is_err() {
                return;
            }
            let answered = match line {
                Ok(line) => self.hear(&line).await,
                Err(NoLine::Gone) => return,
                Err(NoLine::TooLong) => {
                    let message = format!("a line has at most {MAX_LINE_BYTES} bytes");
                    let line = error_line(failure(Code::BadRequest, message));
                    // Where the next line begins is not known.
                    let _gone = self.wire.write(&line).await;
                    return;
                }
            };
            if answered.is_err() || self.seat.wait().is_err() {
                return;
            }
        }
    }

    async fn hear(&mut self, line: &[u8]) -> Result<(), Deaf> {
        let command = match Command::parse(line) {
            Ok(command) => command,
            Err(bad @ (BadRequest::Version(_) | BadRequest::Malformed(_))) => {
                let line = error_line(failure(Code::BadRequest, bad.to_string()));
                return self.wire.write(&line).await;
            }
        };
        if matches!(command, Command::Watch { .. } | Command::Logs { follow: true, .. }) {
            self.seat.look_on().map_err(|Lost| Deaf)?;
        }
        let stops = Stops { running: self.running.clone(), lost: &mut self.seat.lost };
        if let Command::Watch { model } = command {
            stream::watch(&self.desk, &mut self.wire, model, stops).await
        } else if let Command::Logs { model, lines, follow: true } = command {
            stream::logs(&self.desk, &mut self.wire, (model, lines), stops).await
        } else {
            self.reply(command).await
        }
    }

    async fn reply(&mut self, command: Command) -> Result<(), Deaf> {
        let answer = {
            let answer = self.desk.answer(command, self.peer);
            tokio::pin!(answer);
            tokio::select! {
                // First, so that it is begun whoever is gone already.
                biased;
                answer = &mut answer => answer,
                stir = self.wire.stirs() => {
                    // What was begun is carried out all the same. One that has closed its half may still
                    // listen, but nobody need wait for its seat.
                    if stir == Stir::Gone && self.seat.look_on().is_err() {
                        return Err(Deaf);
                    }
                    // Of one that spoke, the next line has its turn.
                    tokio::select! {
                        answer = answer => answer,
                        _lost = &mut self.seat.lost => return Err(Deaf),
                    }
                }
            }
        };
        self.wire.write(&answer).await
    }
}
