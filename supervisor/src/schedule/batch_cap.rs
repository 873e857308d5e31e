//! How large a batch a model version takes at the moment.
//!
//! The configuration says how large one may be. If such a batch ran out of memory and ended its
//! worker, a smaller one may fit; the version is the one place that all its instances share. While an
//! instance is short of device memory, they are half as large, too.

use std::sync::Arc;

use shared::sync::{AtomicU32, Ordering};

use crate::request::{RequestError, What};

#[derive(Debug)]
pub struct BatchCap {
    /// 0: the model does not batch, and nothing can be reduced.
    configured: u32,
    /// Relaxed everywhere: a number that stands for itself.
    largest: AtomicU32,
    /// How many instances are short of memory now.
    squeezed: AtomicU32,
}

/// As long as this lives, batches are half as large.
#[derive(Debug)]
pub struct Squeeze(Arc<BatchCap>);

impl Drop for Squeeze {
    fn drop(&mut self) {
        self.0.squeezed.fetch_sub(1, Ordering::Relaxed);
    }
}

impl BatchCap {
    #[must_use]
    pub fn new(configured: u32) -> Self {
        Self { configured, largest: AtomicU32::new(configured), squeezed: AtomicU32::new(0) }
    }

    /// An instance is short of memory until what this returns is dropped.
    #[must_use]
    pub fn squeeze(self: &Arc<Self>) -> Squeeze {
        self.squeezed.fetch_add(1, Ordering::Relaxed);
        Squeeze(Arc::clone(self))
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
        let largest = match self.squeezed.load(Ordering::Relaxed) {
            0 => largest,
            _ => (largest / 2).max(1).min(largest),
        };
        (largest < self.configured).then_some(largest)
    }

    /// Refuses a batch of so many rows if it is larger than what fits memory.
    pub fn check(&self, model: &str, rows: u64) -> Result<(), RequestError> {
        match self.reduced() {
            Some(largest) if rows > u64::from(largest) => {
                let message = format!(
                    "model '{model}' takes batches of at most {largest} now, since memory is short or \
                     a larger one ran out of it, not of {rows}"
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
    fn batches_are_smaller_while_anybody_is_short_of_memory() {
        let cap = Arc::new(BatchCap::new(8));
        let (first, second) = (cap.squeeze(), cap.squeeze());
        assert_eq!(cap.reduced(), Some(4));
        drop(first);
        cap.reduce();
        assert_eq!(cap.reduced(), Some(2));
        drop(second);
        assert_eq!(cap.reduced(), Some(4));
        let cap = Arc::new(BatchCap::new(1));
        let _squeeze = cap.squeeze();
        assert_eq!((cap.reduced(), cap.check("m", 1)), (None, Ok(())));
    }

    #[test]
    fn a_model_that_does_not_batch_is_not_reduced() {
        let cap = BatchCap::new(0);
        cap.reduce();
        assert_eq!((cap.reduced(), cap.check("m", 9)), (None, Ok(())));
    }
}
