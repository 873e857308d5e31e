//! The fault matrix: one test for each way in which a worker can go wrong, on real processes, with a
//! second model under steady load.
//!
//! Each row ([`row::Row`]) says what is done to the victim, what its callers are told, what the exit
//! is called, and whether the victim comes back. What is asserted of every row stands in
//! [`row::Row::run`] and [`scene`], and nowhere else.
//!
//! - [`ends`]: workers that crash, exit, hang or are stopped.
//! - [`attacks`]: workers that are hostile to their supervisor.
//! - [`exhaustion`]: workers that take all of something.
//! - [`loads`]: workers that never come up.
//! - [`modes`]: the commonest ends in each way to start, confine and own a worker.
//! - [`torch`]: the same with libtorch and files of real models.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that uses it")]

mod attacks;
mod ends;
mod exhaustion;
mod loads;
mod modes;
mod row;
mod scene;
mod torch;
