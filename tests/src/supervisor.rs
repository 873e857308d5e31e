//! A server of the test's own: the real binary, in a temporary folder, on a port that was free.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::aside::Aside;
use crate::cgroups;
use crate::client::{Client, Infer, Listed, Response};
use crate::fake_nvml::FakeNvml;
use crate::load::Load;
use crate::logs::Logs;
use crate::models::{Echo, Repository};
use crate::wait;
use crate::workers::{WorkerProcess, descriptors, wait_until_stopped, workers_of};

/// What a server needs to serve models of `echo`.
const PROGRAMS: [&str; 2] = ["bulkhead", "bulkhead-worker"];
/// Of a framework, and only there if it was built.
const FURTHER_PROGRAMS: [&str; 1] = ["bulkhead-worker-torch"];

/// Where the binaries under test are: `BULKHEAD_BIN_DIR`, or where cargo put this test.
pub fn binaries() -> PathBuf {
    let named = std::env::var_os("BULKHEAD_BIN_DIR").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| {
        let test = std::env::current_exe().expect("a test knows its program");
        // target/debug/deps/TEST
        test.ancestors().nth(2).map(PathBuf::from).unwrap_or_default()
    });
    for program in PROGRAMS {
        assert!(
            folder.join(program).is_file(),
            "there is no {program} in {}: build it with `cargo build --bins`, or name its folder \
             in BULKHEAD_BIN_DIR",
            folder.display()
        );
    }
    folder
}

/// Makes its standard input descriptor 3, and becomes what its arguments say.
const HAND_OVER: &str = r#"exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@""#;

/// `bulkhead` with these arguments, in a folder where no `config.toml` is.
pub fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binaries().join("bulkhead"));
    command.args(arguments).current_dir(folder);
    command
}

/// What a server will be.
#[derive(Debug, Default)]
pub struct Builder {
    repository: Repository,
    settings: Vec<String>,
    file: Option<String>,
    user: Option<u32>,
    within: Vec<String>,
    environment: Vec<(String, OsString)>,
    listener: Option<OwnedFd>,
}

impl Builder {
    #[must_use]
    pub fn echo(self, name: &str, echo: &Echo) -> Self {
        self.repository.echo(name, echo);
        self
    }

    /// A model with this `config.pbtxt`.
    #[must_use]
    pub fn config(self, name: &str, text: &str) -> Self {
        self.repository.config(name, text);
        self.repository.version(name, 1);
        self
    }

    #[must_use]
    pub fn torch(self, name: &str, file: &Path) -> Self {
        self.repository.torch(name, file);
        self
    }

    /// A copy of this TorchScript model, as [`Repository::copy_of`].
    #[must_use]
    pub fn copy_of(self, name: &str, model: &Path) -> Self {
        self.repository.copy_of(name, model);
        self
    }

