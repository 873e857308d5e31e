//! Worker processes, found in `/proc` as an operator finds them with `ps`.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

/// One process that a supervisor started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerProcess {
    pub pid: i32,
    /// As `ps` shows it.
    pub command_line: String,
    pub model: String,
    pub version: u64,
    pub instance: u64,
    pub generation: u64,
}

/// The workers of the supervisor with this process id, by model, version and instance.
pub fn workers_of(supervisor: u32) -> Vec<WorkerProcess> {
    let entries = fs::read_dir("/proc").expect("this system has /proc");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut workers: Vec<_> = pids.filter_map(|pid| worker(pid, supervisor)).collect();
    workers
        .sort_by(|a, b| (&a.model, a.version, a.instance).cmp(&(&b.model, b.version, b.instance)));
    workers
}

/// The processes around a worker that is in namespaces; they have its command line.
const AROUND: [&str; 2] = ["bulkhead-outer", "bulkhead-init"];

fn worker(pid: i32, supervisor: u32) -> Option<WorkerProcess> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    if AROUND.contains(&name.trim_end()) {
        return None;
    }
    // A process that has ended and was not reaped yet has an empty command line.
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let arguments: Vec<&str> = text.trim_end_matches('\0').split('\0').collect();
    let (&program, &model) = (arguments.first()?, arguments.get(1)?);
    let value = |key: &str| -> Option<u64> {
        arguments.iter().find_map(|argument| argument.strip_prefix(key)?.parse().ok())
    };
    if program != "bulkhead-worker" || value("supervisor=")? != u64::from(supervisor) {
        return None;
    }
    Some(WorkerProcess {
        pid,
        command_line: arguments.join(" "),
        model: model.to_owned(),
        version: value("version=")?,
        instance: value("instance=")?,
        generation: value("generation=")?,
    })
}

/// The zygotes of the supervisor with this process id.
pub fn zygotes_of(supervisor: u32) -> Vec<WorkerProcess> {
    let entries = fs::read_dir("/proc").expect("this system has /proc");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let zygote = |pid: i32| {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let name = String::from_utf8(bytes).ok()?.trim_end_matches('\0').to_owned();
        let process = WorkerProcess {
            pid,
            command_line: name,
            model: String::new(),
            version: 0,
            instance: 0,
            generation: 0,
        };
        let ours = process.parent() == Some(supervisor);
        (process.command_line == "bulkhead-zygote" && ours).then_some(process)
    };
    pids.filter_map(zygote).collect()
}

/// Kilobytes of memory that no other process has.
pub fn private_kilobytes(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let private = rollup.lines().filter(|line| line.starts_with("Private_"));
    let kilobytes = private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.sum()
}

impl WorkerProcess {
    pub fn parent(&self) -> Option<u32> {
        let stat = fs::read_to_string(self.proc("stat")).ok()?;
        let (_, after) = stat.rsplit_once(')')?;
        after.split_whitespace().nth(1)?.parse().ok()
    }

    /// Waits until it has been stopped by a signal, with all its threads.
    pub fn wait_until_stopped(&self) {
        wait_until_stopped(self.pid);
    }

    /// Stops it; what it is given from then on waits. Without effect if it has ended.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        wait::until_true("a worker that is stopped", || is_stopped(self.pid) || !self.is_alive());
    }

    pub fn signal(&self, signal: Signal) {
        // It may have ended meanwhile, which is what most signals are for.
        let _gone = kill(Pid::from_raw(self.pid), signal);
    }

    /// Signals the process by way of one of its threads: the kernel gives the signal to that one if it
    /// takes it.
    pub fn signal_thread(&self, name: &str, signal: Signal) {
        let named = |path: &PathBuf| {
            fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        // A thread gives itself its name, a moment after it was started.
        let id = wait::until(&format!("a thread {name:?} in {self:?}"), || {
            let entries = fs::read_dir(self.proc("task")).into_iter().flatten().flatten();
            let thread = entries.map(|entry| entry.path()).find(named)?;
            thread.file_name()?.to_str()?.parse().ok()
        });
        let _gone = kill(Pid::from_raw(id), signal);
    }

    /// The signals that it has handlers for, as the kernel writes them down.
    pub fn caught_signals(&self) -> Option<String> {
        let status = fs::read_to_string(self.proc("status")).ok()?;
        status.lines().find_map(|line| Some(line.strip_prefix("SigCgt:")?.trim().to_owned()))
    }

    /// Signals it until it has ended. Once is not enough for SIGSEGV from outside: Rust's handler
    /// waits for the fault to come again, which a real one does.
    pub fn kill(&self, signal: Signal) {
        wait::until_true("the end of a worker", || {
            self.signal(signal);
            !self.is_alive()
        });
    }

    pub fn is_alive(&self) -> bool {
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ");
        line == self.command_line
    }

    /// Waits until it computes: until it has used the processor for so long that it cannot have
    /// been anything but the request that it was sent to hang in.
    pub fn wait_until_busy(&self) {
        let before = self.processor_ticks();
        wait::until_true("a busy worker", || self.processor_ticks() >= before + 5);
    }

    /// Time on a processor, in hundredths of a second.
    fn processor_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // The name, in parentheses, can hold anything.
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        let fields: Vec<&str> = after.split_whitespace().collect();
        let field = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
        field(11) + field(12)
    }

    /// What its descriptors are.
    pub fn descriptors(&self) -> Vec<String> {
        descriptors(self.pid)
    }

    /// The value of a variable of its environment, as it was given.
    pub fn variable(&self, name: &str) -> Option<String> {
        let bytes = fs::read(self.proc("environ")).ok()?;
        let mut all = bytes.split(|&byte| byte == 0).map(String::from_utf8_lossy);
        all.find_map(|pair| Some(pair.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
    }

    pub fn maps(&self) -> String {
        fs::read_to_string(self.proc("maps")).unwrap_or_default()
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.pid))
    }
}

/// Waits until a process has been stopped by a signal, with all its threads.
pub fn wait_until_stopped(pid: i32) {
    wait::until_true("a process that is stopped", || is_stopped(pid));
}

fn is_stopped(pid: i32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    let mut states = stats
        .filter_map(|stat| Some(stat.rsplit_once(')')?.1.trim_start().starts_with('T')))
        .peekable();
    states.peek().is_some() && states.all(|stopped| stopped)
}

/// What the descriptors of a process are, as `readlink` shows them.
pub fn descriptors(pid: i32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let links = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let mut targets: Vec<String> = links.map(|link| link.display().to_string()).collect();
    targets.sort();
    targets
}

/// Kilobytes that a process has in memory, apart from the memory that holds requests and replies.
pub fn private_memory(pid: u32) -> u64 {
    let found = private_memory_now(pid);
    found.unwrap_or_else(|| panic!("nothing is known of the memory of process {pid}"))
}

/// The same; `None` of a process that has ended.
pub(crate) fn private_memory_now(pid: u32) -> Option<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?;
    let mut counted = true;
    let mut kilobytes = 0;
    for line in maps.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if !first.ends_with(':') {
            counted = !line.contains("memfd:bulkhead");
        } else if counted && first == "Rss:" {
            let value = line.split_whitespace().nth(1);
            kilobytes += value.and_then(|value| value.parse::<u64>().ok()).unwrap_or_default();
        }
    }
    (kilobytes > 0).then_some(kilobytes)
}
