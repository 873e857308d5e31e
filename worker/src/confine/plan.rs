//! Which files a worker needs, and for what; pure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proto::control::Device;

/// What may be done below a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    /// A file that is there, as `/dev/null`.
    ReadWrite,
    /// Files that are there, in place: not emptied, none made.
    WriteInPlace,
    /// Also ioctl.
    Device,
    /// Everything but devices and programs.
    Scratch,
}

/// What the plan depends on.
#[derive(Debug)]
pub(super) struct Need<'a> {
    /// The version's folder, and the model file with links resolved, if there is one.
    pub(super) model: [Option<&'a Path>; 2],
    /// Empty if there is none.
    pub(super) scratch: &'a Path,
    pub(super) device: Device,
    /// As in `/proc/self/maps`.
    pub(super) maps: &'a str,
    /// As in `LD_LIBRARY_PATH`.
    pub(super) library_path: &'a str,
    /// The device files of GPUs.
    pub(super) gpus: Vec<PathBuf>,
}

/// Where libraries, and the tables that they read, are on most systems.
const LIBRARIES: &[&str] = &[
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/local/cuda",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/usr/share/locale",
];

/// What libraries ask about this process and the machine. `/proc/self` is this process alone: a rule
/// is about the folder that the path leads to when the rule is made.
const MACHINE: &[&str] = &[
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/version",
    "/proc/filesystems",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/max_map_count",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/kernel/pid_max",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/kernel/mm/transparent_hugepage",
];

/// What CUDA's libraries ask in addition.
const GPU_MACHINE: &[&str] = &[
    "/proc/driver/nvidia",
    "/proc/driver/nvidia-uvm",
    "/proc/devices",
    "/proc/modules",
    "/proc/sys/vm/mmap_min_addr",
    "/sys",
];

/// CUDA names its threads there (`comm`), and since driver 570 takes it for a broken system (error 304) if
/// it may not. What else can be written there is this process's own too.
const GPU_THREADS: &str = "/proc/self/task";

/// Only for reading: a shared writable mapping of `/dev/zero` is memory that no limit counts.
const READ_ONLY_DEVICES: &[&str] = &["/dev/zero", "/dev/random", "/dev/urandom"];

/// Paths and what may be done below each. Some may not exist.
pub(super) fn grants(need: &Need<'_>) -> Vec<(PathBuf, Access)> {
    let fixed = LIBRARIES.iter().chain(MACHINE).chain(READ_ONLY_DEVICES);
    let mut grants: Vec<_> = fixed.map(|path| (PathBuf::from(path), Access::Read)).collect();
    grants.extend(need.model.into_iter().flatten().map(|path| (path.into(), Access::Read)));
    let libraries = folders_of_libraries(need.maps).into_iter();
    let searched = need.library_path.split(':').map(PathBuf::from).filter(|p| p.is_absolute());
    grants.extend(libraries.chain(searched).map(|path| (path, Access::Read)));
    grants.push(("/dev/null".into(), Access::ReadWrite));
    if need.device != Device::Cpu {
        grants.extend(GPU_MACHINE.iter().map(|path| (path.into(), Access::Read)));
        grants.push((GPU_THREADS.into(), Access::WriteInPlace));
        grants.extend(need.gpus.iter().map(|path| (path.clone(), Access::Device)));
    }
    if need.scratch.is_absolute() {
        grants.push((need.scratch.into(), Access::Scratch));
    }
    // Whatever leads here, as an empty entry in a search path: the whole tree is never meant.
    grants.retain(|(path, _)| path.parent().is_some());
    grants
}

/// The folders of the shared libraries that are mapped: a framework may lie anywhere, and opens more
/// from there.
fn folders_of_libraries(maps: &str) -> BTreeSet<PathBuf> {
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    let is_library = |path: &&Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.ends_with(".so") || name.contains(".so.")
    };
    paths.filter(is_library).filter_map(Path::parent).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
5581-5590 r-xp 00000000 fe:00 1 /opt/bulkhead/bulkhead-worker-torch
7f01-7f02 r-xp 00000000 fe:00 2 /opt/my torch/lib/libtorch_cpu.so
7f03-7f04 r-xp 00000000 fe:00 3 /usr/lib/x86_64-linux-gnu/libc.so.6
7f05-7f06 rw-s 00000000 00:01 4 /memfd:bulkhead (deleted)
7f07-7f08 rw-p 00000000 00:00 0 [heap]
";

    fn need(device: Device) -> Need<'static> {
        Need {
            model: [Some(Path::new("/models/a/1")), None],
            scratch: Path::new(""),
            device,
            maps: MAPS,
            library_path: ":/opt/extra:relative:/",
            gpus: vec!["/dev/nvidia0".into()],
        }
    }

    fn of(access: Access, need: &Need<'_>) -> Vec<PathBuf> {
        grants(need).into_iter().filter(|(_, a)| *a == access).map(|(path, _)| path).collect()
    }

    #[test]
    fn the_folders_of_mapped_libraries_may_be_read_and_those_of_programs_not() {
        let read = of(Access::Read, &need(Device::Cpu));
        for folder in ["/opt/my torch/lib", "/opt/extra", "/models/a/1", "/proc/self"] {
            assert!(read.contains(&folder.into()), "{folder}");
        }
        for folder in ["/opt/bulkhead", "/", "", "relative", "/models", "/proc", "/etc", "/sys"] {
            assert!(!read.contains(&folder.into()), "{folder:?}");
        }
    }

    #[test]
    fn nothing_can_be_written_without_a_scratch_folder() {
        assert_eq!(of(Access::Scratch, &need(Device::Cpu)), Vec::<PathBuf>::new());
        let with = Need { scratch: Path::new("/run/s/1"), ..need(Device::Cpu) };
        assert_eq!(of(Access::Scratch, &with), [PathBuf::from("/run/s/1")]);
    }

    #[test]
    fn devices_of_gpus_are_for_workers_with_a_gpu() {
        assert_eq!(of(Access::Device, &need(Device::Cpu)), Vec::<PathBuf>::new());
        assert_eq!(of(Access::Device, &need(Device::Cuda(0))), [PathBuf::from("/dev/nvidia0")]);
        assert_eq!(of(Access::ReadWrite, &need(Device::Cuda(0))), [PathBuf::from("/dev/null")]);
        let threads = [PathBuf::from("/proc/self/task")];
        assert_eq!(of(Access::WriteInPlace, &need(Device::Spread(2))), threads);
        assert_eq!(of(Access::WriteInPlace, &need(Device::Cpu)), Vec::<PathBuf>::new());
    }
}
