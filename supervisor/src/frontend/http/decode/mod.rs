//! From a request's body to a filled slot.
//!
//! - `headers`: the headers that say what the body is.
//! - `body`: pieces of the body with limits in bytes, pieces and time; `inflate` undoes compression.
//! - `plan`: what the JSON asks for, checked; `parameters` and `depth` are parts of it; `raw` is the
//!   plan of a body without JSON.
//! - `cells`, `scatter`: JSON data and binary data into the slot.
//! - `receive`: all of it in order. `seam` is what it needs from below, so that tests can stand in.
//!
//! Everything but `body` and `receive` is pure.

mod body;
mod cells;
mod depth;
mod fuzz;
mod headers;
mod inflate;
mod parameters;
mod plan;
mod raw;
mod receive;
mod scatter;
mod seam;

pub(super) use body::{BodyReader, Discarded};
pub(super) use depth::check_depth;
pub use fuzz::fuzz_decode;
pub(super) use headers::{JSON_LENGTH, body_coding, body_kind};
pub(super) use inflate::Coding;
pub(super) use plan::{Form, Wanted};
pub(super) use receive::receive;
pub(super) use seam::Gate;
