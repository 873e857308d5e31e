//! Mapped memory: bounds, exclusive slots, and copies out of pages that another process writes.

mod map;
mod object;

pub use map::{MapError, Mapping, ReadOnlyMapping};
pub use object::{ForeignObject, ObjectError, OwnObject, TrustedObject};
