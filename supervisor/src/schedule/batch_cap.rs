//! How large a batch a model version takes at the moment.
//!
//! The configuration says how large one may be. If such a batch ran out of memory and ended its
//! worker, a smaller one may fit; the version is the one place that all its instances share.

use shared::sync::{AtomicU32, Ordering};

use crate::request::{RequestError, What};

#[derive(Debug)]
pub struct BatchCap {
    /// 0: the model does not batch, and nothing can be reduced.
    configured: u32,
    /// Relaxed everywhere: a number that stands for itself.
    largest: AtomicU32,
}

impl BatchCap {
    #[must_use]
    pub fn new(configured: u32) -> Self {
        Self { configured, largest: AtomicU32::new(configured) }
    }

    /// Halves the largest batch, to 1 at least.
    pub fn reduce(&self) {
        let largest = self.largest.load(Ordering::Relaxed);
        self.largest.store((largest / 2).max(1).min(largest), Ordering::Relaxed);
    }

    /// The largest batch, if that is less than was configured.
    #[must_use]
    pub fn reduced(&self) -> Option<u32> {
        let largest = self.largest.load(Ordering::Relaxed);
        (largest < self.configured).then_some(largest)
    }

    /// Refuses a batch of so many rows if it is larger than what fits memory.
    pub fn check(&self, model: &str, rows: u64) -> Result<(), RequestError> {
        match self.reduced() {
            Some(largest) if rows > u64::from(largest) => {
                let message = format!(
                    "model '{model}' takes batches of at most {largest} since a larger one ran out \
                     of memory, not of {rows}"
                );
                Err(RequestError::new(What::OutOfMemory, message))
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reduction_halves_down_to_one() {
        let cap = BatchCap::new(5);
        assert_eq!((cap.reduced(), cap.check("m", 5)), (None, Ok(())));
        let mut seen = Vec::new();
        for _ in 0..4 {
            cap.reduce();
            seen.extend(cap.reduced());
        }
        assert_eq!(seen, [2, 1, 1, 1]);
        assert!(cap.check("m", 1).is_ok());
        let error = cap.check("m", 2).unwrap_err();
        assert_eq!(error.what, What::OutOfMemory);
        assert!(error.message.contains("at most 1"), "{error}");
    }

    #[test]
    fn a_model_that_does_not_batch_is_not_reduced() {
        let cap = BatchCap::new(0);
        cap.reduce();
        assert_eq!((cap.reduced(), cap.check("m", 9)), (None, Ok(())));
    }
}
