//! Descriptors of processes: a number can be another's later, a descriptor cannot.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// Opens a child that was not reaped yet, so that its number is still its own. `ECHILD` if the
/// process is no child of this one. The descriptor becomes readable when the child has ended.
pub fn open_child(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: takes two numbers and returns a descriptor or an error.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), libc::PIDFD_NONBLOCK) };
    let raw = i32::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows its number.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(Id::PIDFd(fd.as_fd()), look) {
        Ok(_) | Err(Errno::EAGAIN) => Ok(fd),
        Err(error) => Err(error),
    }
}

/// Whether the child has ended and waits to be reaped.
pub fn has_ended(child: impl AsFd) -> bool {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let seen = waitid(Id::PIDFd(child.as_fd()), look);
    // An error is told by whoever reaps.
    !matches!(seen, Ok(WaitStatus::StillAlive) | Err(Errno::EAGAIN))
}

/// Reaps the child if it has ended; `None` if it has not.
pub fn reap(child: impl AsFd) -> Result<Option<WaitStatus>, Errno> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
    match waitid(Id::PIDFd(child.as_fd()), flags) {
        Ok(WaitStatus::StillAlive) | Err(Errno::EAGAIN) => Ok(None),
        Ok(status) => Ok(Some(status)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri starts no processes")]
    fn a_child_is_reaped_once_and_a_stranger_is_none() {
        let pid = Command::new("true").spawn().map(|child| child.id()).unwrap();
        let pid = Pid::from_raw(i32::try_from(pid).unwrap());
        let fd = open_child(pid).unwrap();
        let mut polls = [nix::poll::PollFd::new(fd.as_fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut polls, nix::poll::PollTimeout::NONE).unwrap();
        assert!(has_ended(&fd));
        assert_eq!(reap(&fd), Ok(Some(WaitStatus::Exited(pid, 0))));
        assert_eq!(reap(&fd), Err(Errno::ECHILD));
        assert_eq!(open_child(Pid::from_raw(1)).unwrap_err(), Errno::ECHILD);
    }
}
