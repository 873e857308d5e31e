//! TorchScript models through libtorch, as one of the worker's engines.
//!
//! Owns: loading a module, matching its `forward()` with the configured names, running it on views
//! of the request's bytes, writing its outputs into the reply. Does not: read the protocol, choose
//! a device, decide what a failure means for the worker.
//!
//! Invariants: no C++ exception and no panic crosses the language border; an input is never
//! written to and is not kept after [`worker::engine::Engine::infer`] returns.

mod cap;
mod cuda;
mod engine;
mod ffi;
mod load;
mod message;
mod model;
mod names;
mod options;
mod road;
mod schema;
mod streams;
mod tensors;
mod warm;

pub use load::{load, load_with};
pub use warm::warm;
