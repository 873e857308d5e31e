//! What a server holds for its workers. It is the same before and after a fault, once the victim is
//! back; what is more is left over.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cgroups::groups_of;
use crate::connections::among_descriptors;
use crate::supervisor::Supervisor;
use crate::wait;
use crate::workers::{descriptors, zygotes_of};

/// Each a number of what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// Children of the server, also those that have ended and were not waited for.
    children: usize,
    /// Processes that say that they work for it, whoever their parent is.
    workers: usize,
    memory_objects: usize,
    /// Descriptors other than those of connections and memory objects.
    descriptors: usize,
    control_groups: usize,
    scratch_folders: usize,
}

impl Holdings {
    /// Of a server that is ready. Waits until it has started all that it starts besides.
    pub fn of(server: &Supervisor) -> Self {
        let ready = |event: &serde_json::Value| event["message"] == "zygote ready";
        wait::until_true("zygotes that are ready", || {
            let zygotes = zygotes_of(server.pid()).len();
            server.logs().events().into_iter().filter(ready).count() >= zygotes
        });
        Self::now(server)
    }

    /// Waits until the server holds as much as this, and no more.
    #[track_caller]
    pub fn wait_until_same(&self, server: &Supervisor) {
        let mut last = None;
        let same = wait::comes_about(wait::WATCHDOG, || {
            let now = Self::now(server);
            let same = now == *self;
            last = Some(now);
            same
        });
        assert!(same, "left over: {last:?} is not {self:?}");
    }

    fn now(server: &Supervisor) -> Self {
        let pid = server.pid();
        let all = descriptors_but_connections(pid);
        let (objects, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|target| target.starts_with("/memfd:"));
        let folders = |roots: &[PathBuf]| roots.iter().map(|root| folders_in(root).len()).sum();
        Self {
            children: children_of(pid),
            workers: processes_for(pid),
            memory_objects: objects.len(),
            descriptors: others.len(),
            control_groups: folders(&groups_of(pid)),
            scratch_folders: folders(&folders_in(&server.scratch())),
        }
    }
}

fn descriptors_but_connections(pid: u32) -> Vec<String> {
    // Connections come and go: one of them may be gone after, or have come after, the first look.
    let mut connections = among_descriptors();
    let all = descriptors(i32::try_from(pid).expect("process ids are small"));
    connections.extend(among_descriptors());
    all.into_iter().filter(|target| !connections.contains(target)).collect()
}

fn children_of(supervisor: u32) -> usize {
    let parent = |process: &PathBuf| {
        let stat = fs::read_to_string(process.join("stat")).ok()?;
        let (_, after) = stat.rsplit_once(')')?;
        after.split_whitespace().nth(1)?.parse().ok()
    };
    processes().iter().filter(|process| parent(process) == Some(supervisor)).count()
}

fn processes_for(supervisor: u32) -> usize {
    let wanted = format!("supervisor={supervisor}");
    let says_so = |process: &&PathBuf| {
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == wanted.as_bytes())
    };
    processes().iter().filter(says_so).count()
}

fn processes() -> Vec<PathBuf> {
    let numbered = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
    };
    folders_in(Path::new("/proc")).into_iter().filter(numbered).collect()
}

fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
