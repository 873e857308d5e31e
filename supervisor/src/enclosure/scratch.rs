//! Removes a folder that a hostile process has filled.
//!
//! Nothing in it is followed, and its depth costs neither stack nor descriptors: a folder inside that
//! is not empty is moved up beside it and emptied in its turn. What a removal leaves when it is cut
//! short bears the name of the folder, so that a later one finds it.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::NixPath;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::name;

/// Folders that are emptied before the list of them is read again.
const BATCH: usize = 256;
/// Lists that are read before it counts as endless.
const ROUNDS: usize = 1 << 20;

/// Removes `name` in `parent`, whatever is in it. It takes as long as the disk needs, so it is not
/// for a thread of the runtime.
pub(super) fn remove(parent: &Path, name: &str) -> io::Result<()> {
    let parent = File::open(parent)?;
    let mut removal =
        Removal { parent: parent.as_fd(), name, moved: 0, problem: None, progress: 0 };
    for _ in 0..ROUNDS {
        let parts = removal.parts()?;
        if parts.is_empty() {
            return Ok(());
        }
        removal.progress = 0;
        for part in &parts {
            if let Err(errno) = removal.empty(part.as_str()) {
                removal.problem = Some(errno);
            }
        }
        if removal.progress == 0 {
            break;
        }
    }
    Err(removal.problem.unwrap_or(Errno::EBUSY).into())
}

#[derive(Debug)]
struct Removal<'a> {
    parent: BorrowedFd<'a>,
    name: &'a str,
    moved: u64,
    problem: Option<Errno>,
    /// What went away or moved in this round.
    progress: u64,
}

impl Removal<'_> {
    /// What is still there, or a part of it.
    fn parts(&self) -> Result<Vec<String>, Errno> {
        let mut folder = open(self.parent, ".")?;
        let names = folder.iter().flatten();
        let ours = names.filter_map(|entry| {
            let found = entry.file_name().to_str().ok()?;
            name::is_part(found, self.name).then(|| found.to_owned())
        });
        Ok(ours.take(BATCH).collect())
    }

    /// Empties a folder in the parent and removes it.
    fn empty(&mut self, part: &str) -> Result<(), Errno> {
        let mut folder = match self.open(part) {
            Ok(folder) => folder,
            Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                unlinkat(self.parent, part, UnlinkatFlags::NoRemoveDir)?;
                self.progress += 1;
                return Ok(());
            }
            Err(errno) => return Err(errno),
        };
        let inside: OwnedFd = folder.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
        for entry in folder.iter() {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                match self.remove(inside.as_fd(), entry.file_name()) {
                    Ok(()) => self.progress += 1,
                    Err(errno) => self.problem = Some(errno),
                }
            }
        }
        unlinkat(self.parent, part, UnlinkatFlags::RemoveDir)?;
        self.progress += 1;
        Ok(())
    }

    fn open(&self, part: &str) -> Result<Dir, Errno> {
        match open(self.parent, part) {
            Err(Errno::EACCES) => {
                permit(self.parent, part)?;
                open(self.parent, part)
            }
            // Its rights may suffice to list and not to remove.
            Ok(folder) => {
                let _not_ours = permit(self.parent, part);
                Ok(folder)
            }
            Err(errno) => Err(errno),
        }
    }

    fn remove(&mut self, inside: BorrowedFd<'_>, entry: &CStr) -> Result<(), Errno> {
        match unlinkat(inside, entry, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR | Errno::EPERM) => {}
            outcome => return outcome,
        }
        match unlinkat(inside, entry, UnlinkatFlags::RemoveDir) {
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => {}
            outcome => return outcome,
        }
        // To be moved it has to be writable: it has a way back to where it was.
        let _not_ours = permit(inside, entry);
        self.moved += 1;
        renameat(inside, entry, self.parent, name::moved(self.name, self.moved).as_str())
    }
}

fn open<P: ?Sized + NixPath>(at: BorrowedFd<'_>, path: &P) -> Result<Dir, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Dir::from_fd(openat(at, path, flags, Mode::empty())?)
}

fn permit<P: ?Sized + NixPath>(at: BorrowedFd<'_>, path: &P) -> Result<(), Errno> {
    fchmodat(at, path, Mode::S_IRWXU, FchmodatFlags::NoFollowSymlink)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use nix::fcntl::open as open_at_root;
    use nix::sys::stat::mkdirat;

    use super::*;

    #[test]
    fn files_and_folders_go_and_what_links_point_to_stays() {
        let parent = tempfile::tempdir().unwrap();
        let (kept, folder) = (parent.path().join("kept"), parent.path().join("1.m"));
        fs::create_dir_all(folder.join("a/b/c")).unwrap();
        fs::create_dir_all(kept.join("inner")).unwrap();
        fs::write(kept.join("inner/file"), "x").unwrap();
        symlink(&kept, folder.join("a/link")).unwrap();
        symlink(kept.join("inner/file"), folder.join("file")).unwrap();
        fs::create_dir(parent.path().join("1.m2")).unwrap();
        remove(parent.path(), "1.m").unwrap();
        assert!(kept.join("inner/file").exists() && parent.path().join("1.m2").exists());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 2);
        remove(parent.path(), "1.m").unwrap();
    }

    #[test]
    fn depth_costs_neither_stack_nor_descriptors() {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir(parent.path().join("1.m")).unwrap();
        let mut at = open_at_root(
            &parent.path().join("1.m"),
            OFlag::O_DIRECTORY | OFlag::O_RDONLY,
            Mode::empty(),
        )
        .unwrap();
        for _ in 0..5_000 {
            mkdirat(&at, "d", Mode::S_IRWXU).unwrap();
            at = openat(&at, "d", OFlag::O_DIRECTORY | OFlag::O_RDONLY, Mode::empty()).unwrap();
        }
        drop(at);
        remove(parent.path(), "1.m").unwrap();
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn rights_that_were_taken_away_do_not_matter() {
        let parent = tempfile::tempdir().unwrap();
        let inner = parent.path().join("1.m/a/b");
        fs::create_dir_all(inner.join("c")).unwrap();
        for folder in [inner.as_path(), inner.parent().unwrap()] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o0)).unwrap();
        }
        remove(parent.path(), "1.m").unwrap();
        assert!(!parent.path().join("1.m").exists());
    }

    #[test]
    fn many_folders_are_taken_in_turns() {
        let parent = tempfile::tempdir().unwrap();
        for i in 0..600 {
            fs::create_dir_all(parent.path().join(format!("1.m/{i}/x"))).unwrap();
        }
        remove(parent.path(), "1.m").unwrap();
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
