//! A folder that belongs to one supervisor and says whether that one lives.
//!
//! The supervisor holds a lock on the folder itself for as long as it lives; the kernel lets go of it
//! however the process ends. A number of a process would not do: it says nothing across containers
//! that share a folder, and it is given out again.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::name;

/// Names that are tried before a supervisor gives up.
const ATTEMPTS: u32 = 1000;

/// A folder that is locked; removed when dropped, if it is empty by then.
#[derive(Debug)]
pub(super) struct Claim {
    folder: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl Claim {
    /// Makes a folder in `parent` that only this user may look into.
    pub(super) fn make(parent: &Path) -> io::Result<Self> {
        for attempt in 0..ATTEMPTS {
            let folder = parent.join(name::claim(std::process::id(), attempt));
            match DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(e),
            }
            // Somebody who sweeps can have taken it for abandoned before it was locked.
            if let Some(claim) = Self::lock(folder) {
                return Ok(claim);
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// The folders in `parent` whose supervisors do not live any more, locked.
    pub(super) fn abandoned(parent: &Path) -> Vec<Self> {
        let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
        let ours = |entry: &fs::DirEntry| {
            entry.file_name().to_str().is_some_and(name::is_claim)
                && entry.file_type().is_ok_and(|kind| kind.is_dir())
        };
        let found = entries.flatten().filter(ours);
        found.filter_map(|entry| Self::lock(entry.path())).collect()
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes the folder, if it is empty; what is left in it is for the next supervisor that sweeps.
    pub(super) fn release(&self) {
        let _left = fs::remove_dir(&self.folder);
    }

    /// `None` if somebody else holds it, or it has gone.
    fn lock(folder: PathBuf) -> Option<Self> {
        let lock = File::open(&folder).ok()?;
        lock.try_lock().ok()?;
        let (there, locked) = (fs::symlink_metadata(&folder).ok()?, lock.metadata().ok()?);
        let same = there.ino() == locked.ino() && there.dev() == locked.dev();
        same.then_some(Self { folder, _lock: lock })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_abandoned_when_nobody_holds_it() {
        let parent = tempfile::tempdir().unwrap();
        let (first, second) =
            (Claim::make(parent.path()).unwrap(), Claim::make(parent.path()).unwrap());
        assert_ne!(first.folder(), second.folder());
        assert!(Claim::abandoned(parent.path()).is_empty());
        let left = second.folder().to_owned();
        fs::write(left.join("file"), "").unwrap();
        drop(second);
        let found = Claim::abandoned(parent.path());
        assert_eq!(found.iter().map(Claim::folder).collect::<Vec<_>>(), [left]);
        let gone = first.folder().to_owned();
        drop(first);
        assert!(!gone.exists());
    }

    #[test]
    fn what_is_not_a_claim_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["bulkhead.service", "other", "9"] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        fs::write(parent.path().join("bulkhead.7"), "").unwrap();
        std::os::unix::fs::symlink("other", parent.path().join("bulkhead.8")).unwrap();
        assert!(Claim::abandoned(parent.path()).is_empty());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 5);
    }
}
