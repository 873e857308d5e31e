//! Who gets which slot, and who waits.
//!
//! - [`batch_cap`]: how large a batch may be after one ran out of memory.
//! - [`pool`]: the order in which slots are given out; pure.
//! - [`queue`]: waiting for one, with a deadline.

pub mod batch_cap;
pub mod pool;
pub mod queue;

pub use batch_cap::{BatchCap, Squeeze};
pub use pool::{Claim, Coming, Company};
pub use queue::{Rest, Seat, SlotQueue, Usage};
