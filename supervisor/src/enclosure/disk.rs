//! How much a hostile process has in its scratch folder.
//!
//! Looked at by descriptor and never through a link. What cannot be measured within bounds is not
//! measured at all: it is [`Litter::Endless`], which no limit allows.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};

use crate::health::Litter;

/// Files and folders that are looked at; an honest worker has a handful.
const MOST_ENTRIES: usize = 10_000;
/// Folders within folders. Each that is open costs a descriptor.
const DEEPEST: usize = 32;
/// Descriptors of one process that are looked at.
const MOST_DESCRIPTORS: usize = 4096;
/// What `st_blocks` counts, whatever the filesystem.
const BLOCK: u64 = 512;

/// What is in `folder`, and what these processes have open that was in it and has no name any more.
/// Not for a thread of the runtime.
#[must_use]
pub fn occupied(folder: &Path, processes: &[i32]) -> Litter {
    let mut seen = Seen::default();
    match seen.folder(folder) {
        Ok(()) | Err(Stop::Failed(Errno::ENOENT)) => {}
        Err(Stop::Failed(_)) => return Litter::Endless("what cannot be read"),
        Err(Stop::Entries) => return Litter::Endless("more than 10000 files"),
        Err(Stop::Depth) => return Litter::Endless("folders more than 32 deep"),
    }
    for &process in processes {
        seen.unnamed(folder, process);
    }
    Litter::Bytes(seen.bytes)
}

enum Stop {
    Failed(Errno),
    Entries,
    Depth,
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
    /// Files with more than one name, or none.
    inodes: BTreeSet<(u64, u64)>,
}

impl Seen {
    fn folder(&mut self, folder: &Path) -> Result<(), Stop> {
        let parent = fs::File::open(folder.parent().unwrap_or(folder));
        let parent = parent.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
        let name = folder.file_name().unwrap_or_default();
        let mut open = vec![folder_in(parent.as_fd(), name.as_bytes())?];
        // Names are read to the end before the next folder is opened, so that the list is bounded.
        let mut below: Vec<Vec<Vec<u8>>> = vec![self.list(&mut open[0])?];
        while let (Some(here), Some(names)) = (open.last(), below.last_mut()) {
            let Some(name) = names.pop() else {
                open.pop();
                below.pop();
                continue;
            };
            if open.len() >= DEEPEST {
                return Err(Stop::Depth);
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
                return Err(Stop::Entries);
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
    fn unnamed(&mut self, folder: &Path, process: i32) {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{process}/fd")) else { return };
        for descriptor in descriptors.flatten().take(MOST_DESCRIPTORS) {
            // By its name first: a file elsewhere may be on a disk that does not answer.
            let Ok(name) = fs::read_link(descriptor.path()) else { continue };
            let gone = name.as_os_str().as_bytes().ends_with(b" (deleted)");
            if !gone || !name.starts_with(folder) {
                continue;
            }
            if let Ok(found) = fs::metadata(descriptor.path()) {
                self.add((found.dev(), found.ino()), found.blocks());
            }
        }
    }
}

fn folder_in(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Dir, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Dir::from_fd(openat(parent, name, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn own() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    fn bytes(folder: &Path) -> u64 {
        match occupied(folder, &[own()]) {
            Litter::Bytes(bytes) => bytes,
            Litter::Endless(why) => panic!("{why}"),
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
        assert_eq!(occupied(&root.path().join("none"), &[]), Litter::Bytes(0));
    }

    #[test]
    fn what_is_open_and_has_no_name_is_counted() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        let file = fs::File::create(&path).unwrap();
        fs::write(&path, vec![1; 100_000]).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(bytes(root.path()) >= 100_000);
        drop(file);
        assert!(bytes(root.path()) < 100_000);
    }

    #[test]
    fn what_has_no_end_is_not_followed_to_it() {
        let root = tempfile::tempdir().unwrap();
        let deep: std::path::PathBuf = std::iter::repeat_n("d", 40).collect();
        fs::create_dir_all(root.path().join(deep)).unwrap();
        let why = Litter::Endless("folders more than 32 deep");
        assert_eq!(occupied(root.path(), &[]), why);
        let root = tempfile::tempdir().unwrap();
        for number in 0..=MOST_ENTRIES {
            fs::write(root.path().join(number.to_string()), "").unwrap();
        }
        assert_eq!(occupied(root.path(), &[]), Litter::Endless("more than 10000 files"));
    }
}
