//! Which models there are: witnesses, which nothing strikes, and victims, each with a policy of its own.

use std::path::{Path, PathBuf};

use tests::supervisor::{Builder, binaries};
use tests::{Echo, Supervisor, folder_or_skip};

/// A model that faults are aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Victim {
    Plain,
    /// Its workers start as programs.
    Exec,
    /// In namespaces.
    Strict,
    /// Without confinement.
    Open,
    /// In memory and in files.
    Limited,
    /// Goes to rest between its requests.
    Sleepy,
    /// Has two instances.
    Pair,
    /// Has few restarts, and rests after them until it is loaded.
    Tight,
    Digits,
    DigitsExec,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Echo,
    Torch,
}

pub(crate) const WITNESS: &str = "witness";
pub(crate) const TORCH_WITNESS: &str = "witness-digits";

impl Victim {
    pub(crate) const ALL: [Self; 10] = [
        Self::Plain,
        Self::Exec,
        Self::Strict,
        Self::Open,
        Self::Limited,
        Self::Sleepy,
        Self::Pair,
        Self::Tight,
        Self::Digits,
        Self::DigitsExec,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Exec => "exec",
            Self::Strict => "strict",
            Self::Open => "open",
            Self::Limited => "limited",
            Self::Sleepy => "sleepy",
            Self::Pair => "pair",
            Self::Tight => "tight",
            Self::Digits => "digits",
            Self::DigitsExec => "digits-exec",
        }
    }

    pub(crate) fn engine(self) -> Engine {
        match self {
            Self::Digits | Self::DigitsExec => Engine::Torch,
            Self::Plain
            | Self::Exec
            | Self::Strict
            | Self::Open
            | Self::Limited
            | Self::Sleepy
            | Self::Pair
            | Self::Tight => Engine::Echo,
        }
    }

    /// Workers when all is well. One that may rest has as many or none.
    pub(crate) fn instances(self) -> usize {
        if self == Self::Pair { 2 } else { 1 }
    }

    /// What sets it apart, as keys of its section of the configuration.
    fn policy(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Plain | Self::Digits => &[],
            Self::Exec | Self::DigitsExec => &[("start", "exec")],
            Self::Strict => &[("confinement", "strict")],
            Self::Open => &[("confinement", "none")],
            Self::Limited => &[("memory_limit", "128MiB"), ("scratch_limit", "8MiB")],
            Self::Sleepy => &[("idle_timeout", "300ms")],
            Self::Pair => &[("instances", "2")],
            Self::Tight => &[("restart.max_restarts", "2"), ("restart.window", "20s")],
        }
    }
}

/// Where the torch models come from.
#[derive(Clone, Debug)]
pub(crate) struct Torch {
    pub(crate) model: PathBuf,
    pub(crate) data: PathBuf,
    config: String,
}

impl Torch {
    /// `None` after saying what is missing.
    pub(crate) fn find() -> Option<Self> {
        let name = "chaos on torch models";
        let models = folder_or_skip("BULKHEAD_MODELS", name)?.join("digits");
        let data = folder_or_skip("BULKHEAD_MODELS_DATA", name)?.join("digits");
        if !binaries().join("bulkhead-worker-torch").is_file() {
            tests::skipped(name, "bulkhead-worker-torch is not built");
            return None;
        }
        let config = std::fs::read_to_string(models.join("config.pbtxt")).ok()?;
        Some(Self { model: models.join("1/model.pt"), data, config })
    }

    /// The `config.pbtxt` of a copy by this name.
    pub(crate) fn config(&self, name: &str) -> String {
        self.config.replace("\"digits\"", &format!("{name:?}"))
    }

    pub(crate) fn file(&self) -> &Path {
        &self.model
    }
}

/// Those that can be had.
pub(crate) fn victims(torch: Option<&Torch>) -> Vec<Victim> {
    let had = |victim: &Victim| victim.engine() == Engine::Echo || torch.is_some();
    Victim::ALL.into_iter().filter(had).collect()
}

pub(crate) fn witnesses(torch: Option<&Torch>) -> Vec<(&'static str, Engine)> {
    let all = [(WITNESS, Engine::Echo), (TORCH_WITNESS, Engine::Torch)];
    all.into_iter().filter(|(_, engine)| *engine == Engine::Echo || torch.is_some()).collect()
}

/// Workers that hang are found in seconds, and restarts are quick and never run out but for one.
const SETTINGS: [(&str, &str); 14] = [
    ("worker.infer_timeout", "2s"),
    ("worker.stop_timeout", "300ms"),
    ("worker.drain_timeout", "2s"),
    ("worker.load_timeout", "20s"),
    ("worker.poison_ttl", "5s"),
    ("restart.max_restarts", "1000"),
    ("restart.backoff.initial", "20ms"),
    ("restart.backoff.max", "300ms"),
    ("http.header_timeout", "2s"),
    ("http.stall_timeout", "1s"),
    // The only promise to a witness is that nobody else's fault is its own; the machine may be busy.
    ("models.witness.infer_timeout", "30s"),
    ("models.witness.cpu_weight", "1000"),
    ("shutdown.drain_timeout", "10s"),
    ("worker.log_lines_per_second", "50"),
];

pub(crate) fn builder(torch: Option<&Torch>) -> Builder {
    let mut builder = Supervisor::new();
    for (key, value) in SETTINGS {
        builder = builder.set(key, value);
    }
    for (name, engine) in witnesses(torch) {
        builder = with_model(builder, name, engine, torch);
    }
    if torch.is_some() {
        builder = builder.set(&format!("models.{TORCH_WITNESS}.infer_timeout"), "30s");
    }
    for victim in victims(torch) {
        builder = with_model(builder, victim.name(), victim.engine(), torch);
        for (key, value) in victim.policy() {
            builder = builder.set(&format!("models.{}.{key}", victim.name()), value);
        }
    }
    builder
}

fn with_model(builder: Builder, name: &str, engine: Engine, torch: Option<&Torch>) -> Builder {
    match (engine, torch) {
        (Engine::Echo, _) => builder.echo(name, &Echo::default()),
        (Engine::Torch, Some(torch)) => {
            builder.config(name, &torch.config(name)).torch(name, torch.file())
        }
        (Engine::Torch, None) => builder,
    }
}
