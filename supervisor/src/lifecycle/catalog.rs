//! All models: found at the start, or when somebody names one; each with a task of its own.

use std::collections::{BTreeMap, BTreeSet};

use shared::id::ModelName;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{self, JoinError, JoinSet};
use tracing::{info, warn};

use super::instance::Kit;
use super::keeper::{Ask, DISABLED, Done, Keeper, KeeperParts, Reconfigure};
use super::reload::Order;
use crate::config::{self, Config, Enabled};
use crate::repository::{Scan, ScanError, Scanner};
use crate::request::{RequestError, What};
use crate::route::{Demand, Required, Routes, Wish};
use crate::status::ModelCard;
use crate::system::Answers;

/// Requests that may wait for the task of one model.
const ASKS: usize = 64;
/// Models that may be looked for at a time, of those that are not known.
const LOOKS: usize = 64;

/// The models of this server.
#[derive(Debug)]
pub struct Catalog {
    config: Config,
    scanner: Scanner,
    kit: Kit,
    routes: Routes,
    keepers: BTreeMap<ModelName, mpsc::Sender<Ask>>,
    /// Models that are in no repository any more and are on their way out.
    leaving: BTreeMap<ModelName, task::Id>,
    /// The task for each of them, which ends when nothing is left of it.
    farewells: JoinSet<ModelName>,
    /// Models that somebody wishes for and that are not known yet.
    looks: JoinSet<Looked>,
}

/// Whether a model that is not known yet is in a repository.
#[derive(Debug)]
struct Looked {
    model: ModelName,
    found: Result<(), ScanError>,
    done: Done,
}

/// What the server's end asks of the catalog.
#[derive(Debug)]
pub enum Ending {
    /// Unload everything; answered when no process is left.
    Drain(oneshot::Sender<()>),
    /// Kill everything; the catalog's task ends when no process is left.
    Kill,
}

impl Catalog {
    pub fn new(config: Config, kit: Kit, routes: Routes) -> Self {
        let scanner = Scanner::new(&config);
        let (keepers, leaving) = (BTreeMap::new(), BTreeMap::new());
        let (farewells, looks) = (JoinSet::new(), JoinSet::new());
        Self { config, scanner, kit, routes, keepers, leaving, farewells, looks }
    }

    /// Lists what the repositories hold and begins to load what the configuration names. A model
    /// that cannot be read is listed with the reason and keeps nothing else from loading.
    pub async fn open(&mut self) {
        let scan = self.scanner.look().await.unwrap_or_else(|error| {
            warn!("repository: {error}");
            Scan::default()
        });
        for problem in &scan.problems {
            warn!("repository: {problem}");
        }
        let mut first = BTreeSet::new();
        for (name, found) in scan.models {
            if let Err(error) = &found {
                self.list_problem(&name, error);
            }
            let enabled = self.config.model(&name).enabled == Enabled::Yes;
            if !enabled {
                self.tell(&name, DISABLED);
            }
            let wanted = self.config.repository.startup.includes(&name) && enabled;
            self.keeper(&name);
            self.routes.update(&name, |_| {});
            if wanted {
                first.insert(name);
            }
        }
        let counted = match &self.config.repository.required {
            config::Required::Startup => first.clone(),
            config::Required::Listed(names) => names.clone(),
        };
        self.routes.require(|_| Required { counted: counted.clone(), ..Required::default() });
        info!(models = self.keepers.len(), loading = first.len(), "repository read");
        for name in first {
            let (done, _outcome) = oneshot::channel();
            self.ask(&name, Ask::Load(done));
        }
    }

    fn list_problem(&self, name: &ModelName, error: &ScanError) {
        let reason = error.reason();
        warn!(model = name.as_str(), reason, "model unavailable");
        self.tell(name, &reason);
    }

