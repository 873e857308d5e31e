//! Traces of requests, sent to an OpenTelemetry collector over OTLP.
//!
//! ```text
//! handle     off, or a sampler: decides once for each request
//! trail      what a request notes on its way: times, in the order in which they come
//! spans      from a trail to spans (pure)
//! export     the bounded queue, and the task that sends what is in it
//! ```
//!
//! Invariants: a request never waits for any of this; one that is not sampled, and every one while
//! traces are off, carries nothing and reads no clock; what waits to be sent is bounded, and what is
//! lost is counted.

mod export;
mod handle;
mod parent;
mod spans;
mod trail;

pub use handle::{NotStarted, Traces};
pub use trail::{Mark, Trail};
