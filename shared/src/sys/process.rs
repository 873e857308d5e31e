//! What a fresh worker does to itself, and what it asks about itself.

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use nix::sys::signal::Signal;

/// Closes every descriptor from `first` on, whatever was inherited by accident.
pub fn close_from(first: u32) -> Result<(), Errno> {
    // SAFETY: called once at the very start of a worker, before anything in this process owns a
    // descriptor numbered `first` or above.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
    Errno::result(result).map(drop)
}

/// Asks for SIGKILL when the thread that started this process ends, then checks that it had not
/// ended before; `expected_parent` is the process that should be the parent.
pub fn die_with_parent(expected_parent: u32) -> Result<(), Errno> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let parent = u32::try_from(nix::unistd::getppid().as_raw()).map_err(|_| Errno::ESRCH)?;
    if parent == expected_parent { Ok(()) } else { Err(Errno::ESRCH) }
}

/// What most systems give a process that asks for nothing.
const USUAL_DESCRIPTORS: u64 = 1024;

/// No core files (they would hold clients' data), no privileges by exec, and no more descriptors
/// than programs are used to: the supervisor's own limit is as high as it can be.
pub fn renounce() -> Result<(), Errno> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(USUAL_DESCRIPTORS), hard)?;
    nix::sys::prctl::set_no_new_privs()
}

/// Ends this process without the destructors of what is loaded: a framework's take longer than its
/// work, and in a copy of a zygote they copy memory to give it back. What was printed is written
/// out first.
pub fn end(code: u8) -> ! {
    let _ignored = std::io::Write::flush(&mut std::io::stdout());
    // SAFETY: null means all of the C library's open streams; it takes their locks.
    unsafe { libc::fflush(std::ptr::null_mut()) };
    // SAFETY: never returns; the kernel takes back whatever this process has.
    unsafe { libc::_exit(libc::c_int::from(code)) }
}

/// Peak resident memory of this process in bytes; 0 if the kernel does not say.
///
/// Not `getrusage`: a process that was spawned starts with its parent's high-water mark there.
pub fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    high_water(&status).unwrap_or(0)
}

/// The `VmHWM` line of `/proc/PID/status`, in bytes.
fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_water_mark_is_found() {
        assert_eq!(high_water("VmPeak:\t  9 kB\nVmHWM:\t    1236 kB\n"), Some(1236 << 10));
        assert_eq!(high_water("VmPeak:\t  9 kB\n"), None);
        assert!(peak_rss() > 0);
    }
}
