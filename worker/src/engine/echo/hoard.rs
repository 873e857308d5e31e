//! Processes, threads, descriptors, files and memory objects without end: what a limit or a confinement
//! must stop.

use std::fs::File;
use std::io::Write as _;
use std::thread::Builder;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{ForkResult, fork, setsid};
use shared::memory::OwnObject;
use shared::text::chain;

use super::command::Name;

/// More than any limit that a test sets; it only keeps a machine without limits usable.
const MOST_DESCRIPTORS: usize = 100_000;
/// After so many seconds a process that nobody has ended ends by itself, so that a test that fails
/// leaves nothing on the machine for long.
const LIFETIME: libc::c_uint = 120;
/// Bytes; the threads do nothing.
const STACK: usize = 64 << 10;
/// Bytes: less than any limit that a test sets, which bounds each object.
const OBJECT: usize = 8 << 20;

/// Bytes that are written at a time.
const PIECE: usize = 1 << 20;

/// What was taken and is not given back.
#[derive(Debug, Default)]
pub(super) struct Hoard {
    files: Vec<File>,
    objects: Vec<OwnObject>,
}

impl Hoard {
    /// Starts processes until one is refused, which is the error, or there are `most`.
    pub(super) fn processes(&mut self, most: u32) -> Result<(), String> {
        for count in 0..most {
            start(Kin::Child).map_err(|error| refused(count, "processes", error))?;
        }
        Ok(())
    }

    /// Leaves a process in a session of its own that is nobody's child.
    pub(super) fn orphan(&mut self) -> Result<(), String> {
        start(Kin::Orphan).map_err(|error| error.to_string())
    }

    /// Starts threads until one is refused, which is the error, or there are `most`.
    pub(super) fn threads(&mut self, most: u32) -> Result<(), String> {
        for count in 0..most {
            let thread = Builder::new().stack_size(STACK);
            let idle = || loop {
                std::thread::park();
            };
            thread.spawn(idle).map_err(|error| refused(count, "threads", error))?;
        }
        Ok(())
    }

    /// Writes to a file in the scratch folder, and keeps it open.
    pub(super) fn fill(&mut self, bytes: usize, name: Name) -> Result<(), String> {
        let path = std::env::temp_dir().join(format!("fill-{}", self.files.len()));
        let mut file = File::create(&path).map_err(|error| error.to_string())?;
        if name == Name::Removed {
            std::fs::remove_file(&path).map_err(|error| error.to_string())?;
        }
        let piece = vec![1; PIECE];
        for written in (0..bytes).step_by(PIECE) {
            let piece = &piece[..PIECE.min(bytes - written)];
            file.write_all(piece).map_err(|error| refused(written, "bytes", error))?;
        }
        self.files.push(file);
        Ok(())
    }

    /// Fills objects of the kind that large outputs are in, of so many bytes together, until one is
    /// refused, which is the error.
    pub(super) fn objects(&mut self, bytes: usize) -> Result<(), String> {
        for count in 0..bytes.div_ceil(OBJECT) {
            let object = OwnObject::create(OBJECT);
            let mut object = object.map_err(|error| refused(count, "objects", chain(&error)))?;
            object.bytes_mut().fill(1);
            self.objects.push(object);
        }
        Ok(())
    }

    /// Opens files until one is refused, which is the error.
    pub(super) fn descriptors(&mut self) -> Result<(), String> {
        while self.files.len() < MOST_DESCRIPTORS {
            let file = File::open("/dev/null");
            let count = self.files.len();
            self.files.push(file.map_err(|error| refused(count, "descriptors", error))?);
        }
        Ok(())
    }
}

fn refused(count: impl std::fmt::Display, what: &str, error: impl std::fmt::Display) -> String {
    format!("refused after {count} {what}: {error}")
}

/// How a process is related to this one.
#[derive(Clone, Copy, Debug)]
enum Kin {
    Child,
    Orphan,
}

/// Starts a process that does nothing until it is ended.
fn start(kin: Kin) -> Result<(), Errno> {
    // SAFETY: the child makes only system calls, which are safe after a fork, and never returns.
    let forked = unsafe { fork() }?;
    match (forked, kin) {
        (ForkResult::Parent { .. }, Kin::Child) => Ok(()),
        (ForkResult::Parent { child }, Kin::Orphan) => {
            nix::sys::wait::waitpid(child, None).map(drop)
        }
        (ForkResult::Child, Kin::Child) => rest(),
        (ForkResult::Child, Kin::Orphan) => leave(),
    }
}

/// Of a child: starts another one in a session of its own and ends.
fn leave() -> ! {
    let _leads_none = setsid();
    // SAFETY: as in `start`.
    if let Ok(ForkResult::Child) = unsafe { fork() } {
        rest();
    }
    // SAFETY: it has no preconditions and does not return.
    unsafe { libc::_exit(0) }
}

fn rest() -> ! {
    // SAFETY: it takes a number and touches no memory.
    unsafe { libc::alarm(LIFETIME) };
    loop {
        // SAFETY: it has no preconditions.
        unsafe { libc::pause() };
    }
}
