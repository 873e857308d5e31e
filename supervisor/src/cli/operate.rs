//! Commands that a running server is told over its admin socket.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use shared::id::ModelName;

#[derive(Debug, Subcommand)]
pub enum Operate {
    /// How the server and its models do.
    Status(Status),
    /// Load a model, or load it anew. Returns when it serves.
    Load(Model),
    /// Unload a model. Returns when its processes are gone and their memory is free.
    Unload(Unload),
    /// Apply the configuration on disk, without a restart.
    Reload(Reload),
    /// Give a model new workers, of the versions that are loaded, without a failed request.
    Restart(Model),
    /// End the server as SIGTERM does: requests in progress finish first.
    Drain(Drain),
    /// Let a quarantined model try again. Returns when it serves.
    Reset(Model),
    /// How the workers of a model ended, each with its last lines.
    Exits(Exits),
    /// What the workers of a model wrote last.
    Logs(Logs),
    /// Who holds what of processes, slots and the memory of devices.
    Quota(Shown),
    /// The configuration of the running server.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every key with the value that holds.
    Show(Shown),
    /// Print what the file on disk would change.
    Diff(Shown),
    /// Apply the file on disk, without a restart.
    Reload(ConfigReload),
}

/// How the server is found.
#[derive(Clone, Debug, Args)]
pub struct Reach {
    /// The server's admin socket; without it the one that the configuration names.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The server's configuration; without it `config.toml` here, or that of the service.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Sets any key, as with `serve`.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub struct Shown {
    /// For programs.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub reach: Reach,
}

#[derive(Clone, Debug, Args)]
pub struct Status {
    /// This one alone, with more of it.
    #[arg(value_parser = name)]
    pub model: Option<ModelName>,
    /// For programs; with --watch, one line for each change.
    #[arg(long)]
    pub json: bool,
    /// Go on, and show it anew whenever it changes.
    #[arg(long)]
    pub watch: bool,
    #[command(flatten)]
    pub reach: Reach,
}

#[derive(Clone, Debug, Args)]
pub struct ConfigReload {
    /// Return when the file has been taken up, and not only when the models have followed.
    #[arg(long)]
    pub no_wait: bool,
    #[command(flatten)]
    pub shown: Shown,
}

#[derive(Clone, Debug, Args)]
pub struct Model {
    #[arg(value_parser = name)]
    pub model: ModelName,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub reach: Reach,
}

#[derive(Clone, Debug, Args)]
pub struct Unload {
    #[arg(value_parser = name)]
    pub model: ModelName,
    /// Return when no request reaches it any more; its processes end later.
    #[arg(long)]
    pub no_wait: bool,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub reach: Reach,
}

#[derive(Clone, Debug, Args)]
pub struct Reload {
    /// Only what concerns this one.
    #[arg(value_parser = name)]
    pub model: Option<ModelName>,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub reach: Reach,
}

#[derive(Clone, Debug, Args)]
pub struct Drain {
    /// Return when the server has ended.
    #[arg(long)]
    pub wait: bool,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub reach: Reach,
}

#[derive(Clone, Debug, Args)]
pub struct Exits {
    #[arg(value_parser = name)]
    pub model: ModelName,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub reach: Reach,
}

#[derive(Clone, Debug, Args)]
pub struct Logs {
    #[arg(value_parser = name)]
    pub model: ModelName,
    /// Go on with what is written from now on.
    #[arg(short, long)]
    pub follow: bool,
    /// How many lines of what was written before.
    #[arg(short = 'n', long, default_value_t = 100)]
    pub lines: u32,
    /// For programs, one line for each.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub reach: Reach,
}

fn name(text: &str) -> Result<ModelName, String> {
    ModelName::new(text).map_err(|error| error.to_string())
}

impl Operate {
    #[must_use]
    pub fn reach(&self) -> &Reach {
        match self {
            Self::Status(args) => &args.reach,
            Self::Load(args) | Self::Restart(args) | Self::Reset(args) => &args.reach,
            Self::Unload(args) => &args.reach,
            Self::Reload(args) => &args.reach,
            Self::Drain(args) => &args.reach,
            Self::Exits(args) => &args.reach,
            Self::Logs(args) => &args.reach,
            Self::Config(ConfigCommand::Reload(args)) => &args.shown.reach,
            Self::Quota(args)
            | Self::Config(ConfigCommand::Show(args) | ConfigCommand::Diff(args)) => &args.reach,
        }
    }
}
