//! The Open Inference Protocol, as Triton extends it.
//!
//! - [`rest`]: the JSON of its REST form.
//! - [`elements`]: how a BYTES tensor lies in memory and on the wire.

pub mod elements;
pub mod rest;
