//! Quotas of device memory, end to end: the real server, real workers, and a driver that says what a test
//! has written down.
//!
//! - [`stage`]: the server and its GPUs.
//! - [`grants`]: who gets which device, and how much of it.
//! - [`watch`]: workers that have more than they may, or of which nothing is known.
//! - [`gate`]: when what a worker had can be given to another.
//! - [`hard`]: limits that the driver itself holds.
//! - [`engine`]: what the worker's own allocator refuses, and devices that refuse the worker.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that uses it")]

mod engine;
mod gate;
mod grants;
mod hard;
mod stage;
mod watch;
