//! Descriptors that whoever started this process has left open for it.

use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;

/// The first number that is not one of the three standard ones.
pub const FIRST: RawFd = 3;

/// Takes over the descriptor with this number, and closes it on exec from now on.
///
/// It must have come through the exec that began this process: then it is not closed on exec,
/// while all that this process opens itself is (the standard library and everything here do so).
/// One that is closed on exec has an owner already, and is refused with `EBUSY`; so a number is
/// given out once.
pub fn take(number: RawFd) -> Result<OwnedFd, Errno> {
    if number < FIRST {
        return Err(Errno::EINVAL);
    }
    // SAFETY: reads a flag of whatever the number is; one that is not open gives EBADF.
    let flags = Errno::result(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(Errno::EBUSY);
    }
    // SAFETY: sets a flag of an open descriptor; no memory is involved.
    Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, flags | libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, and was inherited: nobody in this process owns it, and no second call
    // comes this far, because it is closed on exec now.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn what_this_process_has_opened_itself_is_not_given_out() {
        let own = File::open("/dev/null").unwrap();
        assert_eq!(take(own.as_raw_fd()).unwrap_err(), Errno::EBUSY);
        assert_eq!(take(0).unwrap_err(), Errno::EINVAL);
        assert_eq!(take(1_000_000).unwrap_err(), Errno::EBADF);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri does not know F_SETFD")]
    fn an_inherited_descriptor_is_given_out_once() {
        let number = {
            let open = File::open("/dev/null").unwrap();
            // As exec leaves it: open, with no owner and not closed on exec.
            nix::unistd::dup(&open).map(std::os::fd::IntoRawFd::into_raw_fd).unwrap()
        };
        let taken = take(number).unwrap();
        assert_eq!(taken.as_raw_fd(), number);
        assert_eq!(take(number).unwrap_err(), Errno::EBUSY);
    }
}
