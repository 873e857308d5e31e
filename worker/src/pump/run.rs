//! The loop of the inference thread.

use std::time::Duration;

use proto::control::Fact;
use shared::ring::consumer::{Finished, RequestConsumer};
use shared::ring::layout::ResponseDescriptor;
use shared::ring::producer::{ResponseProducer, Wake};

use crate::control::{Control, ControlError};
use crate::engine::Engine;
use crate::pump::answer::{Answer, answer};
use crate::pump::stop::Stop;

/// How long the pump sleeps at most before it looks around by itself.
const NAP: Duration = Duration::from_secs(1);

/// What ends the pump other than being told to stop. An error of one request is not among it.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    #[error("cannot receive the inputs of a request")]
    Handover(#[source] ControlError),
    #[error("cannot send the outputs of a request")]
    HandUp(#[source] ControlError),
    #[error("cannot say that memory was given back")]
    Trimmed(#[source] ControlError),
    #[error("cannot ring the supervisor")]
    Bell(#[source] ControlError),
}

/// Everything that the inference thread owns.
#[expect(missing_debug_implementations, reason = "an engine has none")]
pub struct Pump {
    pub requests: RequestConsumer,
    pub responses: ResponseProducer,
    pub control: Control,
    pub engine: Box<dyn Engine>,
    pub stop: Stop,
}

impl Pump {
    /// Serves until it is told to stop and nothing published is left.
    pub fn run(mut self) -> Result<(), PumpError> {
        loop {
            if self.stop.takes_trim() {
                self.engine.trim();
                self.control.report(&Fact::Trimmed, None).map_err(PumpError::Trimmed)?;
            }
            if let Some(taken) = self.requests.take() {
                let (responses, control) = (&mut self.responses, &mut self.control);
                let answer = answer(&taken, self.engine.as_mut(), responses, control)?;
                let finished = taken.finish();
                self.complete(&answer, &finished)?;
            } else if self.stop.is_set() {
                return Ok(());
            } else {
                self.requests.sleep(&self.responses, NAP);
            }
        }
    }

    fn complete(&mut self, answer: &Answer, finished: &Finished) -> Result<(), PumpError> {
        let completion = ResponseDescriptor {
            request: finished.request,
            generation: self.responses.generation(),
            slot: finished.slot,
            tensors: answer.tensors,
            status: answer.status,
            message_len: answer.message_len,
            compute_nanos: answer.compute_nanos,
            place: answer.place,
        };
        match self.responses.publish(&completion, finished, self.requests.map()) {
            Wake::Needed => self.control.bell().map_err(PumpError::Bell),
            Wake::Awake => Ok(()),
        }
    }
}
