//! Orphans that came back to the supervisor: what workers started and left behind.
//!
//! The supervisor asks the kernel to be the parent of all orphans below it. Then whatever is its child,
//! was not started by it and is of no worker that lives (`kin`) is a stray. So is a copy that a zygote
//! has made and could not tell of any more.
//!
//! Invariants: a process that the supervisor has started is never taken for a stray. It is entered
//! under the lock under which it is started, and a sweep decides under the same lock. Nor is one that
//! a living worker has started and that shows it: one worker's end is no other's business.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::kin::{self, Household};

/// The children that the supervisor has started itself.
#[derive(Debug, Default)]
pub struct Family {
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    /// A number that says which entry it is: the id of a process that was reaped may be another's.
    known: BTreeMap<i32, u64>,
    next: u64,
    /// Children that others are making for this process at the moment.
    expected: usize,
    /// Workers whose orphans are spared.
    living: BTreeMap<u64, Household>,
}

/// Membership in the family; ends when dropped, which must be after the process was reaped.
#[derive(Debug)]
pub struct Member {
    family: Arc<Family>,
    pid: i32,
    number: u64,
}

/// A child that somebody else makes, until it has arrived or is given up: sweeps wait meanwhile.
#[derive(Debug)]
pub(super) struct Expected(Arc<Family>);

impl Expected {
    /// It is there.
    pub(super) fn arrived(self, pid: i32) -> Member {
        let number = self.0.lock().enter(pid);
        Member { family: Arc::clone(&self.0), pid, number }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.0.lock().expected -= 1;
    }
}

impl Member {
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }
}

/// A living worker's household; ends when dropped, and then its orphans are strays.
#[derive(Debug)]
pub struct Guest {
    family: Arc<Family>,
    number: u64,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.family.lock().living.remove(&self.number);
    }
}

/// Whether a sweep came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Swept {
    /// There was no stray any more; what living workers have started is none.
    Clean,
    /// There was one to the last, or somebody was expected all the time.
    Unfinished,
}

/// Sweeps for the orphans of one worker: each that is ended may leave orphans of its own.
const SWEEPS: u32 = 50;
const WAIT: Duration = Duration::from_millis(10);
/// For all of that: longer than a zygote may take over a copy.
const PATIENCE: Duration = Duration::from_secs(10);

/// Children that nobody here has started; pure.
#[must_use]
pub fn strays(children: &[i32], known: &BTreeSet<i32>) -> Vec<i32> {
    children.iter().copied().filter(|pid| !known.contains(pid)).collect()
}

impl Family {
    /// Becomes the parent of all orphans below this process.
    pub fn take_orphans() -> io::Result<()> {
        Ok(nix::sys::prctl::set_child_subreaper(true)?)
    }

    /// Starts a process and enters it before any sweep can see it. `pid` tells which one it is.
    pub fn start<T, E>(
        self: &Arc<Self>,
        start: impl FnOnce() -> Result<T, E>,
        pid: impl FnOnce(&T) -> i32,
    ) -> Result<(T, Member), E> {
        let mut members = self.lock();
        let started = start()?;
        let pid = pid(&started);
        let number = members.enter(pid);
        Ok((started, Member { family: Arc::clone(self), pid, number }))
    }

    /// Somebody else is about to make a child of this process.
    pub(super) fn expect(self: &Arc<Self>) -> Expected {
        self.lock().expected += 1;
        Expected(Arc::clone(self))
    }

    /// Spares the orphans of a living worker for as long as it is one.
    pub fn welcome(self: &Arc<Self>, household: Household) -> Guest {
        let mut members = self.lock();
        members.next += 1;
        let number = members.next;
        members.living.insert(number, household);
        Guest { family: Arc::clone(self), number }
    }

