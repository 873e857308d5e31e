//! Attacks on the two memory objects that a worker shares with its supervisor, from inside of the
//! model: by the mappings, and by descriptors if the kernel gives any. Each says how it went.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::FallocateFlags;
use nix::libc;

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    Requests,
    Responses,
}

/// What is to be done to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// All pages are taken out, which then read as zeros.
    Hole(Object),
    /// It becomes shorter or longer, so that somebody's mapping ends in nothing.
    Size(Object),
    /// Requests that the supervisor has written are written again.
    Requests,
}

/// Where an object is mapped.
#[derive(Clone, Debug)]
struct Area {
    start: usize,
    len: usize,
    /// Paths by which it may be opened.
    paths: Vec<PathBuf>,
}

/// A way to do it and how it went.
type Attempt = (&'static str, Result<(), String>);

impl Damage {
    /// Tries every way. The error is what the kernel said to each, and means that none did anything.
    pub(super) fn attempt(self) -> Result<(), String> {
        let area = Area::find(self.object()).ok_or("the object is not mapped")?;
        let attempts = match self {
            Self::Hole(_) => area.punch(),
            Self::Size(_) => area.resize(),
            Self::Requests => area.overwrite(),
        };
        let refusals: Result<Vec<String>, ()> = attempts
            .into_iter()
            .map(|(way, result)| result.err().map(|error| format!("{way}: {error}")).ok_or(()))
            .collect();
        refusals.map_or(Ok(()), |refusals| Err(format!("refused: {}", refusals.join("; "))))
    }

    fn object(self) -> Object {
        match self {
            Self::Hole(object) | Self::Size(object) => object,
            Self::Requests => Object::Requests,
        }
    }
}

impl Area {
    fn find(object: Object) -> Option<Self> {
        let name = match object {
            Object::Requests => "/memfd:bulkhead-requests",
            Object::Responses => "/memfd:bulkhead-responses",
        };
        let maps = fs::read_to_string("/proc/self/maps").ok()?;
        let line = maps.lines().find(|line| line.contains(name))?;
        let range = line.split(' ').next()?;
        let (start, end) = range.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        let (start, end) = (number(start)?, number(end)?);
        let descriptors = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let ours = |path: &PathBuf| {
            fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with(name))
        };
        let mut paths: Vec<PathBuf> = descriptors.map(|entry| entry.path()).filter(ours).collect();
        paths.push(PathBuf::from(format!("/proc/self/map_files/{range}")));
        Some(Self { start, len: end - start, paths })
    }

    fn punch(&self) -> Vec<Attempt> {
        vec![
            ("madvise", text(self.remove())),
            ("fallocate", self.with_file(|file| fallocate(file, hole(), 0, self.len))),
        ]
    }

    fn resize(&self) -> Vec<Attempt> {
        let to = |len: usize| {
            self.with_file(move |file| nix::unistd::ftruncate(file.as_fd(), offset(len)?))
        };
        let grow = |file: &File| fallocate(file, FallocateFlags::empty(), self.len, 4096);
        vec![
            ("to a half", to(self.len / 2)),
            ("to the double", to(self.len * 2)),
            ("fallocate", self.with_file(grow)),
        ]
    }

    fn overwrite(&self) -> Vec<Attempt> {
        vec![
            ("mprotect", text(self.unprotect())),
            ("pwrite", self.with_file(|file| nix::sys::uio::pwrite(file, b"x", 0).map(drop))),
            ("mmap", self.with_file(|file| self.map_again(file))),
        ]
    }

    /// Does it to the first descriptor that can be had.
    fn with_file(&self, act: impl FnOnce(&File) -> Result<(), Errno>) -> Result<(), String> {
        let open = |path: &PathBuf| File::options().read(true).write(true).open(path);
        let mut opened = self.paths.iter().map(open);
        let first = opened.find(Result::is_ok).unwrap_or_else(|| open(&self.paths[0]));
        let file = first.map_err(|error| format!("no descriptor: {error}"))?;
        text(act(&file))
    }

    fn remove(&self) -> Result<(), Errno> {
        let start = self.at();
        // SAFETY: the range is one mapping of a shared object that this process does not move; its
        // bytes become zeros, which readers of shared memory must expect.
        Errno::result(unsafe { libc::madvise(start, self.len, libc::MADV_REMOVE) }).map(drop)
    }

    fn unprotect(&self) -> Result<(), Errno> {
        let (start, access) = (self.at(), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: the range is one mapping, which can be read as before.
        Errno::result(unsafe { libc::mprotect(start, self.len, access) }).map(drop)
    }

    /// Leaks the mapping if there is one, as the test that sees it fails.
    fn map_again(&self, file: &File) -> Result<(), Errno> {
        let (access, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        let fd = std::os::fd::AsRawFd::as_raw_fd(file);
        // SAFETY: the kernel chooses an address that nothing else uses.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), self.len, access, shared, fd, 0) };
        if at == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(()) }
    }

    fn at(&self) -> *mut libc::c_void {
        std::ptr::with_exposed_provenance_mut(self.start)
    }
}

fn hole() -> FallocateFlags {
    FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE
}

fn fallocate(file: &File, how: FallocateFlags, start: usize, len: usize) -> Result<(), Errno> {
    nix::fcntl::fallocate(file.as_fd(), how, offset(start)?, offset(len)?)
}

fn offset(bytes: usize) -> Result<i64, Errno> {
    i64::try_from(bytes).map_err(|_| Errno::EFBIG)
}

fn text(result: Result<(), Errno>) -> Result<(), String> {
    result.map_err(|error| error.to_string())
}
