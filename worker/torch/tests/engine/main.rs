//! The TorchScript engine through its trait, on models written from source on the spot. Every
//! input lies in pages that this process can only read, as in a real worker.

#![expect(clippy::unwrap_used, reason = "in a test it is the assertion")]

mod aliasing;
mod failures;
mod naming;
mod outputs;
mod python;
mod speed;
mod support;
mod types;
