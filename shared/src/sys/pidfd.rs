//! Descriptors of processes: a number can be another's later, a descriptor cannot.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use super::process::End;

/// Whether it has ended, without reaping it.
const LOOK: libc::c_int = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;

/// Opens a child that was not reaped yet, so that its number is still its own. `ECHILD` if the
/// process is no child of this one. The descriptor becomes readable when the child has ended.
pub fn open_child(pid: Pid) -> Result<OwnedFd, Errno> {
    let fd = open(pid)?;
    wait(fd.as_fd(), LOOK)?;
    Ok(fd)
}

/// Opens any process, whose number the caller must know to be its own still.
pub fn open(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: takes two numbers and returns a descriptor or an error.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), libc::PIDFD_NONBLOCK) };
    let raw = i32::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Waits until a process has ended, anybody's child.
pub fn wait_for_end(process: impl AsFd) -> Result<(), Errno> {
    let mut ended = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut ended, PollTimeout::NONE) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether the child has ended and waits to be reaped.
pub fn has_ended(child: impl AsFd) -> bool {
    // An error is told by whoever reaps.
    !matches!(wait(child.as_fd(), LOOK), Ok(None))
}

/// Reaps the child if it has ended; `None` if it has not.
pub fn reap(child: impl AsFd) -> Result<Option<End>, Errno> {
    wait(child.as_fd(), libc::WEXITED | libc::WNOHANG)
}

/// Not nix's, which takes an end by a real-time signal for an error.
fn wait(child: BorrowedFd<'_>, flags: libc::c_int) -> Result<Option<End>, Errno> {
    let number = libc::id_t::try_from(child.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the kernel writes one siginfo, which lives on this stack frame.
    let result = unsafe { libc::waitid(libc::P_PIDFD, number, info.as_mut_ptr(), flags) };
    match Errno::result(result) {
        Ok(_) => {}
        Err(Errno::EAGAIN) => return Ok(None),
        Err(error) => return Err(error),
    }
    // SAFETY: all zeros are a siginfo, and the kernel has written the rest.
    let info = unsafe { info.assume_init() };
    // SAFETY: after waitid the fields of SIGCHLD are those that are set, zero if nothing has ended.
    let pid = unsafe { info.si_pid() };
    // SAFETY: as above.
    let status = unsafe { info.si_status() };
    match (pid, info.si_code) {
        (0, _) => Ok(None),
        (_, libc::CLD_EXITED) => Ok(Some(End::Code(status))),
        (_, _) => Ok(Some(End::Signal(status))),
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
        assert_eq!(reap(&fd), Ok(Some(End::Code(0))));
        assert_eq!(reap(&fd), Err(Errno::ECHILD));
        assert_eq!(open_child(Pid::from_raw(1)).unwrap_err(), Errno::ECHILD);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri starts no processes")]
    fn every_signal_is_told() {
        for signal in [9, 34, 64] {
            let script = format!("kill -{signal} $$");
            let child = Command::new("sh").args(["-c", &script]).spawn().map(|child| child.id());
            let fd = open_child(Pid::from_raw(i32::try_from(child.unwrap()).unwrap())).unwrap();
            let mut polls = [nix::poll::PollFd::new(fd.as_fd(), nix::poll::PollFlags::POLLIN)];
            nix::poll::poll(&mut polls, nix::poll::PollTimeout::NONE).unwrap();
            assert_eq!(reap(&fd), Ok(Some(End::Signal(signal))));
        }
    }
}
