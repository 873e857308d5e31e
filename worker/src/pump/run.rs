//! The loop of the inference thread.

use std::time::Duration;

use proto::control::Fact;
use shared::ring::consumer::{Finished, RequestConsumer};
use shared::ring::layout::ResponseDescriptor;
use shared::ring::producer::{ResponseProducer, Wake};

use crate::control::{Control, ControlError};
use crate::engine::Engine;
use crate::pump::answer::{Answer, Desk, Then, answer};
use crate::pump::exhaustion::Exhaustion;
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
    #[error("the device does nothing for this process any more: {0}")]
    DeviceFault(String),
    #[error("the device has no memory for requests that it had memory for before")]
    DeviceExhausted,
}

/// Everything that the inference thread owns. The engine goes first: it may know of the memory that is
/// mapped by the others.
#[expect(missing_debug_implementations, reason = "an engine has none")]
pub struct Pump {
    pub engine: Box<dyn Engine>,
    pub requests: RequestConsumer,
    pub responses: ResponseProducer,
    pub control: Control,
    pub stop: Stop,
    /// What the warm-up has shown of the device; `None` without one.
    pub exhaustion: Option<Exhaustion>,
}

impl Pump {
    /// Serves until it is told to stop and nothing published is left.
    pub fn run(mut self) -> Result<(), PumpError> {
        let outcome = self.serve();
        if matches!(outcome, Err(PumpError::DeviceFault(_))) {
            // Its destructors would ask the device for something, and end the process in ways of
            // their own when that is refused.
            std::mem::forget(self.engine);
        }
        outcome
    }

    fn serve(&mut self) -> Result<(), PumpError> {
        let mut trimmed = 0_u32;
        loop {
            if self.stop.takes_trim() {
                self.engine.trim();
                trimmed = trimmed.wrapping_add(1);
                let fact = Fact::Trimmed { count: trimmed };
                self.control.report(&fact, None).map_err(PumpError::Trimmed)?;
            }
            if let Some(taken) = self.requests.take() {
                let mut desk = Desk {
                    engine: self.engine.as_mut(),
                    responses: &mut self.responses,
                    control: &mut self.control,
                    exhaustion: self.exhaustion.as_mut(),
                };
                let answer = answer(&taken, &mut desk)?;
                let finished = taken.finish();
                self.complete(&answer, &finished)?;
                match answer.then {
                    Then::GoOn => {}
                    Then::Trim => self.engine.trim(),
                    Then::End => return Err(PumpError::DeviceExhausted),
                }
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

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
