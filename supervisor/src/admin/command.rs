//! What commands come to.

use std::sync::Arc;

use proto::admin::reply::{
    Account, Code, ConfigChange, ConfigChanges, ConfigEntry, Configuration, DeviceAccount, Done,
    Exits, Failure, Holder, LogLine, LogLines, Quota, Reply,
};
use proto::admin::request::{Command, MAX_LOG_LINES};
use serde::Serialize;
use shared::id::ModelName;
use tokio::sync::Semaphore;

use super::audit::{Audit, Entry};
use super::handles::Handles;
use super::peer::Peer;
use crate::config::{Change, Effect};
use crate::lifecycle::card;
use crate::lifecycle::reload::{ReloadReport, Scope};
use crate::process::journal::{Line, Read};
use crate::quota::{Balance, DeviceBalance, Held};
use crate::request::{RequestError, What};
use crate::route::AnsweredWhen;

/// Commands that change something and are under way: their operators may have gone.
const CHANGES: usize = 64;

/// Where commands are carried out.
#[derive(Debug)]
pub struct Desk {
    pub(super) handles: Handles,
    audit: Audit,
    changes: Arc<Semaphore>,
}

/// A reply, as it goes on the wire.
type Answer = Result<String, Failure>;

/// What a command has changed.
struct Did {
    answer: String,
    /// What did not come about of it, though the rest holds.
    missing: Option<String>,
}

impl Desk {
    #[must_use]
    pub fn new(handles: Handles, audit: Audit) -> Self {
        Self { handles, audit, changes: Arc::new(Semaphore::new(CHANGES)) }
    }

    /// The line to answer with. What changes something is carried out to its end and written down,
    /// whether or not this is waited for.
    pub(super) async fn answer(self: &Arc<Self>, command: Command, peer: Peer) -> String {
        let answer = if command.changes() {
            self.begin_change(command, peer).await
        } else {
            self.show(command).await
        };
        answer.unwrap_or_else(error_line)
    }

    /// Written down when it begins, too: it may be what ends the server.
    async fn begin_change(self: &Arc<Self>, command: Command, peer: Peer) -> Answer {
        let (name, model) = (command.name(), command.model().map(ModelName::to_string));
        let entry = move |outcome: &str, detail: &str| Entry {
            peer,
            command: name,
            model: model.clone(),
            outcome: outcome.to_owned(),
            detail: detail.to_owned(),
        };
        let turn = match (Arc::clone(&self.changes).try_acquire_owned(), &command) {
            (Ok(turn), _) => Some(turn),
            // Whatever else is under way, the server can be told to end.
            (Err(_), Command::Drain {}) => None,
            (Err(_), _) => {
                let many = format!("{CHANGES} commands that change something are under way");
                self.audit.note(entry(&code_name(Code::Busy), &many)).await;
                return Err(failure(Code::Busy, many));
            }
        };
        let this = Arc::clone(self);
        let carried_out = tokio::spawn(async move {
            this.audit.note(entry("begun", "")).await;
            let carrying_out = Arc::clone(&this);
            let carried_out = tokio::spawn(async move { carrying_out.change(command).await }).await;
            let answer =
                carried_out.unwrap_or_else(|error| Err(failure(Code::Failed, error.to_string())));
            let (outcome, detail) = match &answer {
                Ok(Did { missing: None, .. }) => ("ok".to_owned(), ""),
                Ok(Did { missing: Some(missing), .. }) => ("incomplete".to_owned(), &**missing),
                Err(Failure { code, message }) => (code_name(*code), &**message),
            };
            this.audit.note(entry(&outcome, detail)).await;
            drop(turn);
            answer.map(|did| did.answer)
        });
        carried_out.await.unwrap_or_else(|error| Err(failure(Code::Failed, error.to_string())))
    }

    pub(super) async fn note_refused(&self, peer: Peer) {
        let (command, outcome) = ("connect", code_name(Code::Refused));
        self.audit.note(Entry { peer, command, model: None, outcome, detail: String::new() }).await;
    }

