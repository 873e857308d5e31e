//! What is asked to be reloaded, and what came of it.

use std::fmt;

use shared::id::ModelName;

use crate::config::{Change, Effect};

/// What is read anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The whole configuration and all repositories.
    Everything,
    /// One model's section and its folder.
    Model(ModelName),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadReport {
    /// Keys whose values differ from what the server runs with, old and new, in the order of
    /// [`crate::config::Config::entries`]. Those that need a restart keep their old value until then.
    pub changes: Vec<Change>,
    /// Models to which something was done, or should have been, by name.
    pub models: Vec<ModelReport>,
    /// What is wrong with repositories.
    pub problems: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelReport {
    pub model: ModelName,
    pub outcome: Outcome,
}

/// What became of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// New settings hold, without new workers.
    Adjusted,
    /// New workers have taken the place of the old ones.
    Replaced,
    Loaded,
    /// A new model, listed and not loaded.
    Listed,
    /// Not loaded; the new settings hold from its next load.
    Kept,
    Disabled,
    /// In no repository any more: unloaded and forgotten.
    Gone,
    /// The new workers do not serve, with the reason. The old ones still do, as before.
    NotReplaced(String),
    /// It could not be loaded, and does not serve.
    Failed(String),
    /// It has not come to an end in the time that a reload waits, and goes on.
    Underway,
    /// It had not come to an end when a later reload wished for something else.
    Overtaken,
}

impl ReloadReport {
    /// The changes that hold only after a restart of the server.
    pub fn needs_restart(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.effect == Effect::Server)
    }

    /// Whether all that was asked for is so, but for what needs a restart.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let is_so = |outcome: &Outcome| {
            outcome.failure().is_none()
                && !matches!(outcome, Outcome::Underway | Outcome::Overtaken)
        };
        self.models.iter().all(|report| is_so(&report.outcome))
    }
}

impl Outcome {
    /// A word for programs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Adjusted => "adjusted",
            Self::Replaced => "replaced",
            Self::Loaded => "loaded",
            Self::Listed => "listed",
            Self::Kept => "kept",
            Self::Disabled => "disabled",
            Self::Gone => "gone",
            Self::NotReplaced(_) => "not_replaced",
            Self::Failed(_) => "failed",
            Self::Underway => "underway",
            Self::Overtaken => "overtaken",
        }
    }

    /// Why it did not come to what was wished.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::NotReplaced(reason) | Self::Failed(reason) => Some(reason),
            Self::Adjusted
            | Self::Replaced
            | Self::Loaded
            | Self::Listed
            | Self::Kept
            | Self::Disabled
            | Self::Gone
            | Self::Underway
            | Self::Overtaken => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adjusted => f.write_str("new settings, same workers"),
            Self::Replaced => f.write_str("new workers took over"),
            Self::Loaded => f.write_str("loaded"),
            Self::Listed => f.write_str("found, not loaded"),
            Self::Kept => f.write_str("not loaded; its settings hold from the next load"),
            Self::Disabled => f.write_str("disabled"),
            Self::Gone => f.write_str("in no repository any more; unloaded"),
            Self::NotReplaced(reason) => write!(f, "not replaced: {reason}"),
            Self::Failed(reason) => write!(f, "failed: {reason}"),
            Self::Underway => f.write_str("still under way"),
            Self::Overtaken => f.write_str("a later reload has taken over"),
        }
    }
}

/// For a person: a line for each change and each model.
impl fmt::Display for ReloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { changes, models, problems } = self;
        if changes.is_empty() && models.is_empty() && problems.is_empty() {
            return f.write_str("nothing has changed\n");
        }
        for Change { key, old, new, effect } in changes {
            let restart =
                if *effect == Effect::Server { " (needs a restart of the server)" } else { "" };
            writeln!(f, "{key}: {old} -> {new}{restart}")?;
        }
        for ModelReport { model, outcome } in models {
            writeln!(f, "{model}: {outcome}")?;
        }
        for problem in problems {
            writeln!(f, "{problem}")?;
        }
        Ok(())
    }
}
