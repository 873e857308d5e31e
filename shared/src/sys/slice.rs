//! How long a thread keeps the processor when others want it too.

use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

/// Missing in libc as a number of 64 bits; `linux/sched.h`.
const RESET_ON_FORK: u64 = 1;

/// What the threads have that a thread starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heirs {
    /// The same slices.
    Same,
    /// Those that the kernel chooses, from here on for ever: only root may take that back.
    Usual,
}

/// Sets how long a thread runs at a time; the first thread of a process has the process's number,
/// and no `Pid` means the calling thread. Its share of the processor stays what it is: one with
/// shorter slices gets its turn sooner and runs for less long. The kernel takes what is between 0.1 ms
/// and 100 ms; `None` is its own choice.
///
/// Linux 6.12; older ones take it and do nothing. `sched(7)`, `sched_setattr(2)`. A thread of
/// another policy than the usual ones is left as it is. `EPERM` for another user's process.
pub fn set(thread: Option<Pid>, slice: Option<Duration>, heirs: Heirs) -> Result<(), Errno> {
    let thread = thread.map_or(0, Pid::as_raw);
    let size = size_of::<libc::sched_attr>();
    let mut attributes = std::mem::MaybeUninit::<libc::sched_attr>::zeroed();
    // SAFETY: the kernel writes at most `size` bytes, which live on this stack frame.
    let got =
        unsafe { libc::syscall(libc::SYS_sched_getattr, thread, attributes.as_mut_ptr(), size, 0) };
    Errno::result(got)?;
    // SAFETY: all zeros are such attributes, and the kernel has written the rest.
    let mut attributes = unsafe { attributes.assume_init() };
    let usual = [libc::SCHED_OTHER, libc::SCHED_BATCH].map(libc::c_int::cast_unsigned);
    if !usual.contains(&attributes.sched_policy) {
        return Ok(());
    }
    let nanos = slice.map_or(0, |slice| slice.as_nanos());
    attributes.sched_runtime = u64::try_from(nanos).unwrap_or(u64::MAX);
    attributes.sched_flags &= RESET_ON_FORK;
    attributes.sched_flags |= match heirs {
        Heirs::Same => 0,
        Heirs::Usual => RESET_ON_FORK,
    };
    (attributes.sched_deadline, attributes.sched_period) = (0, 0);
    // SAFETY: the kernel reads attributes of the size that they say.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, thread, &raw const attributes, 0) };
    Errno::result(set).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_can_be_set_and_given_back() {
        let own = Some(Pid::this());
        set(None, Some(Duration::from_millis(20)), Heirs::Same).unwrap();
        set(own, Some(Duration::from_micros(100)), Heirs::Same).unwrap();
        set(None, None, Heirs::Usual).unwrap();
        set(own, None, Heirs::Same).unwrap();
        let nobody = Some(Pid::from_raw(i32::MAX));
        assert_eq!(set(nobody, None, Heirs::Same), Err(Errno::ESRCH));
    }
}
