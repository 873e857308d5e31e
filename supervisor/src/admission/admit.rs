//! The road of one request.

use std::sync::Arc;

use shared::id::{ModelVersion, RequestId};
use tokio::time::Instant;

use crate::lane::{Input, Lease, Outputs, Pending, Reply, RunError, Unpublished};
use crate::request::{InferHead, RequestError, What};
use crate::route::Route;
use crate::schema::{Fitted, Schema};

/// A request that has a slot; its inputs can be written.
#[derive(Debug)]
pub struct Admitted {
    id: RequestId,
    route: Arc<Route>,
    schema: Arc<Schema>,
    lease: Lease,
    inputs: Vec<Input>,
    outputs: Outputs,
    deadline: Instant,
}

/// Checks `head` against the route's schema and waits for a slot, at most until `deadline`. If the
/// model is loaded anew meanwhile, the request goes to what has taken the route's place, but never
/// to another version than `asked`.
pub async fn admit(
    route: &Arc<Route>,
    asked: Option<ModelVersion>,
    head: &InferHead,
    deadline: Instant,
) -> Result<Admitted, RequestError> {
    let mut route = Arc::clone(route);
    let fits = |next: &Arc<Route>| asked.is_none_or(|version| version == next.version());
    loop {
        let schema = route.schema();
        let Fitted { inputs, outputs } = schema.fit(head)?;
        if let Some(rows) = schema.rows(head) {
            route.batch_cap().check(route.model(), rows)?;
        }
        let successor = || route.successor().filter(fits);
        match (route.queue().acquire(deadline).await, successor()) {
            (Ok(mut lease), _) => {
                lease.lay_out(&inputs)?;
                let id = route.next_request();
                return Ok(Admitted { id, route, schema, lease, inputs, outputs, deadline });
            }
            // The model was loaded anew between the look at the routes and now.
            (Err(error), Some(successor)) if error.what == What::NotReady => route = successor,
            (Err(error), _) => return Err(error),
        }
    }
}

/// What is needed to give a filled slot to a worker.
struct Slot<'a> {
    id: RequestId,
    route: &'a Arc<Route>,
    inputs: &'a [Input],
    wanted: u64,
    deadline: Instant,
}

impl Slot<'_> {
    /// Publishes, and if the worker has ended meanwhile, moves the inputs to a slot of the next.
    async fn publish(&self, mut lease: Lease) -> Result<Pending, RequestError> {
        loop {
            let mut filled = match lease.publish(self.id, self.wanted, self.deadline) {
                Ok(pending) => return Ok(pending),
                Err(Unpublished { error, lease }) if error.what == What::NotReady => lease,
                Err(Unpublished { error, .. }) => return Err(error),
            };
            lease = self.route.queue().acquire(self.deadline).await?;
            lease.lay_out(self.inputs)?;
            for i in 0..self.inputs.len() {
                lease.input_mut(i).copy_from_slice(filled.input_mut(i));
            }
        }
    }
}

impl Admitted {
    /// The bytes of input `i` of the head, to be written in full before [`Admitted::run`]; its
    /// length is `head.inputs[i].len`.
    pub fn input_mut(&mut self, i: usize) -> &mut [u8] {
        self.lease.input_mut(i)
    }

    /// Who answers: not the route that was asked for, if that was replaced meanwhile.
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// When this request must have been answered.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Hands the request to a worker and waits for its reply, at most until the deadline.
    pub async fn run(self) -> Result<Reply, RequestError> {
        let Self { id, route, schema, lease, inputs, outputs, deadline } = self;
        let slot = Slot { id, route: &route, inputs: &inputs, wanted: outputs.wanted, deadline };
        let pending = slot.publish(lease).await?;
        let completed = pending.answer(deadline).await.map_err(|error| match error {
            RunError::Ended(error) => error,
            RunError::Deadline => {
                let message = format!(
                    "model '{}' did not answer within the deadline of the request",
                    route.model()
                );
                RequestError::new(What::Deadline, message)
            }
        })?;
        let reply = completed.into_reply(&outputs, |desc| schema.output(desc))?;
        if let Some(schema) = schema.learned(&inputs, reply.descs()) {
            route.learn(schema);
        }
        Ok(reply)
    }
}
