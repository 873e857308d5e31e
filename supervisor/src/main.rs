//! `bulkhead`: the supervisor and its command line.
#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use shared::text::chain;
use supervisor::app::{App, Rereading, runtime};
use supervisor::cli::{Cli, Command, Reach, Shown};
use supervisor::config::{Config, Origin};
use supervisor::console;
use supervisor::console::client::Trouble;
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
        Command::Serve(args) => {
            let origin = Origin::new(args.config.as_deref(), &args.set);
            configured(&origin, |config| serve(config, origin.clone()))
        }
        Command::Check(args) => {
            let origin = Origin::new(args.config.as_deref(), &args.set);
            configured(&origin, |_| {
                say("the configuration is good");
                Ok(Exit::Ok)
            })
        }
        Command::Devices(args) => {
            let Shown { json, reach } = args.shown;
            if args.server || reach.socket.is_some() {
                find(&reach, |socket| console::devices(json, socket))
            } else {
                let form = if json { Form::Json } else { Form::Table };
                let origin = Origin::of_the_machine(reach.config.as_deref(), &reach.set);
                configured(&origin, |config| devices(&config, form))
            }
        }
        Command::Operate(asked) => find(asked.reach(), |socket| console::run(&asked, socket)),
        Command::Completions { shell } => {
            let written = console::completions(shell, &mut std::io::stdout());
            Ok(printed(written))
        }
        Command::Man { to: Some(folder), .. } => {
            let written = console::manuals(&folder);
            written
                .with_context(|| format!("cannot write to {}", folder.display()))
                .map(|()| Exit::Ok)
        }
        Command::Man { command, to: None } => Ok(manual(&command)),
    };
    let exit = outcome.unwrap_or_else(|error| {
        say(&format!("bulkhead: {error:#}"));
        Exit::Start
    });
    exit.into()
}

/// Nothing is started before the whole configuration has been found good.
fn configured(
    origin: &Origin,
    run: impl FnOnce(Config) -> anyhow::Result<Exit>,
) -> anyhow::Result<Exit> {
    match origin.load() {
        Ok(config) => run(config),
        Err(errors) => {
            say(&format!("bulkhead: {errors}"));
            Ok(Exit::Configuration)
        }
    }
}

/// A server is found by its configuration if its socket is not named.
fn find(reach: &Reach, tell: impl FnOnce(&Path) -> Result<(), Trouble>) -> anyhow::Result<Exit> {
    let Reach { socket, config, set } = reach;
    if let Some(socket) = socket {
        return Ok(told(tell(socket)));
    }
    let origin = Origin::of_the_machine(config.as_deref(), set);
    let socket = match origin.load() {
        Ok(config) => config.admin.socket,
        // A server does not end because its file is edited; and it must be heard of then, too.
        Err(errors) => match origin.admin_socket() {
            None => {
                say(&format!("bulkhead: {errors}"));
                None
            }
            Some(socket) => {
                say(&format!("bulkhead: {errors}\nAsking the server at {}", socket.display()));
                Some(socket)
            }
        },
    };
    match &socket {
        Some(socket) => Ok(told(tell(socket))),
        None => {
            say("bulkhead: admin.socket is \"off\"; name a socket with --socket");
            Ok(Exit::Configuration)
        }
    }
}

fn told(outcome: Result<(), Trouble>) -> Exit {
    match outcome {
        Ok(()) => Exit::Ok,
        Err(trouble) => {
            let exit = trouble.exit();
            if exit != Exit::Ok {
                say(&format!("bulkhead: {}", chain(&trouble)));
            }
            exit
        }
    }
}

fn manual(command: &[String]) -> Exit {
    match console::manual(command, &mut std::io::stdout()) {
        Ok(false) => {
            say(&format!("bulkhead: there is no command {:?}", command.join(" ")));
            Exit::Configuration
        }
        written => printed(written.map(drop)),
    }
}

/// Whoever reads may have seen enough.
fn printed(written: io::Result<()>) -> Exit {
    match written {
        Ok(()) => Exit::Ok,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(error) => {
            say(&format!("bulkhead: cannot write: {error}"));
            Exit::Failed
        }
    }
}

fn serve(config: Config, origin: Origin) -> anyhow::Result<Exit> {
    let logs = start_logs(&config.log)?;
    let (runtime, bells) = runtime(&config)?;
    let exit = runtime.block_on(async {
        let rereading = Rereading { origin, logs };
        let app = App::build(config, rereading, bells).await.context("cannot start")?;
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
    Ok(printed(io::stdout().write_all(inventory.write(form).as_bytes())))
}

/// Before there are logs, and after them.
fn say(line: &str) {
    // Nobody is left to tell if standard error is closed.
    let _closed = writeln!(std::io::stderr(), "{line}");
}
