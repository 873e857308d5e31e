//! Answers that go on until somebody has enough: the operator, who closes or says something else, or the
//! server, when it ends.

use std::pin::pin;
use std::time::Duration;

use proto::admin::reply::{End, Failure, Reply};
use proto::admin::status::Status;
use serde::Serialize;
use shared::id::ModelName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

use super::command::{Desk, error_line, log_lines, unknown, wanted};
use super::wire::{Deaf, Stir, Wire};

/// Between two looks at a server that changes all the time.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether the server still runs.
pub(super) type Running = watch::Receiver<bool>;

/// Between two looks at what nobody tells: figures, devices, how long ago things were.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What ends a stream beside its operator.
pub(super) struct Stops<'a> {
    pub(super) running: Running,
    /// Somebody else has its seat.
    pub(super) lost: &'a mut oneshot::Receiver<()>,
}

impl Stops<'_> {
    /// Waits for any of them, and says why.
    async fn why(&mut self) -> &'static str {
        tokio::select! {
            _ended = self.running.changed() => "the server ends",
            _lost = &mut *self.lost => "others need the place",
        }
    }
}

/// What a stream wakes up for.
enum Woken {
    Changed,
    Stirred(Stir),
    Ended(&'static str),
}

pub(super) async fn watch<S: AsyncRead + AsyncWrite>(
    desk: &Desk,
    wire: &mut Wire<S>,
    model: Option<ModelName>,
    mut stops: Stops<'_>,
) -> Result<(), Deaf> {
    let overview = &desk.handles.overview;
    let look = || match &model {
        None => Ok(overview.status()),
        Some(model) => overview.status_of(model).ok_or_else(|| unknown(model)),
    };
    let (mut changes, mut routes) = (overview.changes(), overview.routes().changes());
    let mut shown: Option<Status> = None;
    loop {
        changes.mark_unchanged();
        routes.mark_unchanged();
        let status = match look() {
            Ok(status) => status,
            Err(failure) => return wire.write(&error_line(failure)).await,
        };
        if shown.as_ref() != Some(&status) {
            wire.write(&item(&status)).await?;
            shown = Some(status);
        }
        let changed = async {
            sleep(PAUSE).await;
            // Both are there as long as we are.
            tokio::select! {
                _changed = changes.changed() => {}
                _changed = routes.changed() => {}
                () = sleep(LONGEST_PAUSE) => {}
            }
        };
        let woken = {
            let changed = pin!(changed);
            tokio::select! {
                () = changed => Woken::Changed,
                stir = wire.stirs() => Woken::Stirred(stir),
                why = stops.why() => Woken::Ended(why),
            }
        };
        match woken {
            Woken::Changed => {}
            Woken::Stirred(stir) => return stop(wire, stir).await,
            Woken::Ended(why) => return end(wire, why).await,
        }
    }
}

pub(super) async fn logs<S: AsyncRead + AsyncWrite>(
    desk: &Desk,
    wire: &mut Wire<S>,
    (model, lines): (ModelName, u32),
    mut stops: Stops<'_>,
) -> Result<(), Deaf> {
    if let Err(failure) = desk.known(&model) {
        let failure: Failure = failure;
        return wire.write(&error_line(failure)).await;
    }
    let mut follower = desk.handles.journals.of(&model).follow(wanted(lines));
    // An item at once, so that whoever follows knows from where on.
    let mut read = follower.read(wanted(lines));
    loop {
        wire.write(&item(&log_lines(&read))).await?;
        tokio::select! {
            more = follower.next() => read = more,
            stir = wire.stirs() => return stop(wire, stir).await,
            why = stops.why() => return end(wire, why).await,
        }
    }
}

async fn stop<S: AsyncRead + AsyncWrite>(wire: &mut Wire<S>, stir: Stir) -> Result<(), Deaf> {
    match stir {
        Stir::Spoke => end(wire, "asked for something else").await,
        // It may have closed its half alone.
        Stir::Gone => end(wire, "closed").await.and(Err(Deaf)),
    }
}

async fn end<S: AsyncRead + AsyncWrite>(wire: &mut Wire<S>, why: &str) -> Result<(), Deaf> {
    wire.write(&Reply::<()>::End(End { why: why.to_owned() }).line()).await
}

fn item<T: Serialize>(what: &T) -> String {
    Reply::Item(what).line()
}
