//! System calls that a confined worker may not make, each with arguments that the kernel takes no
//! action on: the question is only whether it gets as far as to look at them.
//!
//! Every pointer is null and every other argument is one that is refused without harm, or changes
//! nothing. The error is chosen to come before the kernel asks who the caller is, so that what an
//! ordinary user may not do is not taken for what a filter refuses.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

/// One call of the table below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    number: i64,
    arguments: &'static [Argument],
    /// Another process, where an argument is one.
    pid: Option<Pid>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Argument {
    Is(i64),
    /// A descriptor of a pipe, which is neither a terminal nor a file on a disk.
    Pipe,
    /// The process that the probe names.
    Process,
}

use Argument::{Is, Pipe, Process};

/// No descriptor, no flags, no clock, no operation, no priority.
const BAD: Argument = Is(-1);
const NULL: Argument = Is(0);
const UNIX: Argument = Is(libc::AF_UNIX as i64);
/// No command of `bpf`.
const UNKNOWN: Argument = Is(0xffff);
const FIGETBSZ: Argument = Is(2);
const FIOSETOWN: Argument = Is(0x8901);
const SIOCSPGRP: Argument = Is(0x8902);
const TIOCSTI: Argument = Is(0x5412);
const TIOCLINUX: Argument = Is(0x541c);
const PRIVATE_HUGE: Argument = Is((libc::MAP_PRIVATE | libc::MAP_HUGETLB) as i64);
const SHARED_ANONYMOUS: Argument = Is((libc::MAP_SHARED | libc::MAP_ANONYMOUS) as i64);

/// A name, the number, and the arguments; those that are left out are 0.
const CALLS: &[(&str, i64, &[Argument])] = &[
    ("socketpair-stream", libc::SYS_socketpair, &[UNIX, Is(libc::SOCK_STREAM as i64)]),
    ("socketpair-datagram", libc::SYS_socketpair, &[UNIX, Is(libc::SOCK_DGRAM as i64)]),
    ("socketpair-packet", libc::SYS_socketpair, &[UNIX, Is(libc::SOCK_SEQPACKET as i64)]),
    ("connect", libc::SYS_connect, &[BAD]),
    ("bind", libc::SYS_bind, &[BAD]),
    ("listen", libc::SYS_listen, &[BAD]),
    ("accept", libc::SYS_accept4, &[BAD]),
    ("tkill", libc::SYS_tkill, &[BAD]),
    ("tgkill", libc::SYS_tgkill, &[Process, Process]),
    ("sigqueue", libc::SYS_rt_sigqueueinfo, &[Process]),
    ("pidfd-signal", libc::SYS_pidfd_send_signal, &[BAD]),
    ("setown-ex", libc::SYS_fcntl, &[Pipe, Is(15), NULL]),
    ("setsig", libc::SYS_fcntl, &[Pipe, Is(10)]),
    ("lease", libc::SYS_fcntl, &[Pipe, Is(libc::F_SETLEASE as i64), Is(libc::F_UNLCK as i64)]),
    ("notify", libc::SYS_fcntl, &[Pipe, Is(libc::F_NOTIFY as i64)]),
    ("fiosetown", libc::SYS_ioctl, &[Pipe, FIOSETOWN]),
    ("siocspgrp", libc::SYS_ioctl, &[Pipe, SIOCSPGRP]),
    ("tiocsti", libc::SYS_ioctl, &[Pipe, TIOCSTI]),
    ("tioclinux", libc::SYS_ioctl, &[Pipe, TIOCLINUX]),
    ("figetbsz", libc::SYS_ioctl, &[Pipe, FIGETBSZ]),
    ("pdeathsig", libc::SYS_prctl, &[Is(libc::PR_SET_PDEATHSIG as i64), BAD]),
    // Without a length there is nothing to write, and nobody to ask for leave.
    ("write-memory", libc::SYS_process_vm_writev, &[Process]),
    ("kcmp", libc::SYS_kcmp, &[]),
    ("advise", libc::SYS_process_madvise, &[BAD]),
    ("release", libc::SYS_process_mrelease, &[BAD]),
    ("scheduler", libc::SYS_sched_setscheduler, &[Process, Is(libc::SCHED_OTHER as i64), NULL]),
    ("sched-param", libc::SYS_sched_setparam, &[Process, NULL]),
    ("sched-attr", libc::SYS_sched_setattr, &[Process, NULL]),
    ("nice-others", libc::SYS_setpriority, &[BAD]),
    ("ioprio", libc::SYS_ioprio_set, &[Is(1), Process, BAD]),
    ("ioprio-others", libc::SYS_ioprio_set, &[BAD, NULL, BAD]),
    ("clone3", libc::SYS_clone3, &[NULL]),
    ("execveat", libc::SYS_execveat, &[BAD, NULL]),
    ("chown", libc::SYS_chown, &[NULL]),
    ("utimensat", libc::SYS_utimensat, &[BAD, NULL]),
    ("setxattr", libc::SYS_setxattr, &[NULL]),
    ("mount", libc::SYS_mount, &[NULL, NULL]),
    ("umount", libc::SYS_umount2, &[NULL]),
    ("chroot", libc::SYS_chroot, &[NULL]),
    ("open-tree", libc::SYS_open_tree, &[BAD, NULL]),
    ("file-handle", libc::SYS_name_to_handle_at, &[BAD, NULL]),
    ("setresuid", libc::SYS_setresuid, &[BAD, BAD, BAD]),
    ("capset", libc::SYS_capset, &[NULL]),
    ("setns", libc::SYS_setns, &[BAD]),
    ("personality", libc::SYS_personality, &[Is(0)]),
    ("semctl", libc::SYS_semctl, &[BAD, BAD, BAD]),
    ("msgctl", libc::SYS_msgctl, &[BAD, BAD]),
    ("mq-open", libc::SYS_mq_open, &[NULL]),
    ("keyctl", libc::SYS_keyctl, &[BAD]),
    ("add-key", libc::SYS_add_key, &[NULL]),
    ("request-key", libc::SYS_request_key, &[NULL]),
    ("clock-set", libc::SYS_clock_settime, &[BAD]),
    ("syncfs", libc::SYS_syncfs, &[BAD]),
    ("bpf", libc::SYS_bpf, &[UNKNOWN, NULL]),
    ("perf", libc::SYS_perf_event_open, &[NULL, NULL, BAD, BAD]),
    ("userfaultfd", libc::SYS_userfaultfd, &[BAD]),
    ("io-uring", libc::SYS_io_uring_setup, &[Is(1), NULL]),
    ("seccomp", libc::SYS_seccomp, &[BAD]),
    ("ldt", libc::SYS_modify_ldt, &[Is(0), NULL]),
    ("fanotify", libc::SYS_fanotify_mark, &[BAD, BAD]),
    ("vmsplice", libc::SYS_vmsplice, &[BAD]),
    ("io-setup", libc::SYS_io_setup, &[Is(1), NULL]),
    ("inotify", libc::SYS_inotify_init1, &[BAD]),
    ("inotify-watch", libc::SYS_inotify_add_watch, &[BAD, NULL]),
    ("huge-pages", libc::SYS_mmap, &[NULL, Is(4096), Is(0), PRIVATE_HUGE, Pipe]),
    ("huge-object", libc::SYS_memfd_create, &[NULL, Is(libc::MFD_HUGETLB as i64)]),
    // Refused with a limit on private memory. Nothing is mapped where there is no length.
    ("shared-memory", libc::SYS_mmap, &[NULL, Is(0), Is(0), SHARED_ANONYMOUS, BAD]),
    ("object", libc::SYS_memfd_create, &[NULL, Is(0)]),
    ("secret-object", libc::SYS_memfd_secret, &[BAD]),
];

