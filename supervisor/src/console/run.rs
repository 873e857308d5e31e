//! From a command line to a command of the server's, and from its answer to what is shown.

use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::time::SystemTime;

use proto::admin::reply::{ConfigChanges, Configuration, Done, Exits, LogLines, Quota};
use proto::admin::request::Command;
use proto::admin::status::{Devices, Status};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use shared::sys::pidfd;

use super::client::{Client, Trouble};
use super::{shown, told};
use crate::cli::{self, ConfigCommand, Operate};

/// Clears a terminal and begins at its top.
const AFRESH: &str = "\u{1b}[2J\u{1b}[H";

/// What the server at `socket` knows of its devices.
pub fn devices(json: bool, socket: &Path) -> Result<(), Trouble> {
    let mut console = Console { client: Client::connect(socket)?, out: io::stdout() };
    console.show::<Devices>(&Command::Devices {}, json, shown::devices)
}

/// Has the server at `socket` carry out what was asked.
pub fn run(asked: &Operate, socket: &Path) -> Result<(), Trouble> {
    let mut console = Console { client: Client::connect(socket)?, out: io::stdout() };
    match asked {
        Operate::Status(args) => console.status(args),
        Operate::Load(args) => {
            console.change(&Command::Load { model: args.model.clone() }, args.json)
        }
        Operate::Restart(args) => {
            console.change(&Command::Restart { model: args.model.clone() }, args.json)
        }
        Operate::Reset(args) => {
            console.change(&Command::Reset { model: args.model.clone() }, args.json)
        }
        Operate::Unload(args) => {
            let (model, wait) = (args.model.clone(), !args.no_wait);
            console.change(&Command::Unload { model, wait }, args.json)
        }
        Operate::Drain(args) => console.drain(args),
        Operate::Reload(args) => {
            console.reload(&Command::Reload { model: args.model.clone() }, args.json)
        }
        Operate::Exits(args) => {
            let command = Command::Exits { model: args.model.clone() };
            console.show::<Exits>(&command, args.json, told::exits)
        }
        Operate::Logs(args) => console.logs(args),
        Operate::Quota(args) => console.show::<Quota>(&Command::Quota {}, args.json, told::quota),
        Operate::Config(ConfigCommand::Show(args)) => {
            let command = Command::ConfigShow {};
            console.show::<Configuration>(&command, args.json, told::configuration)
        }
        Operate::Config(ConfigCommand::Diff(args)) => {
            let command = Command::ConfigDiff {};
            console.show::<ConfigChanges>(&command, args.json, told::changes)
        }
        Operate::Config(ConfigCommand::Reload(args)) => {
            let command = Command::ConfigReload { wait: !args.no_wait };
            console.reload(&command, args.shown.json)
        }
    }
}

struct Console {
    client: Client,
    out: io::Stdout,
}

impl Console {
    fn show<T: DeserializeOwned + Serialize>(
        &mut self,
        command: &Command,
        json: bool,
        show: impl FnOnce(&T) -> String,
    ) -> Result<(), Trouble> {
        let answer: T = self.client.ask(command)?;
        let shown = show(&answer);
        let text = if json { pretty(&answer) } else { shown };
        write(&mut self.out, &text)
    }

    /// What holds is shown, also if not everything came about.
    fn reload(&mut self, command: &Command, json: bool) -> Result<(), Trouble> {
        let mut complete = true;
        self.show(command, json, |changes: &ConfigChanges| {
            complete = changes.complete;
            told::changes(changes)
        })?;
        if complete { Ok(()) } else { Err(Trouble::Incomplete) }
    }

    fn change(&mut self, command: &Command, json: bool) -> Result<(), Trouble> {
        let model = command.model().map(|model| format!("{model}: ")).unwrap_or_default();
        self.show(command, json, |Done { did }| format!("{model}{did}\n"))
    }

    fn status(&mut self, args: &cli::Status) -> Result<(), Trouble> {
        let show = |status: &Status| match &args.model {
            None => shown::status(status, now()),
            Some(_) => shown::model(status, now()),
        };
        let model = args.model.clone();
        if !args.watch {
            return self.show(&Command::Status { model }, args.json, show);
        }
        let afresh = if self.out.is_terminal() { AFRESH } else { "" };
        let out = &mut self.out;
        let each = |status: Status| match args.json {
            true => write(out, &line(&status)),
            false => write(out, &format!("{afresh}{}\n", show(&status))),
        };
        self.client.follow(&Command::Watch { model }, each).map(drop)
    }

    fn drain(&mut self, args: &cli::Drain) -> Result<(), Trouble> {
        let server = self.client.server();
        self.change(&Command::Drain {}, args.json)?;
        if !args.wait {
            return Ok(());
        }
        match server {
            Some(server) => {
                pidfd::wait_for_end(&server).map_err(|error| Trouble::Gone(Some(error.into())))
            }
            // Of a process that cannot be named here, the connection has to tell.
            None => match self.client.follow(&Command::Watch { model: None }, |_: Status| Ok(())) {
                Ok(_) | Err(Trouble::Gone(_)) => Ok(()),
                Err(other) => Err(other),
            },
        }
    }

    fn logs(&mut self, args: &cli::Logs) -> Result<(), Trouble> {
        let (model, lines, follow) = (args.model.clone(), args.lines, args.follow);
        let command = Command::Logs { model, lines, follow };
        let out = &mut self.out;
        let mut each = |read: LogLines| {
            let text = match args.json {
                true => {
                    let lost = (follow && read.lost > 0).then(|| json!({ "lost": read.lost }));
                    let lines = read.lines.iter().map(line);
                    lost.iter().map(line).chain(lines).collect()
                }
                false => told::logs(&read, follow),
            };
            write(out, &text)
        };
        if follow {
            return self.client.follow(&command, each).map(drop);
        }
        let read = self.client.ask(&command)?;
        each(read)
    }
}

fn now() -> u64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since_epoch.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

fn pretty(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value);
    text.expect("what came as JSON goes as JSON") + "\n"
}

fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("what came as JSON goes as JSON") + "\n"
}

fn write(out: &mut impl Write, text: &str) -> Result<(), Trouble> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Trouble::Output)
}