    /// Ends and reaps strays until there are none, at most for a moment.
    pub async fn end_strays(self: &Arc<Self>) -> Swept {
        let mut sweeps = 0;
        let until = Instant::now() + PATIENCE;
        while sweeps < SWEEPS && Instant::now() < until {
            let family = Arc::clone(self);
            match spawn_blocking(move || family.sweep()).await {
                Ok(Found::Some) => sweeps += 1,
                Ok(Found::NotNow) => {}
                Ok(Found::Nothing) | Err(_) => return Swept::Clean,
            }
            sleep(WAIT).await;
        }
        Swept::Unfinished
    }

    fn sweep(&self) -> Found {
        // Looking through all processes takes a while, in which nobody has to wait. One that was just
        // being started is known when the lock is ours.
        let suspects = children();
        let members = self.lock();
        if members.expected > 0 {
            return Found::NotNow;
        }
        let known: BTreeSet<i32> = members.known.keys().copied().collect();
        let mut orphans = strays(&suspects, &known);
        // One that has ended is to be reaped, whoever has started it.
        orphans.retain(|&pid| is_child(pid) && !reap(pid));
        let found = kin::strays(&orphans, members.living.values());
        for &pid in &found {
            let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
            // It may take a moment to end; the next sweep sees it again.
            let _later = reap(pid);
        }
        if found.is_empty() { Found::Nothing } else { Found::Some }
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a sweep found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Some,
    /// A child is just being made by somebody else, and may be any of them.
    NotNow,
}

impl Members {
    fn enter(&mut self, pid: i32) -> u64 {
        self.next += 1;
        self.known.insert(pid, self.next);
        self.next
    }

    /// Forgets the entry, unless another process has the same id by now.
    fn leave(&mut self, pid: i32, number: u64) {
        if self.known.get(&pid) == Some(&number) {
            self.known.remove(&pid);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.family.lock().leave(self.pid, self.number);
    }
}

/// The children of this process, also those that have ended and were not reaped.
fn children() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| is_child(pid)).collect()
}

/// Whether it has ended and is no more.
fn reap(pid: i32) -> bool {
    let ended = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
    !matches!(ended, Ok(WaitStatus::StillAlive))
}

fn is_child(pid: i32) -> bool {
    let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    parent(&String::from_utf8_lossy(&stat)).and_then(|parent| u32::try_from(parent).ok())
        == Some(std::process::id())
}

/// The parent in `PID (NAME) STATE PARENT …`; a name can hold anything, parentheses too.
fn parent(stat: &str) -> Option<i32> {
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_cannot_forge_a_parent() {
        assert_eq!(parent("7 (sh) S 4 7 7 0"), Some(4));
        assert_eq!(parent("7 (x) S 1 (y) R 4 7"), Some(4));
        assert_eq!(parent("7 (sh) S"), None);
        assert_eq!(parent(""), None);
    }

    #[test]
    fn a_child_that_was_started_here_is_no_stray() {
        let family = Arc::new(Family::default());
        let sleeper = || std::process::Command::new("sleep").arg("60").spawn();
        let pid = |child: &std::process::Child| i32::try_from(child.id()).unwrap();
        let (mut child, member) = family.start(sleeper, pid).unwrap();
        let known: BTreeSet<i32> = family.lock().known.keys().copied().collect();
        assert!(children().contains(&pid(&child)));
        assert!(!strays(&children(), &known).contains(&pid(&child)));
        child.kill().unwrap();
        child.wait().unwrap();
        drop(member);
        assert!(family.lock().known.is_empty());
    }

    #[test]
    fn leaving_late_does_not_disown_who_has_the_number_now() {
        let mut members = Members::default();
        let (first, second) = (members.enter(5), members.enter(5));
        members.leave(5, first);
        assert!(members.known.contains_key(&5));
        members.leave(5, second);
        assert!(members.known.is_empty());
    }

    proptest! {
        #[test]
        fn strays_are_children_that_are_not_known(
            children in prop::collection::vec(0..20_i32, 0..20), known in prop::collection::btree_set(0..20_i32, 0..20),
        ) {
            let found = strays(&children, &known);
            prop_assert!(found.iter().all(|pid| children.contains(pid) && !known.contains(pid)));
            prop_assert!(children.iter().all(|pid| known.contains(pid) || found.contains(pid)));
        }
    }
}
