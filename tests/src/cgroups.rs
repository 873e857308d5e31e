//! Control groups, as the kernel shows them from outside of the server.

use std::fs;
use std::path::{Path, PathBuf};

/// The controllers by which workers are held; version 2 without any is the empty name.
const HELD: [&str; 4] = ["memory", "cpu", "pids", ""];

/// The folders of control groups that the server with this process id made; it was started by this
/// process and had the same place in each hierarchy.
pub fn groups_of(supervisor: u32) -> Vec<PathBuf> {
    let name = format!("bulkhead.{supervisor}");
    let ours = |entry: &fs::DirEntry| {
        let found = entry.file_name().to_string_lossy().into_owned();
        found == name || found.starts_with(&format!("{name}."))
    };
    let places = places_of("self").into_iter();
    let inside = places.filter_map(|place| fs::read_dir(place).ok()).flatten().flatten();
    inside.filter(ours).map(|entry| entry.path()).collect()
}

/// The leaves of a worker; none if it is in no group of its own.
pub fn leaves_of(worker: i32) -> Vec<PathBuf> {
    let places = places_of(&worker.to_string());
    let ours = |place: &PathBuf| {
        place.components().any(|part| part.as_os_str().to_string_lossy().starts_with("bulkhead."))
    };
    places.into_iter().filter(ours).collect()
}

/// The content of `file` in whichever leaf has it.
pub fn setting(leaves: &[PathBuf], file: &str) -> Option<String> {
    let text = leaves.iter().find_map(|leaf| fs::read_to_string(leaf.join(file)).ok());
    text.map(|text| text.trim().to_owned())
}

/// Puts a process into leaves, as if a worker had started it.
pub fn put(pid: u32, leaves: &[PathBuf]) {
    for leaf in leaves {
        fs::write(leaf.join("cgroup.procs"), pid.to_string()).expect("the leaf is there");
    }
}

/// Removes what a server that was killed has left.
pub fn clean(supervisor: u32) {
    for group in groups_of(supervisor) {
        let entries = fs::read_dir(&group).into_iter().flatten().flatten();
        for leaf in entries.filter(|entry| entry.path().is_dir()) {
            let _busy = fs::remove_dir(leaf.path());
        }
        let _busy = fs::remove_dir(group);
    }
}

/// Where the process is in each hierarchy that matters.
fn places_of(process: &str) -> Vec<PathBuf> {
    let cgroup = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let place = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (named, path) = (fields.next()?, fields.next()?);
        let controller = named.split(',').find(|name| HELD.contains(name))?;
        let point = mount_point(&mounts, controller)?;
        Some(Path::new(point).join(path.trim_start_matches('/')))
    };
    cgroup.lines().filter_map(place).collect()
}

fn mount_point<'a>(mounts: &'a str, controller: &str) -> Option<&'a str> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        let right = match controller {
            "" => kind == "cgroup2",
            _ => kind == "cgroup" && options.split(',').any(|option| option == controller),
        };
        right.then_some(point)
    })
}
