//! The command line: what can be said. Help, manual pages and completions are made of it.

mod operate;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub use operate::{
    ConfigCommand, ConfigReload, Drain, Exits, Logs, Model, Operate, Reach, Reload, Shown, Status,
    Unload,
};

/// A multi-model inference server in which a fault has a radius of one model.
#[derive(Debug, Parser)]
#[command(name = "bulkhead", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// As `exit::Exit` has them.
const EXIT_CODES: &str = "\
Exit codes:
  0  done; for `serve`: drained and ended as asked
  1  something failed while running
  2  the configuration or the command line is wrong
  3  a listener or a file that the server needs could not be had
  4  a second signal ended the server before everything had drained
  5  no server answers at the admin socket
  6  the server does not take commands from this user
  7  the server knows no model of that name
  8  the server could not do what it was told";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the models of the configured repositories.
    Serve(Serve),
    /// Check a configuration and say what is wrong with it; nothing is bound or started.
    Check(Check),
    /// List the processors and GPUs of this machine, and who uses them; or those of a running server.
    Devices(Devices),
    #[command(flatten)]
    Operate(Operate),
    /// Print what a shell needs to complete this program's arguments.
    Completions { shell: Shell },
    /// Print a manual page, for man(7).
    Man {
        /// Of this command, as `config reload`; without it, of the whole.
        command: Vec<String>,
        /// Write the pages of all commands there.
        #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
        to: Option<PathBuf>,
    },
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
    /// Ask the running server: what it has granted of each, and which it holds to be lost.
    #[arg(long)]
    pub server: bool,
    #[command(flatten)]
    pub shown: Shown,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definitions_agree_with_each_other() {
        Cli::command().debug_assert();
    }
}
