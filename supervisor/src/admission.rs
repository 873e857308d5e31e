//! Checks a request against the model's schema, gives it a deadline and a slot.

use tokio::time::Instant;

use crate::lane::Reply;
use crate::request::{InferHead, RequestError};
use crate::route::Route;

/// A request that has a slot; its inputs can be written.
#[derive(Debug)]
pub struct Admitted {
    deadline: Instant,
}

/// Checks `head` against `route`'s schema and waits for a slot, at most until `deadline`.
pub async fn admit(
    route: &Route,
    head: &InferHead,
    deadline: Instant,
) -> Result<Admitted, RequestError> {
    unimplemented!("{route:?} {head:?} {deadline:?}")
}

impl Admitted {
    /// The bytes of input `i` of the head, to be written in full before [`Admitted::run`]; its
    /// length is `head.inputs[i].len`.
    pub fn input_mut(&mut self, i: usize) -> &mut [u8] {
        unimplemented!("{i}")
    }

    /// When this request must have been answered.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Hands the request to a worker and waits for its reply, at most until the deadline.
    pub async fn run(self) -> Result<Reply, RequestError> {
        unimplemented!()
    }
}