    /// `--set KEY=VALUE`
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push(format!("{key}={value}"));
        self
    }

    /// With the GPUs of this library.
    #[must_use]
    pub fn gpus(mut self, fake: &FakeNvml) -> Self {
        self.settings.push(fake.setting());
        self
    }

    /// With a configuration file, which [`Supervisor::configure`] can replace. `MODELS` in it is the
    /// folder of the repository, which is served unless the file says otherwise.
    #[must_use]
    pub fn file(mut self, text: &str) -> Self {
        self.file = Some(text.to_owned());
        self
    }

    /// As this user, with no group but the one of the same number. Takes a test that is root.
    #[must_use]
    pub fn user(mut self, user: u32) -> Self {
        self.user = Some(user);
        self
    }

    /// Started by this program, which is given the server's command line after its own arguments and
    /// becomes the server.
    #[must_use]
    pub fn within(mut self, program: &[&str]) -> Self {
        self.within = program.iter().map(ToString::to_string).collect();
        self
    }

    /// With a variable of the environment.
    #[must_use]
    pub fn environment(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// With a socket that was opened before it, as a service manager hands it over under this name.
    #[must_use]
    pub fn activated(self, name: &str, socket: impl Into<OwnedFd>) -> Self {
        // The number of a process is known to a shell that becomes it.
        let handed = self.within(&["sh", "-c", HAND_OVER, "sh"]);
        let named = handed.environment("LISTEN_FDNAMES", name);
        Self { listener: Some(socket.into()), ..named }
    }

    /// Starts it and waits until it is ready.
    pub fn start(self) -> Supervisor {
        let supervisor = self.start_unready();
        wait::until_true("a server that is ready", || {
            supervisor.client().get("/v2/health/ready").status == 200
        });
        supervisor
    }

    /// Starts it and waits until it listens.
    pub fn start_unready(self) -> Supervisor {
        let Self { repository, settings, file, user, within, environment, listener } = self;
        let folder = tempfile::tempdir().expect("there is a folder for temporary files");
        let runtime_file = folder.path().join("run/bulkhead.json");
        let own = [
            OsString::from("http.listen=127.0.0.1:0"),
            "metrics.listen=127.0.0.1:0".into(),
            "log.format=json".into(),
            // A thread a core says nothing more on machines with many of them.
            "limits.threads=2".into(),
            assignment("runtime_file=", &runtime_file),
        ];
        let models = format!("repository.paths=[{:?}]", repository.path());
        let temporary = folder.path().join("tmp");
        fs::create_dir(&temporary).expect("the folder is ours");
        let programs = match user {
            None => binaries(),
            Some(user) => {
                give_to(user, folder.path());
                give_to(user, repository.path());
                programs_for_others(folder.path())
            }
        };
        let mut command = match within.split_first() {
            None => Command::new(programs.join("bulkhead")),
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(programs.join("bulkhead"));
                command
            }
        };
        command.arg("serve").current_dir(folder.path()).env("TMPDIR", &temporary);
        match &file {
            None => command.args(["--set", &models]),
            Some(text) => {
                write_config(folder.path(), text, &repository);
                command.args(["--config", CONFIG])
            }
        };
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        for setting in own.into_iter().chain(settings.into_iter().map(OsString::from)) {
            command.arg("--set").arg(setting);
        }
        command.envs(environment).stdin(listener.map_or_else(Stdio::null, Stdio::from));
        let command = command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("the program can be started");
        let logs = Logs::collect(process.stderr.take().expect("a pipe was asked for"));
        let mut supervisor = Supervisor {
            process,
            exited: None,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            logs,
            repository,
            runtime_file,
            folder,
        };
        supervisor.address = supervisor.wait_until_it_listens();
        supervisor
    }
}

/// The configuration of a server that has a file.
const CONFIG: &str = "bulkhead.toml";

/// In one step, as an operator should: the server may read it at any moment.
fn write_config(folder: &Path, text: &str, repository: &Repository) {
    let aside = folder.join("bulkhead.toml.new");
    let models = repository.path().display().to_string();
    fs::write(&aside, text.replace("MODELS", &models)).expect("the folder is ours");
    fs::rename(aside, folder.join(CONFIG)).expect("the folder is ours");
}

/// The programs once more, below `folder`: a build is often in a home that is closed to others.
fn programs_for_others(folder: &Path) -> PathBuf {
    let programs = folder.join("bin");
    fs::create_dir_all(&programs).expect("the folder is ours");
    let built = |program: &&str| binaries().join(program).is_file();
    for program in PROGRAMS.into_iter().chain(FURTHER_PROGRAMS.into_iter().filter(built)) {
        let (from, to) = (binaries().join(program), programs.join(program));
        if to.exists() {
            continue;
        }
        // A copy only where the two are on different filesystems: it takes its time.
        fs::hard_link(&from, &to)
            .or_else(|_| fs::copy(&from, &to).map(drop))
            .expect("a program can be copied");
    }
    programs
}

/// Makes all below `folder` belong to a user.
fn give_to(user: u32, folder: &Path) {
    chown(folder, Some(user), Some(user)).expect("the test is root");
    for entry in fs::read_dir(folder).expect("the folder is ours").flatten() {
        let path = entry.path();
        if path.is_dir() {
            give_to(user, &path);
        } else {
            chown(&path, Some(user), Some(user)).expect("the test is root");
        }
    }
}

fn assignment(key: &str, path: &Path) -> OsString {
    let mut text = OsString::from(key);
    text.push(path);
    text
}

/// How a reload ends.
pub const RELOADED: [&str; 2] = ["configuration reloaded", "not reloaded; nothing has changed"];

