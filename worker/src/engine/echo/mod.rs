//! The engine of tests and benchmarks: outputs are inputs, and every fault can be had on demand.
//!
//! Outputs are the inputs in their order; without a configuration there are `INPUT0` and
//! `OUTPUT0` of any type. It opts into nothing by itself: a model names it with `backend: "echo"`,
//! and misbehaves only if its configuration or a request says so.
//!
//! - [`settings`]: `parameters` of `config.pbtxt`: faults of loading, and a delay.
//! - [`command`]: the language of an optional BYTES input named `COMMAND`: faults of one request.
//! - `device`: a device that is only counted.
//! - `fault`: carries them out.
//! - [`objects`]: attacks on the memory that is shared with the supervisor.
//! - `hoard`: processes, threads, descriptors and memory objects without end.
//! - [`probe`]: tries what a confinement must refuse; [`calls`] are those of its attempts that are one
//!   system call each.
//! - `model`: the engine.

pub mod calls;
pub mod command;
mod device;
mod fault;
mod hoard;
mod model;
pub mod objects;
pub mod probe;
pub mod settings;

pub use model::load;
