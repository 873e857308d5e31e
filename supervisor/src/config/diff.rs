//! Third pass: what a second configuration changes in a server that runs with the first.

use std::collections::{BTreeMap, BTreeSet};

use shared::id::ModelName;

use super::flat::{Effect, Entry};
use super::settings::Config;

/// Old against new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// In the order of [`Config::entries`].
    pub changes: Vec<Change>,
    /// Models with a section of their own, in either configuration.
    touched: BTreeSet<ModelName>,
    untouched: BTreeSet<ModelName>,
    /// Whether a model without a section of its own is touched.
    defaults_touched: bool,
}

/// One key whose value differs. A section that is new or gone is told key by key against the
/// defaults that hold without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: String,
    pub old: String,
    pub new: String,
    pub effect: Effect,
}

impl Diff {
    pub fn between(old: &Config, new: &Config) -> Self {
        let names: BTreeSet<ModelName> =
            old.models.keys().chain(new.models.keys()).cloned().collect();
        let (touched, untouched) =
            names.iter().cloned().partition(|name| old.model(name) != new.model(name));
        Self {
            changes: changes(&with_sections(old, &names), &with_sections(new, &names)),
            touched,
            untouched,
            defaults_touched: old.defaults != new.defaults,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether the settings of this model differ, by its own section or by the defaults.
    pub fn touches(&self, name: &ModelName) -> bool {
        match (self.touched.contains(name), self.untouched.contains(name)) {
            (true, _) => true,
            (false, true) => false,
            (false, false) => self.defaults_touched,
        }
    }

    /// The changes that hold only after a restart of the server.
    pub fn needs_restart(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.effect == Effect::Server)
    }
}

/// The same configuration with every section that either has, so that all keys can be compared.
fn with_sections(config: &Config, names: &BTreeSet<ModelName>) -> Vec<Entry> {
    let models = names.iter().map(|name| (name.clone(), config.model(name).clone()));
    Config { models: models.collect(), ..config.clone() }.entries()
}

fn changes(old: &[Entry], new: &[Entry]) -> Vec<Change> {
    let before: BTreeMap<&str, &str> =
        old.iter().map(|entry| (&*entry.key, &*entry.value)).collect();
    let changed = new.iter().filter_map(|entry| {
        let old = before.get(&*entry.key).filter(|old| **old != entry.value)?;
        Some(Change {
            key: entry.key.clone(),
            old: (*old).to_owned(),
            new: entry.value.clone(),
            effect: entry.effect,
        })
    });
    changed.collect()
}
