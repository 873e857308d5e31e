//! The table of suspects that all who serve one version of a model share.
//!
//! Owns the key of the fingerprints and the lock. Whoever sees a worker end tells it; whoever has a
//! request looks it up. It outlives the workers and a load anew of the same version; an unload
//! forgets it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use shared::clock::MonotonicNanos;
use shared::id::{ModelName, ModelVersion};
use shared::sync::{AtomicUsize, Ordering};
use shared::tensor::TensorDesc;
use tracing::{info, warn};

use super::suspects::{
    Conviction, Evidence, Fingerprint, Incarnation, PoisonPolicy, Standing, Suspects,
};

#[derive(Debug)]
pub struct Watchlist {
    model: ModelName,
    version: ModelVersion,
    /// Drawn at random, so that nobody can make two requests look alike.
    keys: RandomState,
    suspects: Mutex<Suspects>,
    /// Entries of the table, to be read without the lock.
    entries: AtomicUsize,
}

/// Takes in what a worker sees of a request, piece by piece.
#[derive(Debug)]
pub struct Prints<H>(H);

impl Watchlist {
    pub fn new(model: ModelName, version: ModelVersion, policy: PoisonPolicy) -> Self {
        let suspects = Mutex::new(Suspects::new(policy));
        Self { model, version, keys: RandomState::new(), suspects, entries: AtomicUsize::new(0) }
    }

    /// Whether anything could be held against anyone. All that a request costs while nothing is.
    pub fn is_empty(&self) -> bool {
        // A stale answer is one for a request that came a moment earlier.
        self.entries.load(Ordering::Relaxed) == 0
    }

    /// Whether crashes are held against requests at all.
    pub fn is_kept(&self) -> bool {
        self.lock().policy().after > 0
    }

    /// For a reload: convictions stay what they are, for as long as the new time says.
    pub fn set_policy(&self, policy: PoisonPolicy) {
        let mut suspects = self.lock();
        suspects.set_policy(policy);
        self.count(&suspects);
    }

    /// A fingerprint to be taken of a request that wants these outputs.
    pub fn prints(&self, wanted: u64) -> Prints<impl Hasher + use<>> {
        let mut hasher = self.keys.build_hasher();
        hasher.write_u64(wanted);
        Prints(hasher)
    }

    pub fn standing(&self, request: Fingerprint) -> Standing {
        let mut suspects = self.lock();
        let standing = suspects.standing(request, MonotonicNanos::now());
        self.count(&suspects);
        standing
    }

    /// A worker has ended with this request in flight.
    pub fn crashed(
        &self,
        request: Fingerprint,
        evidence: Evidence,
        worker: Incarnation,
    ) -> Standing {
        let mut suspects = self.lock();
        let standing = suspects.crashed(request, evidence, worker, MonotonicNanos::now());
        self.count(&suspects);
        drop(suspects);
        self.log(request, standing, worker);
        standing
    }

    /// A suspect was answered.
    pub fn answered(&self, request: Fingerprint) {
        let mut suspects = self.lock();
        let before = suspects.len();
        suspects.answered(request);
        self.count(&suspects);
        let unchanged = suspects.len() == before;
        drop(suspects);
        if unchanged {
            return;
        }
        let (model, version) = (self.model.as_str(), self.version.get());
        info!(model, version, fingerprint = %request, "request no longer suspect");
    }

    /// What is still held against requests that were in flight when `worker` ended. Ask soon:
    /// those that are answered leave the list.
    pub fn of_generation(&self, worker: Incarnation) -> Vec<Fingerprint> {
        self.lock().of_generation(worker)
    }

    fn log(&self, request: Fingerprint, standing: Standing, worker: Incarnation) {
        let (model, version) = (self.model.as_str(), self.version.get());
        let (instance, generation) = (worker.instance, worker.generation.0);
        match standing {
            Standing::Clear => {}
            Standing::Suspect => {
                warn!(model, version, instance, generation, fingerprint = %request, "request suspect");
            }
            Standing::Convicted(Conviction { crashes, left }) => {
                let refused_for = format!("{left:?}");
                warn!(
                    model,
                    version,
                    instance,
                    generation,
                    fingerprint = %request,
                    crashes,
                    refused_for,
                    "request convicted"
                );
            }
        }
    }

    fn count(&self, suspects: &Suspects) {
        self.entries.store(suspects.len(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Suspects> {
        // The table is whole after each call.
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H: Hasher> Prints<H> {
    /// One input: what it is, and its bytes without any padding.
    pub fn input(&mut self, desc: &TensorDesc, bytes: &[u8]) {
        let hasher = &mut self.0;
        hasher.write_u32(desc.index);
        hasher.write_u8(desc.dtype.code());
        hasher.write_usize(desc.shape.dims().len());
        for &dim in desc.shape.dims() {
            hasher.write_u64(dim);
        }
        hasher.write_usize(bytes.len());
        hasher.write(bytes);
    }

    pub fn finish(self) -> Fingerprint {
        Fingerprint(self.0.finish())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::tensor::{DataType, Shape};

    use super::*;

    fn watchlist() -> Watchlist {
        let policy = PoisonPolicy { after: 2, ttl: Duration::from_secs(600) };
        Watchlist::new(ModelName::new("m").unwrap(), ModelVersion::new(1).unwrap(), policy)
    }

    fn desc(index: u32, dtype: DataType, dims: &[u64], offset: usize) -> TensorDesc {
        TensorDesc { index, dtype, shape: Shape::new(dims).unwrap(), offset, len: 4 }
    }

    #[test]
    fn a_fingerprint_is_of_what_a_worker_sees_and_of_no_place() {
        let list = watchlist();
        let print = |wanted, desc: TensorDesc, bytes: &[u8]| {
            let mut prints = list.prints(wanted);
            prints.input(&desc, bytes);
            prints.finish()
        };
        let plain = desc(0, DataType::Uint8, &[4], 0);
        let first = print(1, plain, b"abcd");
        assert_eq!(print(1, TensorDesc { offset: 64, ..plain }, b"abcd"), first);
        let others = [
            print(2, plain, b"abcd"),
            print(1, plain, b"abce"),
            print(1, desc(1, DataType::Uint8, &[4], 0), b"abcd"),
            print(1, desc(0, DataType::Int8, &[4], 0), b"abcd"),
            print(1, desc(0, DataType::Uint8, &[2, 2], 0), b"abcd"),
        ];
        assert!(others.iter().all(|&other| other != first));
        let mut same = watchlist().prints(1);
        same.input(&plain, b"abcd");
        assert_ne!(same.finish(), first, "each list has a key of its own");
    }

    #[test]
    fn it_says_without_the_lock_whether_there_is_anything() {
        let list = watchlist();
        assert!(list.is_empty() && list.is_kept());
        let worker = Incarnation { instance: 1, generation: shared::id::Generation(3) };
        let standing = list.crashed(Fingerprint(5), Evidence::Alone, worker);
        assert_eq!(standing, Standing::Suspect);
        assert!(!list.is_empty());
        assert_eq!(list.of_generation(worker), [Fingerprint(5)]);
        assert_eq!(list.standing(Fingerprint(6)), Standing::Clear);
        list.answered(Fingerprint(5));
        assert!(list.is_empty());
    }
}
