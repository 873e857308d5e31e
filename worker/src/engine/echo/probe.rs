//! Attempts at what a confined worker must not be able to do, for tests: each says whether the kernel
//! let it, and does no harm if it did.
//!
//! ```text
//! probe read|list|write|chmod PATH     files; write makes the file or opens it, and leaves it as it is
//! probe tcp|udp ADDRESS                send there
//! probe unix PATH                      connect to a socket that has a name
//! probe socket                         ask the kernel for its network devices
//! probe kill|ptrace|memory|pidfd PID   signal 0; the rest ends at once
//! probe limits|affinity|own PID        change its limits; its processors; have it signalled
//! probe group                          leave the group of processes
//! probe fork|exec                      a process more, a program
//! probe namespace|new-call|shared      a user namespace; a call too new to be known; shared memory
//! probe call NAME [PID]                a system call that does nothing, of `calls`
//! ```

use std::fs::{self, File};
use std::io::IoSliceMut;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, CpuSet};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType};
use nix::sys::uio::RemoteIoVec;
use nix::unistd::Pid;

use crate::engine::echo::calls::Call;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    Read(PathBuf),
    List(PathBuf),
    Write(PathBuf),
    Chmod(PathBuf),
    Tcp(SocketAddr),
    Udp(SocketAddr),
    Unix(PathBuf),
    Netlink,
    Kill(Pid),
    Ptrace(Pid),
    Memory(Pid),
    Pidfd(Pid),
    Limits(Pid),
    Affinity(Pid),
    /// Make the process the one that is told of a descriptor's news, by a signal.
    Own(Pid),
    Group,
    Fork,
    Exec,
    Namespace,
    NewCall,
    Shared,
    Call(Call),
}

/// Longer than any connection on one machine takes.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A number that no system call will have for a long time.
const NO_CALL: libc::c_long = 100_000;

impl Probe {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (what, rest) = text.split_once(' ').unwrap_or((text, ""));
        let path = || (!rest.is_empty()).then(|| PathBuf::from(rest));
        let pid = || rest.parse().ok().map(Pid::from_raw);
        let address = || rest.parse().ok();
        match what {
            "read" => path().map(Self::Read),
            "list" => path().map(Self::List),
            "write" => path().map(Self::Write),
            "chmod" => path().map(Self::Chmod),
            "tcp" => address().map(Self::Tcp),
            "udp" => address().map(Self::Udp),
            "unix" => path().map(Self::Unix),
            "socket" => Some(Self::Netlink),
            "kill" => pid().map(Self::Kill),
            "ptrace" => pid().map(Self::Ptrace),
            "memory" => pid().map(Self::Memory),
            "pidfd" => pid().map(Self::Pidfd),
            "limits" => pid().map(Self::Limits),
            "affinity" => pid().map(Self::Affinity),
            "own" => pid().map(Self::Own),
            "group" => Some(Self::Group),
            "fork" => Some(Self::Fork),
            "exec" => Some(Self::Exec),
            "namespace" => Some(Self::Namespace),
            "new-call" => Some(Self::NewCall),
            "shared" => Some(Self::Shared),
            "call" => Call::parse(rest).map(Self::Call),
            _ => None,
        }
    }

    /// Tries; the error is the kernel's.
    pub(super) fn attempt(&self) -> Result<(), String> {
        match self {
            Self::Read(path) => io(fs::read(path)),
            Self::List(path) => io(fs::read_dir(path)),
            Self::Write(path) => io(File::options().append(true).create(true).open(path)),
            Self::Chmod(path) => chmod(path),
            Self::Tcp(address) => io(TcpStream::connect_timeout(address, CONNECT_LIMIT)),
            Self::Udp(address) => udp(*address),
            Self::Unix(path) => io(UnixStream::connect(path)),
            Self::Netlink => errno(netlink()),
            Self::Kill(pid) => errno(nix::sys::signal::kill(*pid, None)),
            Self::Ptrace(pid) => errno(ptrace(*pid)),
            Self::Memory(pid) => memory(*pid),
            Self::Pidfd(pid) => errno(pidfd(*pid)),
            Self::Limits(pid) => errno(limits(*pid)),
            Self::Affinity(pid) => errno(affinity(*pid)),
            Self::Own(pid) => own(*pid),
            Self::Group => errno(nix::unistd::setpgid(Pid::this(), nix::unistd::getppid())),
            Self::Fork => errno(fork()),
            Self::Exec => io(std::process::Command::new("/bin/true").output()),
            Self::Namespace => errno(nix::sched::unshare(CloneFlags::CLONE_NEWUSER)),
            Self::NewCall => errno(new_call()),
            Self::Shared => errno(shared()),
            Self::Call(call) => call.attempt(),
        }
    }
}

fn io<T>(result: std::io::Result<T>) -> Result<(), String> {
    result.map(drop).map_err(|error| error.to_string())
}

fn errno<T>(result: Result<T, Errno>) -> Result<(), String> {
    result.map(drop).map_err(|error| format!("{error}"))
}

