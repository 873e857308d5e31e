//! Waiting on a word of shared memory.

use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

use crate::sync::AtomicU32;

/// Why a wait ended. None of these says that the word has changed: look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Woken, or the kernel felt like it.
    Woken,
    /// The word was not `expected` when the kernel looked.
    Changed,
    TimedOut,
}

/// Sleeps while `word` is `expected`, at most for `timeout`. The word may lie in a read-only
/// mapping and be shared between processes.
pub fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> Waited {
    let timeout = timeout.map(|t| libc::timespec {
        tv_sec: libc::time_t::try_from(t.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(t.subsec_nanos()),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: FUTEX_WAIT reads the aligned word, which the reference keeps mapped, and the
    // timespec, which lives on this stack frame (or is null); it writes nothing.
    let result = unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, timeout)
    };
    match Errno::result(result) {
        Ok(_) | Err(Errno::EINTR) => Waited::Woken,
        Err(Errno::ETIMEDOUT) => Waited::TimedOut,
        // EAGAIN; anything else cannot happen with a valid word and makes the caller look again.
        Err(_) => Waited::Changed,
    }
}

/// Wakes at most `count` waiters of `word`, in any process.
pub fn wake(word: &AtomicU32, count: i32) {
    // SAFETY: FUTEX_WAKE only takes the address, which is mapped and aligned, as a key.
    let result = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count) };
    debug_assert!(result >= 0, "FUTEX_WAKE fails only for an address that is not mapped");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_word_and_a_timeout_end_the_wait() {
        let word = AtomicU32::new(1);
        assert_eq!(wait(&word, 2, None), Waited::Changed);
        assert_eq!(wait(&word, 1, Some(Duration::from_millis(1))), Waited::TimedOut);
        wake(&word, 1);
    }
}