/// A running server. When dropped it is killed, and no worker may be left.
#[derive(Debug)]
pub struct Supervisor {
    process: Child,
    exited: Option<ExitStatus>,
    address: SocketAddr,
    logs: Logs,
    repository: Repository,
    runtime_file: PathBuf,
    folder: TempDir,
}

impl Supervisor {
    /// With an empty repository.
    #[expect(clippy::new_ret_no_self, reason = "what is new is still to be completed")]
    pub fn new() -> Builder {
        Builder::default()
    }

    /// With one model of the echo engine.
    pub fn with_echo(name: &str) -> Builder {
        Self::new().echo(name, &Echo::default())
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    pub fn runtime_file(&self) -> &Path {
        &self.runtime_file
    }

    /// The configuration file of a server that was given one.
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join(CONFIG)
    }

    /// Replaces the configuration file; see [`Builder::file`].
    pub fn configure(&self, text: &str) {
        write_config(self.folder.path(), text, &self.repository);
    }

    /// Has the server read its configuration again, waits until it has, and gives what it logged.
    pub fn reload(&self) -> Vec<Value> {
        let before = self.logs.events().len();
        let done = |event: &Value| {
            RELOADED.iter().any(|message| event["message"].as_str() == Some(message))
        };
        let finished = |events: &[Value]| events.iter().filter(|event| done(event)).count();
        let reloads = finished(&self.logs.events());
        self.signal(Signal::SIGHUP);
        let events = wait::until("the end of a reload", || {
            let events = self.logs.events();
            (finished(&events) > reloads).then_some(events)
        });
        events[before..].to_vec()
    }

    /// Replaces the configuration file and has it read.
    pub fn reload_with(&self, text: &str) -> Vec<Value> {
        self.configure(text);
        self.reload()
    }

    /// Where its workers have their scratch folders.
    pub fn scratch(&self) -> PathBuf {
        self.folder.path().join(".run/scratch")
    }

    /// The folder in which it was started.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Makes the programs and the server's folder open to other users, and says where the programs are.
    pub fn open_to_others(&self) -> PathBuf {
        let everybody = Permissions::from_mode(0o755);
        for folder in [self.folder.path().to_owned(), self.folder.path().join(".run")] {
            fs::set_permissions(folder, everybody.clone()).expect("the folder is ours");
        }
        programs_for_others(self.folder.path())
    }

    pub fn open_descriptors(&self) -> usize {
        descriptors(self.nix_pid().as_raw()).len()
    }

    /// What lies in the server's folder for temporary files.
    pub fn temporary_files(&self) -> Vec<OsString> {
        let entries = fs::read_dir(self.folder.path().join("tmp")).expect("the folder is ours");
        entries.flatten().map(|entry| entry.file_name()).collect()
    }

    /// Where it serves metrics.
    pub fn metrics_address(&self) -> SocketAddr {
        let text = fs::read_to_string(&self.runtime_file).expect("a server that listens wrote it");
        let content: Value = serde_json::from_str(&text).expect("it is JSON");
        content["metrics"].as_str().and_then(|text| text.parse().ok()).expect("it serves metrics")
    }

    /// A connection of its own.
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    pub fn load_on(&self, model: &str) -> Load {
        Load::start(self.address, model, 2)
    }

    pub fn infer(&self, infer: &Infer) -> Response {
        self.client().infer(infer)
    }

    /// Sends the request from a thread of its own.
    pub fn infer_aside(&self, infer: Infer) -> Aside {
        Aside::send(self.client(), infer)
    }

    /// Unloads the model from a thread of its own.
    pub fn unload_aside(&self, model: &str) -> Aside {
        Aside::unload(self.client(), model)
    }

    /// Asks for a load from a thread of its own.
    pub fn load_aside(&self, model: &str) -> Aside {
        Aside::load(self.client(), model)
    }

    /// Has the only worker of `model` hang in a request, and waits until it does. The next worker
    /// does not get the request.
    pub fn hang(&self, model: &str) -> Aside {
        let worker = self.worker(model);
        let hanging = self.infer_aside(Infer::command(model, "hang").once());
        worker.wait_until_busy();
        hanging
    }

