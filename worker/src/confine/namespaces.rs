//! Namespaces of a worker's own: `confinement = "strict"`.
//!
//! ```text
//! outer    the process that was started; holds nothing, waits, ends as the worker ended
//!   └─ init      first of the new pid namespace: the kernel ends all of it with this one
//!        └─ worker     goes on
//! ```
//! The worker is not the first of its namespace itself, because the kernel drops signals to that
//! one that it has no handler for: SIGTERM would do nothing and SIGABRT not end it.

use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::AsFd as _;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{getgid, getuid};
use proto::control::{Level, Measure, Taken};
use shared::sys::process::{self, End, Forked};

#[derive(Debug, thiserror::Error)]
pub enum SeparateError {
    #[error("cannot make a pipe")]
    Pipe(#[source] io::Error),
    #[error("cannot start the process of the new namespaces")]
    Fork(#[source] Errno),
    #[error("cannot tie this process to the one that started it")]
    Tie(#[source] Errno),
    #[error("the process outside has gone")]
    Gone,
}

/// Which namespaces this process has of its own.
#[derive(Debug, Default)]
pub struct Separated {
    measures: Vec<Measure>,
}

impl Separated {
    pub(super) fn measures(self) -> Vec<Measure> {
        self.measures
    }
}

/// For `strict`, enters namespaces, and goes on in a grandchild of this process; for other levels
/// does nothing.
///
/// It returns in the worker alone. The process that called it and the one between end as the worker
/// ends, and the worker ends with either of them. The caller must have one thread, and asks to be
/// killed with its own parent before. Where the kernel allows no namespaces it returns in the caller
/// and says so.
pub fn separate(level: Level) -> Result<Separated, SeparateError> {
    match level {
        Level::None | Level::Standard => return Ok(Separated::default()),
        Level::Strict => {}
    }
    let entered = match tried().and_then(|()| enter()) {
        Ok(entered) => entered,
        Err(why) => {
            return Ok(Separated { measures: vec![measure("namespaces", Taken::Missing(why))] });
        }
    };
    // Down comes nothing: it shows that the process outside is there. Up comes how the worker ended.
    let (outside, alive) = io::pipe().map_err(SeparateError::Pipe)?;
    let (ended, tell) = io::pipe().map_err(SeparateError::Pipe)?;
    match process::fork().map_err(SeparateError::Fork)? {
        Forked::Parent(init) => {
            drop((tell, outside));
            be_outer(init, ended, &alive)
        }
        Forked::Child => drop((ended, alive)),
    }
    end_with(&outside)?;
    let proc = fresh_proc();
    match process::fork().map_err(SeparateError::Fork)? {
        Forked::Parent(worker) => {
            drop(outside);
            be_init(worker, tell)
        }
        Forked::Child => drop((outside, tell)),
    }
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(SeparateError::Tie)?;
    let measures = vec![measure("namespaces", Taken::Holds(entered.into())), measure("proc", proc)];
    Ok(Separated { measures })
}

fn measure(name: &str, outcome: Taken) -> Measure {
    Measure { name: name.into(), outcome }
}

/// Whether [`enter`] would work to its end: a process that is halfway inside can neither go on nor
/// back. Some systems let every user make namespaces and nobody map a user into them.
fn tried() -> Result<(), String> {
    let child = process::fork().map_err(|error| format!("cannot try them: {error}"))?;
    match child {
        Forked::Child => process::exit_now(i32::from(enter().is_err())),
        Forked::Parent(child) => match process::reap(Some(child)) {
            Ok((_, End::Code(0))) => Ok(()),
            Ok(_) => Err("the kernel refuses them to this user, in part or as a whole".into()),
            Err(error) => Err(format!("cannot try them: {error}")),
        },
    }
}

/// All namespaces, or those that root can enter where there are none of users; says which.
fn enter() -> Result<&'static str, String> {
    let (uid, gid) = (getuid(), getgid());
    let own = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNS;
    match unshare(own | CloneFlags::CLONE_NEWUSER) {
        Ok(()) => {
            // The same numbers inside, so that files look as they did.
            let map = |file: &str, text: String| {
                let path = format!("/proc/self/{file}");
                std::fs::write(&path, text).map_err(|error| format!("{path}: {error}"))
            };
            map("setgroups", "deny".into())?;
            map("uid_map", format!("{uid} {uid} 1"))?;
            map("gid_map", format!("{gid} {gid} 1"))?;
            Ok("user, pid, net, ipc, mount")
        }
        Err(with_user) => unshare(own)
            .map(|()| "pid, net, ipc, mount")
            .map_err(|_| format!("the kernel refuses them to this user: {with_user}")),
    }
}

/// A view of the processes of this namespace alone.
fn fresh_proc() -> Taken {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let (nothing, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    let mounted = mount(nothing, "/", nothing, private, nothing)
        .and_then(|()| mount(Some("proc"), "/proc", Some("proc"), flags, nothing));
    match mounted {
        Ok(()) => Taken::Holds(String::new()),
        Err(error) => Taken::Missing(format!("cannot mount /proc anew: {error}")),
    }
}

/// Ties this process to the one outside, whose number has no meaning in here.
fn end_with(outside: &PipeReader) -> Result<(), SeparateError> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(SeparateError::Tie)?;
    let mut look = [PollFd::new(outside.as_fd(), PollFlags::POLLIN)];
    // Nobody writes; an end of file means that it went before the line above.
    match poll(&mut look, PollTimeout::ZERO) {
        Ok(0) => Ok(()),
        Ok(_) => Err(SeparateError::Gone),
        Err(error) => Err(SeparateError::Tie(error)),
    }
}

/// Waits for the worker's end, and ends alike. Signals to the group are for the worker.
fn be_outer(init: process::Pid, mut ended: PipeReader, alive: &PipeWriter) -> ! {
    let ready = process::hold_only(&[ended.as_fd(), alive.as_fd()]);
    if ready.and_then(|()| prctl::set_name(c"bulkhead-outer")).is_err() {
        process::exit_now(i32::from(proto::control::WorkerExit::BadStart.code()));
    }
    process::ignore_requests_to_end();
    let mut told = [0; 5];
    let told = ended.read_exact(&mut told).is_ok().then_some(told).and_then(decode);
    // It ended before the worker, or says nothing more: what it ended as is all there is to know.
    let of_init = process::reap(Some(init)).map(|(_, end)| end);
    process::end_as(told.or(of_init.ok()).unwrap_or(End::Signal(Signal::SIGKILL as i32)))
}

/// Reaps whatever ends in this namespace, until the worker does.
fn be_init(worker: process::Pid, mut tell: PipeWriter) -> ! {
    let ready = process::hold_only(&[tell.as_fd()]);
    let named = ready.and_then(|()| prctl::set_name(c"bulkhead-init"));
    while named.is_ok() {
        match process::reap(None) {
            Ok((pid, end)) if pid == worker => {
                // If nobody reads, the process outside is gone and so is this one in a moment.
                let _unheard = tell.write_all(&encode(end));
                process::exit_now(0);
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => break,
        }
    }
    process::exit_now(i32::from(proto::control::WorkerExit::BadStart.code()))
}

fn encode(end: End) -> [u8; 5] {
    let (kind, number) = match end {
        End::Code(code) => (0, code),
        End::Signal(signal) => (1, signal),
    };
    let [a, b, c, d] = number.to_le_bytes();
    [kind, a, b, c, d]
}

fn decode([kind, a, b, c, d]: [u8; 5]) -> Option<End> {
    let number = i32::from_le_bytes([a, b, c, d]);
    match kind {
        0 => Some(End::Code(number)),
        1 => Some(End::Signal(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_worker_ended_survives_the_pipe() {
        for end in [End::Code(0), End::Code(255), End::Signal(9), End::Signal(64)] {
            assert_eq!(decode(encode(end)), Some(end));
        }
        assert_eq!(decode([2, 0, 0, 0, 0]), None);
    }

    #[test]
    fn other_levels_have_no_namespaces() {
        assert!(separate(Level::Standard).unwrap().measures().is_empty());
    }
}
