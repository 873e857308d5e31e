//! `bulkhead`: the supervisor and its command line.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use supervisor::app::{App, runtime};
use supervisor::cli::{Cli, Command};
use supervisor::config::Config;
use supervisor::exit::Exit;
use supervisor::inventory::{Form, Inventory};
use supervisor::telemetry::start_logs;
use tokio::runtime::Builder;

/// Large buffers that were freed are handed out again warm: a fresh page costs more than the copy
/// into it (see ARCHITECTURE.md, "Memory").
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(args) => configured(args.config.as_deref(), &args.set, serve),
        Command::Check(args) => configured(args.config.as_deref(), &args.set, |_| {
            say("the configuration is good");
            Ok(Exit::Ok)
        }),
        Command::Devices(args) => {
            let form = if args.json { Form::Json } else { Form::Table };
            configured(args.config.as_deref(), &args.set, |config| devices(&config, form))
        }
    };
    let exit = outcome.unwrap_or_else(|error| {
        say(&format!("bulkhead: {error:#}"));
        Exit::Start
    });
    exit.into()
}

/// Nothing is started before the whole configuration has been found good.
fn configured(
    file: Option<&Path>,
    overrides: &[String],
    run: impl FnOnce(Config) -> anyhow::Result<Exit>,
) -> anyhow::Result<Exit> {
    match Config::load(file, overrides) {
        Ok(config) => run(config),
        Err(errors) => {
            say(&format!("bulkhead: {errors}"));
            Ok(Exit::Configuration)
        }
    }
}

fn serve(config: Config) -> anyhow::Result<Exit> {
    start_logs(&config.log)?;
    let (runtime, bells) = runtime(&config)?;
    let exit = runtime.block_on(async {
        let app = App::build(config, bells).await.context("cannot start")?;
        Ok(app.run().await)
    });
    // A scan of a disk that does not answer must not keep the process.
    runtime.shutdown_background();
    exit
}

fn devices(config: &Config, form: Form) -> anyhow::Result<Exit> {
    let runtime = Builder::new_current_thread().enable_time().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let inventory = runtime.block_on(Inventory::take(&config.devices));
    std::io::stdout().write_all(inventory.write(form).as_bytes()).context("cannot write")?;
    Ok(Exit::Ok)
}

/// Before there are logs, and after them.
fn say(line: &str) {
    // Nobody is left to tell if standard error is closed.
    let _closed = writeln!(std::io::stderr(), "{line}");
}