impl Call {
    /// `NAME`, or `NAME PID` where the call needs a process.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (wanted, pid) = text.split_once(' ').unwrap_or((text, ""));
        let &(_, number, arguments) = CALLS.iter().find(|(name, ..)| *name == wanted)?;
        let pid = pid.parse().ok().map(Pid::from_raw);
        (pid.is_some() == arguments.contains(&Process)).then_some(Self { number, arguments, pid })
    }

    /// Whatever the kernel says of the arguments shows that it was let look at them.
    pub(super) fn attempt(self) -> Result<(), String> {
        let (pipe, _writer) = std::io::pipe().map_err(|error| error.to_string())?;
        match self.make(pipe.as_fd()) {
            Err(refused @ (Errno::EPERM | Errno::ENOSYS)) => Err(refused.to_string()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn make(self, pipe: BorrowedFd<'_>) -> Result<(), Errno> {
        let value = |argument: &Argument| match argument {
            Is(value) => *value,
            Pipe => pipe.as_raw_fd().into(),
            Process => self.pid.map_or(0, Pid::as_raw).into(),
        };
        let argument = |index: usize| self.arguments.get(index).map_or(0, value);
        let [a, b, c, d, e] = [0, 1, 2, 3, 4].map(argument);
        // SAFETY: the arguments are those of `CALLS`. No pointer among them is other than null, which
        // no call reads from or writes to, and nothing maps memory or takes any away.
        let returned = unsafe { libc::syscall(self.number, a, b, c, d, e, 0) };
        Errno::result(returned).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_a_name_of_its_own_and_a_process_where_it_needs_one() {
        for (i, (name, _, arguments)) in CALLS.iter().enumerate() {
            assert!(CALLS[..i].iter().all(|(other, ..)| other != name), "{name}");
            assert!(arguments.len() <= 5, "{name}");
            let needs = arguments.contains(&Process);
            assert_eq!(Call::parse(name).is_some(), !needs, "{name}");
            assert_eq!(Call::parse(&format!("{name} 1")).is_some(), needs, "{name}");
        }
        assert_eq!(Call::parse("hope"), None);
    }
}