    pub fn wait_until_ready(&self, model: &str) {
        let mut client = self.client();
        wait::until_true(&format!("{model} being ready"), || client.is_ready(model));
    }

    /// Waits until so many workers of `model` serve, and all that there should be.
    pub fn wait_for_instances(&self, model: &str, count: usize) {
        let mut client = self.client();
        wait::until_true(&format!("{count} instances of {model}"), || {
            // A version with an instance that does not serve gives the reason.
            let serves = |line: &Listed| line.state == "READY" && line.reason.is_empty();
            client.index(model).iter().all(serves) && self.workers_of(model).len() == count
        });
    }

    /// Waits until the only worker of `model` is of this generation or a later one, and serves.
    pub fn wait_for_generation(&self, model: &str, generation: u64) {
        wait::until_true(&format!("generation {generation} of {model}"), || {
            self.workers_of(model).iter().any(|worker| worker.generation >= generation)
        });
        // The older ones have ended, so that this waits for the one that is there now.
        self.infer(&Infer::echo(model)).assert_status(200);
    }

    /// Waits until the repository index says `state` of `model`, and gives the reason.
    pub fn wait_for_state(&self, model: &str, state: &str) -> String {
        let mut client = self.client();
        wait::until(&format!("{model} being {state}"), || {
            client.index(model).into_iter().find(|line| line.state == state).map(|l| l.reason)
        })
    }

    pub fn workers(&self) -> Vec<WorkerProcess> {
        workers_of(self.pid())
    }

    pub fn workers_of(&self, model: &str) -> Vec<WorkerProcess> {
        self.workers().into_iter().filter(|worker| worker.model == model).collect()
    }

    /// Of all workers of `model` that live.
    pub fn worker_generations(&self, model: &str) -> Vec<u64> {
        self.workers_of(model).iter().map(|worker| worker.generation).collect()
    }

    /// The only worker of `model`, of whatever version.
    #[track_caller]
    pub fn worker(&self, model: &str) -> WorkerProcess {
        let workers = self.workers_of(model);
        assert_eq!(workers.len(), 1, "{workers:?}");
        workers.into_iter().next().expect("there is one")
    }

    pub fn signal(&self, signal: Signal) {
        if self.exited.is_none() {
            let _gone = kill(self.nix_pid(), signal);
        }
    }

    /// Stops it, and waits until none of its threads does anything any more.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        wait_until_stopped(self.nix_pid().as_raw());
    }

    /// Kills it by this signal. As for workers, SIGSEGV from outside has to come twice.
    pub fn kill(&mut self, signal: Signal) -> ExitStatus {
        wait::until_true("the end of the server", || {
            self.signal(signal);
            self.exited = self.process.try_wait().expect("it is our child");
            self.exited.is_some()
        });
        self.wait_for_exit()
    }

    /// Waits until the process has ended.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        if let Some(exited) = self.exited {
            return exited;
        }
        let process = &mut self.process;
        let status = wait::until("the end of the server", || {
            process.try_wait().expect("it is our child and was not reaped yet")
        });
        self.exited = Some(status);
        status
    }

    fn wait_until_it_listens(&mut self) -> SocketAddr {
        let (file, process) = (&self.runtime_file, &mut self.process);
        let listening = wait::until("a server that listens", || {
            if let Ok(Some(status)) = process.try_wait() {
                return Some(Err(status));
            }
            let text = fs::read_to_string(file).ok()?;
            let content: Value = serde_json::from_str(&text).ok()?;
            content["http"].as_str()?.parse().ok().map(Ok)
        });
        listening.unwrap_or_else(|status| {
            self.exited = Some(status);
            panic!("the server did not start: {status}");
        })
    }

    fn nix_pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.pid()).expect("process ids are small"))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait_for_exit();
        let pid = self.pid();
        if std::thread::panicking() {
            crate::say(&format!("the log of the server {pid}:"));
            for line in self.logs.lines() {
                crate::say(&format!("    {line}"));
            }
            return;
        }
        wait::until_true("the end of all workers", || workers_of(pid).is_empty());
        wait::until_true("control groups that can be removed", || {
            cgroups::clean(pid);
            cgroups::groups_of(pid).is_empty()
        });
    }
}
