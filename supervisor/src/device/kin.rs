//! Whose process a number of the driver's is.
//!
//! The driver knows processes by their number in the initial namespace. Where `/proc` shows that one, a
//! number is looked up, translated into our own namespace, and searched for upwards: the process of a
//! worker in namespaces is a grandchild of the one that we know. From inside of a container these numbers
//! mean nothing here, or are ours after all, as some drivers translate them: one counts as ours only if it
//! is below a process that we know *and* has a device file open, and any other is unknown.
//!
//! Nothing is kept from one question to the next: numbers are used again.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// Finds the process that the driver calls so, or one above it, among those that are asked for. May
/// read files.
pub type Kin = fn(u32, &dyn Fn(i32) -> bool) -> Kinship;

/// What is known of a process that a driver names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinship {
    /// It is this process, or below it.
    Of(i32),
    /// It lives, and is none of those.
    Stranger,
    /// There is no such process any more.
    Gone,
    /// It cannot be told.
    Unknown,
}

/// Looks it up in `/proc`.
pub fn kin(number: u32, wanted: &dyn Fn(i32) -> bool) -> Kinship {
    View::of(Path::new("/proc"), lives).kin(number, wanted)
}

/// Steps up from a process to one that we know; two in `strict` confinement.
const MOST_STEPS: usize = 64;
/// Bytes of a process's status; a process in many groups has a long line of them.
const MOST_STATUS: u64 = 1 << 20;
/// Open files of a process that are looked at.
const MOST_FILES: usize = 4096;
/// `PROC_PID_INIT_INO` of the kernel.
const INITIAL: &str = "pid:[4026531836]";

/// What this process sees of others.
struct View<'a> {
    proc: &'a Path,
    /// How many namespaces our own is below that of `proc`.
    depth: usize,
    /// Our own namespace, as links say it.
    own: PathBuf,
    numbers: Numbers,
    /// Whether there is a process of this number in our own namespace, be it hidden from us.
    lives: fn(i32) -> bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbers {
    /// The driver's numbers are those of `proc`.
    OfProc,
    Elsewhere,
}

struct Status {
    parent: u32,
    /// From the namespace of `proc` down to the process's own.
    numbers: Vec<u32>,
}

impl<'a> View<'a> {
    fn of(proc: &'a Path, lives: fn(i32) -> bool) -> Self {
        let own = namespace(proc, "self").unwrap_or_default();
        let status = status(proc, "self");
        let depth = status.map_or(0, |status| status.numbers.len().saturating_sub(1));
        // The first process that `proc` knows is of the namespace that it shows.
        let shown = if depth == 0 { Some(own.clone()) } else { namespace(proc, "1").ok() };
        let initial = shown.is_some_and(|shown| shown.as_os_str() == INITIAL);
        let numbers = if initial { Numbers::OfProc } else { Numbers::Elsewhere };
        Self { proc, depth, own, numbers, lives }
    }

    fn kin(&self, number: u32, wanted: &dyn Fn(i32) -> bool) -> Kinship {
        match self.numbers {
            // What the driver says of a process that it will not name.
            _ if number == 0 => Kinship::Unknown,
            Numbers::OfProc => self.look_up(number, wanted),
            Numbers::Elsewhere if self.depth == 0 => match self.look_up(number, wanted) {
                Kinship::Of(pid) if self.has_device_open(number) => Kinship::Of(pid),
                Kinship::Of(_) | Kinship::Stranger | Kinship::Gone | Kinship::Unknown => {
                    Kinship::Unknown
                }
            },
            Numbers::Elsewhere => Kinship::Unknown,
        }
    }

    fn look_up(&self, number: u32, wanted: &dyn Fn(i32) -> bool) -> Kinship {
        let mut at = number;
        for step in 0..MOST_STEPS {
            let status = match status(self.proc, &at.to_string()) {
                Ok(status) => status,
                Err(error) if step == 0 && is_gone(&error) => {
                    return if self.is_hidden(number) { Kinship::Stranger } else { Kinship::Gone };
                }
                // It went while we looked, and its children have another parent now.
                Err(_) => return Kinship::Unknown,
            };
            if let Some(pid) = self.known_as(at, &status).filter(|pid| wanted(*pid)) {
                return match self.is_in_our_namespace(at) {
                    Some(true) => Kinship::Of(pid),
                    Some(false) => Kinship::Stranger,
                    None => Kinship::Unknown,
                };
            }
            if status.parent == 0 {
                return Kinship::Stranger;
            }
            at = status.parent;
        }
        Kinship::Unknown
    }

    /// The number in our own namespace, if it is as deep as ours.
    fn known_as(&self, number: u32, status: &Status) -> Option<i32> {
        let number = match self.depth {
            0 => number,
            depth if status.numbers.len() == depth + 1 => status.numbers[depth],
            _ => return None,
        };
        i32::try_from(number).ok()
    }

    /// As deep as ours, there are other namespaces with the same numbers; `proc` shows one only.
    fn is_in_our_namespace(&self, number: u32) -> Option<bool> {
        if self.depth == 0 {
            return Some(true);
        }
        namespace(self.proc, &number.to_string()).ok().map(|theirs| theirs == self.own)
    }

    /// `proc` may leave out other users' processes.
    fn is_hidden(&self, number: u32) -> bool {
        self.depth == 0 && i32::try_from(number).is_ok_and(self.lives)
    }

    fn has_device_open(&self, number: u32) -> bool {
        let files = fs::read_dir(self.proc.join(format!("{number}/fd")));
        let target = |entry: fs::DirEntry| fs::read_link(entry.path()).ok();
        let files = files.into_iter().flatten().take(MOST_FILES).flatten().filter_map(target);
        files
            .into_iter()
            .any(|file| file.as_os_str().as_encoded_bytes().starts_with(b"/dev/nvidia"))
    }
}

fn lives(pid: i32) -> bool {
    // 0 and less mean groups of processes.
    pid > 0 && matches!(kill(Pid::from_raw(pid), None), Ok(()) | Err(Errno::EPERM))
}

fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

fn namespace(proc: &Path, process: &str) -> std::io::Result<PathBuf> {
    fs::read_link(proc.join(process).join("ns/pid"))
}

fn status(proc: &Path, process: &str) -> std::io::Result<Status> {
    let file = File::open(proc.join(process).join("status"))?;
    let mut text = Vec::new();
    file.take(MOST_STATUS).read_to_end(&mut text)?;
    // A name may be anything, but it has no line breaks.
    let text = String::from_utf8_lossy(&text);
    let line = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    let numbers = line("NSpid:").split_whitespace().map_while(|word| word.parse().ok()).collect();
    match line("PPid:").trim().parse() {
        Ok(parent) => Ok(Status { parent, numbers }),
        Err(_) => Err(ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
#[path = "kin_tests.rs"]
mod tests;
