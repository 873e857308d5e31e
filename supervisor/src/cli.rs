//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A multi-model inference server in which a fault has a radius of one model.
#[derive(Debug, Parser)]
#[command(name = "bulkhead", version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the models of the configured repositories.
    Serve(Serve),
    /// Check a configuration and say what is wrong with it; nothing is bound or started.
    Check(Check),
    /// List the processors and GPUs of this machine, and who uses them.
    Devices(Devices),
}

#[derive(Debug, Args)]
pub struct Serve {
    /// The configuration; without it `config.toml` here if there is one, or the defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Sets any key of the configuration, as in --set http.listen=127.0.0.1:0. May be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Check {
    /// The configuration to check.
    #[arg(value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Sets any key, as with `serve`.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Devices {
    /// The configuration, of which `[devices]` counts; as with `serve`.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Sets any key, as with `serve`.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// For programs.
    #[arg(long)]
    pub json: bool,
}
