//! Our part of one control group hierarchy: a group for this supervisor, and a leaf for each worker.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proto::zygote::Entrance;
use tracing::debug;

use super::claim::Claim;
use super::hierarchy::{Controller, Controllers, Kind, Place, controllers};
use super::report::TreeKill;
use super::settings::{self, Need, Setting};
use crate::config::HostLimits;

/// Where the supervisor goes when its own group has to be empty.
const OWN_LEAF: &str = "supervisor";
/// Bytes that are read of a list of processes.
const MOST: u64 = 1 << 20;

/// The group of this supervisor in one hierarchy.
#[derive(Debug)]
pub(super) struct Group {
    claim: Claim,
    kind: Kind,
    controllers: Controllers,
}

/// The group of one worker. Removed by [`Leaf::remove`], not when dropped: it is not empty before
/// its last process has gone.
#[derive(Debug)]
pub(super) struct Leaf {
    folder: PathBuf,
    directory: File,
    kind: Kind,
    controllers: Controllers,
}

impl Group {
    pub(super) fn open(place: &Place) -> io::Result<Self> {
        let claim = Claim::make(&place.folder)?;
        let controllers = match &place.kind {
            Kind::V1(controllers) => controllers.clone(),
            Kind::V2 => {
                delegate(&place.folder)?;
                enable(claim.folder())
            }
        };
        Ok(Self { claim, kind: place.kind.clone(), controllers })
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    pub(super) fn controllers(&self) -> &Controllers {
        &self.controllers
    }

    pub(super) fn folder(&self) -> &Path {
        self.claim.folder()
    }

    /// Removes the group, if no leaf is in it.
    pub(super) fn release(&self) {
        self.claim.release();
    }

    pub(super) fn tree_kill(&self) -> TreeKill {
        tree_kill(self.claim.folder())
    }

    /// Makes the leaf `name` that holds `limits`, as far as the kernel takes them; what it did not
    /// take is added to `problems`, and then the leaf does not count as holding it. What the server
    /// itself was short of is an error.
    pub(super) fn leaf(
        &self,
        name: &str,
        limits: &HostLimits,
        problems: &mut Vec<String>,
    ) -> io::Result<Leaf> {
        let folder = self.claim.folder().join(name);
        fs::create_dir(&folder)?;
        let opened = File::open(&folder);
        let directory = opened.inspect_err(|_| drop(fs::remove_dir(&folder)))?;
        let mut controllers = Controllers::new();
        for &controller in &self.controllers {
            match write_settings(&folder, &self.kind, controller, limits) {
                Ok(()) => drop(controllers.insert(controller)),
                Err(refused) if is_shortage(&refused.error) => {
                    drop(fs::remove_dir(&folder));
                    return Err(refused.error);
                }
                Err(refused) => problems.push(refused.to_string()),
            }
        }
        Ok(Leaf { folder, directory, kind: self.kind.clone(), controllers })
    }

    /// Gives the group a weight, in the unit of `cpu_weight`, where it can have one.
    pub(super) fn weigh(&self, weight: u64) {
        if self.controllers.contains(&Controller::Cpu) {
            let Setting { file, value, .. } = settings::around(&self.kind, weight);
            if let Err(error) = write(&self.folder().join(file), &value) {
                debug!(folder = %self.folder().display(), file, value, %error);
            }
        }
    }

    /// Ends what dead supervisors left in the leaves of their groups in `place`. Returns the groups
    /// that could not be removed, for another attempt.
    pub(super) fn sweep(place: &Place) -> Vec<Abandoned> {
        let abandoned = Claim::abandoned(&place.folder);
        abandoned.into_iter().map(Abandoned).filter_map(Abandoned::remove).collect()
    }
}

/// The group of a supervisor that does not live any more.
#[derive(Debug)]
pub(super) struct Abandoned(Claim);

impl Abandoned {
    /// Ends its processes and removes its leaves; gives itself back if some are still there.
    pub(super) fn remove(self) -> Option<Self> {
        let entries = fs::read_dir(self.0.folder()).ok()?;
        let mut left = None;
        for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
            end(&entry.path());
            if fs::remove_dir(entry.path()).is_err() {
                left = Some(());
            }
        }
        // Dropping the claim removes the folder.
        left.map(|()| self)
    }

    pub(super) fn folder(&self) -> &Path {
        self.0.folder()
    }
}

