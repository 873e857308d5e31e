//! One worker generation's transport: submit, completions, what is in flight, doorbells.
//!
//! - `table`: the private table of slots, which is the truth, and `order`, which of them is the oldest;
//!   both pure.
//! - `transport`: rings and control socket behind one short lock.
//! - `lease`, `pending`, `reply`: a slot being filled, a request in flight, its outputs. Each
//!   owns its slot and gives it back when dropped, so a handler that is cancelled leaks nothing.
//! - `filled`: the inputs themselves, which go from a slot to one of the next worker if they must.
//! - `ending`: what becomes of requests in flight when the worker ends.
//! - `bells`: draining where a runtime thread is about to sleep.
//!
//! It does not choose between workers, queue, or restart anything. Everything read from a worker is
//! copied, then checked; what no honest worker does is reported as a [`Violation`] and the lane
//! takes nothing more from it.

mod bells;
mod ending;
mod filled;
mod lease;
mod listen;
mod order;
mod pending;
mod reply;
mod table;
mod transport;

pub use bells::Bells;
pub use ending::{Casualty, Ending};
pub use filled::Stash;
pub use lease::{Input, Lease, Order, Unpublished};
pub use listen::listen;
pub use pending::{Pending, RunError};
pub use reply::{Completed, Outputs, Reply};
pub use shared::ring::table::Violation;
pub use transport::{Activity, Lane, LaneEvent, LaneParts, SlotSink};
