//! The calls that are worth a second look, and of those the ones that the table leaves open on
//! purpose: what a change of the table, or its silence, would otherwise decide unseen.

use std::collections::BTreeSet;

use nix::libc;

use super::rules::{Calls, RULES, When};

macro_rules! calls {
    ($($name:ident)+) => { &[$((stringify!($name), libc::$name)),+] };
}

/// Names and numbers.
type Syscalls = &'static [(&'static str, i64)];

/// Looked at one by one: what reaches another process, the machine, the files of others, what counts
/// for a whole user, and what has been a way into the kernel.
const SENSITIVE: Syscalls = calls![
    // Processes and programs.
    SYS_clone SYS_clone3 SYS_fork SYS_vfork SYS_execve SYS_execveat SYS_unshare SYS_setns
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_pidfd_open SYS_pidfd_getfd
    SYS_kcmp SYS_process_madvise SYS_process_mrelease SYS_get_robust_list SYS_prctl
    SYS_arch_prctl SYS_personality SYS_seccomp SYS_landlock_restrict_self
    // Signals and groups.
    SYS_kill SYS_tkill SYS_tgkill SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo SYS_pidfd_send_signal
    SYS_setpgid SYS_setsid SYS_timer_create SYS_signalfd4
    // Scheduling and limits.
    SYS_sched_setaffinity SYS_sched_setscheduler SYS_sched_setparam SYS_sched_setattr
    SYS_setpriority SYS_ioprio_set SYS_prlimit64 SYS_setrlimit
    // Memory.
    SYS_mmap SYS_mprotect SYS_mremap SYS_remap_file_pages SYS_pkey_mprotect SYS_mlock SYS_mlockall
    SYS_memfd_create SYS_memfd_secret SYS_mbind SYS_set_mempolicy SYS_migrate_pages SYS_move_pages
    SYS_userfaultfd SYS_membarrier SYS_futex
    // Sockets, pipes, requests.
    SYS_socket SYS_socketpair SYS_connect SYS_bind SYS_listen SYS_accept SYS_sendmsg SYS_sendto
    SYS_pipe2 SYS_splice SYS_vmsplice SYS_tee SYS_epoll_create1 SYS_eventfd2 SYS_ioctl SYS_fcntl
    SYS_io_setup SYS_io_submit SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register
    // Files.
    SYS_openat SYS_openat2 SYS_mknodat SYS_symlinkat SYS_linkat SYS_renameat2 SYS_truncate
    SYS_fallocate SYS_flock SYS_chmod SYS_chown SYS_setxattr SYS_utimensat SYS_chroot SYS_umask
    SYS_mount SYS_umount2 SYS_pivot_root SYS_open_tree SYS_move_mount SYS_fsopen SYS_fsmount
    SYS_name_to_handle_at SYS_open_by_handle_at SYS_inotify_init1 SYS_inotify_add_watch
    SYS_fanotify_init SYS_fanotify_mark SYS_sync SYS_syncfs
    // Identity, objects with names, the machine.
    SYS_setuid SYS_setresuid SYS_setgroups SYS_capset SYS_keyctl SYS_add_key SYS_request_key
    SYS_shmget SYS_semget SYS_msgget SYS_mq_open SYS_bpf SYS_perf_event_open SYS_init_module
    SYS_finit_module SYS_kexec_load SYS_reboot SYS_swapon SYS_settimeofday SYS_clock_settime
    SYS_acct SYS_syslog SYS_iopl SYS_ioperm SYS_modify_ldt SYS_quotactl
];

