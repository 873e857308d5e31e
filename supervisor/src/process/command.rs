//! What is executed for a worker.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;

use proto::control::Level;
use shared::id::WorkerId;
use tokio::process::Command;

/// Variables that a worker inherits; everything else of the supervisor's environment stays here.
const INHERITED: [&str; 9] = [
    "PATH",
    "LANG",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "NVIDIA_VISIBLE_DEVICES",
    "PYTORCH_CUDA_ALLOC_CONF",
    "RUST_BACKTRACE",
];

/// Starts one worker process.
#[derive(Debug)]
pub struct WorkerCommand {
    pub binary: PathBuf,
    pub worker: WorkerId,
    /// Namespaces must be entered before anything else, so the worker is told of them at once; of
    /// the rest of its confinement by the greeting.
    pub level: Level,
    /// Threads that one inference may use, for libraries that look at their environment.
    pub threads: u16,
    /// The worker's end of the control socket: its standard input.
    pub control: OwnedFd,
    /// Where its standard output and error go.
    pub log: std::io::PipeWriter,
}

impl WorkerCommand {
    /// The command, in a process group of its own. Nothing in it needs a fork: with many gigabytes
    /// mapped, a fork takes hundreds of milliseconds and a posix_spawn takes one.
    pub(super) fn build(self) -> std::io::Result<Command> {
        let instance = &self.worker.instance;
        let mut command = std::process::Command::new(&self.binary);
        std::os::unix::process::CommandExt::arg0(&mut command, "bulkhead-worker");
        command
            .arg(instance.model.as_str())
            .arg(format!("version={}", instance.version))
            .arg(format!("instance={}", instance.index))
            .arg(format!("generation={}", self.worker.generation))
            .arg(format!("supervisor={}", std::process::id()))
            .env_clear()
            .env("OMP_NUM_THREADS", self.threads.to_string())
            .stdin(Stdio::from(self.control))
            .stdout(Stdio::from(self.log.try_clone()?))
            .stderr(Stdio::from(self.log));
        match self.level {
            Level::None | Level::Standard => {}
            Level::Strict => {
                command.arg("confinement=strict");
            }
        }
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut command = Command::from(command);
        command.kill_on_drop(true);
        Ok(command)
    }
}
