//! From a reply to the body of a response. Pure.
//!
//! - `answer`: JSON and binary tensors in one buffer.
//! - `coding`: whether and how the client wants it compressed.

mod answer;
mod coding;

pub(super) use answer::{Echo, Encoded, encode};
pub(super) use coding::{compress, name_of, negotiate};
