//! The system calls that a confined worker may not make, each with its reason; pure data.
//!
//! Files are Landlock's part. Here is what Landlock does not see (signals on old kernels, sockets
//! other than TCP, attributes of files, scheduling), what nothing in a worker needs, and what has
//! been a way into the kernel before.

use std::ops::RangeInclusive;

use nix::libc;
use proto::control::Device;

/// When a rule is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Always,
    /// On a worker that was not given a GPU: CUDA's library listens on a socket of its own.
    WithoutGpu,
    /// When the kernel's limit on private memory is the only one there is.
    WithDataLimit,
    /// The same, on a worker without a GPU: CUDA's library begins with a memory object of its own, and
    /// does not begin (error 304) if it may not make it.
    WithDataLimitWithoutGpu,
}

/// Which calls a rule is about, by one 32-bit argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    All,
    /// Where the argument of this number is this value.
    Equal(u8, u32),
    /// Where it is any other value.
    Other(u8, u32),
    /// Where it is none of these values.
    NoneOf(u8, &'static [u32]),
    /// Where its bits under the mask have this value.
    Bits(u8, u32, u32),
    /// Where it names a process other than this one.
    OtherProcess(u8),
    /// Where it names a process other than this one, which may also be called 0.
    OtherProcessThanSelf(u8),
}

/// What a refused call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `EPERM`.
    NotPermitted,
    /// `ENOSYS`: the caller has another way for kernels that lack the call, and takes it.
    NotImplemented,
}

/// System calls that are refused for one reason.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Names and numbers.
    pub syscalls: &'static [(&'static str, i64)],
    pub when: When,
    pub calls: Calls,
    pub refusal: Refusal,
    pub reason: &'static str,
}

/// The numbers that this table was written with in mind. A call that came to the kernel since is
/// answered with `ENOSYS`, and so is one of the x32 ABI, whose numbers are far above.
pub const KNOWN: [RangeInclusive<i64>; 2] = [0..=334, 424..=456];

macro_rules! calls {
    ($($name:ident)+) => { &[$((stringify!($name), libc::$name)),+] };
}

const fn always(
    syscalls: &'static [(&'static str, i64)],
    calls: Calls,
    reason: &'static str,
) -> Rule {
    Rule { syscalls, when: When::Always, calls, refusal: Refusal::NotPermitted, reason }
}

const fn absent(syscalls: &'static [(&'static str, i64)], reason: &'static str) -> Rule {
    let (when, calls) = (When::Always, Calls::All);
    Rule { syscalls, when, calls, refusal: Refusal::NotImplemented, reason }
}

const CLONE_FILES: u32 = 0x0000_0400;
const CLONE_THREAD: u32 = 0x0001_0000;
const CLOSE_RANGE_UNSHARE: u32 = 2;
const SOCK_TYPE: u32 = 0xf;
const SOCK_DGRAM: u32 = 2;
const SOCK_RAW: u32 = 3;
const AF_UNIX: u32 = 1;
const PR_SET_PDEATHSIG: u32 = 1;
const PR_SET_DUMPABLE: u32 = 4;
const F_SETOWN: u32 = 8;
const F_SETSIG: u32 = 10;
const F_SETOWN_EX: u32 = 15;
const F_SETLEASE: u32 = 1024;
const F_NOTIFY: u32 = 1026;
const FIOSETOWN: u32 = 0x8901;
const SIOCSPGRP: u32 = 0x8902;
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;
const PRIO_PROCESS: u32 = 0;
const IOPRIO_WHO_PROCESS: u32 = 1;
const MAP_HUGETLB: u32 = 0x4_0000;
const MFD_HUGETLB: u32 = 4;
/// `TCGETS`, `TIOCGWINSZ`, `FIONREAD`, `FIONBIO`, `FIONCLEX`, `FIOCLEX`.
const HARMLESS_REQUESTS: &[u32] = &[0x5401, 0x5413, 0x541b, 0x5421, 0x5450, 0x5451];
const PERSONALITY_ASK: u32 = 0xffff_ffff;
const MAP_SHARED_OR_ANONYMOUS: u32 = 0x21;
/// `MFD_CLOEXEC | MFD_ALLOW_SEALING`, as `shared::sys::memfd` makes the objects of large outputs.
const OWN_OBJECT: u32 = 3;

