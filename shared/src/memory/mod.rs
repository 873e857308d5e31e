//! Mapped memory: bounds, exclusive slots, and copies out of pages that another process writes.

mod map;

pub use map::{MapError, Mapping, ReadOnlyMapping};
