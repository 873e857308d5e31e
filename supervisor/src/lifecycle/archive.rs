//! The histories of all instances: where drivers write them and status is read from.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use shared::clock::MonotonicNanos;
use shared::id::{InstanceId, ModelName, ModelVersion};

use super::effect::ExitRecord;
use super::history::{History, LastWords, Moment};

/// A handle; all share the same histories.
#[derive(Clone, Debug, Default)]
pub struct Archive(Arc<Mutex<BTreeMap<InstanceId, Arc<History>>>>);

impl Archive {
    /// What is known of an instance; empty if nothing is.
    pub fn of(&self, instance: &InstanceId) -> Arc<History> {
        self.lock().get(instance).cloned().unwrap_or_default()
    }

    /// What is known of all instances of a model.
    #[must_use]
    pub fn of_model(&self, model: &ModelName) -> Vec<(InstanceId, Arc<History>)> {
        let histories = self.lock();
        let of_model = histories.iter().filter(|(instance, _)| instance.model == *model);
        of_model.map(|(instance, history)| (instance.clone(), Arc::clone(history))).collect()
    }

    /// Adds an end that was seen now.
    pub(super) fn add(&self, instance: &InstanceId, record: &ExitRecord, last_words: LastWords) {
        let mut histories = self.lock();
        let history = histories.entry(instance.clone()).or_default();
        // Copies only while somebody reads it, and then a few pointers.
        Arc::make_mut(history).add(record, now(), last_words);
    }

    /// Forgets the versions of a model that are not among these, so that years of deployments do
    /// not pile up.
    pub(super) fn keep(&self, model: &ModelName, keeps: impl Fn(ModelVersion) -> bool) {
        self.lock().retain(|instance, _| instance.model != *model || keeps(instance.version));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Arc<History>>> {
        // The histories are whole after each call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn now() -> Moment {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let wall_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    Moment { wall_ms, monotonic: MonotonicNanos::now() }
}