impl Leaf {
    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    pub(super) fn controllers(&self) -> &Controllers {
        &self.controllers
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What a process needs that comes here by itself, with nothing but that right.
    pub(super) fn entrance(&self) -> io::Result<(Entrance, OwnedFd)> {
        Ok(match &self.kind {
            Kind::V2 => (Entrance::Born, self.directory.try_clone()?.into()),
            Kind::V1(_) => {
                let threads = OpenOptions::new().write(true).open(self.folder.join("tasks"))?;
                (Entrance::Join, threads.into())
            }
        })
    }

    /// Moves a process here. One that came by itself stays, which spares the kernel a wait; one that
    /// has ended is no error.
    pub(super) fn adopt(&self, pid: i32) -> io::Result<()> {
        if self.members().contains(&pid) {
            return Ok(());
        }
        match write(&self.folder.join("cgroup.procs"), &pid.to_string()) {
            Err(e) if e.raw_os_error() == Some(nix::libc::ESRCH) => Ok(()),
            outcome => outcome,
        }
    }

    pub(super) fn members(&self) -> Vec<i32> {
        members(&self.folder)
    }

    /// What the kernel has killed here for memory.
    pub(super) fn oom_kills(&self) -> u64 {
        let text = read(&self.folder.join(settings::oom_file(&self.kind))).unwrap_or_default();
        settings::count(&text, "oom_kill")
    }

    /// Ends every process in it.
    pub(super) fn end(&self) {
        end(&self.folder);
    }

    /// Fails while a process is in it.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }
}

/// Lets groups inside `folder` have the controllers that it has, if that disturbs nobody: a group of
/// version 2 that hands controllers on may have no process of its own.
fn delegate(folder: &Path) -> io::Result<()> {
    let words = |file: &str| read(&folder.join(file)).unwrap_or_default();
    let on = controllers(words("cgroup.subtree_control").split_whitespace());
    let wanted = controllers(words("cgroup.controllers").split_whitespace());
    let wanted: Vec<Controller> = wanted.difference(&on).copied().collect();
    // What the root of the machine hands on is its administrator's business.
    let is_root = !folder.join("cgroup.type").exists();
    if wanted.is_empty() || is_root {
        return Ok(());
    }
    let own = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    match members(folder).as_slice() {
        [] => {}
        [only] if *only == own => {
            let leaf = folder.join(OWN_LEAF);
            match fs::create_dir(&leaf) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                Ok(()) | Err(_) => {}
            }
            write(&leaf.join("cgroup.procs"), &own.to_string())?;
        }
        // Others live here; then the controllers stay as they are.
        [_, ..] => return Ok(()),
    }
    hand_on(folder, &wanted);
    Ok(())
}

/// Lets the leaves in `folder` have the controllers that it has; returns those that they get.
fn enable(folder: &Path) -> Controllers {
    let available = read(&folder.join("cgroup.controllers")).unwrap_or_default();
    let available: Vec<Controller> =
        controllers(available.split_whitespace()).into_iter().collect();
    hand_on(folder, &available)
}

/// One at a time: the kernel takes all of a write or nothing.
fn hand_on(folder: &Path, wanted: &[Controller]) -> Controllers {
    let file = folder.join("cgroup.subtree_control");
    let on = |c: &Controller| write(&file, &format!("+{}", c.name())).is_ok();
    wanted.iter().copied().filter(on).collect()
}

/// Whether the server itself lacks something for the moment: then the worker starts later, rather than
/// with less to hold it. Whatever else is wrong with a group stays wrong.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    let short = [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EAGAIN];
    error.raw_os_error().is_some_and(|code| short.contains(&Errno::from_raw(code)))
}

/// A setting that must hold and does not.
#[derive(Debug, thiserror::Error)]
#[error("{file} = {value}: {error}")]
struct Refused {
    file: &'static str,
    value: String,
    error: io::Error,
}

fn write_settings(
    folder: &Path,
    kind: &Kind,
    controller: Controller,
    limits: &HostLimits,
) -> Result<(), Refused> {
    for setting in settings::settings(kind, controller, limits) {
        let outcome = write(&folder.join(setting.file), &setting.value);
        match (outcome, setting.need) {
            (Ok(()), _) | (Err(_), Need::May) => {}
            (Err(error), Need::Must) => {
                return Err(Refused { file: setting.file, value: setting.value, error });
            }
        }
    }
    Ok(())
}

