//! A copy of this process beside it: what a zygote does.
//!
//! Not `fork`: the copy must be a child of this process's *parent*, so that the supervisor waits
//! for a worker that a zygote made as it does for one that it started itself, and so that the
//! worker outlives the zygote. Only `clone3` can do that, and it can put the copy into a control
//! group before it runs.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

use super::process::threads;

/// Which of the two a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    Original {
        /// The copy's process id, as this process sees it.
        copy: Pid,
    },
    /// The copy: a child of the parent of the original, in the control group that was named. It has
    /// every descriptor of the original.
    Copy,
}

/// Not in libc for every target.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const PR_GET_TID_ADDRESS: libc::c_int = 40;

/// Copies this process, which must have one thread: what other threads hold (the allocator's locks,
/// say) would stay held for ever in the copy. `EBUSY` if it has more.
///
/// `cgroup` is the folder of a control group of version 2.
pub fn copy_beside(cgroup: Option<BorrowedFd<'_>>) -> Result<Forked, Errno> {
    if threads() != 1 {
        return Err(Errno::EBUSY);
    }
    let address = tid_address();
    let mut flags = flag(libc::CLONE_PARENT);
    if address != 0 {
        // As glibc's own fork does: it keeps the thread's number there.
        flags |= flag(libc::CLONE_CHILD_SETTID) | flag(libc::CLONE_CHILD_CLEARTID);
    }
    let group = match cgroup {
        Some(folder) => {
            flags |= CLONE_INTO_CGROUP;
            u64::try_from(folder.as_raw_fd()).map_err(|_| Errno::EBADF)?
        }
        None => 0,
    };
    // The exit signal must be none: with CLONE_PARENT it is that of the original.
    let arguments: [u64; 11] = [flags, 0, address, 0, 0, 0, 0, 0, 0, 0, group];
    let size = size_of_val(&arguments);
    // SAFETY: the arguments are a `struct clone_args` of its second extension (eleven words), alive
    // for the call. Without CLONE_VM the copy has its own memory and returns from this call on its
    // own copy of this stack; the one thread that there is means that no lock is held elsewhere.
    // The address is what the kernel itself has for this thread.
    let result = unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size) };
    match Errno::result(result)? {
        0 => Ok(Forked::Copy),
        copy => i32::try_from(copy)
            .map(|copy| Forked::Original { copy: Pid::from_raw(copy) })
            .map_err(|_| Errno::ERANGE),
    }
}

fn flag(flag: libc::c_int) -> u64 {
    u64::from(flag.cast_unsigned())
}

/// Where glibc keeps the number of this thread; 0 if the kernel does not say.
fn tid_address() -> u64 {
    let mut address = 0_u64;
    // SAFETY: with this option the kernel writes one pointer to the address that it is given, which
    // is a live word of this frame.
    let result =
        unsafe { libc::prctl(PR_GET_TID_ADDRESS, std::ptr::from_mut(&mut address), 0, 0, 0) };
    if result == 0 { address } else { 0 }
}

/// Puts `arguments` in the place of those that the process was started with, for whoever reads a
/// process list. What does not fit is cut. `ENOENT` if the kernel does not say where they are.
///
/// The arguments that the standard library gives are garbage afterwards, though harmless.
pub fn rename_process(arguments: &[&str]) -> Result<(), Errno> {
    let stat = std::fs::read_to_string("/proc/self/stat").map_err(|_| Errno::ENOENT)?;
    let (start, end) = argument_area(&stat).ok_or(Errno::ENOENT)?;
    let room = end - start;
    let mut text: Vec<u8> = Vec::with_capacity(room);
    for argument in arguments {
        text.extend(argument.bytes().filter(|&byte| byte != 0));
        text.push(0);
    }
    // The last byte stays zero: otherwise the kernel reads on.
    text.truncate(room - 1);
    text.resize(room, 0);
    let area = std::ptr::with_exposed_provenance_mut::<u8>(start);
    // SAFETY: the kernel says that the arguments lie at start..end, which is writable memory of
    // this process that nothing in Rust refers to (`std::env::args` copies); `text` has that length.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), area, room) };
    if let Some(Ok(name)) = arguments.first().map(|name| std::ffi::CString::new(*name)) {
        let _cannot_fail = nix::sys::prctl::set_name(&name);
    }
    Ok(())
}

/// Fields 48 and 49 of `/proc/PID/stat`: where the arguments begin and end.
fn argument_area(stat: &str) -> Option<(usize, usize)> {
    // The second field, in parentheses, can hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(45);
    let start: usize = fields.next()?.parse().ok()?;
    let end: usize = fields.next()?.parse().ok()?;
    (start != 0 && end > start).then_some((start, end))
}

/// Sets a variable of the environment; only in a process that has just been copied and has one
/// thread (`EBUSY` otherwise): whoever reads the environment meanwhile would read what moves.
pub fn set_variable(name: &str, value: &str) -> Result<(), Errno> {
    if threads() != 1 {
        return Err(Errno::EBUSY);
    }
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        return Err(Errno::EINVAL);
    }
    write_variable(name, value);
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the way of passing values to libraries that look nowhere else"
)]
fn write_variable(name: &str, value: &str) {
    // SAFETY: the caller has seen that no other thread could read the environment.
    unsafe { std::env::set_var(name, value) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_found_behind_any_name() {
        let stat = |name: &str| {
            let numbers: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
            format!("77 ({name}) {}", numbers.join(" "))
        };
        assert_eq!(argument_area(&stat("worker")), Some((48, 49)));
        assert_eq!(argument_area(&stat(") 1 2 (")), Some((48, 49)));
        assert_eq!(argument_area("77 (worker) 1 2"), None);
        assert_eq!(argument_area(""), None);
    }

    #[test]
    fn a_process_with_threads_is_not_copied() {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || ended.recv());
        assert_eq!(copy_beside(None), Err(Errno::EBUSY));
        assert_eq!(set_variable("BULKHEAD_TEST", "1"), Err(Errno::EBUSY));
        drop(end);
        let _ended = thread.join();
    }
}
