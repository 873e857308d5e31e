//! JSON of the REST protocol: wire types only. What they mean is the front end's matter.
//!
//! Requests borrow from the body: strings without escapes and whole `data` arrays are not copied.

mod control;
mod data;
mod parameters;
mod reply;
mod request;
mod text;

pub use control::{
    ErrorBody, IndexEntry, IndexRequest, ModelMetadata, RepositoryRequest, ServerMetadata,
    TensorMetadata,
};
pub use data::TensorData;
pub use parameters::{MAX_PARAMETERS, ParameterValue, Parameters};
pub use reply::{InferReply, OutputParameters, OutputTensor};
pub use request::{InferInput, InferOutput, InferRequest};
pub use text::Text;