/// As it is already, so that success changes nothing.
fn chmod(path: &Path) -> Result<(), String> {
    let mode = fs::metadata(path).map_err(|error| error.to_string())?.permissions().mode();
    io(fs::set_permissions(path, fs::Permissions::from_mode(mode)))
}

fn udp(address: SocketAddr) -> Result<(), String> {
    let socket = UdpSocket::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    io(socket.send_to(b"out", address))
}

fn netlink() -> Result<std::os::fd::OwnedFd, Errno> {
    let (family, protocol) = (AddressFamily::Netlink, SockProtocol::NetlinkRoute);
    nix::sys::socket::socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
}

fn ptrace(pid: Pid) -> Result<(), Errno> {
    nix::sys::ptrace::seize(pid, nix::sys::ptrace::Options::empty())?;
    // It runs on as it was.
    nix::sys::ptrace::interrupt(pid)?;
    let _stopped = nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::__WALL));
    nix::sys::ptrace::detach(pid, None)
}

/// By either of two ways.
fn memory(pid: Pid) -> Result<(), String> {
    let file = File::open(format!("/proc/{pid}/mem"));
    let mut byte = [0_u8; 1];
    let mut local = [IoSliceMut::new(&mut byte)];
    let remote = [RemoteIoVec { base: 0x1000, len: 1 }];
    match (file, nix::sys::uio::process_vm_readv(pid, &mut local, &remote)) {
        // EFAULT: it may be read, only nothing is there.
        (Ok(_), _) | (_, Ok(_) | Err(Errno::EFAULT)) => Ok(()),
        (Err(error), Err(_)) => Err(error.to_string()),
    }
}

fn pidfd(pid: Pid) -> Result<(), Errno> {
    // SAFETY: it takes two numbers and gives a descriptor, which the end of the process closes.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let opened = Errno::result(opened)?;
    // SAFETY: as above; descriptor 0 of another process is copied into this one.
    let got = unsafe { libc::syscall(libc::SYS_pidfd_getfd, opened, 0, 0) };
    Errno::result(got).map(drop)
}

/// As they are, so that success changes nothing.
fn limits(pid: Pid) -> Result<(), Errno> {
    let (nothing, mut now) = (std::ptr::null(), libc::rlimit { rlim_cur: 0, rlim_max: 0 });
    // SAFETY: the kernel writes one rlimit, which lives on this stack frame.
    Errno::result(unsafe { libc::prlimit(pid.as_raw(), libc::RLIMIT_CPU, nothing, &raw mut now) })?;
    let (now, nothing) = (&raw const now, std::ptr::null_mut());
    // SAFETY: the kernel reads one rlimit, which lives on this stack frame.
    Errno::result(unsafe { libc::prlimit(pid.as_raw(), libc::RLIMIT_CPU, now, nothing) }).map(drop)
}

fn affinity(pid: Pid) -> Result<(), Errno> {
    let now: CpuSet = nix::sched::sched_getaffinity(pid)?;
    nix::sched::sched_setaffinity(pid, &now)
}

fn own(pid: Pid) -> Result<(), String> {
    let (reader, _writer) = std::io::pipe().map_err(|error| error.to_string())?;
    // SAFETY: it takes numbers and touches no memory.
    let set = unsafe {
        libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&reader.as_fd()), libc::F_SETOWN, pid.as_raw())
    };
    errno(Errno::result(set))
}

fn fork() -> Result<(), Errno> {
    // SAFETY: the child makes one system call that is safe after a fork, and is gone.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => nix::sys::wait::waitpid(child, None).map(drop),
        nix::unistd::ForkResult::Child => {
            // SAFETY: it has no preconditions and does not return.
            unsafe { libc::_exit(0) }
        }
    }
}

/// Refused, it cannot be told from a kernel that lacks it: it has no success.
fn new_call() -> Result<(), Errno> {
    // SAFETY: the kernel knows no call of this number.
    Errno::result(unsafe { libc::syscall(NO_CALL) }).map(drop)
}

fn shared() -> Result<(), Errno> {
    // SAFETY: it takes numbers and touches no memory.
    let made = unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, 0o600) };
    let made = Errno::result(made)?;
    // SAFETY: removing takes no buffer.
    Errno::result(unsafe { libc::shmctl(made, libc::IPC_RMID, std::ptr::null_mut()) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_has_what_it_needs() {
        assert_eq!(
            Probe::parse("tcp 127.0.0.1:1"),
            Some(Probe::Tcp("127.0.0.1:1".parse().unwrap()))
        );
        for odd in ["", "read", "kill", "kill x", "tcp 1", "hope"] {
            assert_eq!(Probe::parse(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn what_nobody_forbids_succeeds() {
        let folder = std::env::temp_dir();
        Probe::List(folder).attempt().unwrap();
        Probe::Kill(Pid::this()).attempt().unwrap();
        Probe::NewCall.attempt().unwrap_err();
    }
}
