//! The board: a card for each model, and word when any of them changes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use proto::admin::status::{Instance, Model, Version};
use shared::id::{ModelName, ModelVersion};
use tokio::sync::watch;

/// A handle; all share the same board.
#[derive(Clone, Debug)]
pub struct Board(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    models: ArcSwap<BTreeMap<ModelName, ModelCard>>,
    /// How often anything has changed.
    changes: watch::Sender<u64>,
}

#[derive(Clone, Debug, Default)]
pub struct ModelCard {
    pub enabled: bool,
    pub problem: String,
    pub versions: BTreeMap<ModelVersion, VersionCard>,
}

#[derive(Clone, Debug)]
pub struct VersionCard {
    /// As the repository index says it.
    pub state: &'static str,
    pub reason: String,
    pub platform: String,
    pub instances: Vec<InstanceCard>,
}

/// How one instance does at the moment when it is asked.
#[derive(Clone)]
pub struct InstanceCard(Arc<dyn Fn() -> Instance + Send + Sync>);

impl InstanceCard {
    pub fn new(look: impl Fn() -> Instance + Send + Sync + 'static) -> Self {
        Self(Arc::new(look))
    }

    #[must_use]
    pub fn look(&self) -> Instance {
        (self.0)()
    }
}

impl fmt::Debug for InstanceCard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InstanceCard")
    }
}

impl Default for Board {
    fn default() -> Self {
        Self(Arc::new(Shared { models: ArcSwap::default(), changes: watch::Sender::new(0) }))
    }
}

impl Board {
    /// Hangs up a card in place of the model's last one.
    pub fn hang(&self, model: &ModelName, card: &ModelCard) {
        self.0.models.rcu(|models| {
            let mut models = BTreeMap::clone(models);
            models.insert(model.clone(), card.clone());
            models
        });
        self.changed();
    }

    /// Takes a model's card down.
    pub fn take_down(&self, model: &ModelName) {
        self.0.models.rcu(|models| {
            let mut models = BTreeMap::clone(models);
            models.remove(model);
            models
        });
        self.changed();
    }

    /// Something that cards show has changed.
    pub fn changed(&self) {
        self.0.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    /// Hears of changes from now on; several that follow each other may be heard as one.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// All models as they are now, by name, without their traffic.
    #[must_use]
    pub fn models(&self) -> Vec<Model> {
        self.0.models.load().iter().map(|(name, card)| card.look(name)).collect()
    }

    #[must_use]
    pub fn model(&self, name: &ModelName) -> Option<Model> {
        self.0.models.load().get(name).map(|card| card.look(name))
    }
}

impl ModelCard {
    fn look(&self, name: &ModelName) -> Model {
        let version = |(version, card): (&ModelVersion, &VersionCard)| Version {
            version: version.get(),
            state: card.state.to_owned(),
            reason: card.reason.clone(),
            platform: card.platform.clone(),
            instances: card.instances.iter().map(InstanceCard::look).collect(),
            traffic: None,
        };
        Model {
            name: name.to_string(),
            enabled: self.enabled,
            problem: self.problem.clone(),
            versions: self.versions.iter().map(version).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::sync::{AtomicU64, Ordering};

    use super::*;

    fn instance(reason: String) -> Instance {
        Instance {
            index: 0,
            state: "ready".into(),
            reason,
            worker: None,
            loaded: None,
            exits: BTreeMap::new(),
            last_exit: None,
        }
    }

    #[test]
    fn cards_are_looked_at_when_somebody_looks() {
        let (board, looks) = (Board::default(), Arc::new(AtomicU64::new(0)));
        let (name, version) = (ModelName::new("m").unwrap(), ModelVersion::new(3).unwrap());
        let counted = Arc::clone(&looks);
        let look = move || instance(counted.fetch_add(1, Ordering::Relaxed).to_string());
        let card = VersionCard {
            state: "READY",
            reason: String::new(),
            platform: "echo".into(),
            instances: vec![InstanceCard::new(look)],
        };
        let card = ModelCard { versions: [(version, card)].into(), ..ModelCard::default() };
        let changes = board.changes();
        board.hang(&name, &card);
        assert!(changes.has_changed().unwrap());
        assert_eq!(looks.load(Ordering::Relaxed), 0);
        let reason = |models: &[Model]| models[0].versions[0].instances[0].reason.clone();
        assert_eq!((reason(&board.models()), reason(&board.models())), ("0".into(), "1".into()));
        assert_eq!(board.model(&name).unwrap().versions[0].version, 3);
        board.take_down(&name);
        assert!(board.models().is_empty() && board.model(&name).is_none());
    }
}