fn tree_kill(folder: &Path) -> TreeKill {
    match folder.join("cgroup.kill").exists() {
        true => TreeKill::CgroupKill,
        false => TreeKill::CgroupMembers,
    }
}

fn end(folder: &Path) {
    if write(&folder.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    for pid in members(folder) {
        // Version 1 shows a process of another namespace as 0, and 0 would be this group.
        if pid > 0 {
            let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn members(folder: &Path) -> Vec<i32> {
    let text = read(&folder.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(MOST).read_to_string(&mut text)?;
    Ok(text)
}

fn write(file: &Path, value: &str) -> io::Result<()> {
    // In one call: the kernel takes each write for a value of its own.
    OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files, as a control group file system would have it.
    fn fake(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
        folder
    }

    fn content(folder: &Path, file: &str) -> String {
        fs::read_to_string(folder.join(file)).unwrap()
    }

    fn own() -> String {
        std::process::id().to_string()
    }

    #[test]
    fn a_group_of_our_own_is_emptied_and_hands_its_controllers_on() {
        let group = fake(&[
            ("cgroup.type", "domain"),
            ("cgroup.controllers", "cpuset memory"),
            ("cgroup.subtree_control", ""),
            ("cgroup.procs", &own()),
            ("supervisor/cgroup.procs", ""),
        ]);
        delegate(group.path()).unwrap();
        assert_eq!(content(group.path(), "supervisor/cgroup.procs"), own());
        assert_eq!(content(group.path(), "cgroup.subtree_control"), "+memory");
    }

    #[test]
    fn a_group_with_others_in_it_stays_as_it_is() {
        let group = fake(&[
            ("cgroup.type", "domain"),
            ("cgroup.controllers", "memory"),
            ("cgroup.subtree_control", ""),
            ("cgroup.procs", &format!("1\n{}\n", own())),
        ]);
        delegate(group.path()).unwrap();
        assert_eq!(content(group.path(), "cgroup.subtree_control"), "");
        assert!(!group.path().join("supervisor").exists());
    }

    #[test]
    fn the_root_of_the_machine_stays_as_it_is() {
        let group = fake(&[
            ("cgroup.controllers", "memory"),
            ("cgroup.subtree_control", ""),
            ("cgroup.procs", ""),
        ]);
        delegate(group.path()).unwrap();
        assert_eq!(content(group.path(), "cgroup.subtree_control"), "");
    }

    #[test]
    fn what_is_handed_on_already_needs_no_move() {
        let group = fake(&[
            ("cgroup.type", "domain"),
            ("cgroup.controllers", "memory pids"),
            ("cgroup.subtree_control", "memory pids"),
            ("cgroup.procs", &own()),
        ]);
        delegate(group.path()).unwrap();
        assert_eq!(content(group.path(), "cgroup.subtree_control"), "memory pids");
        assert!(!group.path().join("supervisor").exists());
    }

    #[test]
    fn controllers_that_cannot_be_handed_on_do_not_count() {
        let none = fake(&[("cgroup.controllers", "memory pids")]);
        assert_eq!(enable(none.path()), Controllers::new());
        let both = fake(&[("cgroup.controllers", "memory io"), ("cgroup.subtree_control", "")]);
        assert_eq!(enable(both.path()), Controllers::from([Controller::Memory]));
    }

    #[test]
    fn what_passes_is_told_from_what_stays() {
        let error = |code: Errno| io::Error::from_raw_os_error(code as i32);
        assert!([Errno::EMFILE, Errno::EAGAIN].into_iter().all(|code| is_shortage(&error(code))));
        assert!([Errno::EACCES, Errno::EROFS].into_iter().all(|code| !is_shortage(&error(code))));
    }

    #[test]
    fn a_setting_that_must_hold_and_does_not_is_named() {
        let limits = HostLimits {
            memory: Some(4096),
            cpu: None,
            cpu_weight: 100,
            max_processes: 9,
            max_descriptors: 64,
            scratch: None,
        };
        let leaf = fake(&[("memory.max", ""), ("pids.other", "")]);
        let write = |c| write_settings(leaf.path(), &Kind::V2, c, &limits);
        write(Controller::Memory).unwrap();
        assert_eq!(content(leaf.path(), "memory.max"), "4096");
        let problem = write(Controller::Processes).unwrap_err().to_string();
        assert!(problem.starts_with("pids.max = 9: "), "{problem}");
    }
}
