//! The inference thread: takes a request, runs the engine, publishes the completion.
//!
//! - `run`: the loop, and what ends it.
//! - `answer`: one request, from its descriptor to what its completion says.
//! - `exhaustion`: whether a device is out of memory for good.
//! - `inputs`: a slot's table and bytes as the engine's inputs.
//! - `place`: where outputs go, as pure arithmetic.
//! - `reply`: outputs in the response slot or in memory of their own.
//! - `warmup`: the first runs, on zeros, outside the rings.
//! - `stop`: how another thread tells the pump to stop.
//!
//! Everything that had been published before the pump was told to stop is answered first.
//!
//! With an engine that works beside this thread ([`Engine::overlaps`](crate::engine::Engine::overlaps)) a
//! request has two phases: it is begun, the next one in the ring is prefetched, and only then is it waited
//! for and published. At most one request is ahead, and it is the one that is taken next.

mod answer;
mod exhaustion;
mod inputs;
mod place;
mod reply;
mod run;
mod stop;
mod warmup;

pub use exhaustion::Exhaustion;
pub use run::{Pump, PumpError};
pub use stop::Stop;
pub use warmup::{Warmed, Warmup, warm_up};
