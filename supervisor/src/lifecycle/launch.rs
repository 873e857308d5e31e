//! From what an instance needs to a process that is enclosed and has not been told anything yet.

use std::error::Error;
use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use proto::control::Confinement;
use shared::id::WorkerId;
use shared::text::chain;

use super::hard_limits::{Hard, HardLimits};
use super::instance::{InstanceSpec, Kit};
use super::seating;
use super::{ExitClass, ExitReport, LoadFault};
use crate::enclosure::Enclosure;
use crate::process::turns::Turns;
use crate::process::{Child, HandshakeError, SpawnError, WorkerCommand};
use crate::quota::Place;

/// A process that has just started, with what holds it.
pub(super) struct Launched {
    pub(super) child: Child,
    pub(super) enclosure: Arc<Enclosure>,
    pub(super) limits: HardLimits,
    pub(super) hard: Hard,
}

/// Makes the enclosure and starts the process in it, or moves it in before it is greeted.
pub(super) async fn start(
    spec: &InstanceSpec,
    kit: &Kit,
    (id, place): (&WorkerId, Option<&Place>),
    (control, log): (OwnedFd, PipeWriter),
) -> Result<Launched, ExitReport> {
    let enclosure = kit.enclosures.enclose(id, &spec.host, spec.level).await;
    let enclosure = enclosure.map_err(|e| not_started("the enclosure", &e))?;
    let (limits, hard) = HardLimits::set(&kit.devices, enclosure.unified(), place).await;
    let command = WorkerCommand {
        binary: spec.binary.clone(),
        start: seating::start(spec.start, place),
        worker: id.clone(),
        level: spec.confinement.level,
        threads: spec.load.threads,
        devices: seating::visible(place),
        scratch: enclosure.report().scratch.clone(),
        control,
        log,
        // A process that did not take them is moved in below.
        groups: enclosure.entrances(),
    };
    let started = match kit.spawner.spawn(command).await {
        Ok(child) => match enclosure.adopt(child.group().pid()).await {
            Ok(()) => {
                child.group().give_turns(Turns::Long);
                return Ok(Launched { child, enclosure, limits, hard });
            }
            // Dropping the child kills it.
            Err(error) => Err(not_started("the enclosure", &error)),
        },
        Err(error) => Err(not_started("the process", &error)),
    };
    tokio::spawn(async move {
        limits.clear().await;
        enclosure.dissolve().await;
    });
    started
}

/// What the worker gives up, with what its enclosure adds to it.
pub(super) fn confinement(spec: &InstanceSpec, enclosure: &Enclosure) -> Confinement {
    let limits = enclosure.report();
    let (scratch, data_limit) = (limits.scratch.clone(), limits.data_limit());
    Confinement { scratch, data_limit, ..spec.confinement.clone() }
}

/// What `what` could not be made for. If it is the supervisor that is short of something, the model
/// has no part in it.
pub(super) fn not_started(what: &str, error: &(dyn Error + 'static)) -> ExitReport {
    let class = if is_shortage(error) { ExitClass::SpawnStarved } else { ExitClass::SpawnFailed };
    ExitReport { class, detail: format!("{what}: {}", chain(error)) }
}

/// Whether a worker that could not be greeted had any part in it.
pub(super) fn fault_of(error: &HandshakeError) -> LoadFault {
    match error {
        // Before anything of the worker is in them. Their codes would not tell: a socket that could not
        // be made for want of descriptors comes back as one that cannot be bound.
        HandshakeError::Server(_) | HandshakeError::Thread(_) => LoadFault::Starved,
        HandshakeError::Greet(_) | HandshakeError::Accept(_) if is_shortage(error) => {
            LoadFault::Starved
        }
        HandshakeError::Greet(_) | HandshakeError::Accept(_) => LoadFault::NoHandshake,
        HandshakeError::TimedOut(_) | HandshakeError::Attach | HandshakeError::Nonce => {
            LoadFault::NoHandshake
        }
    }
}

/// Descriptors, processes, memory, room on a file system.
const SHORTAGES: [Errno; 7] = [
    Errno::EMFILE,
    Errno::ENFILE,
    Errno::EAGAIN,
    Errno::ENOMEM,
    Errno::ENOSPC,
    Errno::EDQUOT,
    Errno::EROFS,
];

/// Whether an error of the kernel, here or among the sources, says that the server
/// itself is short of something.
fn is_shortage(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(SpawnError::Lost) = error.downcast_ref() {
            return true;
        }
        let of_io = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        let code = error.downcast_ref::<Errno>().copied().or(of_io.map(Errno::from_raw));
        if let Some(code) = code {
            return SHORTAGES.contains(&code);
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_itself_lacks_is_told_from_what_is_wrong_with_the_worker() {
        let spawn = |code: Errno| {
            let source = io::Error::from_raw_os_error(code as i32);
            SpawnError::Start { binary: "/nowhere".into(), source }
        };
        for short in SHORTAGES {
            let report = not_started("the process", &spawn(short));
            assert_eq!(report.class, ExitClass::SpawnStarved, "{report}");
            assert_eq!(not_started("a socket", &short).class, ExitClass::SpawnStarved);
        }
        let report = not_started("the process", &spawn(Errno::ENOENT));
        assert_eq!(report.class, ExitClass::SpawnFailed);
        assert!(report.detail.contains("/nowhere") && report.detail.contains("No such file"));
    }

    #[test]
    fn a_handshake_that_the_server_could_not_begin_is_not_the_models() {
        let io = |code: Errno| io::Error::from_raw_os_error(code as i32);
        let fault = |error: HandshakeError| fault_of(&error);
        assert_eq!(fault(HandshakeError::Server(io(Errno::EBADF))), LoadFault::Starved);
        assert_eq!(fault(HandshakeError::Thread(io(Errno::EAGAIN))), LoadFault::Starved);
        assert_eq!(fault(HandshakeError::Greet(Errno::ENOMEM)), LoadFault::Starved);
        assert_eq!(fault(HandshakeError::Greet(Errno::EPIPE)), LoadFault::NoHandshake);
        let accept = |code| HandshakeError::Accept(io(code).into());
        assert_eq!(fault(accept(Errno::EMFILE)), LoadFault::Starved);
        assert_eq!(fault(accept(Errno::ECONNRESET)), LoadFault::NoHandshake);
        let late = HandshakeError::TimedOut(std::time::Duration::ZERO);
        assert_eq!(fault(late), LoadFault::NoHandshake);
    }
}
