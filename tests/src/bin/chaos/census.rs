//! What the server and its workers hold, and whether all is as it should be while nothing strikes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::cgroups::groups_of;
use tests::workers::{WorkerProcess, workers_of, zygotes_of};
use tests::{Supervisor, wait};

use crate::field::Field;
use crate::fleet::{Victim, witnesses};
use crate::strike;

/// From the last fault to all models back, and to everything put away.
const RECOVERY: Duration = Duration::from_secs(30);
/// Kilobytes of its own by which the server may have grown. Not all of it is in use: an allocator keeps
/// part of what large bodies took, and a connection keeps a buffer for the largest that it has carried.
/// Both come and go by tens of megabytes and stay below this however long a run is; a leak does not.
const GROWTH: u64 = 64_000;
/// The server's threads for work that blocks come and go: each stays a second, and the looks at workers'
/// memory and the sweeps for orphans keep some busy while there is traffic.
const THREADS: usize = 16;
/// Connections of this program's clients that are just being made again.
const DESCRIPTORS: usize = 6;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Footprint {
    /// Neither those of its program nor those of slots, which it shares.
    pub(crate) kilobytes: u64,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

impl Footprint {
    pub(crate) fn of(server: &Supervisor) -> Self {
        let tasks = fs::read_dir(format!("/proc/{}/task", server.pid()));
        Self {
            kilobytes: own_kilobytes(server.pid()),
            descriptors: server.open_descriptors(),
            threads: tasks.map(Iterator::count).unwrap_or(0),
        }
    }

    fn is_about(self, baseline: Self) -> bool {
        self.kilobytes <= baseline.kilobytes + GROWTH
            && self.descriptors <= baseline.descriptors + DESCRIPTORS
            && self.threads <= baseline.threads + THREADS
    }
}

fn own_kilobytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// All that must hold while no fault comes: every victim serves or can be made to, and nothing is held
/// that belongs to nobody.
pub(crate) fn truce(field: &Field<'_>, baseline: Option<Footprint>) -> Result<Footprint, String> {
    for victim in &field.victims {
        comes_back(field, *victim)?;
    }
    let tidy = wait::comes_about(RECOVERY, || untidy(field).is_none());
    if !tidy && let Some(what) = untidy(field) {
        return Err(what);
    }
    let mut footprint = Footprint::of(field.server);
    let small = wait::comes_about(RECOVERY, || {
        footprint = Footprint::of(field.server);
        baseline.is_none_or(|baseline| footprint.is_about(baseline))
    });
    if small { Ok(footprint) } else { Err(format!("{footprint:?} after {baseline:?}")) }
}

fn comes_back(field: &Field<'_>, victim: Victim) -> Result<(), String> {
    let (name, mut client) = (victim.name(), field.server.client());
    let mut questions = field.questions(name, 999, victim.engine());
    let mut last = String::new();
    let back = wait::comes_about(RECOVERY, || {
        let down = client.index(name).iter().all(|line| line.state == "UNAVAILABLE");
        if down && let Err(error) = strike::must_load(field, victim) {
            last = format!("load: {error}");
            return false;
        }
        let question = questions.next();
        match client.try_infer(&question.infer) {
            Ok(answer) => {
                last = format!("{} {}", answer.status, answer.error());
                question.is_answered_by(&answer)
            }
            Err(error) => {
                last = error.to_string();
                false
            }
        }
    });
    if back { Ok(()) } else { Err(format!("{name} did not come back: {last}")) }
}

/// What there is too much or too little of.
fn untidy(field: &Field<'_>) -> Option<String> {
    let (server, mut expected) = (field.server, 0);
    for victim in &field.victims {
        let (name, count) = (victim.name(), distinct(&server.workers_of(victim.name())));
        let resting = *victim == Victim::Sleepy && count == 0;
        if count != victim.instances() && !resting {
            return Some(format!("{count} workers of {name}"));
        }
        expected += count;
    }
    expected += witnesses(field.torch).len();
    let workers = distinct(&server.workers());
    let folders: usize = folders(&server.scratch()).iter().map(|own| folders_in(own)).sum();
    let leaves: Vec<usize> =
        groups_of(server.pid()).iter().map(|group| folders_in(group)).collect();
    if workers != expected || folders != expected || leaves.iter().any(|count| *count != expected) {
        return Some(format!(
            "{workers} workers, {folders} scratch folders and {leaves:?} leaves for {expected}"
        ));
    }
    strangers(field, expected)
}

/// Without what a worker has started: a copy of it has the same line.
fn distinct(workers: &[WorkerProcess]) -> usize {
    workers.iter().map(|worker| &worker.command_line).collect::<BTreeSet<_>>().len()
}

/// Children of the server that are nobody's, or have ended and were not waited for.
fn strangers(field: &Field<'_>, workers: usize) -> Option<String> {
    let pid = field.server.pid();
    let children = children_of(pid);
    let zygotes = zygotes_of(pid).len();
    let zombies = children.iter().filter(|(_, state)| state == "Z").count();
    // A worker in namespaces has one process that is the child, so that each is one.
    let tidy = zombies == 0 && children.len() == workers + zygotes;
    (!tidy).then(|| format!("children for {workers} workers and {zygotes} zygotes: {children:?}"))
}

/// The names and states of the children of a process.
fn children_of(parent: u32) -> Vec<(String, String)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = entries.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let child = |stat: String| {
        let (before, after) = stat.rsplit_once(')')?;
        let mut fields = after.split_whitespace();
        let (state, ppid) = (fields.next()?, fields.next()?);
        (ppid == parent.to_string()).then(|| (before.to_owned(), state.to_owned()))
    };
    stats.filter_map(child).collect()
}

fn folders(of: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(of).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn folders_in(folder: &Path) -> usize {
    folders(folder).len()
}

/// Ends the server as an operator does; nothing may be left.
pub(crate) fn end(server: &mut Supervisor) -> Result<(), String> {
    let pid = server.pid();
    server.signal(Signal::SIGTERM);
    let status = server.wait_for_exit();
    let left = [
        workers_of(pid).len(),
        zygotes_of(pid).len(),
        groups_of(pid).len(),
        folders(&server.scratch()).len(),
        server.temporary_files().len(),
        usize::from(server.runtime_file().exists()),
    ];
    if status.code() == Some(0) && left == [0; 6] {
        return Ok(());
    }
    Err(format!(
        "the server ended with {status} and left {left:?} (workers, zygotes, control groups, \
         scratch folders, temporary files, runtime file)"
    ))
}
