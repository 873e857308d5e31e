//! Carries faults out. Some of these functions do not return.

use std::io::Write;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, Signal, raise, signal};

use crate::engine::echo::command::{Crash, Hang};

/// Waits, however often the thread is woken.
pub(super) fn delay(time: Duration) {
    if time.is_zero() {
        return;
    }
    let start = Instant::now();
    while let Some(left) = time.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

#[expect(clippy::exit, reason = "the fault is a process that ends without having answered")]
pub(super) fn crash(how: Crash) -> ! {
    match how {
        Crash::Segv => segv(),
        Crash::Abort => std::process::abort(),
        Crash::Kill => {
            let _cannot_fail = raise(Signal::SIGKILL);
            std::process::abort();
        }
        Crash::Exit(code) => std::process::exit(code.into()),
    }
}

/// A real fault, and not a raised signal: only that comes with an address and again after a
/// handler has returned.
fn segv() -> ! {
    let unmapped = std::ptr::without_provenance_mut::<u8>(64);
    // SAFETY: there is none, on purpose. The kernel maps nothing at the lowest page
    // (vm.mmap_min_addr), so that the write can do nothing but raise SIGSEGV.
    unsafe { unmapped.write_volatile(1) };
    std::process::abort();
}

pub(super) fn hang(how: Hang) -> ! {
    loop {
        match how {
            Hang::Busy => std::hint::spin_loop(),
            Hang::Sleep => std::thread::park(),
        }
    }
}

pub(super) fn stop() {
    let _cannot_fail = raise(Signal::SIGSTOP);
}

/// Memory that was written to, or `None` if there is not so much.
pub(super) fn allocate(bytes: usize) -> Option<Vec<u8>> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(bytes).ok()?;
    memory.resize(bytes, 1);
    // Otherwise the compiler may see that nobody reads it, and leave it out.
    Some(std::hint::black_box(memory))
}

pub(super) fn print(text: &str) {
    // A closed stdout is no reason to fail.
    let _ignored = writeln!(std::io::stdout().lock(), "{text}");
}

pub(super) fn print_variable(name: &str) {
    let value = std::env::var_os(name).unwrap_or_default();
    print(&format!("{name}={}", value.display()));
}

pub(super) fn ignore_term() {
    // SAFETY: no handler function is installed, so that nothing can run in one.
    let _cannot_fail = unsafe { signal(Signal::SIGTERM, SigHandler::SigIgn) };
}

pub(super) fn flood_stderr(lines: u64) {
    let mut stderr = std::io::stderr().lock();
    for line in 0..lines {
        let _ignored =
            writeln!(stderr, "flood {line}: the quick brown fox jumps over the lazy dog");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_not_cut_short_by_a_wake() {
        let start = Instant::now();
        std::thread::current().unpark();
        delay(Duration::from_millis(20));
        assert!(start.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn more_memory_than_there_is_is_refused() {
        assert_eq!(allocate(1 << 20).map(|memory| memory.len()), Some(1 << 20));
        assert_eq!(allocate(usize::MAX), None);
    }
}