    async fn change(&self, command: Command) -> Result<Did, Failure> {
        let Handles { routes, drain, .. } = &self.handles;
        let did = match command {
            Command::Load { model } => routes.load(model.as_str()).await.map(|()| "loaded"),
            Command::Unload { model, wait: true } => {
                let gone = routes.unload(model.as_str(), AnsweredWhen::Gone).await;
                gone.map(|()| "unloaded")
            }
            Command::Unload { model, wait: false } => {
                let begun = routes.unload(model.as_str(), AnsweredWhen::Begun).await;
                begun.map(|()| "unloading")
            }
            Command::Restart { model } => {
                routes.restart(model.as_str()).await.map(|()| "restarted")
            }
            Command::Reset { model } => routes.reset(model.as_str()).await.map(|()| "reset"),
            Command::Drain {} => {
                // If somebody has asked already, that is as good.
                let _asked = drain.try_send(());
                Ok("draining")
            }
            Command::Reload { model: Some(model) } => {
                return self.reload(Scope::Model(model)).await;
            }
            Command::Reload { model: None } | Command::ConfigReload { wait: true } => {
                return self.reload(Scope::Everything).await;
            }
            Command::ConfigReload { wait: false } => return self.apply().await,
            Command::Status { .. }
            | Command::Watch { .. }
            | Command::Exits { .. }
            | Command::Logs { .. }
            | Command::Devices {}
            | Command::Quota {}
            | Command::ConfigShow {}
            | Command::ConfigDiff {} => Ok("nothing"),
        };
        let did = did.map_err(refused_by)?;
        Ok(Did { answer: ok(&Done { did: did.to_owned() }), missing: None })
    }

    async fn reload(&self, scope: Scope) -> Result<Did, Failure> {
        let is_unknown = match &scope {
            Scope::Model(model) => !self.handles.overview.knows(model),
            Scope::Everything => false,
        };
        let code = if is_unknown { Code::UnknownModel } else { Code::Failed };
        let report = self.handles.reload.reload(scope).await.map_err(|why| failure(code, why))?;
        let changes = applied(&report);
        let missing = (!changes.complete).then(|| changes.notes.join("; "));
        Ok(Did { answer: ok(&changes), missing })
    }

    /// A reload whose models are not waited for.
    async fn apply(&self) -> Result<Did, Failure> {
        let changes = self.handles.reload.apply().await;
        let changes = changes.map_err(|why| failure(Code::Failed, why))?;
        let report = ReloadReport { changes, ..ReloadReport::default() };
        Ok(Did { answer: ok(&applied(&report)), missing: None })
    }

    async fn show(&self, command: Command) -> Answer {
        let overview = &self.handles.overview;
        match command {
            Command::Status { model: None } => Ok(ok(&overview.status())),
            Command::Status { model: Some(model) } => {
                let status = overview.status_of(&model).ok_or_else(|| unknown(&model))?;
                Ok(ok(&status))
            }
            Command::Exits { model } => {
                self.known(&model)?;
                let histories = self.handles.archive.of_model(&model);
                let exits = histories.iter().map(|(instance, past)| card::exits(instance, past));
                Ok(ok(&Exits { instances: exits.collect() }))
            }
            Command::Logs { model, lines, follow: _ } => {
                self.known(&model)?;
                let mut follower = self.handles.journals.of(&model).follow(wanted(lines));
                Ok(ok(&log_lines(&follower.read(wanted(lines)))))
            }
            Command::Devices {} => Ok(ok(&overview.devices())),
            Command::Quota {} => Ok(ok(&self.quota())),
            Command::ConfigShow {} => Ok(ok(&self.configuration())),
            Command::ConfigDiff {} => self.difference().await,
            Command::Watch { .. }
            | Command::Load { .. }
            | Command::Unload { .. }
            | Command::Reload { .. }
            | Command::Restart { .. }
            | Command::Drain {}
            | Command::Reset { .. }
            | Command::ConfigReload { .. } => Err(failure(Code::Unsupported, "not a question")),
        }
    }

    pub(super) fn known(&self, model: &ModelName) -> Result<(), Failure> {
        if self.handles.overview.knows(model) { Ok(()) } else { Err(unknown(model)) }
    }

    fn quota(&self) -> Quota {
        let report = self.handles.quotas.report();
        Quota {
            workers: account(report.workers),
            arenas: account(report.arenas),
            devices: report.devices.iter().map(device_account).collect(),
        }
    }

    fn configuration(&self) -> Configuration {
        let entries = self.handles.reload.running().entries();
        let entry =
            |entry: crate::config::Entry| ConfigEntry { key: entry.key, value: entry.value };
        Configuration {
            file: self.handles.origin.file().map(|file| file.display().to_string()),
            entries: entries.into_iter().map(entry).collect(),
        }
    }

