//! The only place that names atomics: the standard ones, or loom's under `cfg(loom)`.

#![allow(clippy::disallowed_types, reason = "this is the place that the rule points to")]
#![allow(clippy::allow_attributes, reason = "the lints above fire in one of the two builds only")]

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
