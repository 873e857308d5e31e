//! Memory that a process has in objects which it holds as descriptors, mapped or not.
//!
//! An object that is only written to is no part of any process's resident memory, so that neither the
//! worker's own limit nor what `/proc` says of its memory shows it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;

use super::tables::Tables;

/// What `st_blocks` counts.
const BLOCK: u64 = 512;
/// How the kernel shows memory objects among descriptors.
const NAME: &[u8] = b"/memfd:";

/// Bytes in the memory objects that these processes hold, each object once. Not for a thread of the
/// runtime.
#[must_use]
pub fn held(processes: &[i32]) -> u64 {
    let (mut tables, mut inodes, mut bytes) = (Tables::default(), BTreeSet::new(), 0_u64);
    for &process in processes {
        let looked = tables.look(process, |descriptor| {
            // By its name first: a file may be on a disk that does not answer.
            let name = fs::read_link(descriptor);
            if name.is_ok_and(|name| name.as_os_str().as_bytes().starts_with(NAME))
                && let Ok(found) = fs::metadata(descriptor)
                && inodes.insert((found.dev(), found.ino()))
            {
                bytes = bytes.saturating_add(found.blocks().saturating_mul(BLOCK));
            }
        });
        if looked.is_err() {
            break;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;

    #[test]
    fn what_is_held_and_not_mapped_is_counted_once() {
        let object = memfd_create(c"m", MFdFlags::MFD_CLOEXEC).unwrap();
        let file = fs::File::from(object);
        file.set_len(4 << 20).unwrap();
        (&file).write_all(&vec![1; 1 << 20]).unwrap();
        let stdio = || Stdio::from(file.try_clone().unwrap());
        let sleeper =
            |stdout| Command::new("sleep").arg("60").stdin(stdio()).stdout(stdout).spawn();
        let mut children = [sleeper(stdio()).unwrap(), sleeper(Stdio::null()).unwrap()];
        let pids = children.each_ref().map(|child| i32::try_from(child.id()).unwrap());
        let found = held(&pids);
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        // What was written and no more, though the object is larger.
        assert!((1 << 20..2 << 20).contains(&found), "{found}");
        assert_eq!(held(&[i32::MAX]), 0);
    }
}
