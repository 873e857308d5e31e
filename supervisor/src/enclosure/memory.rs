//! How much memory and how many threads a process has, as `/proc` tells.

use std::fs::File;
use std::io::Read as _;

/// Threads of one process, and processes below one, that are looked at.
const MOST_TASKS: usize = 4096;

/// The processes below `pid`, as far as the kernel says; `pid` itself is not among them.
#[must_use]
pub fn below(pid: i32) -> Vec<i32> {
    let mut found: Vec<i32> = Vec::new();
    let mut open = vec![pid];
    while let Some(pid) = open.pop() {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten().filter_map(|task| task.file_name().into_string().ok()) {
            let children = read(pid, &format!("task/{task}/children")).unwrap_or_default();
            let children = children.split_whitespace().filter_map(|child| child.parse().ok());
            let children: Vec<i32> = children.filter(|child| !found.contains(child)).collect();
            open.extend(&children);
            found.extend(children);
            if found.len() >= MOST_TASKS {
                return found;
            }
        }
    }
    found
}

/// The processes of ours around a worker that is in a pid namespace: the one that was started, and its
/// child that is the first in there. None, if it has no such child.
///
/// All three are copies, and what they have in common would count three times. Nothing of the model runs
/// in these two, and no worker can put anything into them or take the place of one: what it starts is
/// never a child of the first, and its confinement refuses it namespaces.
#[must_use]
pub fn around(pid: i32) -> Vec<i32> {
    let children = read(pid, &format!("task/{pid}/children")).unwrap_or_default();
    let mut children = children.split_whitespace().filter_map(|child| child.parse().ok());
    let first = children
        .find(|&child| read(child, "status").is_some_and(|status| is_first_in_namespace(&status)));
    first.map_or_else(Vec::new, |first| vec![pid, first])
}

fn is_first_in_namespace(status: &str) -> bool {
    // Its number in each namespace, from that of this process inwards.
    let numbers: Vec<&str> = value(status, "NSpid")
        .map(|numbers| numbers.split_whitespace().collect())
        .unwrap_or_default();
    matches!(numbers.as_slice(), [_, .., "1"])
}

/// More than any of these files has.
const MOST: u64 = 64 << 10;

/// Bytes that processes have for themselves, apart from files: what a limit is held against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Nobody else's.
    pub own: u64,
    /// In mapped objects, as far as that is more than those that hold requests and replies.
    pub shared: u64,
}

impl Memory {
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let own = self.own.saturating_add(other.own);
        Self { own, shared: self.shared.saturating_add(other.shared) }
    }

    /// With what is held in objects, mapped or not (`objects::held`). Which of them are mapped is not
    /// looked at: of what is only mapped and what is only held, the smaller part is not seen.
    #[must_use]
    pub fn with_held(self, held: u64) -> u64 {
        self.own.saturating_add(self.shared.max(held))
    }
}

/// The memory of a process. `arena` is the size of the objects that hold requests and replies. `None`
/// if there is no such process.
#[must_use]
pub fn used(pid: i32, arena: u64) -> Option<Memory> {
    let status = read(pid, "status")?;
    // A process whose first thread has ended says nothing there; the others still do.
    used_of(&status, arena).or_else(|| {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        let names =
            tasks.flatten().take(MOST_TASKS).filter_map(|task| task.file_name().into_string().ok());
        names
            .filter_map(|task| read(pid, &format!("task/{task}/status")))
            .find_map(|s| used_of(&s, arena))
    })
}

/// Threads of a process, also of one whose first thread has ended. `None` if there is no such process.
#[must_use]
pub fn threads(pid: i32) -> Option<u32> {
    value(&read(pid, "status")?, "Threads")?.parse().ok()
}

/// Bytes that would come free if this process alone ended. `None` if it has, or may not be asked.
///
/// Waits for the process's lock on its memory, so it is not for a thread of the runtime.
#[must_use]
pub fn private(pid: i32) -> Option<u64> {
    private_of(&read(pid, "smaps_rollup")?)
}

fn read(pid: i32, file: &str) -> Option<String> {
    let file = File::open(format!("/proc/{pid}/{file}")).ok()?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).ok()?;
    // The name of a process can be anything.
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn used_of(status: &str, arena: u64) -> Option<Memory> {
    let anonymous = field(status, "RssAnon")?;
    let swapped = field(status, "VmSwap").unwrap_or(0);
    let shared = field(status, "RssShmem").unwrap_or(0);
    let own = anonymous.saturating_add(swapped);
    Some(Memory { own, shared: shared.saturating_sub(arena) })
}

fn private_of(rollup: &str) -> Option<u64> {
    let clean = field(rollup, "Private_Clean")?;
    Some(clean.saturating_add(field(rollup, "Private_Dirty")?))
}

/// The bytes in a line `NAME:  N kB`.
fn field(text: &str, name: &str) -> Option<u64> {
    let kibibytes: u64 = value(text, name)?.strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// What stands in a line `NAME:  VALUE`.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let of_line = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    text.lines().find_map(of_line).map(str::trim)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_arena_is_not_held_against_a_worker() {
        let status = "RssAnon:\t 100 kB\nRssFile:\t 900 kB\nRssShmem:\t 50 kB\nVmSwap:\t 7 kB\n";
        let used = |arena| used_of(status, arena).map(|memory| memory.with_held(0));
        assert_eq!(used(64 << 10), Some(107 << 10));
        assert_eq!(used(40 << 10), Some(117 << 10));
        assert_eq!(used_of("Name: m\n", 0), None);
    }

    #[test]
    fn the_first_of_a_namespace_is_known_by_its_number() {
        assert!(is_first_in_namespace("Name:\tm\nNSpid:\t71\t1\n"));
        assert!(is_first_in_namespace("NSpid:\t71\t5\t1\n"));
        assert!(!is_first_in_namespace("NSpid:\t71\t2\n"));
        // The first of this process's own, which may be a container's.
        assert!(!is_first_in_namespace("NSpid:\t1\n"));
        assert!(!is_first_in_namespace("Name:\tm\n"));
        assert!(around(i32::MAX).is_empty());
    }

    #[test]
    fn threads_are_counted() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(threads(own).is_some_and(|threads| threads >= 1));
        assert_eq!(threads(i32::MAX), None);
        assert_eq!(value("Name:\tm\nThreads:\t12\n", "Threads"), Some("12"));
    }

    #[test]
    fn what_is_mapped_and_held_counts_once() {
        let (first, second) = (Memory { own: 10, shared: 3 }, Memory { own: 1, shared: 4 });
        assert_eq!(first.and(second), Memory { own: 11, shared: 7 });
        assert_eq!([0, 7, 20].map(|held| first.and(second).with_held(held)), [18, 18, 31]);
    }

    #[test]
    fn this_process_has_memory() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(used(own, 0).is_some_and(|memory| memory.own > 4096));
        assert!(private(own).is_some_and(|bytes| bytes > 4096));
        assert_eq!(used(i32::MAX, 0), None);
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "((RssAnon|VmSwap|Private_Dirty):? *[0-9]{0,25}( kB)?\n?){0,9}") {
            let _used = used_of(&text, 0);
            let _private = private_of(&text);
        }
    }
}
