//! What kind of end an exit was; pure and total.
//!
//! Two things are known of an exit: why the supervisor had ended the worker, if it had, and how the
//! process went. The first weighs more: a worker that hung and was killed for it hung, whatever
//! signal it was that ended it. A worker's own exit code says what the worker says; it decides over
//! the policy of its own model and over nothing else.

use proto::control::WorkerExit;

use super::effect::StopCause;
use super::event::{ExitClass, LoadFault};
use crate::exit_kind::ExitKind;
use crate::health::Reason;

/// How far a worker had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It had not loaded its model yet.
    Starting,
    /// It had been ready.
    Serving,
}

#[must_use]
pub fn classify(cause: &StopCause, class: ExitClass, phase: Phase) -> ExitKind {
    match cause {
        StopCause::Unasked => by_itself(class, phase),
        StopCause::Unwanted | StopCause::Idle | StopCause::Renewed => {
            asked(ExitKind::Retired, class, phase)
        }
        StopCause::ServerEnds => asked(ExitKind::Clean, class, phase),
        StopCause::LoadTimeout => ExitKind::StartTimeout,
        StopCause::LoadFailed { fault: LoadFault::Starved, .. } => ExitKind::SpawnFailed,
        StopCause::LoadFailed { fault: LoadFault::NoHandshake, .. } => ExitKind::StartTimeout,
        StopCause::LoadFailed { fault: LoadFault::Transient | LoadFault::Permanent, .. } => {
            ExitKind::LoadError
        }
        StopCause::Unhealthy(Reason::Violation(_)) => ExitKind::Violation,
        StopCause::Unhealthy(Reason::Hung { .. }) => ExitKind::Hang,
        StopCause::Unhealthy(Reason::Flood { .. }) => ExitKind::Flood,
        StopCause::Unhealthy(Reason::HostMemory { .. }) => ExitKind::HostOom,
        StopCause::Unhealthy(
            Reason::Threads { .. } | Reason::Scratch { .. } | Reason::DeviceMemory { .. },
        ) => ExitKind::Quota,
        StopCause::Unhealthy(Reason::DeviceLost(_)) => ExitKind::DeviceFault,
    }
}

/// A worker that was asked to end, and may have crashed before it did.
fn asked(done: ExitKind, class: ExitClass, phase: Phase) -> ExitKind {
    match class {
        ExitClass::Code(0) => done,
        // One that does not end in time is signalled by us.
        ExitClass::Signal(ours::TERM | ours::KILL) => ExitKind::Retired,
        ExitClass::Code(_)
        | ExitClass::Signal(_)
        | ExitClass::SpawnFailed
        | ExitClass::SpawnStarved
        | ExitClass::HostOutOfMemory
        | ExitClass::DeviceOutOfMemory
        | ExitClass::DeviceFault
        | ExitClass::Unknown => by_itself(class, phase),
    }
}

fn by_itself(class: ExitClass, phase: Phase) -> ExitKind {
    match class {
        ExitClass::Code(code) => own_code(code, phase),
        ExitClass::Signal(signal) => ExitKind::Signal(signal),
        ExitClass::SpawnFailed | ExitClass::SpawnStarved => ExitKind::SpawnFailed,
        ExitClass::HostOutOfMemory => ExitKind::HostOom,
        ExitClass::DeviceOutOfMemory => ExitKind::DeviceOom,
        ExitClass::DeviceFault => ExitKind::DeviceFault,
        ExitClass::Unknown => ExitKind::Unknown,
    }
}

/// The codes of a start mean what [`WorkerExit`] says while the worker starts. Later they can only
/// come from a model that exits as it likes.
fn own_code(code: i32, phase: Phase) -> ExitKind {
    match (WorkerExit::from_code(code), phase) {
        (Some(WorkerExit::LoadFailed), Phase::Starting) => ExitKind::LoadError,
        (Some(WorkerExit::Handshake | WorkerExit::NoLoad), Phase::Starting) => {
            ExitKind::StartTimeout
        }
        (Some(WorkerExit::BadStart), Phase::Starting) => ExitKind::SpawnFailed,
        // Those of the device have classes of their own (`ExitClass::of_code`).
        (Some(_) | None, Phase::Starting | Phase::Serving) => ExitKind::Code(code),
    }
}

/// Signals that the ladder of a stop sends.
mod ours {
    use nix::sys::signal::Signal;

    pub(super) const TERM: i32 = Signal::SIGTERM as i32;
    pub(super) const KILL: i32 = Signal::SIGKILL as i32;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::health::DiskUse;
    use crate::health::verdict::Flood;