    async fn difference(&self) -> Answer {
        let diff = self.handles.reload.preview().await;
        let diff = diff.map_err(|why| failure(Code::Failed, why))?;
        let changes = diff.changes.iter().map(change).collect();
        // What the server runs with, and its models do not follow, is no difference to the file.
        let models = self.handles.overview.status().models.into_iter();
        let models = models.filter(|model| !model.versions.is_empty() && !model.problem.is_empty());
        let notes = models.map(|model| format!("{}: {}", model.name, model.problem)).collect();
        Ok(ok(&ConfigChanges { changes, notes, complete: true }))
    }
}

/// What came of a reload, as operators are shown it.
fn applied(report: &ReloadReport) -> ConfigChanges {
    let models = report.models.iter().map(|one| format!("{}: {}", one.model, one.outcome));
    let problems = report.problems.iter().map(|problem| format!("repository: {problem}"));
    let restart: Vec<&str> = report.needs_restart().map(|change| change.key.as_str()).collect();
    let restart = (!restart.is_empty()).then(|| {
        format!("these keys hold only after a restart of the server: {}", restart.join(", "))
    });
    ConfigChanges {
        changes: report.changes.iter().map(change).collect(),
        notes: models.chain(problems).chain(restart).collect(),
        complete: report.is_complete(),
    }
}

/// A change as operators are shown it.
fn change(change: &Change) -> ConfigChange {
    ConfigChange {
        key: change.key.clone(),
        old: change.old.clone(),
        new: change.new.clone(),
        takes: match change.effect {
            Effect::Live => "live",
            Effect::Workers => "workers",
            Effect::Server => "server",
        }
        .to_owned(),
    }
}

pub(super) fn wanted(lines: u32) -> usize {
    usize::try_from(lines.min(MAX_LOG_LINES)).unwrap_or(usize::MAX)
}

pub(super) fn log_lines(read: &Read) -> LogLines {
    let line = |line: &Arc<Line>| LogLine {
        at: line.at,
        version: line.worker.instance.version.get(),
        instance: line.worker.instance.index,
        generation: line.worker.generation.0,
        level: line.level.to_owned(),
        text: line.text.clone(),
    };
    LogLines { lost: read.lost, lines: read.lines.iter().map(line).collect() }
}

fn account(balance: Balance) -> Account {
    Account { used: balance.used, capacity: balance.capacity }
}

fn device_account(balance: &DeviceBalance) -> DeviceAccount {
    let holder = |held: &Held| Holder {
        model: held.model.to_string(),
        version: held.version.get(),
        bytes: held.bytes,
        leaving: !held.lives,
    };
    DeviceAccount {
        id: balance.device.id.to_string(),
        index: balance.device.index,
        name: balance.device.name.clone(),
        account: account(balance.balance),
        suspect: balance.suspect,
        holders: balance.held.iter().map(holder).collect(),
    }
}

fn ok<T: Serialize>(what: &T) -> String {
    Reply::Ok(what).line()
}

pub(super) fn error_line(failure: Failure) -> String {
    Reply::<()>::Error(failure).line()
}

pub(super) fn failure(code: Code, message: impl Into<String>) -> Failure {
    Failure { code, message: message.into() }
}

pub(super) fn unknown(model: &ModelName) -> Failure {
    failure(Code::UnknownModel, format!("model '{model}' is not known here"))
}

fn refused_by(error: RequestError) -> Failure {
    let code = match error.what {
        What::UnknownModel | What::UnknownVersion => Code::UnknownModel,
        What::Unsupported => Code::Unsupported,
        What::ShuttingDown => Code::ShuttingDown,
        What::NoVersion
        | What::NotReady
        | What::Invalid
        | What::TooLarge
        | What::SlowBody
        | What::QueueFull
        | What::QueueTimeout
        | What::Deadline
        | What::WorkerDied
        | What::Poison
        | What::Model
        | What::OutOfMemory
        | What::Forbidden
        | What::Internal => Code::Failed,
    };
    failure(code, error.message)
}

/// As it stands on the wire.
fn code_name(code: Code) -> String {
    let name = serde_json::to_value(code).ok();
    name.and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}
