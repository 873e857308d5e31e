//! Machinery that the supervisor and its workers both run.
//!
//! Owns identities, tensor descriptions, limits, system-call wrappers, shared memory and the rings.
//! It knows no async runtime, no HTTP, no ML framework. Unsafe code lives in [`sys`], [`memory`]
//! and [`ring`] alone.

pub mod clock;
pub mod elements;
#[cfg(not(loom))]
pub mod fault;
pub mod id;
pub mod limits;
pub mod sync;
pub mod tensor;
pub mod text;

#[cfg(not(loom))]
pub mod memory;
pub mod ring;
#[cfg(not(loom))]
pub mod sys;
