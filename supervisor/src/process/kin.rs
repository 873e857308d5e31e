//! Whose an orphan is: what a living worker has started, and let go of, is that worker's and not for
//! the end of another one to sweep away.
//!
//! Where a worker has control groups, they say it. Where it has none, there are only marks that a
//! process inherits: the line that a worker puts in process lists, which a copy of it keeps, and the
//! scratch folder in its environment, which a program that it starts keeps. One that has neither any
//! more could be of any worker that may start processes and is not younger; it is spared until none
//! of those is left. All marks can be forged, and then the same holds: the worst is that a process
//! lives as long as the worker whose it pretends to be.

use std::fmt;
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use shared::id::WorkerId;

use super::command::{self, ZYGOTE};

/// Bytes that are read of a command line and of an environment.
const MOST: u64 = 64 << 10;

/// A living worker, and how its orphans are known.
#[derive(Debug)]
pub struct Household {
    bond: Bond,
}

/// Lists processes that are one worker's.
pub trait Roster: fmt::Debug + Send + Sync {
    fn members(&self) -> Vec<i32>;
}

/// Whether a worker is free to start processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Starts {
    Freely,
    /// Its confinement refuses it.
    Never,
}

#[derive(Debug)]
enum Bond {
    Groups(Box<dyn Roster>),
    Marks(Marks),
}

#[derive(Clone, Debug)]
struct Marks {
    /// When it started, in the kernel's ticks since the machine did.
    born: u64,
    line: Vec<u8>,
    scratch: PathBuf,
    starts: Starts,
}

/// What can be seen of an orphan.
#[derive(Clone, Debug, Default)]
struct Seen {
    born: u64,
    line: Vec<u8>,
    environment: Vec<u8>,
}

/// What an orphan says of where it comes from.
#[derive(Debug, PartialEq, Eq)]
enum Origin<'a> {
    /// A copy that a zygote has made and that is no worker yet.
    Zygote,
    Line(&'a [u8]),
    Scratch(&'a Path),
    Unknown,
}

impl Household {
    /// Of a worker whose control groups list what it has started.
    pub fn listed(roster: impl Roster + 'static) -> Self {
        Self { bond: Bond::Groups(Box::new(roster)) }
    }

    /// Of a worker without any, whose first process is `pid`.
    #[must_use]
    pub fn marked(worker: &WorkerId, pid: i32, scratch: &Path, starts: Starts) -> Self {
        let line = command::title(worker).join("\0").into_bytes();
        // One that has gone has left what is older than any that lives.
        let born = born(pid).unwrap_or(0);
        Self { bond: Bond::Marks(Marks { born, line, scratch: scratch.to_owned(), starts }) }
    }
}

/// Those of `orphans` that no living worker can have started.
pub(super) fn strays<'a>(
    orphans: &[i32],
    living: impl Iterator<Item = &'a Household> + Clone,
) -> Vec<i32> {
    let mut strays = orphans.to_owned();
    let mut marks: Vec<&Marks> = Vec::new();
    for household in living {
        if strays.is_empty() {
            break;
        }
        match &household.bond {
            Bond::Groups(roster) => {
                let members = roster.members();
                strays.retain(|orphan| !members.contains(orphan));
            }
            Bond::Marks(marked) => marks.push(marked),
        }
    }
    strays.retain(|&orphan| marks.is_empty() || !Seen::of(orphan).may_be_of(&marks));
    strays
}

impl Seen {
    fn of(pid: i32) -> Self {
        let environment = read(pid, "environ");
        Self { born: born(pid).unwrap_or(0), line: read(pid, "cmdline"), environment }
    }

    fn may_be_of(&self, living: &[&Marks]) -> bool {
        let origin = self.origin(living);
        living.iter().filter(|worker| worker.born <= self.born).any(|worker| match origin {
            Origin::Zygote => false,
            Origin::Line(line) => begins_with(line, &worker.line),
            Origin::Scratch(scratch) => worker.scratch == scratch,
            Origin::Unknown => worker.starts == Starts::Freely,
        })
    }

    fn origin(&self, living: &[&Marks]) -> Origin<'_> {
        let mut words = self.line.split(|&byte| byte == 0);
        match words.next() {
            Some(name) if name == ZYGOTE.as_bytes() => return Origin::Zygote,
            Some(name) if name == command::WORKER.as_bytes() => return Origin::Line(&self.line),
            Some(_) | None => {}
        }
        // All workers have theirs in one folder, those that have gone had them there too.
        let folders: Vec<&Path> = living.iter().filter_map(|w| w.scratch.parent()).collect();
        let variables = self.environment.split(|&byte| byte == 0);
        let scratch = variables.filter_map(|variable| {
            let value = [&b"TMPDIR="[..], b"HOME="].iter().find_map(|n| variable.strip_prefix(*n));
            value.map(|value| Path::new(std::ffi::OsStr::from_bytes(value)))
        });
        let ours = |path: &&Path| path.parent().is_some_and(|parent| folders.contains(&parent));
        scratch.into_iter().find(ours).map_or(Origin::Unknown, Origin::Scratch)
    }
}

