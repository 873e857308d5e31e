//! Which worker and which slot a request gets, and who waits for one.
//!
//! Owns the slots of a model version's live workers and the queue before them ([`pool`], pure). It
//! writes no tensors and wakes nobody: the task around it does, from what the pool answers.

pub mod pool;

pub use pool::{
    Acquired, AlreadyJoined, Cancelled, Grant, LaneId, Left, Pool, Released, SlotRef, WaiterId,
};
