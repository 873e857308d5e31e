//! Every format that crosses a process boundary, and nothing else.
//!
//! - [`admin`]: what operators are told of a server.
//! - [`control`]: commands from the supervisor down to a worker, facts from a worker up.
//! - [`zygote`]: between the supervisor and a process that makes workers by copying itself.
//! - [`inference`]: what clients speak, the Open Inference Protocol.
//! - [`codec`]: the one place that turns them into bytes, with a size limit in both directions.
//! - [`model_config`]: Triton's `ModelConfig`, the content of a `config.pbtxt`.

pub mod admin;
pub mod codec;
pub mod control;
pub mod inference;
pub mod model_config;
pub mod zygote;