/// Those of [`SENSITIVE`] that a worker on a processor may make, in one form or in all, each with the
/// reason.
const LEFT_OPEN: &[(Syscalls, &str)] = &[
    (calls![SYS_clone], "threads; whatever is no thread is refused"),
    (calls![SYS_futex SYS_membarrier], "locks and barriers of every threading library"),
    (
        calls![SYS_mmap SYS_mprotect SYS_mremap SYS_pkey_mprotect SYS_remap_file_pages],
        "allocators and compilers at run time; a worker's own memory alone",
    ),
    (calls![SYS_memfd_create], "large outputs; huge pages are refused"),
    (calls![SYS_memfd_secret], "counts as locked memory, of which there is none"),
    (calls![SYS_mlock SYS_mlockall], "RLIMIT_MEMLOCK is 0"),
    (
        calls![SYS_mbind SYS_set_mempolicy SYS_migrate_pages SYS_move_pages],
        "where a worker's own memory lies",
    ),
    (
        calls![SYS_kill SYS_tgkill SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo],
        "abort and cancellation: only to this process",
    ),
    (
        calls![SYS_timer_create],
        "a profiler's clock; queued signals have one limit for a user, and the server queues none",
    ),
    (calls![SYS_signalfd4], "reads signals that come anyway"),
    (
        calls![SYS_sched_setaffinity SYS_sched_setscheduler SYS_sched_setparam SYS_sched_setattr
               SYS_setpriority SYS_ioprio_set],
        "threading libraries pin their threads: only this process, and nothing better without a \
         capability",
    ),
    (
        calls![SYS_prlimit64 SYS_setrlimit],
        "its own limits, which were lowered for good: only a capability raises them",
    ),
    (
        calls![SYS_get_robust_list],
        "asks of another process what ptrace may, which Landlock refuses",
    ),
    (calls![SYS_prctl], "names of threads; the death signal is refused"),
    (calls![SYS_arch_prctl], "thread-local storage"),
    (calls![SYS_personality], "asking alone"),
    (calls![SYS_landlock_restrict_self], "only takes away"),
    (calls![SYS_sendmsg SYS_sendto], "the control socket, which it was given"),
    (
        calls![SYS_pipe2 SYS_eventfd2 SYS_epoll_create1],
        "event loops; what of them counts for a user is bounded by the number of descriptors",
    ),
    (calls![SYS_ioctl SYS_fcntl], "flags of descriptors; what asks for more is refused"),
    (
        calls![SYS_openat SYS_openat2 SYS_mknodat SYS_symlinkat SYS_linkat SYS_renameat2
               SYS_truncate],
        "Landlock's part: the model's files and the scratch folder",
    ),
    (calls![SYS_fallocate SYS_flock SYS_umask], "files that Landlock let it open"),
];

/// Whether nothing is left of a call in any worker.
fn is_shut(number: i64) -> bool {
    RULES.iter().any(|rule| {
        let named = rule.syscalls.iter().any(|(_, other)| *other == number);
        named && rule.calls == Calls::All && rule.when != When::WithDataLimit
    })
}

#[test]
fn of_the_sensitive_calls_only_these_are_open() {
    let sensitive: BTreeSet<_> = SENSITIVE.iter().collect();
    let open: BTreeSet<_> = sensitive.iter().filter(|(_, number)| !is_shut(*number)).collect();
    let meant: BTreeSet<_> = LEFT_OPEN.iter().flat_map(|(calls, _)| *calls).collect();
    let unforeseen: Vec<_> = open.iter().filter(|call| !meant.contains(**call)).collect();
    assert!(unforeseen.is_empty(), "open, and nobody says why: {unforeseen:?}");
    let needless: Vec<_> = meant.iter().filter(|call| !open.contains(call)).collect();
    assert!(needless.is_empty(), "said to be open, and is not, or is not sensitive: {needless:?}");
}

#[test]
fn each_is_listed_once_and_with_a_reason() {
    assert_eq!(SENSITIVE.iter().collect::<BTreeSet<_>>().len(), SENSITIVE.len());
    let open = || LEFT_OPEN.iter().flat_map(|(calls, _)| *calls);
    assert_eq!(open().collect::<BTreeSet<_>>().len(), open().count());
    assert!(LEFT_OPEN.iter().all(|(_, reason)| reason.len() > 10));
}
