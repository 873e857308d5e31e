//! Phase 1: what a fresh process was given, and what it gives up before anything else.
//!
//! The supervisor starts a worker with the control socket as descriptor 0 and a log pipe as 1 and
//! 2. Afterwards descriptor 0 is `/dev/null`, so that code in a model that reads stdin finds its
//! end and cannot touch the socket by accident.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use shared::sys::process;

/// The argument that names the process which should be the parent. The arguments before it are
/// for people who read `ps`.
const SUPERVISOR: &str = "supervisor=";

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
    #[error("cannot take over the control socket")]
    Socket(#[source] std::io::Error),
    #[error("cannot put /dev/null in place of the control socket")]
    Null(#[source] std::io::Error),
}

/// The process holds only what it was meant to be given, and ends with its parent.
#[derive(Debug)]
pub struct Inherited {
    pub socket: OwnedFd,
}

impl Inherited {
    /// Takes the descriptors of the process over; once, before anything was opened.
    pub fn take(arguments: impl Iterator<Item = OsString>) -> Result<Self, InheritError> {
        let supervisor = supervisor(arguments).ok_or(InheritError::Arguments)?;
        process::close_from(3).map_err(InheritError::Close)?;
        process::renounce().map_err(InheritError::Renounce)?;
        process::die_with_parent(supervisor).map_err(|e| InheritError::Parent(supervisor, e))?;
        let socket = std::io::stdin().as_fd().try_clone_to_owned().map_err(InheritError::Socket)?;
        let null = File::open("/dev/null").map_err(InheritError::Null)?;
        nix::unistd::dup2_stdin(&null).map_err(|e| InheritError::Null(e.into()))?;
        Ok(Self { socket })
    }
}

fn supervisor(mut arguments: impl Iterator<Item = OsString>) -> Option<u32> {
    arguments.find_map(|a| a.to_str()?.strip_prefix(SUPERVISOR)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_supervisor_is_found_among_the_arguments_for_people() {
        let arguments = |list: &[&str]| supervisor(list.iter().map(OsString::from));
        assert_eq!(arguments(&["bulkhead-worker", "digits", "version=1", "supervisor=7"]), Some(7));
        assert_eq!(arguments(&["bulkhead-worker", "supervisor=x"]), None);
    }
}
