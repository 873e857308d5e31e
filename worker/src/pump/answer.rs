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
use crate::engine::{Engine, EngineError, InputView, PlaceError, Request};
use crate::pump::exhaustion::{Exhaustion, Verdict};
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
    pub(super) then: Then,
}

/// What follows once an answer has been published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    GoOn,
    /// The device's memory ran out: what is only kept for later goes back.
    Trim,
    /// It ran out for good.
    End,
}

/// What a request is answered with.
pub(super) struct Desk<'a> {
    pub(super) engine: &'a mut dyn Engine,
    pub(super) responses: &'a mut ResponseProducer,
    pub(super) control: &'a mut Control,
    /// `None` without a device.
    pub(super) exhaustion: Option<&'a mut Exhaustion>,
}

impl Answer {
    fn without_tensors(status: Status) -> Self {
        let (place, then) = (Place::Slot, Then::GoOn);
        Self { status, tensors: 0, message_len: 0, compute_nanos: 0, place, then }
    }
}

/// Runs the engine for one request, unless it has expired. An error is one of the transport or of the
/// whole device; what goes wrong with the request alone is an answer.
pub(super) fn answer(taken: &Taken<'_>, desk: &mut Desk<'_>) -> Result<Answer, PumpError> {
    // Its object has been sent even if the request has expired, so it must be received.
    let object = match taken.request.place {
        Place::Slot => None,
        Place::Own(len) => Some((desk.control.handover(taken.request.request), len)),
    };
    let object = object.map(|(fd, len)| fd.map(|fd| (fd, len))).transpose();
    let object = object.map_err(PumpError::Handover)?;
    if MonotonicNanos::now().0 > taken.request.deadline {
        return Ok(Answer::without_tensors(Status::Expired));
    }
    let object = object.map(|(fd, len)| TrustedObject::map(&fd, len)).transpose();
    let start = Instant::now();
    let (outcome, then) = match &object {
        Ok(object) => {
            let memory = object.as_ref().map_or_else(|| taken.data(), TrustedObject::bytes);
            infer(taken, memory, desk)
        }
        Err(error) => (Err(EngineError::OutOfMemory(chain(error))), Then::GoOn),
    };
    let compute_nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let answer = match outcome {
        Ok(outcome) => hand_up(taken, outcome, desk)?,
        // Nothing that it says can be believed any more, this error's text excepted.
        Err(EngineError::DeviceFault(text)) => return Err(PumpError::DeviceFault(text)),
        Err(error) => refuse(&error, taken.request.slot, desk.responses),
    };
    Ok(Answer { compute_nanos, then, ..answer })
}

fn infer(
    taken: &Taken<'_>,
    memory: &[u8],
    desk: &mut Desk<'_>,
) -> (Result<Outcome, EngineError>, Then) {
    let inputs = match views(taken, memory) {
        Ok(inputs) => inputs,
        Err(error) => return (Err(error), Then::GoOn),
    };
    let outcome = run(taken, &inputs, desk);
    let exhaustion = desk.exhaustion.as_deref_mut();
    let then = match &outcome {
        Ok(_) => {
            if let Some(exhaustion) = exhaustion {
                exhaustion.answered(&inputs);
            }
            Then::GoOn
        }
        Err(EngineError::DeviceOutOfMemory(_)) => match exhaustion.map(|e| e.ran_out(&inputs)) {
            Some(Verdict::End) => Then::End,
            Some(Verdict::GoOn) | None => Then::Trim,
        },
        Err(_) => Then::GoOn,
    };
    (outcome, then)
}

fn run(
    taken: &Taken<'_>,
    inputs: &[InputView<'_>],
    desk: &mut Desk<'_>,
) -> Result<Outcome, EngineError> {
    let to = taken.request;
    let mut reply = Reply::new(desk.responses, desk.control, (to.request, to.slot, to.wanted));
    let request = Request { id: to.request, inputs, wanted: to.wanted };
    desk.engine.infer(&request, &mut reply)?;
    // It holds the memory that the device may still write to.
    let outcome = reply.into_outcome();
    if desk.engine.overlaps() {
        look_ahead(taken, desk.engine);
        desk.engine.settle()?;
    }
    Ok(outcome)
}

/// Lets the engine begin with the request that comes next. One whose inputs have an object of their own
/// is left alone: receiving it can take a while, and the request in hand would wait for it.
fn look_ahead(taken: &Taken<'_>, engine: &mut dyn Engine) {
    let Some(next) = taken.ahead() else { return };
    let request = next.request;
    if request.place != Place::Slot || MonotonicNanos::now().0 > request.deadline {
        return;
    }
    // What is wrong with it is said when it is run.
    let Ok(inputs) = views(&next, next.data()) else { return };
    engine.prefetch(&Request { id: request.request, inputs: &inputs, wanted: request.wanted });
}

/// Sends an object that holds the outputs, before the completion can speak of it.
fn hand_up(taken: &Taken<'_>, outcome: Outcome, desk: &mut Desk<'_>) -> Result<Answer, PumpError> {
    let (request, slot) = (taken.request.request, taken.request.slot);
    let (responses, control) = (&mut *desk.responses, &*desk.control);
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
        EngineError::OutOfMemory(_)
        | EngineError::DeviceOutOfMemory(_)
        | EngineError::Place(PlaceError::NoMemory(_)) => Status::OutOfMemory,
        EngineError::Model(_)
        | EngineError::DeviceFault(_)
        | EngineError::Place(
            PlaceError::TooMany(_)
            | PlaceError::TooLarge(_)
            | PlaceError::NotWanted(_)
            | PlaceError::Length(_),
        ) => Status::Model,
    }
}

const _: () = assert!(MAX_ERROR_BYTES <= shared::limits::MIN_SLOT_BYTES);
