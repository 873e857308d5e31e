//! What workers may use, and what of it is spoken for.
//!
//! Owns the accounts ([`ledger`], pure). It allocates nothing: whoever creates memory for a worker
//! reserves it here first and releases it when the worker's exit has been seen.

pub mod ledger;

pub use ledger::{Denied, Ledger, Released, Reserved};
