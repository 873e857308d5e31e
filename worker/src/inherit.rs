//! Phase 1: what a fresh process was given, and what it gives up before anything else.
//!
//! The supervisor starts a worker with the control socket as descriptor 0 and a log pipe as 1 and
//! 2. Afterwards descriptor 0 is `/dev/null`, so that code in a model that reads stdin finds its
//! end and cannot touch the socket by accident.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use proto::control::Level;
use shared::sys::process;

use crate::confine::{SeparateError, Separated, separate};

/// The argument that names the process which should be the parent. The arguments before it are
/// for people who read `ps`.
const SUPERVISOR: &str = "supervisor=";
/// The argument that asks for namespaces. They are entered before the supervisor can be spoken to,
/// because afterwards there are threads.
const STRICT: &str = "confinement=strict";

/// Milliseconds.
const GREETING_LIMIT: u16 = 10_000;

#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    #[error("no argument `{SUPERVISOR}PID`: workers are started by `bulkhead serve` alone")]
    Arguments,
    #[error("cannot close inherited descriptors")]
    Close(#[source] Errno),
    #[error("cannot give up core files and privileges")]
    Renounce(#[source] Errno),
    #[error("the supervisor {0} is not the parent of this process")]
    Parent(u32, #[source] Errno),
    #[error("the supervisor has not greeted this process")]
    Ungreeted(#[source] Errno),
    #[error("cannot enter namespaces")]
    Separate(#[from] SeparateError),
    #[error("cannot take over the control socket")]
    Socket(#[source] std::io::Error),
    #[error("cannot put /dev/null in place of the control socket")]
    Null(#[source] std::io::Error),
}

/// The process holds only what it was meant to be given, and ends with its parent.
#[derive(Debug)]
pub struct Inherited {
    pub socket: OwnedFd,
    pub separated: Separated,
}

impl Inherited {
    /// Takes the descriptors of the process over; once, before anything was opened. It may return in
    /// a grandchild: see [`separate`].
    pub fn take(arguments: impl Iterator<Item = OsString>) -> Result<Self, InheritError> {
        let arguments: Vec<OsString> = arguments.collect();
        let supervisor = supervisor(&arguments).ok_or(InheritError::Arguments)?;
        process::close_from(3).map_err(InheritError::Close)?;
        process::renounce().map_err(InheritError::Renounce)?;
        process::die_with_parent(supervisor).map_err(|e| InheritError::Parent(supervisor, e))?;
        let level = level(&arguments);
        if level == Level::Strict {
            await_greeting()?;
        }
        let separated = separate(level)?;
        let socket = std::io::stdin().as_fd().try_clone_to_owned().map_err(InheritError::Socket)?;
        let null = File::open("/dev/null").map_err(InheritError::Null)?;
        nix::unistd::dup2_stdin(&null).map_err(|e| InheritError::Null(e.into()))?;
        Ok(Self { socket, separated })
    }
}

/// The supervisor greets a worker that is in its control groups. Processes that are made before would
/// stay outside.
fn await_greeting() -> Result<(), InheritError> {
    let stdin = std::io::stdin();
    let mut greeted = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    match poll(&mut greeted, GREETING_LIMIT) {
        Ok(1..) => Ok(()),
        Ok(_) => Err(InheritError::Ungreeted(Errno::ETIMEDOUT)),
        Err(error) => Err(InheritError::Ungreeted(error)),
    }
}

fn supervisor(arguments: &[OsString]) -> Option<u32> {
    arguments.iter().find_map(|a| a.to_str()?.strip_prefix(SUPERVISOR)?.parse().ok())
}

/// Whether namespaces are asked for; what else there is to give up comes with the greeting.
fn level(arguments: &[OsString]) -> Level {
    let strict = arguments.iter().any(|argument| argument == STRICT);
    if strict { Level::Strict } else { Level::Standard }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_supervisor_is_found_among_the_arguments_for_people() {
        let arguments =
            |list: &[&str]| supervisor(&list.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(arguments(&["bulkhead-worker", "digits", "version=1", "supervisor=7"]), Some(7));
        assert_eq!(arguments(&["bulkhead-worker", "supervisor=x"]), None);
    }

    #[test]
    fn only_strict_asks_for_namespaces() {
        assert_eq!(level(&[STRICT.into()]), Level::Strict);
        assert_eq!(level(&["confinement".into()]), Level::Standard);
    }
}
