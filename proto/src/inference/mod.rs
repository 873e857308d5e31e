//! The Open Inference Protocol, as Triton extends it.
//!
//! - [`rest`]: the JSON of its REST form.

pub mod rest;
