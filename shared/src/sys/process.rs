//! What a fresh worker does to itself, and what it asks about itself.

use std::fs::File;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
pub use nix::unistd::Pid;

/// Closes every descriptor from `first` on, whatever was inherited by accident. For the very start
/// of a process, before anything in it owns one of them.
pub fn close_from(first: u32) -> Result<(), Errno> {
    close_range(first, libc::c_uint::MAX)
}

/// Asks for SIGKILL when the thread that started this process ends, then checks that it had not
/// ended before; `expected_parent` is the process that should be the parent.
pub fn die_with_parent(expected_parent: u32) -> Result<(), Errno> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let parent = u32::try_from(nix::unistd::getppid().as_raw()).map_err(|_| Errno::ESRCH)?;
    if parent == expected_parent { Ok(()) } else { Err(Errno::ESRCH) }
}

/// No core files (they would hold clients' data), and no privileges by exec.
pub fn renounce() -> Result<(), Errno> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    nix::sys::prctl::set_no_new_privs()
}

/// Ends this process without the destructors of what is loaded: a framework's take longer than its
/// work, and in a copy of a zygote they copy memory to give it back. What was printed is written
/// out first.
pub fn end(code: u8) -> ! {
    let _ignored = std::io::Write::flush(&mut std::io::stdout());
    // SAFETY: null means all of the C library's open streams; it takes their locks.
    unsafe { libc::fflush(std::ptr::null_mut()) };
    exit_now(code.into())
}

/// Threads of this process; 0 if the kernel does not say.
pub fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// In which of two processes [`fork`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    Parent(Pid),
    Child,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Code(i32),
    Signal(i32),
}

/// Goes on in two processes. Fails with `EBUSY` unless this one has a single thread: what others
/// had locked would stay locked in the child.
pub fn fork() -> Result<Forked, Errno> {
    if threads() != 1 {
        return Err(Errno::EBUSY);
    }
    // SAFETY: this process has one thread, so that the child is a whole copy of it, and may do
    // whatever this one may. Nobody else can start a thread between the look and the call.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(Forked::Parent(child)),
        nix::unistd::ForkResult::Child => Ok(Forked::Child),
    }
}

/// Waits for the end of `child`, or of any child, and takes its number out of use.
///
/// Not nix's, which takes an end by a real-time signal for an error.
pub fn reap(child: Option<Pid>) -> Result<(Pid, End), Errno> {
    let wanted = child.map_or(-1, Pid::as_raw);
    loop {
        let mut status = 0;
        // SAFETY: the kernel writes one int, which lives on this stack frame.
        let result = unsafe { libc::waitpid(wanted, &raw mut status, 0) };
        match Errno::result(result) {
            Ok(pid) if libc::WIFEXITED(status) => {
                return Ok((Pid::from_raw(pid), End::Code(libc::WEXITSTATUS(status))));
            }
            Ok(pid) if libc::WIFSIGNALED(status) => {
                return Ok((Pid::from_raw(pid), End::Signal(libc::WTERMSIG(status))));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Closes every descriptor but `kept`, and puts `/dev/null` in the place of the standard ones. For a
/// process that uses nothing else from here on: values that own a closed descriptor stay behind.
pub fn hold_only(kept: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    drop(null);
    let number = |fd: &BorrowedFd<'_>| libc::c_uint::try_from(fd.as_raw_fd()).unwrap_or(0);
    let mut kept: Vec<libc::c_uint> = kept.iter().map(number).collect();
    kept.sort_unstable();
    let mut first: libc::c_uint = 3;
    for kept in kept.into_iter().filter(|kept| *kept >= 3) {
        if first < kept {
            close_range(first, kept - 1)?;
        }
        first = kept + 1;
    }
    close_range(first, libc::c_uint::MAX)
}

fn close_range(first: libc::c_uint, last: libc::c_uint) -> Result<(), Errno> {
    // SAFETY: the callers are processes, or moments in one, in which nobody uses a descriptor that
    // is not kept.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    Errno::result(result).map(drop)
}

/// Lets this process live through the signals that ask a group of processes to end.
pub fn ignore_requests_to_end() {
    for request in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        ignore(request);
    }
}

/// Makes a file that grows beyond `RLIMIT_FSIZE` an error of the call and not the end of the process.
pub fn ignore_file_size_signal() {
    ignore(Signal::SIGXFSZ);
}

fn ignore(ignored: Signal) {
    // SAFETY: no handler function is installed, so that nothing can run in one.
    let _cannot_fail = unsafe { signal(ignored, SigHandler::SigIgn) };
}

/// Ends this process as another one ended, so that its parent sees the same.
pub fn end_as(end: End) -> ! {
    let number = match end {
        End::Code(code) => exit_now(code),
        End::Signal(number) => number,
    };
    // SAFETY: no handler function is installed, so that nothing can run in one.
    let _kept_by_the_kernel = unsafe { libc::signal(number, libc::SIG_DFL) };
    // SAFETY: a signal to this process touches no memory of it.
    let _ended = unsafe { libc::raise(number) };
    exit_now(128_i32.saturating_add(number))
}

/// Ends this process without running anything: what is registered to run at the exit belongs to the
/// process that this one is a copy of.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: it has no preconditions and does not return.
    unsafe { libc::_exit(code) }
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
