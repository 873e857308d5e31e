//! Requests down and completions up through two memory objects per worker generation.
//!
//! - [`layout`]: what lies where, and the 64-byte descriptors.
//! - [`table`]: the tensors of a slot, 128 bytes each, checked on reading.
//! - [`doorbell`]: who must be woken when; the part that loom explores.
//! - [`producer`], [`consumer`]: the two ends of each direction, a type each.
//!
//! The *request* object is written by the supervisor; a worker can only read it. The *response*
//! object is written by the worker, so everything the supervisor reads from it is copied first,
//! then checked, then used. Rings transport; the truth about a slot is the supervisor's private
//! table (`supervisor::lane`). After a crash both objects are replaced, never repaired.

#[cfg(not(loom))]
pub mod consumer;
pub mod doorbell;
#[cfg(not(loom))]
pub mod layout;
#[cfg(not(loom))]
pub mod producer;
#[cfg(not(loom))]
pub mod table;