const NETWORK: &str = "no network and no peer: everything that a worker talks to it was given";
const IN_FLIGHT: &str = "descriptors on their way through sockets are counted for the whole user";
const LEASE: &str = "whoever opens a file under a lease waits for its holder";
const WATCHES: &str = "watches have one limit for the whole user, and see other models' folders";
const HUGE: &str = "huge pages are the machine's, and no limit of a worker counts them";
const SIGNAL: &str = "a signal must not reach another process";
const GROUP: &str = "a worker stays in the group that its supervisor signals";
const OTHERS: &str = "memory and descriptors of other processes";
const WATCHED: &str = "the supervisor must see what is open";
const PROCESS: &str = "threads are needed, further processes and programs are not";
const SCHEDULING: &str = "processor and memory placement of another process of the same user";
const ATTRIBUTES: &str = "Landlock does not watch attributes: the owner could lock others out";
const MOUNT: &str = "the tree of files is as it was given";
const IDENTITY: &str = "identities and capabilities were given up for good";
const SHARED: &str = "named objects that any process of the same user can reach";
const KERNEL: &str = "changes the whole machine";
const SURFACE: &str = "not needed here, and a frequent way into the kernel";
const MEMORY: &str = "memory that the limit on private memory does not count";

/// In no particular order; a system call may be in several.
pub const RULES: &[Rule] = &[
    // Network and sockets.
    always(calls![SYS_socket], Calls::Other(0, AF_UNIX), NETWORK),
    always(calls![SYS_socketpair], Calls::All, IN_FLIGHT),
    always(
        calls![SYS_socket],
        Calls::Bits(1, SOCK_TYPE, SOCK_DGRAM),
        "a datagram can be sent to any name without a connection",
    ),
    always(calls![SYS_socket], Calls::Bits(1, SOCK_TYPE, SOCK_RAW), NETWORK),
    always(calls![SYS_connect], Calls::All, NETWORK),
    Rule {
        syscalls: calls![SYS_socket SYS_bind SYS_listen SYS_accept SYS_accept4],
        when: When::WithoutGpu,
        calls: Calls::All,
        refusal: Refusal::NotPermitted,
        reason: NETWORK,
    },
    // Signals, and ways to have the kernel send one.
    always(
        calls![SYS_kill SYS_tgkill SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo],
        Calls::OtherProcess(0),
        SIGNAL,
    ),
    always(calls![SYS_tkill SYS_pidfd_send_signal], Calls::All, SIGNAL),
    always(calls![SYS_fcntl], Calls::Equal(1, F_SETOWN), SIGNAL),
    always(calls![SYS_fcntl], Calls::Equal(1, F_SETOWN_EX), SIGNAL),
    always(calls![SYS_fcntl], Calls::Equal(1, F_SETSIG), SIGNAL),
    always(calls![SYS_fcntl], Calls::Equal(1, F_SETLEASE), LEASE),
    always(calls![SYS_fcntl], Calls::Equal(1, F_NOTIFY), WATCHES),
    always(calls![SYS_ioctl], Calls::Equal(1, FIOSETOWN), SIGNAL),
    always(calls![SYS_ioctl], Calls::Equal(1, SIOCSPGRP), SIGNAL),
    always(
        calls![SYS_ioctl],
        Calls::Equal(1, TIOCSTI),
        "input that a terminal's user did not type",
    ),
    always(
        calls![SYS_ioctl],
        Calls::Equal(1, TIOCLINUX),
        "input that a terminal's user did not type",
    ),
    always(calls![SYS_setpgid SYS_setsid], Calls::All, GROUP),
    always(
        calls![SYS_prctl],
        Calls::Equal(0, PR_SET_PDEATHSIG),
        "a worker ends with its supervisor",
    ),
    // What the supervisor looks at.
    always(calls![SYS_prctl], Calls::Equal(0, PR_SET_DUMPABLE), WATCHED),
    always(calls![SYS_clone], Calls::Bits(0, CLONE_FILES, 0), WATCHED),
    always(
        calls![SYS_close_range],
        Calls::Bits(2, CLOSE_RANGE_UNSHARE, CLOSE_RANGE_UNSHARE),
        WATCHED,
    ),
    // Other processes.
    always(
        calls![SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_pidfd_open
               SYS_pidfd_getfd SYS_kcmp SYS_process_madvise SYS_process_mrelease],
        Calls::All,
        OTHERS,
    ),
    always(
        calls![SYS_prlimit64],
        Calls::OtherProcessThanSelf(0),
        "limits of another process of the same user",
    ),
    always(
        calls![SYS_sched_setaffinity SYS_sched_setscheduler SYS_sched_setparam SYS_sched_setattr
               SYS_migrate_pages SYS_move_pages],
        Calls::OtherProcessThanSelf(0),
        SCHEDULING,
    ),
    always(calls![SYS_setpriority], Calls::Other(0, PRIO_PROCESS), SCHEDULING),
    always(calls![SYS_ioprio_set], Calls::Other(0, IOPRIO_WHO_PROCESS), SCHEDULING),
    always(calls![SYS_setpriority SYS_ioprio_set], Calls::OtherProcessThanSelf(1), SCHEDULING),
    // New processes and programs.
    always(calls![SYS_clone], Calls::Bits(0, CLONE_THREAD, 0), PROCESS),
    always(calls![SYS_fork SYS_vfork SYS_execve SYS_execveat], Calls::All, PROCESS),
    absent(
        calls![SYS_clone3],
        "a filter cannot see its flags; the C library then uses clone for its threads",
    ),
    // Files: what Landlock leaves open.
    always(
        calls![SYS_chmod SYS_fchmod SYS_fchmodat SYS_fchmodat2 SYS_chown SYS_fchown SYS_lchown
               SYS_fchownat SYS_utime SYS_utimes SYS_utimensat SYS_futimesat SYS_setxattr
               SYS_lsetxattr SYS_fsetxattr SYS_removexattr SYS_lremovexattr SYS_fremovexattr],
        Calls::All,
        ATTRIBUTES,
    ),
    always(
        calls![SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_open_tree SYS_move_mount
               SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick SYS_mount_setattr],
        Calls::All,
        MOUNT,
    ),
    always(
        calls![SYS_name_to_handle_at SYS_open_by_handle_at],
        Calls::All,
        "files by number, past every folder that a rule names",
    ),
    // What was given up stays given up.
    always(
        calls![SYS_setuid SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid SYS_setresgid
               SYS_setgroups SYS_setfsuid SYS_setfsgid SYS_capset],
        Calls::All,
        IDENTITY,
    ),
    always(
        calls![SYS_unshare SYS_setns],
        Calls::All,
        "a namespace of one's own brings capabilities back",
    ),
    always(calls![SYS_personality], Calls::Other(0, PERSONALITY_ASK), "turns protections off"),
    // Objects with names.
    always(
        calls![SYS_shmget SYS_shmat SYS_shmctl SYS_shmdt SYS_semget SYS_semop SYS_semtimedop
               SYS_semctl SYS_msgget SYS_msgsnd SYS_msgrcv SYS_msgctl SYS_mq_open SYS_mq_unlink SYS_mq_timedsend
               SYS_mq_timedreceive SYS_mq_notify SYS_mq_getsetattr],
        Calls::All,
        SHARED,
    ),
    always(calls![SYS_keyctl SYS_add_key SYS_request_key], Calls::All, SHARED),
    // The machine.
    always(
        calls![SYS_init_module SYS_finit_module SYS_delete_module
               SYS_kexec_load SYS_kexec_file_load SYS_reboot
               SYS_swapon SYS_swapoff SYS_sethostname SYS_setdomainname SYS_settimeofday
               SYS_clock_settime SYS_adjtimex SYS_clock_adjtime SYS_acct SYS_syslog SYS_quotactl
               SYS_quotactl_fd SYS_nfsservctl SYS__sysctl SYS_iopl SYS_ioperm SYS_vhangup
               SYS_uselib SYS_ustat SYS_sysfs SYS_lookup_dcookie SYS_sync SYS_syncfs],
        Calls::All,
        KERNEL,
    ),
    always(
        calls![SYS_bpf SYS_perf_event_open SYS_userfaultfd SYS_io_uring_setup SYS_io_uring_enter
               SYS_io_uring_register SYS_seccomp SYS_modify_ldt SYS_fanotify_init
               SYS_fanotify_mark SYS_vmsplice SYS_splice SYS_tee],
        Calls::All,
        SURFACE,
    ),
    always(
        calls![SYS_io_setup SYS_io_submit SYS_io_cancel SYS_io_destroy SYS_io_getevents],
        Calls::All,
        "requests of this kind have one limit for the whole machine",
    ),
    always(calls![SYS_inotify_init SYS_inotify_init1 SYS_inotify_add_watch], Calls::All, WATCHES),
    always(calls![SYS_mmap], Calls::Bits(3, MAP_HUGETLB, MAP_HUGETLB), HUGE),
    always(calls![SYS_memfd_create], Calls::Bits(1, MFD_HUGETLB, MFD_HUGETLB), HUGE),
    Rule {
        syscalls: calls![SYS_ioctl],
        when: When::WithoutGpu,
        calls: Calls::NoneOf(1, HARMLESS_REQUESTS),
        refusal: Refusal::NotPermitted,
        reason: "requests to file systems and devices ask for other rights than opening does",
    },
    // Memory that RLIMIT_DATA does not count.
    Rule {
        syscalls: calls![SYS_mmap],
        when: When::WithDataLimit,
        calls: Calls::Bits(3, MAP_SHARED_OR_ANONYMOUS, MAP_SHARED_OR_ANONYMOUS),
        refusal: Refusal::NotPermitted,
        reason: MEMORY,
    },
    Rule {
        syscalls: calls![SYS_memfd_create],
        when: When::WithDataLimitWithoutGpu,
        calls: Calls::Other(1, OWN_OBJECT),
        refusal: Refusal::NotPermitted,
        reason: "only as large outputs need it; the limit on the size of files bounds each",
    },
    Rule {
        syscalls: calls![SYS_memfd_secret],
        when: When::WithDataLimit,
        calls: Calls::All,
        refusal: Refusal::NotPermitted,
        reason: MEMORY,
    },
];