    /// Why a model has no version.
    pub(super) fn tell(&self, name: &ModelName, problem: &str) {
        self.routes.update(name, |entry| entry.problem = Some(problem.to_owned()));
        let enabled = self.config.model(name).enabled == Enabled::Yes;
        let card = ModelCard { enabled, problem: problem.to_owned(), ..ModelCard::default() };
        self.kit.board.hang(name, &card);
    }

    /// Serves wishes, and takes in other configurations, until the server ends and every process is
    /// gone.
    pub async fn run(
        mut self,
        mut wishes: mpsc::Receiver<Demand>,
        mut reloads: mpsc::Receiver<Order>,
        mut end: mpsc::Receiver<Ending>,
        mut pulse: Answers,
    ) {
        loop {
            tokio::select! {
                wish = wishes.recv() => match wish {
                    Some(demand) => self.grant(demand),
                    None => return,
                },
                () = pulse.answer() => {}
                Some(order) = reloads.recv() => self.reload(order),
                Some(looked) = self.looks.join_next() => self.load_new(looked),
                Some(gone) = self.farewells.join_next_with_id() => self.bury(gone),
                ending = end.recv() => match ending {
                    Some(Ending::Drain(drained)) => {
                        wishes.close();
                        self.shut_down(&mut end).await;
                        // Whoever waited may have lost patience.
                        let _gone = drained.send(());
                        return;
                    }
                    Some(Ending::Kill) | None => {
                        self.kill().await;
                        return;
                    }
                },
            }
        }
    }

    fn grant(&mut self, demand: Demand) {
        let Demand { model, wish, done } = demand;
        let known = self.keepers.contains_key(&model) && !self.leaving.contains_key(&model);
        match (wish, known) {
            (Wish::Unload(_) | Wish::Restart | Wish::Reset, false) => {
                refuse(done, unknown(&model));
            }
            (Wish::Unload(answered), true) => self.ask(&model, Ask::Unload(done, answered)),
            (Wish::Restart, true) => self.ask(&model, Ask::Restart(done)),
            (Wish::Reset, true) => self.ask(&model, Ask::Reset(done)),
            (Wish::Load, true) => self.ask(&model, Ask::Load(done)),
            (Wish::Load, false) if self.looks.len() >= LOOKS => {
                let message = "too many models that are not known yet are being looked for";
                refuse(done, RequestError::new(What::NotReady, message));
            }
            (Wish::Load, false) => {
                // A disk that takes its time must not keep the other models' wishes waiting.
                let scanner = self.scanner.clone();
                self.looks.spawn(async move {
                    let found = scanner.look_at(&model).await.map(drop);
                    Looked { model, found, done }
                });
            }
        }
    }

    /// A model that was not there at the start.
    fn load_new(&mut self, looked: Result<Looked, JoinError>) {
        let Ok(Looked { model, found, done }) = looked else { return };
        let most = self.config.limits.max_models;
        let is_known = self.keepers.contains_key(&model);
        if !is_known && u32::try_from(self.keepers.len()).is_ok_and(|models| models >= most) {
            let message = format!("failed to load '{model}', limits.max_models = {most} are known");
            return refuse(done, RequestError::invalid(message));
        }
        match found {
            Err(ScanError::NotFound) => {
                let message = format!("failed to load '{model}', it is in no repository");
                refuse(done, RequestError::new(What::UnknownModel, message));
            }
            Err(ScanError::NotRead(error)) => {
                let message = format!("failed to load '{model}', {error}");
                refuse(done, RequestError::new(What::NotReady, message));
            }
            // Whatever else is wrong with it is said by its task.
            Ok(()) | Err(_) => {
                self.leaving.remove(&model);
                self.ask(&model, Ask::Load(done));
            }
        }
    }

