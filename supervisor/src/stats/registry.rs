//! The counters of all versions, by name, for as long as there is such a version.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use proto::admin::status::Traffic;
use shared::id::{ModelName, ModelVersion};
use shared::sync::{AtomicU64, Ordering};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::version::VersionStats;
use crate::request::What;

/// How often a window of the last minute ends.
pub const TURN: Duration = Duration::from_secs(5);

type Versions = BTreeMap<ModelVersion, Arc<VersionStats>>;

/// A handle; all share the same counters.
#[derive(Clone, Debug)]
pub struct Registry(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    models: ArcSwap<BTreeMap<ModelName, Versions>>,
    /// Inferences that no version got, by what the client was told.
    unrouted: [AtomicU64; What::ALL.len()],
}

impl Default for Registry {
    fn default() -> Self {
        let unrouted = std::array::from_fn(|_| AtomicU64::default());
        Self(Arc::new(Shared { models: ArcSwap::default(), unrouted }))
    }
}

impl Registry {
    /// The counters of a version, which are made when it is asked for first.
    #[must_use]
    pub fn of(&self, model: &ModelName, version: ModelVersion) -> Arc<VersionStats> {
        if let Some(known) = self.find(model.as_str(), version) {
            return known;
        }
        let fresh = Arc::new(VersionStats::new(Instant::now()));
        self.0.models.rcu(|models| {
            let mut models = BTreeMap::clone(models);
            let versions = models.entry(model.clone()).or_default();
            versions.entry(version).or_insert_with(|| Arc::clone(&fresh));
            models
        });
        // Somebody else may have been first.
        self.find(model.as_str(), version).unwrap_or(fresh)
    }

    /// The counters for a request that named this version, or none, while it was not served: those of the
    /// version, or of the newest. `None` if it was never loaded.
    #[must_use]
    pub fn known(&self, model: &str, version: Option<ModelVersion>) -> Option<Arc<VersionStats>> {
        let models = self.0.models.load();
        let versions = models.get(model)?;
        match version {
            Some(version) => versions.get(&version).cloned(),
            None => versions.values().next_back().cloned(),
        }
    }

    /// Forgets the versions of a model that are not among these, so that years of deployments do not pile
    /// up. One that comes back counts anew.
    pub fn keep(&self, model: &ModelName, keeps: impl Fn(ModelVersion) -> bool) {
        self.0.models.rcu(|models| {
            let mut models = BTreeMap::clone(models);
            if let Some(versions) = models.get_mut(model) {
                versions.retain(|version, _| keeps(*version));
            }
            models.retain(|_, versions| !versions.is_empty());
            models
        });
    }

    /// What has been asked of a version, ever and in the last minute; `None` if it was never loaded.
    #[must_use]
    pub fn traffic(&self, model: &str, version: ModelVersion) -> Option<Traffic> {
        self.find(model, version).map(|stats| stats.traffic(Instant::now()))
    }

    /// Every version that was loaded and has not been forgotten, by name.
    #[must_use]
    pub fn all(&self) -> Vec<(ModelName, ModelVersion, Arc<VersionStats>)> {
        let models = self.0.models.load();
        let versions = models.iter().flat_map(|(model, versions)| {
            versions.iter().map(|(version, stats)| (model.clone(), *version, Arc::clone(stats)))
        });
        versions.collect()
    }

    /// An inference for which there was no version.
    pub fn unrouted(&self, what: What) {
        self.0.unrouted[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    #[must_use]
    pub fn unrouted_so_far(&self) -> Vec<(What, u64)> {
        let count = |what: What| self.0.unrouted[what as usize].load(Ordering::Relaxed);
        let counts = What::ALL.into_iter().map(|what| (what, count(what)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// Ends a window of the last minute, for all versions.
    pub fn turn(&self, now: Instant) {
        for versions in self.0.models.load().values() {
            versions.values().for_each(|stats| stats.turn(now));
        }
    }

    /// Ends windows for as long as it is polled.
    pub async fn keep_turning(self) {
        let mut ticks = interval(TURN);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = ticks.tick().await;
            self.turn(now);
        }
    }

    fn find(&self, model: &str, version: ModelVersion) -> Option<Arc<VersionStats>> {
        self.0.models.load().get(model)?.get(&version).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Tally;

    #[test]
    fn counters_are_kept_by_name_and_outlive_who_asked_for_them() {
        let registry = Registry::default();
        let (name, one) = (ModelName::new("m").unwrap(), ModelVersion::new(1).unwrap());
        assert!(registry.traffic("m", one).is_none());
        Tally::begin(&registry.of(&name, one)).failed(What::Model);
        Tally::begin(&registry.of(&name, one)).failed(What::Model);
        let two = ModelVersion::new(2).unwrap();
        drop(registry.of(&name, two));
        assert_eq!(registry.traffic("m", one).unwrap().failed["BACKEND"], 2);
        assert_eq!(registry.traffic("m", two).unwrap().failed["BACKEND"], 0);
        assert_eq!(registry.all().len(), 2);
        let three = ModelVersion::new(3);
        assert!(registry.known("m", three).is_none() && registry.known("n", None).is_none());
        let newest = registry.known("m", None).unwrap();
        assert!(Arc::ptr_eq(&newest, &registry.of(&name, two)));
        registry.keep(&name, |version| version == one);
        assert_eq!((registry.all().len(), registry.known("m", Some(two)).is_none()), (1, true));
        registry.keep(&name, |_| false);
        assert!(registry.all().is_empty());
        registry.unrouted(What::UnknownModel);
        assert_eq!(registry.unrouted_so_far(), [(What::UnknownModel, 1)]);
    }
}
