//! What a worker gives up before it reads a byte of its model, and what of it the kernel took.
//!
//! - [`rules`]: the refused system calls as data, each with its reason.
//! - `sensitive`: of the calls that matter, which ones the rules leave open and why; a test.
//! - `plan`: which files a worker needs, as data.
//! - `limits`, `capabilities`, `landlock`, `seccomp`, `namespaces`: one measure a file.
//! - `apply`: all of them, in the order that they need.
//!
//! Two entries. [`separate`] comes first thing in a process: namespaces need a process without
//! threads, and a child. [`apply()`] comes when it is known which model will be loaded. Both need a
//! process of one thread: most measures hold for the thread that takes them and for those that it
//! starts afterwards.
//!
//! A measure that the kernel or this user cannot take is reported as missing, with the reason; the
//! worker goes on with the others. Whether that is enough is for those who read the report.

mod apply;
mod capabilities;
mod landlock;
mod limits;
mod namespaces;
mod plan;
pub mod rules;
mod seccomp;
#[cfg(test)]
mod sensitive;

pub use apply::apply;
pub use namespaces::{SeparateError, Separated, separate};
