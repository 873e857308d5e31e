//! The process that runs one model instance.
pub mod engine;