    async fn shut_down(&mut self, end: &mut mpsc::Receiver<Ending>) {
        let mut outcomes = Vec::new();
        for keeper in self.keepers.values() {
            let (done, outcome) = oneshot::channel();
            // A task that has ended has no process; one that is stuck is left to the kill.
            if keeper.try_send(Ask::Shutdown(done)).is_ok() {
                outcomes.push(outcome);
            }
        }
        for outcome in outcomes {
            tokio::select! {
                _ended = outcome => {}
                Some(_) = end.recv() => {
                    self.kill().await;
                    return;
                }
            }
        }
    }

    /// Kills every worker and waits until none is left; whoever calls this sets the limit.
    async fn kill(&self) {
        let mut outcomes = Vec::new();
        for keeper in self.keepers.values() {
            let (done, outcome) = oneshot::channel();
            // A task that has ended has no process; one whose inbox is full is not waited for.
            if keeper.try_send(Ask::Kill).is_ok() && keeper.try_send(Ask::Shutdown(done)).is_ok() {
                outcomes.push(outcome);
            }
        }
        for outcome in outcomes {
            let _ended = outcome.await;
        }
    }

    /// Never waits: one model's task that is slow must not keep the others' from being asked.
    fn ask(&mut self, model: &ModelName, ask: Ask) {
        let full = "too many wishes for this model are waiting";
        match self.keeper(model).try_send(ask) {
            Ok(()) => {}
            Err(TrySendError::Full(
                Ask::Load(done)
                | Ask::Unload(done, _)
                | Ask::Restart(done)
                | Ask::Reset(done)
                | Ask::Shutdown(done),
            )) => {
                refuse(done, RequestError::new(What::NotReady, full));
            }
            // If the task has ended, the sender inside is dropped and its waiter is told.
            Err(TrySendError::Full(Ask::Kill | Ask::Reconfigure(_)) | TrySendError::Closed(_)) => {}
        }
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// The models that have a task and are to keep it.
    pub(super) fn known(&self) -> impl Iterator<Item = &ModelName> {
        self.keepers.keys().filter(|name| !self.leaving.contains_key(*name))
    }

    /// Takes over another configuration, for models that come.
    pub(super) fn adopt(&mut self, config: Config) {
        self.scanner = Scanner::new(&config);
        self.config = config;
    }

    /// Hands a model's task other settings; `Err` if it has too much to do.
    pub(super) fn reconfigure(
        &mut self,
        model: &ModelName,
        ask: Reconfigure,
    ) -> Result<(), TrySendError<Ask>> {
        self.leaving.remove(model);
        self.keeper(model).try_send(Ask::Reconfigure(Box::new(ask)))
    }

    /// Ends a model's task when `forgotten` is told.
    pub(super) fn see_off(&mut self, model: &ModelName, forgotten: oneshot::Receiver<()>) {
        let name = model.clone();
        let task = self.farewells.spawn(async move {
            let _told_or_dropped = forgotten.await;
            name
        });
        self.leaving.insert(model.clone(), task.id());
    }

    /// The task ends with its inbox, unless somebody has wished for the model again.
    fn bury(&mut self, gone: Result<(task::Id, ModelName), JoinError>) {
        if let Ok((task, name)) = gone
            && self.leaving.get(&name) == Some(&task)
        {
            self.leaving.remove(&name);
            self.keepers.remove(&name);
        }
    }

    fn keeper(&mut self, model: &ModelName) -> &mpsc::Sender<Ask> {
        self.keepers.entry(model.clone()).or_insert_with(|| {
            let parts = KeeperParts {
                settings: self.config.model(model).clone(),
                scanner: self.scanner.clone(),
                kit: self.kit.clone(),
                routes: self.routes.clone(),
            };
            let (asks, inbox) = mpsc::channel(ASKS);
            tokio::spawn(Keeper::new(model.clone(), parts).run(inbox));
            asks
        })
    }
}

fn refuse(done: Done, error: RequestError) {
    let _gone = done.send(Err(error));
}

fn unknown(model: &ModelName) -> RequestError {
    let message = format!("Request for unknown model: '{model}' is not found");
    RequestError::new(What::UnknownModel, message)
}
