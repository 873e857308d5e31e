//! Checks a request against the model's schema, gives it a deadline and a slot.
//!
//! Owns the road of one request from its head to its reply. It does not parse bodies (front ends
//! do) and does not choose workers (the queue does).

mod admit;

pub use admit::{Admitted, admit};