    fn any_class() -> impl Strategy<Value = ExitClass> {
        prop_oneof![
            (0..=255).prop_map(ExitClass::Code),
            (1..=64).prop_map(ExitClass::Signal),
            Just(ExitClass::SpawnFailed),
            Just(ExitClass::SpawnStarved),
            Just(ExitClass::HostOutOfMemory),
            Just(ExitClass::DeviceOutOfMemory),
            Just(ExitClass::DeviceFault),
            Just(ExitClass::Unknown),
        ]
    }

    /// Causes that are the supervisor's judgement, each with the kind that it makes.
    fn judgements() -> Vec<(StopCause, ExitKind)> {
        let failed = |fault| StopCause::LoadFailed { fault, message: String::new() };
        let flood = Reason::Flood { what: Flood::Facts, seen: 9, limit: 1 };
        let hung = Reason::Hung { overdue: Duration::ZERO };
        vec![
            (StopCause::LoadTimeout, ExitKind::StartTimeout),
            (failed(LoadFault::Starved), ExitKind::SpawnFailed),
            (failed(LoadFault::NoHandshake), ExitKind::StartTimeout),
            (failed(LoadFault::Transient), ExitKind::LoadError),
            (failed(LoadFault::Permanent), ExitKind::LoadError),
            (StopCause::Unhealthy(Reason::Violation(String::new())), ExitKind::Violation),
            (StopCause::Unhealthy(hung), ExitKind::Hang),
            (StopCause::Unhealthy(Reason::HostMemory { used: 2, limit: 1 }), ExitKind::HostOom),
            (StopCause::Unhealthy(Reason::Threads { seen: 2, limit: 1 }), ExitKind::Quota),
            (
                StopCause::Unhealthy(Reason::Scratch { found: DiskUse::Bytes(2), limit: 1 }),
                ExitKind::Quota,
            ),
            (StopCause::Unhealthy(flood), ExitKind::Flood),
        ]
    }

    #[test]
    fn an_exit_that_nobody_asked_for_is_never_clean() {
        let kind = |class, phase| classify(&StopCause::Unasked, class, phase);
        assert_eq!(kind(ExitClass::Code(0), Phase::Serving), ExitKind::Code(0));
        assert_eq!(kind(ExitClass::Code(0), Phase::Starting), ExitKind::Code(0));
        assert_eq!(kind(ExitClass::Signal(9), Phase::Serving), ExitKind::Signal(9));
        assert_eq!(kind(ExitClass::HostOutOfMemory, Phase::Serving), ExitKind::HostOom);
    }

    #[test]
    fn the_codes_of_a_start_count_while_it_starts() {
        let kind = |exit: WorkerExit, phase| {
            classify(&StopCause::Unasked, ExitClass::of_code(exit.code().into()), phase)
        };
        assert_eq!(kind(WorkerExit::LoadFailed, Phase::Starting), ExitKind::LoadError);
        assert_eq!(kind(WorkerExit::LoadFailed, Phase::Serving), ExitKind::Code(5));
        assert_eq!(kind(WorkerExit::Handshake, Phase::Starting), ExitKind::StartTimeout);
        assert_eq!(kind(WorkerExit::NoLoad, Phase::Starting), ExitKind::StartTimeout);
        assert_eq!(kind(WorkerExit::Transport, Phase::Serving), ExitKind::Code(6));
        // A load that ends so is not told as a failed one, which would be a load error.
        for phase in [Phase::Starting, Phase::Serving] {
            assert_eq!(kind(WorkerExit::DeviceOutOfMemory, phase), ExitKind::DeviceOom);
            assert_eq!(kind(WorkerExit::DeviceFault, phase), ExitKind::DeviceFault);
        }
    }

    #[test]
    fn what_was_asked_to_end_is_retired_unless_it_crashed_first() {
        for cause in [StopCause::Unwanted, StopCause::Idle, StopCause::Renewed] {
            let kind = |class| classify(&cause, class, Phase::Serving);
            assert_eq!(kind(ExitClass::Code(0)), ExitKind::Retired);
            assert_eq!(kind(ExitClass::Signal(9)), ExitKind::Retired);
            assert_eq!(kind(ExitClass::Signal(11)), ExitKind::Signal(11));
        }
        let kind = |class| classify(&StopCause::ServerEnds, class, Phase::Serving);
        assert_eq!(kind(ExitClass::Code(0)), ExitKind::Clean);
        assert_eq!(kind(ExitClass::Signal(15)), ExitKind::Retired);
    }

    proptest! {
        #[test]
        fn our_own_judgement_stands_whatever_the_exit_says(class in any_class()) {
            for (cause, kind) in judgements() {
                for phase in [Phase::Starting, Phase::Serving] {
                    prop_assert_eq!(classify(&cause, class, phase), kind);
                }
            }
        }

        #[test]
        fn nothing_is_intended_that_was_not_asked_for(class in any_class()) {
            for phase in [Phase::Starting, Phase::Serving] {
                prop_assert!(!classify(&StopCause::Unasked, class, phase).is_intended());
            }
        }
    }
}
