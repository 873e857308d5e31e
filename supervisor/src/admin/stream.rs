//! Answers that go on until somebody has enough: the operator, who closes or says something else, or the
//! server, when it ends.

use std::pin::pin;
use std::time::Duration;

use proto::admin::reply::{End, Failure, Reply};
use proto::admin::status::Status;
use serde::Serialize;
use shared::id::ModelName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::sleep;

use super::command::{Desk, error_line, log_lines, unknown, wanted};
use super::wire::{Deaf, Stir, Wire};

/// Between two looks at a server that changes all the time.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether the server still runs.
pub(super) type Running = watch::Receiver<bool>;

/// What a stream wakes up for.
enum Woken {
    Changed,
    Stirred(Stir),
    Ended,
}

pub(super) async fn watch<S: AsyncRead + AsyncWrite>(
    desk: &Desk,
    wire: &mut Wire<S>,
    model: Option<ModelName>,
    mut running: Running,
) -> Result<(), Deaf> {
    let overview = &desk.handles.overview;
    let look = || match &model {
        None => Ok(overview.status()),
        Some(model) => overview.status_of(model).ok_or_else(|| unknown(model)),
    };
    let mut changes = overview.changes();
    let mut shown: Option<Status> = None;
    loop {
        changes.mark_unchanged();
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
            // The board is there as long as we are.
            let _changed = changes.changed().await;
        };
        let woken = {
            let changed = pin!(changed);
            tokio::select! {
                () = changed => Woken::Changed,
                stir = wire.stirs() => Woken::Stirred(stir),
                _ended = running.changed() => Woken::Ended,
            }
        };
        match woken {
            Woken::Changed => {}
            Woken::Stirred(stir) => return stop(wire, stir).await,
            Woken::Ended => return end(wire, "the server ends").await,
        }
    }
}

pub(super) async fn logs<S: AsyncRead + AsyncWrite>(
    desk: &Desk,
    wire: &mut Wire<S>,
    (model, lines): (ModelName, u32),
    mut running: Running,
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
            _ended = running.changed() => return end(wire, "the server ends").await,
        }
    }
}

async fn stop<S: AsyncRead + AsyncWrite>(wire: &mut Wire<S>, stir: Stir) -> Result<(), Deaf> {
    match stir {
        Stir::Spoke => end(wire, "asked for something else").await,
        Stir::Gone => Err(Deaf),
    }
}

async fn end<S: AsyncRead + AsyncWrite>(wire: &mut Wire<S>, why: &str) -> Result<(), Deaf> {
    wire.write(&Reply::<()>::End(End { why: why.to_owned() }).line()).await
}

fn item<T: Serialize>(what: &T) -> String {
    Reply::Item(what).line()
}
