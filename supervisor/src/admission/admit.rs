//! The road of one request.

use std::sync::Arc;

use shared::id::{ModelVersion, RequestId};
use tokio::time::Instant;

use super::road::Road;
use crate::lane::{Input, Lease, Order, Outputs, Reply};
use crate::request::{InferHead, Repeat, RequestError, What};
use crate::route::Route;
use crate::schedule::Claim;
use crate::schema::{Fitted, Schema};
use crate::stats::{Holding, Spent};
use crate::telemetry::traces::{Mark, Trail};

/// A request that has a slot; its inputs can be written.
#[derive(Debug)]
pub struct Admitted {
    id: RequestId,
    route: Arc<Route>,
    schema: Arc<Schema>,
    lease: Lease,
    inputs: Vec<Input>,
    outputs: Outputs,
    repeat: Repeat,
    deadline: Instant,
    /// Inferences in it.
    rows: u64,
    arrived: Instant,
    leased: Instant,
    holding: Holding,
}

/// What a worker has answered.
#[derive(Debug)]
pub struct Answered {
    pub reply: Reply,
    pub spent: Spent,
    holding: Holding,
}

impl Answered {
    /// Lets go of the slot in which the outputs lie.
    pub fn release(self) {
        drop((self.reply, self.holding));
    }
}

/// Checks `head` against the route's schema and waits for a slot, at most until `deadline`. If the
/// model is loaded anew meanwhile, the request goes to what has taken the route's place, but never
/// to another version than `asked`. `trail` takes note.
pub async fn admit(
    route: &Arc<Route>,
    asked: Option<ModelVersion>,
    head: &InferHead,
    (deadline, trail): (Instant, &Trail),
) -> Result<Admitted, RequestError> {
    let arrived = Instant::now();
    let mut route = Arc::clone(route);
    let fits = |next: &Arc<Route>| asked.is_none_or(|version| version == next.version());
    loop {
        let schema = route.schema();
        let Fitted { inputs, outputs } = schema.fit(head)?;
        let rows = schema.rows(head);
        trail.admitted(route.version().get(), rows);
        if let Some(rows) = rows {
            route.batch_cap().check(route.model(), rows)?;
        }
        trail.mark(Mark::Asked);
        let waiting = route.stats().waits();
        let successor = || route.successor().filter(fits);
        match (route.queue().acquire(Claim::ANY, deadline).await, successor()) {
            (Ok(mut lease), _) => {
                trail.mark(Mark::Leased);
                lease.lay_out(&inputs)?;
                return Ok(Admitted {
                    id: route.next_request(),
                    route,
                    schema,
                    lease,
                    inputs,
                    outputs,
                    repeat: head.repeat,
                    deadline,
                    rows: rows.unwrap_or(1),
                    arrived,
                    leased: Instant::now(),
                    holding: waiting.has_one(),
                });
            }
            // The model was loaded anew between the look at the routes and now.
            (Err(error), Some(successor)) if error.what == What::NotReady => route = successor,
            (Err(error), _) => return Err(error),
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
    pub async fn run(self, trail: &Trail) -> Result<Answered, RequestError> {
        let Self { id, route, schema, lease, inputs, outputs, repeat, deadline, .. } = self;
        let order = Order { request: id, wanted: outputs.wanted, deadline };
        let filled = Instant::now();
        let completed = Road { route: &route, order, repeat, trail }.travel(lease).await?;
        let answered = Instant::now();
        // The worker's word, which cannot be more than the time that we have waited.
        let away = answered - filled;
        let infer = completed.compute_time().min(away);
        let reply = completed.into_reply(&outputs, |desc| schema.output(desc))?;
        route.stats().executed(self.rows);
        if let Some(schema) = schema.learned(&inputs, reply.descs()) {
            route.learn(schema);
        }
        let spent = Spent {
            arrived: self.arrived,
            queue: (self.leased - self.arrived) + (away - infer),
            input: filled - self.leased,
            infer,
            answered,
        };
        Ok(Answered { reply, spent, holding: self.holding })
    }
}