impl Rule {
    /// Whether the rule is in force on such a worker.
    pub fn holds(&self, device: Device, data_limit: Option<u64>) -> bool {
        match self.when {
            When::Always => true,
            When::WithoutGpu => device == Device::Cpu,
            When::WithDataLimit => data_limit.is_some(),
            When::WithDataLimitWithoutGpu => data_limit.is_some() && device == Device::Cpu,
        }
    }
}

/// Whether a number is one that the table was written with in mind.
pub fn is_known(number: i64) -> bool {
    KNOWN.iter().any(|range| range.contains(&number))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_rule_has_a_reason_and_calls_that_are_known() {
        for rule in RULES {
            assert!(rule.reason.len() > 10, "{rule:?}");
            assert!(!rule.syscalls.is_empty(), "{rule:?}");
            for (name, number) in rule.syscalls {
                assert!(name.starts_with("SYS_") && is_known(*number), "{name} {number}");
            }
        }
    }

    #[test]
    fn cuda_may_make_what_it_begins_with() {
        let refuses = |device, data_limit| {
            RULES.iter().any(|rule| {
                let is_object = rule.syscalls.iter().any(|(_, n)| *n == libc::SYS_memfd_create);
                is_object
                    && rule.calls == Calls::Other(1, OWN_OBJECT)
                    && rule.holds(device, data_limit)
            })
        };
        assert!(refuses(Device::Cpu, Some(1)) && !refuses(Device::Cpu, None));
        assert!(!refuses(Device::Cuda(0), Some(1)));
    }

    #[test]
    fn nothing_is_said_twice() {
        let mut said = BTreeSet::new();
        for rule in RULES {
            for (name, _) in rule.syscalls {
                let new = said.insert((*name, format!("{:?} {:?}", rule.when, rule.calls)));
                assert!(new, "{name} {:?}", rule.calls);
            }
        }
    }

    #[test]
    fn one_system_call_is_refused_in_one_way() {
        let absent: BTreeSet<_> = RULES
            .iter()
            .filter(|rule| rule.refusal == Refusal::NotImplemented)
            .flat_map(|rule| rule.syscalls)
            .collect();
        let denied = RULES.iter().filter(|rule| rule.refusal == Refusal::NotPermitted);
        assert_eq!(denied.flat_map(|rule| rule.syscalls).find(|call| absent.contains(call)), None);
    }

    #[test]
    fn what_every_worker_needs_is_left_alone() {
        let needed = [
            libc::SYS_read,
            libc::SYS_write,
            libc::SYS_openat,
            libc::SYS_close,
            libc::SYS_fstat,
            libc::SYS_mprotect,
            libc::SYS_munmap,
            libc::SYS_brk,
            libc::SYS_futex,
            libc::SYS_poll,
            libc::SYS_recvmsg,
            libc::SYS_sendmsg,
            libc::SYS_exit,
            libc::SYS_exit_group,
            libc::SYS_rt_sigaction,
            libc::SYS_rt_sigprocmask,
            libc::SYS_sched_yield,
            libc::SYS_getrandom,
            libc::SYS_madvise,
            libc::SYS_clock_nanosleep,
            libc::SYS_ftruncate,
            libc::SYS_set_robust_list,
            libc::SYS_rseq,
            libc::SYS_sched_getaffinity,
        ];
        for number in needed {
            let rule = RULES.iter().find(|r| r.syscalls.iter().any(|(_, n)| *n == number));
            assert!(rule.is_none(), "{rule:?}");
        }
    }
}
