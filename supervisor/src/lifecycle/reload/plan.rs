//! What a reload wishes for each model; pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use shared::id::ModelName;
use shared::text::chain;

use super::report::Scope;
use crate::config::{self, Config, Enabled};
use crate::repository::{Scan, ScanError, ScanProblem};
use crate::route::Required;

/// What the repositories hold, as far as it could be read.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    pub models: BTreeMap<ModelName, Found>,
    pub problems: Vec<String>,
    pub sighted: Sighted,
}

/// Whether a model that was not found is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sighted {
    /// Everything was read.
    #[default]
    All,
    /// A repository, or a part of one, could not be read.
    InPart,
}

/// One model's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    At(PathBuf),
    /// It is there and cannot be read.
    Unreadable(String),
}

/// What is wished for one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) enum Wish {
    /// To go on as it is, with its settings.
    Stay,
    /// The same for a model that the start loads: what had no room for it may have by now.
    Serve,
    /// To be loaded, unless it is.
    Load,
    /// To be loaded anew if it is loaded, or could not be.
    Renew,
    /// To be unloaded and not to be loaded.
    Disable,
    /// To be unloaded and forgotten: it is in no repository.
    Forget,
}

/// What is wished for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) wishes: BTreeMap<ModelName, Wish>,
    /// Models that `limits.max_models` leaves out.
    pub(super) left_out: BTreeSet<ModelName>,
}

/// What there was before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before<'a> {
    pub(super) config: &'a Config,
    /// The models that have a task.
    pub(super) known: &'a BTreeSet<ModelName>,
}

impl From<Scan> for Survey {
    fn from(scan: Scan) -> Self {
        let in_part = scan.problems.iter().any(|problem| match problem {
            ScanProblem::Repository { .. }
            | ScanProblem::TooManyEntries { .. }
            | ScanProblem::TooManyModels { .. } => true,
            ScanProblem::Name { .. } => false,
        });
        let found = |found: Result<_, ScanError>| match found {
            Ok(crate::repository::ModelFolder { path, .. }) => Found::At(path),
            Err(error) => Found::Unreadable(error.reason()),
        };
        Self {
            models: scan.models.into_iter().map(|(name, folder)| (name, found(folder))).collect(),
            problems: scan.problems.iter().map(|problem| chain(problem)).collect(),
            sighted: if in_part { Sighted::InPart } else { Sighted::All },
        }
    }
}

impl Plan {
    pub(super) fn new(scope: &Scope, before: Before<'_>, new: &Config, survey: &Survey) -> Self {
        match scope {
            Scope::Model(name) => Self::of_one(name, before, new),
            Scope::Everything => Self::of_all(before, new, survey),
        }
    }

    /// Which models must be ready from now on. One that was not required before counts from when it
    /// serves; what is disabled or gone is not missed.
    pub(super) fn required(&self, new: &Config, before: Before<'_>, old: &Required) -> Required {
        let goes = |name: &&ModelName| {
            matches!(self.wishes.get(*name), Some(Wish::Disable | Wish::Forget))
        };
        let starts = |name: &&ModelName| {
            new.repository.startup.includes(name) && is_enabled(new, name) && !goes(name)
        };
        let all: BTreeSet<&ModelName> = match &new.repository.required {
            config::Required::Listed(names) => names.iter().collect(),
            config::Required::Startup => {
                before.known.iter().chain(self.wishes.keys()).filter(starts).collect()
            }
        };
        let counts = |name: &&ModelName| old.counted.contains(*name) && !goes(name);
        let (counted, awaited): (BTreeSet<_>, BTreeSet<_>) = all.into_iter().partition(counts);
        Required {
            counted: counted.into_iter().cloned().collect(),
            awaited: awaited.into_iter().cloned().collect(),
        }
    }

    fn of_one(name: &ModelName, before: Before<'_>, new: &Config) -> Self {
        let mut plan = Self::default();
        let is_known = before.known.contains(name);
        if !is_known && before.known.len() >= most(new) {
            plan.left_out.insert(name.clone());
            return plan;
        }
        let wish = match (is_enabled(new, name), is_known) {
            (false, _) => Wish::Disable,
            (true, true) => Wish::Renew,
            (true, false) => Wish::Load,
        };
        plan.wishes.insert(name.clone(), wish);
        plan
    }

    fn of_all(before: Before<'_>, new: &Config, survey: &Survey) -> Self {
        let mut plan = Self::default();
        for name in before.known {
            plan.wishes.insert(name.clone(), known(name, before.config, new, survey));
        }
        for name in survey.models.keys().filter(|name| !before.known.contains(*name)) {
            let stay = plan.wishes.values().filter(|&&wish| wish != Wish::Forget).count();
            if stay >= most(new) {
                plan.left_out.insert(name.clone());
                continue;
            }
            let starts = new.repository.startup.includes(name);
            let wish = match (is_enabled(new, name), starts) {
                (false, _) => Wish::Disable,
                (true, true) => Wish::Load,
                (true, false) => Wish::Stay,
            };
            plan.wishes.insert(name.clone(), wish);
        }
        plan
    }
}

fn known(name: &ModelName, old: &Config, new: &Config, survey: &Survey) -> Wish {
    if survey.sighted == Sighted::All && !survey.models.contains_key(name) {
        return Wish::Forget;
    }
    let begins =
        |config: &Config| is_enabled(config, name) && config.repository.startup.includes(name);
    match (is_enabled(new, name), begins(old), begins(new)) {
        (false, _, _) => Wish::Disable,
        (true, false, true) => Wish::Load,
        (true, true, true) => Wish::Serve,
        (true, _, false) => Wish::Stay,
    }
}

fn most(config: &Config) -> usize {
    usize::try_from(config.limits.max_models).unwrap_or(usize::MAX)
}

fn is_enabled(config: &Config, name: &ModelName) -> bool {
    config.model(name).enabled == Enabled::Yes
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
