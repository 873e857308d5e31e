//! The outputs of one request: in its response slot if they fit, else in memory of their own.

use proto::control::Fact;
use shared::id::RequestId;
use shared::memory::OwnObject;
use shared::ring::layout::{Place, ResponseDescriptor, Status};
use shared::ring::producer::ResponseProducer;
use shared::tensor::TensorDesc;

use crate::control::Control;
use crate::engine::{Mischief, Outputs, PlaceError, Placed, PlannedOutput};
use crate::pump::place::{layout, split};

/// Where the engine writes. Lives as long as one request.
#[derive(Debug)]
pub(super) struct Reply<'a> {
    pub(super) responses: &'a mut ResponseProducer,
    pub(super) control: &'a mut Control,
    pub(super) request: RequestId,
    pub(super) slot: u32,
    pub(super) wanted: u64,
    tensors: Vec<TensorDesc>,
    own: Option<OwnObject>,
}

/// What the engine has placed.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) tensors: Vec<TensorDesc>,
    pub(super) own: Option<OwnObject>,
}

impl<'a> Reply<'a> {
    pub(super) fn new(
        responses: &'a mut ResponseProducer,
        control: &'a mut Control,
        (request, slot, wanted): (RequestId, u32, u64),
    ) -> Self {
        Self { responses, control, request, slot, wanted, tensors: Vec::new(), own: None }
    }

    pub(super) fn into_outcome(self) -> Outcome {
        Outcome { tensors: self.tensors, own: self.own }
    }
}

impl Outputs for Reply<'_> {
    fn place(&mut self, plan: &[PlannedOutput]) -> Result<Placed<'_>, PlaceError> {
        let layout = layout(plan, self.wanted)?;
        self.tensors = layout.tensors;
        self.own = None;
        let memory = if layout.total <= self.responses.geometry().response_bytes() {
            self.responses.data_mut(self.slot)
        } else {
            let object = OwnObject::create(layout.total);
            let object = object.map_err(|_| PlaceError::NoMemory(layout.total))?;
            self.own.insert(object).bytes_mut()
        };
        Ok(Placed { bytes: split(memory, &self.tensors) })
    }

    fn mischief(&mut self) -> Option<&mut dyn Mischief> {
        Some(self)
    }
}

/// Nothing is reported: an attack that cannot be carried out has failed.
impl Mischief for Reply<'_> {
    fn scribble(&mut self) {
        self.responses.scribble(0xa5);
        let _ignored = self.control.bell();
    }

    fn forge(&mut self) {
        let forged = ResponseDescriptor {
            // Far from those that this worker may have been given as well.
            request: RequestId(!self.request.0),
            generation: self.responses.generation(),
            slot: (self.slot + 1) % self.responses.geometry().slots(),
            tensors: 0,
            status: Status::Ok,
            message_len: 0,
            compute_nanos: 0,
            place: Place::Slot,
        };
        self.responses.publish_raw(&forged.encode());
        let _ignored = self.control.bell();
    }

    fn flood_bell(&mut self, bells: u64) {
        for _ in 0..bells {
            let _ignored = self.control.bell();
        }
    }

    fn malformed_fact(&mut self) {
        let _ignored = self.control.send_raw(&[0xff; 32]);
    }

    fn confined_again(&mut self) {
        let _ignored = self.control.report(&Fact::Confined(Vec::new()), None);
    }

    fn replay(&mut self) {
        self.responses.replay();
        let _ignored = self.control.bell();
    }

    fn close_socket(&mut self) {
        self.control.close();
    }

    fn stop_reading(&mut self) {
        self.control.stop_reading();
    }
}