/// Whether a line begins with these words, and not with longer ones.
fn begins_with(line: &[u8], words: &[u8]) -> bool {
    line.strip_prefix(words).is_some_and(|rest| rest.first().is_none_or(|&byte| byte == 0))
}

fn read(pid: i32, file: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What cannot be read says nothing.
    let _unseen = fs::File::open(format!("/proc/{pid}/{file}"))
        .and_then(|file| file.take(MOST).read_to_end(&mut bytes));
    bytes
}

/// When a process started; a name, in parentheses, can hold anything.
fn born(pid: i32) -> Option<u64> {
    born_in(&String::from_utf8_lossy(&read(pid, "stat")))
}

fn born_in(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::id::{Generation, InstanceId, ModelName, ModelVersion};

    use super::*;

    fn worker(model: &str, born: u64, starts: Starts) -> Marks {
        let instance = InstanceId {
            model: ModelName::new(model).unwrap(),
            version: ModelVersion::new(1).unwrap(),
            index: 0,
        };
        let id = WorkerId { instance, generation: Generation(3) };
        let household = Household::marked(&id, i32::MAX, &scratch(model), starts);
        let Bond::Marks(marks) = household.bond else { panic!("it has no groups") };
        Marks { born, ..marks }
    }

    fn scratch(model: &str) -> PathBuf {
        Path::new("/run/scratch").join(model)
    }

    fn copy_of(model: &str) -> Seen {
        let mut line = worker(model, 0, Starts::Freely).line;
        line.extend(b"\0confinement=strict\0\0\0");
        Seen { born: 50, line, environment: b"PATH=/bin\0TMPDIR=/run/scratch/zygote\0".to_vec() }
    }

    fn program_of(model: &str) -> Seen {
        let environment = format!("A=1\0HOME={}\0", scratch(model).display()).into_bytes();
        Seen { born: 50, line: b"sleep\x0060\0".to_vec(), environment }
    }

    #[test]
    fn a_copy_and_a_program_are_of_the_worker_that_they_name() {
        let (a, b) = (worker("a", 10, Starts::Freely), worker("b", 10, Starts::Freely));
        for of_a in [copy_of("a"), program_of("a")] {
            let longer = worker("a0", 10, Starts::Freely);
            assert!(!of_a.may_be_of(&[&longer]), "{of_a:?}");
            assert!(of_a.may_be_of(&[&b, &a]), "{of_a:?}");
            assert!(!of_a.may_be_of(&[&b]), "{of_a:?}");
            assert!(!of_a.may_be_of(&[]), "{of_a:?}");
        }
    }

    #[test]
    fn a_worker_has_no_orphans_that_are_older() {
        let younger = worker("a", 60, Starts::Freely);
        assert!(!copy_of("a").may_be_of(&[&younger]));
    }

    #[test]
    fn what_names_nobody_may_be_of_anybody_who_starts_processes() {
        let unnamed = Seen { born: 50, line: b"sleep\x0060\0".to_vec(), ..Seen::default() };
        let (free, confined) = (worker("a", 10, Starts::Freely), worker("b", 10, Starts::Never));
        let younger = worker("c", 60, Starts::Freely);
        assert!(unnamed.may_be_of(&[&confined, &free]));
        assert!(!unnamed.may_be_of(&[&confined, &younger]));
    }

    #[test]
    fn a_copy_that_is_no_worker_yet_is_nobodys() {
        let line = b"bulkhead-zygote\0zygote\0supervisor=1\0".to_vec();
        let copy = Seen { born: 50, line, ..Seen::default() };
        assert!(!copy.may_be_of(&[&worker("a", 10, Starts::Freely)]));
    }

    #[derive(Debug)]
    struct Listed(Vec<i32>);

    impl Roster for Listed {
        fn members(&self) -> Vec<i32> {
            self.0.clone()
        }
    }

    #[test]
    fn what_is_listed_is_spared_and_all_else_is_not() {
        let living = [Household::listed(Listed(vec![5, 6])), Household::listed(Listed(vec![7]))];
        assert_eq!(strays(&[4, 5, 7, 8], living.iter()), [4, 8]);
        assert_eq!(strays(&[4, 5], [].iter()), [4, 5]);
    }

    #[test]
    fn this_process_has_started() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(born(own).is_some_and(|ticks| ticks > 0));
        assert_eq!(born_in("7 (x) S 1 (y) S"), None);
    }

    proptest! {
        #[test]
        fn nothing_that_a_process_shows_is_too_odd(
            line in prop::collection::vec(any::<u8>(), 0..80), named in any::<bool>(),
            environment in "((TMPDIR|HOME)=?/?(run/scratch/a)?\0?){0,5}",
        ) {
            let prefix = if named { &b"bulkhead-worker\0"[..] } else { b"" };
            let seen = Seen {
                born: 5,
                line: [prefix, &line].concat(),
                environment: environment.into_bytes(),
            };
            let _answer = seen.may_be_of(&[&worker("a", 1, Starts::Never)]);
        }
    }
}
