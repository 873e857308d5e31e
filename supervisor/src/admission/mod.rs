//! Checks a request against the model's schema, gives it a deadline and a slot.
//!
//! Owns the road of one request from its head to its reply, over a second worker if the first one
//! ends (`road`). It does not parse bodies (front ends do) and does not choose workers (the queue
//! does).

mod admit;
mod road;

pub use admit::{Admitted, Answered, admit};
