//! How much a hostile process has in its scratch folder.
//!
//! Looked at by descriptor and never through a link. What a worker has beyond the bounds of a look is
//! not measured: it is [`DiskUse::Endless`], which no limit allows. Files that are only mapped, with
//! neither a name nor a descriptor, are not seen.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

use super::tables::Tables;
use crate::health::DiskUse;

/// Files and folders that are looked at; an honest worker has a handful.
const MOST_ENTRIES: usize = 10_000;
/// Folders within folders. Each that is open costs a descriptor.
const DEEPEST: usize = 32;
/// What `st_blocks` counts, whatever the filesystem.
const BLOCK: u64 = 512;

/// What is in `folder`, a path without links, and what these processes have open that was in it and has
/// no name any more. `None` if that cannot be told at the moment, as when this process itself is short
/// of descriptors. Not for a thread of the runtime.
#[must_use]
pub fn occupied(folder: &Path, processes: &[i32]) -> Option<DiskUse> {
    let mut seen = Seen::default();
    let looked = seen
        .folder(folder)
        .and_then(|()| processes.iter().try_for_each(|&process| seen.unnamed(folder, process)));
    match looked {
        Ok(()) => Some(DiskUse::Bytes(seen.bytes)),
        Err(Stop::Endless(what)) => Some(DiskUse::Endless(what)),
        // The worker's own doing.
        Err(Stop::Failed(Errno::EACCES | Errno::EPERM)) => {
            Some(DiskUse::Endless("a folder that cannot be read"))
        }
        Err(Stop::Failed(_)) => None,
    }
}

enum Stop {
    Failed(Errno),
    Endless(&'static str),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno)
    }
}

#[derive(Debug, Default)]
struct Seen {
    bytes: u64,
    entries: usize,
    tables: Tables,
    /// The filesystem of the folder.
    device: u64,
    /// Files with more than one name, or none.
    inodes: BTreeSet<(u64, u64)>,
}

impl Seen {
    fn folder(&mut self, folder: &Path) -> Result<(), Stop> {
        let parent = fs::File::open(folder.parent().unwrap_or(folder));
        let parent = parent.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
        let name = folder.file_name().unwrap_or_default();
        let root = match folder_in(parent.as_fd(), name.as_bytes()) {
            Err(Errno::ENOENT) => return Ok(()),
            outcome => outcome?,
        };
        self.device = fstat(&root)?.st_dev;
        let mut open = vec![root];
        // Names are read to the end before the next folder is opened, so that the list is bounded.
        let mut below: Vec<Vec<Vec<u8>>> = vec![self.list(&mut open[0])?];
        while let (Some(here), Some(names)) = (open.last(), below.last_mut()) {
            let Some(name) = names.pop() else {
                open.pop();
                below.pop();
                continue;
            };
            if open.len() >= DEEPEST {
                return Err(Stop::Endless("folders more than 32 deep"));
            }
            let mut next = match folder_in(here.as_fd(), &name) {
                // It has gone, or is something else by now.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => continue,
                outcome => outcome?,
            };
            let names = self.list(&mut next)?;
            open.push(next);
            below.push(names);
        }
        Ok(())
    }

    /// Adds what is in a folder; returns the names of the folders in it.
    fn list(&mut self, folder: &mut Dir) -> Result<Vec<Vec<u8>>, Stop> {
        let at = folder.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
        let mut folders = Vec::new();
        for entry in folder.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.entries += 1;
            if self.entries > MOST_ENTRIES {
                return Err(Stop::Endless("more than 10000 files"));
            }
            let found = match fstatat(at.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Err(Errno::ENOENT) => continue,
                outcome => outcome?,
            };
            if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
                folders.push(name.to_bytes().to_owned());
            }
            self.add_entry(&found);
        }
        Ok(folders)
    }

    fn add_entry(&mut self, found: &FileStat) {
        self.add((found.st_dev, found.st_ino), u64::try_from(found.st_blocks).unwrap_or(0));
    }

    fn add(&mut self, inode: (u64, u64), blocks: u64) {
        if self.inodes.insert(inode) {
            self.bytes = self.bytes.saturating_add(blocks.saturating_mul(BLOCK));
        }
    }

    /// Files of the folder that a process has open and that are in no folder any more.
    fn unnamed(&mut self, folder: &Path, process: i32) -> Result<(), Stop> {
        let mut tables = std::mem::take(&mut self.tables);
        let looked = tables.look(process, |descriptor| self.descriptor(folder, descriptor));
        self.tables = tables;
        looked.map_err(|_| Stop::Endless("more than 65536 files open"))
    }

    fn descriptor(&mut self, folder: &Path, descriptor: &Path) {
        // By its name first: a file elsewhere may be on a disk that does not answer.
        match fs::read_link(descriptor) {
            Ok(name) if !name.as_os_str().as_bytes().ends_with(b" (deleted)") => return,
            Ok(name) if !name.starts_with(folder) => return,
            Ok(_) => {}
            // Nothing that a worker may open but its own folder has names so long.
            Err(error) if error.raw_os_error() == Some(Errno::ENAMETOOLONG as i32) => {}
            Err(_) => return,
        }
        if let Ok(found) = fs::metadata(descriptor)
            && found.dev() == self.device
        {
            self.add((found.dev(), found.ino()), found.blocks());
        }
    }
}

fn folder_in(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Dir, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Dir::from_fd(openat(parent, name, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    use super::*;

    fn own() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    fn bytes(folder: &Path) -> u64 {
        match occupied(folder, &[own()]) {
            Some(DiskUse::Bytes(bytes)) => bytes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn files_are_counted_once_wherever_they_are() {
        let root = tempfile::tempdir().unwrap();
        let empty = bytes(root.path());
        let deep = root.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), vec![1; 100_000]).unwrap();
        let once = bytes(root.path());
        assert!(once >= empty + 100_000, "{once}");
        fs::hard_link(deep.join("file"), root.path().join("again")).unwrap();
        symlink("/usr", root.path().join("elsewhere")).unwrap();
        assert!(bytes(root.path()) < once + 50_000);
        assert_eq!(occupied(&root.path().join("none"), &[]), Some(DiskUse::Bytes(0)));
    }

    #[test]
    fn what_is_open_and_has_no_name_is_counted() {
        let root = tempfile::tempdir().unwrap();
        let mut folder = root.path().to_owned();
        // The last has a name that is too long to be read.
        for _ in 0..18 {
            let path = folder.join("file");
            let file = fs::File::create(&path).unwrap();
            (&file).write_all(&vec![1; 100_000]).unwrap();
            fs::remove_file(&path).unwrap();
            assert!(bytes(root.path()) >= 100_000, "{}", folder.display());
            drop(file);
            assert!(bytes(root.path()) < 100_000);
            folder = folder.join("d".repeat(220));
            fs::create_dir(&folder).unwrap();
        }
    }

    #[test]
    fn what_has_no_end_is_not_followed_to_it() {
        let root = tempfile::tempdir().unwrap();
        let deep: std::path::PathBuf = std::iter::repeat_n("d", 40).collect();
        fs::create_dir_all(root.path().join(deep)).unwrap();
        let why = DiskUse::Endless("folders more than 32 deep");
        assert_eq!(occupied(root.path(), &[]), Some(why));
        let root = tempfile::tempdir().unwrap();
        for number in 0..=MOST_ENTRIES {
            fs::write(root.path().join(number.to_string()), "").unwrap();
        }
        let why = DiskUse::Endless("more than 10000 files");
        assert_eq!(occupied(root.path(), &[]), Some(why));
    }
}
