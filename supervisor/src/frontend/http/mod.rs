//! The REST form of the Open Inference Protocol, on HTTP/1.1 and HTTP/2.
//!
//! A request goes `listener → service → endpoint`, and an inference from there
//! `decode → admission → encode`. Invariants:
//! - Whatever a client sends, or stops sending, ends in a documented status: nothing here panics
//!   on it, waits for it without a limit, or grows with it beyond the limits of [`HttpSettings`].
//! - A binary tensor is copied once, from the frame that brought it into the worker's slot.

mod budget;
mod control;
mod decode;
mod encode;
mod endpoint;
mod infer;
mod respond;
mod server;
mod service;
mod settings;
mod status;
mod turnover;

pub use budget::ByteBudget;
#[doc(hidden)]
pub use decode::fuzz_decode;
pub use server::serve;
pub use settings::{HttpDeps, HttpSettings, RepositoryControl};
pub use turnover::{Tally, Turnover};
