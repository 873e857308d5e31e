//! One inference request and its outcome, in the words of no protocol.
//!
//! Front ends translate into these types and out of them; everything below a front end knows only
//! these. An error says what happened, whose fault it is and whether trying again is safe; the
//! mapping to status codes is the front end's.

use std::sync::Arc;
use std::time::Duration;

use shared::tensor::{DataType, Shape};

/// Everything of a request but the tensors' bytes.
#[derive(Clone, Debug)]
pub struct InferHead {
    /// The client's own id, echoed in the reply.
    pub client_id: Option<String>,
    pub inputs: Vec<InputDecl>,
    /// Wanted outputs by name; `None` is all.
    pub outputs: Option<Vec<String>>,
    /// The client's own deadline, if it is shorter than the model's.
    pub timeout: Option<Duration>,
    pub repeat: Repeat,
}

/// Whether a request that had reached a worker may be given to another when that ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repeat {
    #[default]
    Allowed,
    /// For models whose answers are not all that they do.
    Forbidden,
}

/// One input as the client declared it.
#[derive(Clone, Debug)]
pub struct InputDecl {
    pub name: String,
    pub dtype: DataType,
    pub shape: Shape,
    /// Bytes that will be written. For a type of fixed size the front end takes what the client
    /// announced; admission checks that it is elements × size.
    pub len: usize,
}

/// One output of a reply; its bytes are read with `Reply::append`.
#[derive(Clone, Debug)]
pub struct ReplyTensor {
    pub name: Arc<str>,
    pub dtype: DataType,
    pub shape: Shape,
    pub len: usize,
}

/// Why a request has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    pub what: What,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// No model of that name was ever seen.
    UnknownModel,
    /// The model is known, that version of it is not.
    UnknownVersion,
    /// The model is known and has no version that could serve (unloaded or failed).
    NoVersion,
    /// Loading, unloading or restarting.
    NotReady,
    /// The request contradicts itself, the protocol or the model's schema.
    Invalid,
    /// Over one of the documented limits.
    TooLarge,
    /// The client took too long to send its body.
    SlowBody,
    /// Well-formed, and this server does not do it.
    Unsupported,
    /// The model's queue is full.
    QueueFull,
    /// The deadline passed before a worker could have seen the request.
    QueueTimeout,
    /// The deadline passed while a worker had the request.
    Deadline,
    /// The worker died, or was ended, while it had the request.
    WorkerDied,
    /// The same request has ended so many workers that no other gets it.
    Poison,
    /// The model raised an error for this request.
    Model,
    /// The model ran out of memory on this request.
    OutOfMemory,
    /// The server is draining.
    ShuttingDown,
    /// Not allowed by the configuration.
    Forbidden,
    /// Our own fault.
    Internal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Client,
    Model,
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// No worker can have seen the request.
    Safe,
    /// It may have run.
    Unsafe,
    /// It would fail alike.
    Futile,
}

impl What {
    /// In the order of their declaration.
    pub const ALL: [Self; 18] = [
        Self::UnknownModel,
        Self::UnknownVersion,
        Self::NoVersion,
        Self::NotReady,
        Self::Invalid,
        Self::TooLarge,
        Self::SlowBody,
        Self::Unsupported,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::Deadline,
        Self::WorkerDied,
        Self::Poison,
        Self::Model,
        Self::OutOfMemory,
        Self::ShuttingDown,
        Self::Forbidden,
        Self::Internal,
    ];

    /// For labels of metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UnknownModel => "unknown_model",
            Self::UnknownVersion => "unknown_version",
            Self::NoVersion => "no_version",
            Self::NotReady => "not_ready",
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::SlowBody => "slow_body",
            Self::Unsupported => "unsupported",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::Deadline => "deadline",
            Self::WorkerDied => "worker_died",
            Self::Poison => "poison",
            Self::Model => "model",
            Self::OutOfMemory => "out_of_memory",
            Self::ShuttingDown => "shutting_down",
            Self::Forbidden => "forbidden",
            Self::Internal => "internal",
        }
    }

    pub fn fault(self) -> Fault {
        match self {
            Self::UnknownModel
            | Self::UnknownVersion
            | Self::NoVersion
            | Self::Invalid
            | Self::TooLarge
            | Self::SlowBody
            | Self::Unsupported
            | Self::Poison
            | Self::Forbidden => Fault::Client,
            Self::Deadline | Self::WorkerDied | Self::Model | Self::OutOfMemory => Fault::Model,
            Self::NotReady
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::ShuttingDown
            | Self::Internal => Fault::Server,
        }
    }

    pub fn retry(self) -> Retry {
        match self {
            Self::NotReady
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::ShuttingDown
            | Self::SlowBody => Retry::Safe,
            Self::Deadline | Self::WorkerDied | Self::OutOfMemory | Self::Internal => Retry::Unsafe,
            Self::UnknownModel
            | Self::UnknownVersion
            | Self::NoVersion
            | Self::Invalid
            | Self::TooLarge
            | Self::Unsupported
            | Self::Poison
            | Self::Model
            | Self::Forbidden => Retry::Futile,
        }
    }
}

impl RequestError {
    pub fn new(what: What, message: impl Into<String>) -> Self {
        Self { what, message: message.into() }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(What::Invalid, message)
    }
}
