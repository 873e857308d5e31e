//! What holds a worker in: control groups, a scratch folder, and an eye on its memory and its files.
//!
//! Owns everything on the machine that belongs to one worker and is not its process: the leaves of
//! control groups that bound its memory, its share of the processors and its number of processes,
//! and that end its whole tree of processes; and the folder that it may write to. It neither starts
//! nor signals workers by itself, and it decides nothing about their lives: `lifecycle` does.
//!
//! - `hierarchy` (pure): which control group file systems there are and where this process is.
//! - `settings` (pure): which files of a leaf say what.
//! - [`report`] (pure): on which rung of the ladder each limit is held.
//! - `name` (pure): names that are safe, bounded and recognised later.
//! - [`memory`]: how much a process has; [`objects`]: how much it holds without having it mapped.
//! - [`disk`]: how much is in a scratch folder.
//! - `tables`: what processes have open.
//! - `claim`: folders that say, by a lock, whether their supervisor lives.
//! - `group`: our part of one hierarchy, and the leaves in it.
//! - `scratch`: folders of hostile content, removed.
//! - `enclosures`: all of it for one supervisor, and for one worker.
//!
//! Invariants: nothing of another supervisor that lives is touched; what a limit is held by is said,
//! and never better than it is; a worker's leaves and folder outlive it only if the kernel refuses to
//! let go of them, and then not the next start of a supervisor.

mod claim;
pub mod disk;
mod enclosures;
mod group;
mod hierarchy;
pub mod memory;
mod name;
pub mod objects;
pub mod report;
mod scratch;
mod settings;
mod tables;

pub use enclosures::{Enclosure, EnclosureError, Enclosures, Evidence};
pub use report::{Limit, LimitsReport};
