//! The engine trait and what passes through it.

use proto::control::LoadSpec;
use shared::id::RequestId;
use shared::tensor::{DataType, Shape, TensorSpec};

/// Loads a model. Called once per process, on the inference thread.
pub type Loader = fn(&LoadSpec) -> Result<Box<dyn Engine>, LoadError>;

/// A loaded model.
pub trait Engine {
    /// The tensors in the order in which [`InputView::index`] and [`PlannedOutput::index`] count
    /// them: those of the [`LoadSpec`] unchanged and in its order, completed where the model file
    /// knows more; or, if the spec named none, those that the file names.
    fn schema(&self) -> Schema;

    /// Runs the model once. Computes first, then calls [`Outputs::place`] once with every wanted
    /// output and writes each. An error leaves the engine usable for the next request.
    fn infer(
        &mut self,
        request: &Request<'_>,
        outputs: &mut dyn Outputs,
    ) -> Result<(), EngineError>;

    /// What runs the model, with its version, as `libtorch 2.11.0`.
    fn build(&self) -> String;

    /// What has been used of the device since the load; `None` on the CPU.
    fn on_device(&self) -> Option<DeviceUse> {
        None
    }

    /// Gives back device memory that is only kept for later.
    fn trim(&mut self) {}

    /// Takes note of the memory that requests and replies will lie in, once, after the load. A device
    /// copies faster from and to memory that it knows.
    fn adopt(&mut self, _memory: &Arenas) {}

    /// Whether [`Engine::infer`] may return while the device still works. If so, the pump calls
    /// [`Engine::settle`] after every `infer` that did not fail, and until then neither the inputs nor the
    /// outputs of that request change hands.
    fn overlaps(&self) -> bool {
        false
    }

    /// Begins what can be begun of a request while the one before it is under way: it is the next that
    /// [`Engine::infer`] will be called with, unless it expires before. Its inputs stay as they are until
    /// it was answered. What fails here fails again when it is run, and is told then.
    fn prefetch(&mut self, _request: &Request<'_>) {}

    /// Waits until the device has written the outputs of the last `infer`. An error is that request's.
    fn settle(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
}

/// The two memory objects of this worker, which stay mapped as long as the engine lives.
#[derive(Clone, Copy, Debug)]
pub struct Arenas {
    /// Can only be read.
    pub requests: Pages,
    pub responses: Pages,
}

/// Where whole pages lie. Their bytes belong to others: this is for telling a device of them.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    pub start: *const u8,
    pub len: usize,
}

/// Of the device, or of the fullest of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceUse {
    /// Bytes that the allocator never goes beyond; `None` if it could not be told to.
    pub allocator_limit: Option<u64>,
    /// Most bytes that it held at once.
    pub peak: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema {
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
}

/// One request as the engine sees it; the inputs borrow the slot.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// No other request of this process has the same.
    pub id: RequestId,
    pub inputs: &'a [InputView<'a>],
    /// Bit *i* is set if output *i* of the schema is wanted.
    pub wanted: u64,
}

impl Request<'_> {
    pub fn wants(&self, output: u32) -> bool {
        output < u64::BITS && self.wanted & (1 << output) != 0
    }
}

/// One input: its bytes lie in the request slot, which this process can only read.
///
/// `bytes` is aligned to 64 and its length is that of `dtype` × `shape` (for BYTES: the
/// concatenation of little-endian `u32` length and content of each element, checked to be whole).
#[derive(Clone, Copy, Debug)]
pub struct InputView<'a> {
    pub index: u32,
    pub dtype: DataType,
    pub shape: Shape,
    pub bytes: &'a [u8],
}

/// One output that the engine is about to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedOutput {
    pub index: u32,
    pub dtype: DataType,
    pub shape: Shape,
    /// Bytes; for a type of fixed size this must be elements × size.
    pub len: usize,
}

/// Where outputs go: the response slot, or a memory object of their own if they do not fit.
pub trait Outputs {
    /// Reserves room for all outputs at once. Called at most once per request.
    fn place(&mut self, plan: &[PlannedOutput]) -> Result<Placed<'_>, PlaceError>;

    /// What a hostile worker could do with the memory and the socket of this process. For the echo
    /// engine's fault commands alone; `None` where there is nothing to attack.
    fn mischief(&mut self) -> Option<&mut dyn Mischief> {
        None
    }
}

/// Attacks on the supervisor, so that its checks can be tested on real processes.
pub trait Mischief {
    /// Overwrites all of the response object, then rings.
    fn scribble(&mut self);
    /// Publishes a completion of a request that this worker was not given, then rings.
    fn forge(&mut self);
    /// Sends so many bells, needed or not.
    fn flood_bell(&mut self, bells: u64);
    /// Sends a packet that is no fact.
    fn malformed_fact(&mut self);
    /// Reports its confinement, as it has done already.
    fn confined_again(&mut self);
    /// Publishes the completion that it published last once more, then rings.
    fn replay(&mut self);
    /// Closes the control socket.
    fn close_socket(&mut self);
    /// Reads the control socket no more. Requests whose inputs come over it fail.
    fn stop_reading(&mut self);
}

/// The writable bytes of each planned output, in the order of the plan, each aligned to 64.
#[derive(Debug)]
pub struct Placed<'a> {
    pub bytes: Vec<&'a mut [u8]>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    #[error("{0} outputs are more than a reply may have")]
    TooMany(usize),
    #[error("{0} bytes of output are more than a reply may have")]
    TooLarge(usize),
    #[error("no memory for {0} bytes of output")]
    NoMemory(usize),
    #[error("output {0} was not asked for, or is there twice")]
    NotWanted(u32),
    #[error("output {0} has another length than its type and shape say")]
    Length(u32),
}

/// Why a request failed. The worker lives on, but for a fault of its device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The client's fault: a type, shape or value that this model cannot take.
    #[error("{0}")]
    InvalidInput(String),
    /// The model raised an exception; the text is the framework's own.
    #[error("{0}")]
    Model(String),
    /// Host memory ran out in a way that the process survived.
    #[error("{0}")]
    OutOfMemory(String),
    /// The same with the memory of a device: see [`device::needs_more`](crate::engine::device::needs_more).
    #[error("{0}")]
    DeviceOutOfMemory(String),
    /// The device does nothing for this process any more, so that no request could be answered.
    #[error("{0}")]
    DeviceFault(String),
    #[error(transparent)]
    Place(#[from] PlaceError),
}

/// Why a model could not be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The file or its configuration is wrong; a repeat would fail alike.
    #[error("{0}")]
    Permanent(String),
    /// Something around it failed (host memory, device); a repeat may succeed.
    #[error("{0}")]
    Transient(String),
    /// It does not fit the memory that it has of its device.
    #[error("{0}")]
    DeviceOutOfMemory(String),
    /// The device does nothing for this process any more.
    #[error("{0}")]
    DeviceFault(String),
}
