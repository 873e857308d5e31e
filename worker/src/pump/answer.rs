//! One request, from its descriptor to what its completion says.

use std::time::Instant;

use proto::control::Fact;
use shared::clock::MonotonicNanos;
use shared::limits::MAX_ERROR_BYTES;
use shared::memory::TrustedObject;
use shared::ring::consumer::Taken;
use shared::ring::layout::{Place, Status};
use shared::ring::producer::ResponseProducer;
use shared::text::{chain, clean};

use crate::control::{Control, ControlError};
use crate::engine::{Engine, EngineError, PlaceError, Request};
use crate::pump::inputs::views;
use crate::pump::reply::{Outcome, Reply};
use crate::pump::run::PumpError;

/// The part of a completion that the work has decided. What it says lies in the response slot.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) tensors: u32,
    pub(super) message_len: u32,
    pub(super) compute_nanos: u64,
    pub(super) place: Place,
}

impl Answer {
    fn without_tensors(status: Status) -> Self {
        Self { status, tensors: 0, message_len: 0, compute_nanos: 0, place: Place::Slot }
    }
}

/// Runs the engine for one request, unless it has expired. An error is one of the transport; what
/// goes wrong with the request alone is an answer.
pub(super) fn answer(
    taken: &Taken<'_>,
    engine: &mut dyn Engine,
    responses: &mut ResponseProducer,
    control: &mut Control,
) -> Result<Answer, PumpError> {
    // Its object has been sent even if the request has expired, so it must be received.
    let object = match taken.request.place {
        Place::Slot => None,
        Place::Own(len) => Some((control.handover(taken.request.request), len)),
    };
    let object = object.map(|(fd, len)| fd.map(|fd| (fd, len))).transpose();
    let object = object.map_err(PumpError::Handover)?;
    if MonotonicNanos::now().0 > taken.request.deadline {
        return Ok(Answer::without_tensors(Status::Expired));
    }
    let object = object.map(|(fd, len)| TrustedObject::map(&fd, len)).transpose();
    let start = Instant::now();
    let outcome = match &object {
        Ok(object) => {
            let memory = object.as_ref().map_or_else(|| taken.data(), TrustedObject::bytes);
            infer(taken, memory, engine, responses, control)
        }
        Err(error) => Err(EngineError::OutOfMemory(chain(error))),
    };
    let compute_nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let answer = match outcome {
        Ok(outcome) => hand_up(taken, outcome, responses, control)?,
        Err(error) => refuse(&error, taken.request.slot, responses),
    };
    Ok(Answer { compute_nanos, ..answer })
}

fn infer(
    taken: &Taken<'_>,
    memory: &[u8],
    engine: &mut dyn Engine,
    responses: &mut ResponseProducer,
    control: &mut Control,
) -> Result<Outcome, EngineError> {
    let inputs = views(taken, memory)?;
    let to = taken.request;
    let mut reply = Reply::new(responses, control, (to.request, to.slot, to.wanted));
    engine.infer(&Request { inputs: &inputs, wanted: to.wanted }, &mut reply)?;
    Ok(reply.into_outcome())
}

/// Sends an object that holds the outputs, before the completion can speak of it.
fn hand_up(
    taken: &Taken<'_>,
    outcome: Outcome,
    responses: &mut ResponseProducer,
    control: &Control,
) -> Result<Answer, PumpError> {
    let (request, slot) = (taken.request.request, taken.request.slot);
    let mut answer = Answer::without_tensors(Status::Ok);
    if let Some(object) = &outcome.own {
        let fact = Fact::LargeOutput { request: request.0 };
        match control.report(&fact, Some(object.fd())) {
            Ok(()) => answer.place = Place::Own(object.len()),
            Err(error @ (ControlError::Unread | ControlError::Crowded)) => {
                let error = EngineError::OutOfMemory(error.to_string());
                return Ok(refuse(&error, slot, responses));
            }
            Err(error) => return Err(PumpError::HandUp(error)),
        }
    }
    responses.write_table(slot, &outcome.tensors);
    answer.tensors = u32::try_from(outcome.tensors.len()).expect("at most MAX_TENSORS");
    Ok(answer)
}

/// Writes the message to the start of the slot's data.
fn refuse(error: &EngineError, slot: u32, responses: &mut ResponseProducer) -> Answer {
    let message = clean(&error.to_string(), MAX_ERROR_BYTES);
    responses.data_mut(slot)[..message.len()].copy_from_slice(message.as_bytes());
    let message_len = u32::try_from(message.len()).expect("at most MAX_ERROR_BYTES");
    Answer { message_len, ..Answer::without_tensors(status(error)) }
}

fn status(error: &EngineError) -> Status {
    match error {
        EngineError::InvalidInput(_) => Status::InvalidInput,
        EngineError::OutOfMemory(_) | EngineError::Place(PlaceError::NoMemory(_)) => {
            Status::OutOfMemory
        }
        EngineError::Model(_)
        | EngineError::Place(
            PlaceError::TooMany(_)
            | PlaceError::TooLarge(_)
            | PlaceError::NotWanted(_)
            | PlaceError::Length(_),
        ) => Status::Model,
    }
}

const _: () = assert!(MAX_ERROR_BYTES <= shared::limits::MIN_SLOT_BYTES);
