//! Which control group file systems there are and where this process is in them; pure.
//!
//! Reads what `/proc/self/mountinfo` and `/proc/self/cgroup` say. Neither is hostile, but both differ
//! between machines and containers; a line that is not understood is passed over.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// What of a machine a hierarchy can divide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Controller {
    Memory,
    Cpu,
    Processes,
}

impl Controller {
    pub(super) const ALL: [Self; 3] = [Self::Memory, Self::Cpu, Self::Processes];

    /// As the kernel calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Processes => "pids",
        }
    }
}

pub(super) type Controllers = BTreeSet<Controller>;

/// The controllers among these words; others are none of our business.
pub(super) fn controllers<'a>(words: impl Iterator<Item = &'a str>) -> Controllers {
    words.filter_map(|word| Controller::ALL.into_iter().find(|c| c.name() == word)).collect()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Which controllers it has is asked in its folders.
    V2,
    V1(Controllers),
}

/// A folder of a control group file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
    pub(super) kind: Kind,
}

#[derive(Debug)]
struct Mount {
    kind: Kind,
    /// The part of the hierarchy that is mounted.
    root: PathBuf,
    point: PathBuf,
}

/// Where this process is: at most one place for each controller, and one for version 2.
pub(super) fn own(mountinfo: &str, cgroup: &str) -> Vec<Place> {
    let place = |mount: Mount| {
        let inside = membership(cgroup, &mount.kind)?;
        // A process can be outside of what its namespace shows it.
        let inside = Path::new(inside).strip_prefix(&mount.root).ok()?;
        let outside = |part| matches!(part, std::path::Component::ParentDir);
        let folder = mount.point.join(inside);
        (!inside.components().any(outside)).then_some(Place { folder, kind: mount.kind })
    };
    let mut places: Vec<Place> = Vec::new();
    for found in mounts(mountinfo).filter_map(place) {
        // The same hierarchy may be mounted more than once.
        if !places.iter().any(|place| place.kind == found.kind) {
            places.push(found);
        }
    }
    places
}

/// The place that `folder` is; `None` if it is in no control group file system.
pub(super) fn named(mountinfo: &str, folder: &Path) -> Option<Place> {
    let around = mounts(mountinfo).filter(|mount| folder.starts_with(&mount.point));
    let nearest = around.max_by_key(|mount| mount.point.components().count())?;
    Some(Place { folder: folder.to_owned(), kind: nearest.kind })
}

fn mounts(mountinfo: &str) -> impl Iterator<Item = Mount> {
    mountinfo.lines().filter_map(mount)
}

/// `ID PARENT DEVICE ROOT POINT OPTIONS [TAGS…] - TYPE SOURCE SUPEROPTIONS`
fn mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, point) = (unescape(before.next()?), unescape(before.next()?));
    let mut after = after.split(' ');
    let kind = match after.next()? {
        "cgroup2" => Kind::V2,
        "cgroup" => {
            let found = controllers(after.nth(1)?.split(','));
            if found.is_empty() {
                return None;
            }
            Kind::V1(found)
        }
        _ => return None,
    };
    Some(Mount { kind, root, point })
}

/// The path of this process in a hierarchy; lines are `ID:CONTROLLERS:PATH`.
fn membership<'a>(cgroup: &'a str, kind: &Kind) -> Option<&'a str> {
    cgroup.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (id, named, path) = (fields.next()?, fields.next()?, fields.next()?);
        let same = match kind {
            Kind::V2 => id == "0" && named.is_empty(),
            Kind::V1(wanted) => controllers(named.split(',')) == *wanted,
        };
        same.then_some(path)
    })
}

/// Takes back the `\ooo` that stands for spaces and the like.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| first == b'\\');
        let code = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = code.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    fn place(folder: &str, kind: Kind) -> Place {
        Place { folder: folder.into(), kind }
    }

    fn v1(controller: Controller) -> Kind {
        Kind::V1(Controllers::from([controller]))
    }

    #[test]
    fn every_hierarchy_of_a_hybrid_machine_is_found() {
        let cgroup = "9:name=systemd:/\n4:memory:/a/b\n1:cpu,cpuacct:/\n0::/user.slice\n";
        let expected = [
            place("/sys/fs/cgroup/cpu,cpuacct/", v1(Controller::Cpu)),
            place("/sys/fs/cgroup/memory/a/b", v1(Controller::Memory)),
            place("/sys/fs/cgroup/unified/user.slice", Kind::V2),
        ];
        assert_eq!(own(HYBRID, cgroup), expected);
    }

    #[test]
    fn a_container_sees_the_part_that_it_is_in() {
        let mounts = "9 8 0:1 /box/7 /sys/fs/cgroup ro - cgroup2 cgroup rw,nsdelegate\n";
        assert_eq!(own(mounts, "0::/box/7/in\n"), [place("/sys/fs/cgroup/in", Kind::V2)]);
        assert_eq!(own(mounts, "0::/other\n"), []);
        let whole = "9 8 0:1 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(own(whole, "0::/../elsewhere\n"), []);
    }

    #[test]
    fn a_named_folder_belongs_to_the_nearest_mount() {
        let memory = named(HYBRID, Path::new("/sys/fs/cgroup/memory/models"));
        assert_eq!(memory, Some(place("/sys/fs/cgroup/memory/models", v1(Controller::Memory))));
        assert_eq!(named(HYBRID, Path::new("/sys/fs/cgroup/freezer/x")), None);
        assert_eq!(named(HYBRID, Path::new("/tmp")), None);
    }

    #[test]
    fn escaped_characters_come_back() {
        assert_eq!(unescape(r"/a\040b\134c"), Path::new(r"/a b\c"));
        assert_eq!(unescape(r"/a\04"), Path::new(r"/a\04"));
        assert_eq!(unescape(r"/a\999"), Path::new(r"/a\999"));
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(mounts in r"([ -~]{0,9}( - cgroup2? )?[ -~\n]{0,9}){0,9}", own_text: String) {
            let _places = own(&mounts, &own_text);
            let _place = named(&mounts, Path::new(&own_text));
        }

        #[test]
        fn a_place_is_always_inside_its_mount(path in "(/([a-z]{1,4}|\\.\\.)){0,5}") {
            let mounts = "9 8 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
            for place in own(mounts, &format!("0::{path}")) {
                prop_assert!(place.folder.starts_with("/sys/fs/cgroup"));
                prop_assert!(!place.folder.to_string_lossy().contains(".."));
            }
        }
    }
}
