//! What a worker, or a zygote, is given at its start.

use std::io::PipeWriter;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use proto::control::Level;
use proto::zygote::Entrance;
use shared::id::WorkerId;

/// Variables that workers inherit; everything else of the supervisor's environment stays here.
const INHERITED: [&str; 5] =
    ["PATH", "LANG", "LD_LIBRARY_PATH", "PYTORCH_CUDA_ALLOC_CONF", "RUST_BACKTRACE"];

/// What workers and zygotes call themselves.
pub(super) const WORKER: &str = "bulkhead-worker";
pub(super) const ZYGOTE: &str = "bulkhead-zygote";

/// Bytes of arguments that a zygote starts with: its copies write theirs in their place.
const TITLE_ROOM: usize = 512;

/// How a worker process comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// As a copy of the binary's zygote, or by `Exec` if there is none at the moment.
    Zygote,
    /// As a program of its own.
    Exec,
}

/// Starts one worker process.
#[derive(Debug)]
pub struct WorkerCommand {
    pub binary: PathBuf,
    pub start: Start,
    pub worker: WorkerId,
    /// Namespaces must be entered before anything else, so the worker is told of them at once; of
    /// the rest of its confinement by the greeting.
    pub level: Level,
    /// Threads that one inference may use, for libraries that look at their environment.
    pub threads: u16,
    /// For `CUDA_VISIBLE_DEVICES`: ids with commas between them; empty is no device.
    pub devices: String,
    /// The only folder that it may write to, absolute: its home, and where its libraries put files.
    pub scratch: PathBuf,
    /// The worker's end of the control socket: its standard input.
    pub control: OwnedFd,
    /// Where its standard output and error go.
    pub log: PipeWriter,
    /// Ways into its control groups, as far as there are any that it can take by itself.
    pub groups: Vec<(Entrance, OwnedFd)>,
}

impl WorkerCommand {
    /// Its name and what it is told. All but the last is for people who read a process list.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::from(title(&self.worker));
        match self.level {
            Level::None | Level::Standard => {}
            Level::Strict => arguments.push("confinement=strict".to_owned()),
        }
        arguments
    }

    /// Variables that are this worker's own.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let scratch = self.scratch.to_string_lossy();
        let variables = [
            ("OMP_NUM_THREADS", &*self.threads.to_string()),
            ("CUDA_VISIBLE_DEVICES", &self.devices),
            ("TMPDIR", &scratch),
            ("HOME", &scratch),
        ];
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// As a program of its own.
    pub(super) fn program(&self) -> std::io::Result<Command> {
        let mut command = program(&self.binary, &self.arguments());
        command.envs(self.environment());
        attach(&mut command, &self.control, &self.log)?;
        Ok(command)
    }
}

/// Which worker of which supervisor a process is.
pub(super) fn title(worker: &WorkerId) -> [String; 6] {
    let instance = &worker.instance;
    [
        WORKER.to_owned(),
        instance.model.to_string(),
        format!("version={}", instance.version),
        format!("instance={}", instance.index),
        format!("generation={}", worker.generation),
        supervisor(),
    ]
}

/// The zygote of a worker binary.
pub(super) fn zygote(
    binary: &PathBuf,
    control: &OwnedFd,
    log: &PipeWriter,
) -> std::io::Result<Command> {
    let names = [ZYGOTE, "zygote"].map(str::to_owned);
    let arguments = [&names[..], &[supervisor(), " ".repeat(TITLE_ROOM)]].concat();
    let mut command = program(binary, &arguments);
    attach(&mut command, control, log)?;
    Ok(command)
}

fn supervisor() -> String {
    format!("supervisor={}", std::process::id())
}

/// In a process group of its own. Nothing in it needs a fork: with many gigabytes mapped, a fork
/// takes hundreds of milliseconds and a posix_spawn takes one.
fn program(binary: &PathBuf, arguments: &[String]) -> Command {
    let mut command = Command::new(binary);
    let (name, rest) = arguments.split_first().expect("a program has a name");
    command.arg0(name).args(rest).env_clear().process_group(0);
    for name in INHERITED {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

fn attach(command: &mut Command, control: &OwnedFd, log: &PipeWriter) -> std::io::Result<()> {
    command
        .stdin(Stdio::from(control.try_clone()?))
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log.try_clone()?));
    Ok(())
}
