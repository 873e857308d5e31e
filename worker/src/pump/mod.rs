//! The inference thread: takes a request, runs the engine, publishes the completion.
//!
//! - `run`: the loop, and what ends it.
//! - `answer`: one request, from its descriptor to what its completion says.
//! - `inputs`: a slot's table and bytes as the engine's inputs.
//! - `place`: where outputs go, as pure arithmetic.
//! - `reply`: outputs in the response slot or in memory of their own.
//! - `warmup`: the first runs, on zeros, outside the rings.
//! - `stop`: how another thread tells the pump to stop.
//!
//! Everything that had been published before the pump was told to stop is answered first.

mod answer;
mod inputs;
mod place;
mod reply;
mod run;
mod stop;
mod warmup;

pub use run::{Pump, PumpError};
pub use stop::Stop;
pub use warmup::{Warmup, warm_up};
