//! The catalog's part: it hands each model's task what is wished for it, and waits for none of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shared::id::ModelName;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::plan::{Before, Found, Plan, Survey, Wish};
use super::report::{ModelReport, Outcome, Scope};
use crate::config::Config;
use crate::lifecycle::catalog::Catalog;
use crate::lifecycle::keeper::{Begun, Ending, Reconfigure, Work};
use crate::repository::Scanner;

/// Another configuration, for the catalog.
#[derive(Debug)]
pub struct Order {
    pub scope: Scope,
    /// What the server runs with from now on.
    pub config: Config,
    pub survey: Survey,
    /// Told when every model has been told.
    pub applied: oneshot::Sender<Applied>,
}

/// What is under way.
#[derive(Debug)]
pub struct Applied {
    begun: BTreeMap<ModelName, Begin>,
    /// Models that are new and not loaded.
    listed: BTreeSet<ModelName>,
    problems: Vec<String>,
}

/// What is known of one model's part.
#[derive(Debug)]
enum Begin {
    Asked {
        begun: oneshot::Receiver<Begun>,
        /// How long it is waited for.
        patience: Duration,
    },
    Refused(String),
}

/// What came of it all.
#[derive(Debug)]
pub struct Outcomes {
    pub models: Vec<ModelReport>,
    pub problems: Vec<String>,
}

/// How long it is waited for a model beyond the time that its load may take: for its old workers, or
/// for a restart in between.
const PATIENCE: Duration = Duration::from_secs(30);

impl Catalog {
    pub(in crate::lifecycle) fn reload(&mut self, order: Order) {
        let Order { scope, config, survey, applied } = order;
        let known: BTreeSet<ModelName> = self.known().cloned().collect();
        let before = Before { config: self.config(), known: &known };
        let plan = Plan::new(&scope, before, &config, &survey);
        self.routes().require(|required| plan.required(&config, before, required));
        self.adopt(config);
        let most = self.config().limits.max_models;
        let mut listed = BTreeSet::new();
        let mut begun = BTreeMap::new();
        for (name, &wish) in &plan.wishes {
            let found = survey.models.get(name);
            if !known.contains(name) {
                self.list(name, found, wish);
                if matches!(wish, Wish::Stay | Wish::Disable) {
                    listed.insert(name.clone());
                }
            }
            begun.insert(name.clone(), self.wish(name, wish, found));
        }
        let mut problems = survey.problems;
        problems.extend(
            plan.left_out
                .iter()
                .map(|name| format!("{name} is left out, because limits.max_models is {most}")),
        );
        // Whoever asked has gone; what was begun goes on.
        let _gone = applied.send(Applied { begun, listed, problems });
    }

    /// As at the start of the server.
    fn list(&mut self, name: &ModelName, found: Option<&Found>, wish: Wish) {
        match (found, wish) {
            (Some(Found::Unreadable(reason)), _) => self.tell(name, reason),
            (Some(Found::At(_)) | None, _) => self.routes().update(name, |_| {}),
        }
    }

    fn wish(&mut self, name: &ModelName, wish: Wish, found: Option<&Found>) -> Begin {
        let (begun, told) = oneshot::channel();
        let home = found.and_then(|found| match found {
            Found::At(path) => Some(path.clone()),
            Found::Unreadable(_) => None,
        });
        let config = self.config();
        let (settings, scanner) = (config.model(name).clone(), Scanner::new(config));
        let patience = settings.worker.load_timeout.saturating_add(PATIENCE);
        let (forgotten, gone) = oneshot::channel();
        let ask = Reconfigure { settings, scanner, wish, home, begun, forgotten };
        if self.reconfigure(name, ask).is_err() {
            return Begin::Refused("too many requests to load or unload it are waiting".to_owned());
        }
        if wish == Wish::Forget {
            self.see_off(name, gone);
        }
        Begin::Asked { begun: told, patience }
    }
}

impl Applied {
    /// Waits for what was begun, for each model so long and no longer.
    pub async fn settled(self) -> Outcomes {
        let Self { begun, listed, problems } = self;
        let began = Instant::now();
        let mut models = Vec::new();
        for (model, begin) in begun {
            let outcome = match begin {
                Begin::Refused(reason) => Some(Outcome::Failed(reason)),
                Begin::Asked { begun, patience } => {
                    let outcome = timeout_at(began + patience, outcome(begun)).await;
                    outcome.unwrap_or(Some(Outcome::Underway))
                }
            };
            let outcome = match outcome {
                None if listed.contains(&model) => Some(Outcome::Listed),
                outcome => outcome,
            };
            models.extend(outcome.map(|outcome| ModelReport { model, outcome }));
        }
        Outcomes { models, problems }
    }
}

/// What became of one model; `None` if nothing had to be done.
async fn outcome(told: oneshot::Receiver<Begun>) -> Option<Outcome> {
    let ending = || Outcome::Failed("the server is shutting down".to_owned());
    let Ok(begun) = told.await else { return Some(ending()) };
    let Begun { work, done } = begun;
    let result = match done {
        None => Ok(()),
        Some(done) => match done.await {
            Ok(Ending::Reached) => Ok(()),
            Ok(Ending::Failed(reason)) => Err(reason),
            Ok(Ending::Overtaken) => return Some(Outcome::Overtaken),
            Err(_ended) => return Some(ending()),
        },
    };
    match (work, result) {
        (Work::Nothing, _) => None,
        (Work::Adjusted, _) => Some(Outcome::Adjusted),
        (Work::Kept, _) => Some(Outcome::Kept),
        (Work::Replacing, Ok(())) => Some(Outcome::Replaced),
        (Work::Replacing, Err(reason)) => Some(Outcome::NotReplaced(reason)),
        (Work::Loading, Ok(())) => Some(Outcome::Loaded),
        (Work::Loading | Work::Disabling | Work::Forgetting, Err(reason)) => {
            Some(Outcome::Failed(reason))
        }
        (Work::Disabling, Ok(())) => Some(Outcome::Disabled),
        (Work::Forgetting, Ok(())) => Some(Outcome::Gone),
    }
}
