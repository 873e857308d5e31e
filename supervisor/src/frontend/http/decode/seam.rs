//! What decoding needs from below, so that tests can stand in for admission.

use shared::tensor::TensorSpec;
use tokio::time::Instant;

use crate::admission::Admitted;
use crate::request::{InferHead, RequestError};

/// One model, before its request is admitted.
pub(crate) trait Gate {
    type Slot: Slot;

    fn model(&self) -> &str;

    /// The model's inputs, for bodies that do not declare any.
    fn inputs(&self) -> Result<Vec<TensorSpec>, RequestError>;

    async fn admit(&self, head: &InferHead) -> Result<Self::Slot, RequestError>;
}

/// A place for a request's inputs.
pub(crate) trait Slot {
    /// Exactly as long as the head that was admitted declares input `i`.
    fn input_mut(&mut self, i: usize) -> &mut [u8];

    fn deadline(&self) -> Instant;
}

impl Slot for Admitted {
    fn input_mut(&mut self, i: usize) -> &mut [u8] {
        Admitted::input_mut(self, i)
    }

    fn deadline(&self) -> Instant {
        Admitted::deadline(self)
    }
}
