//! Who gets which slot, and who waits.
//!
//! - [`pool`]: the order in which slots are given out; pure.
//! - [`queue`]: waiting for one, with a deadline.

pub mod pool;
pub mod queue;

pub use pool::{Claim, Coming, Company};
pub use queue::{Seat, SlotQueue};
