//! A shared mapping of a memory object whose size cannot change.
//!
//! No reference is ever formed over bytes that another process may write: they are copied out, or
//! read as atomics. Every access is checked against the mapping's length.

use std::os::fd::{AsFd, AsRawFd};

use memmap2::{MmapOptions, MmapRaw};
use nix::errno::Errno;

use crate::sync::AtomicU32;
use crate::sys::memfd::{self, Seal};

#[derive(Debug, thiserror::Error)]
pub enum MapError {
    #[error("the memory object is not sealed, so it could shrink under its readers")]
    NotSealed,
    #[error("the memory object has {has} bytes instead of {expected}")]
    Size { has: usize, expected: usize },
    #[error("cannot read the memory object's state")]
    Stat(#[source] Errno),
    #[error("cannot map the memory object")]
    Map(#[source] std::io::Error),
}

/// A writable shared mapping.
#[derive(Debug)]
pub struct Mapping {
    raw: MmapRaw,
}

/// A shared mapping that this process can only read.
#[derive(Debug)]
pub struct ReadOnlyMapping {
    raw: MmapRaw,
}

fn check(fd: impl AsFd, len: usize) -> Result<(), MapError> {
    if !memfd::is_sealed(&fd, Seal::Size) {
        return Err(MapError::NotSealed);
    }
    let has = memfd::size(&fd).map_err(MapError::Stat)?;
    if has == len { Ok(()) } else { Err(MapError::Size { has, expected: len }) }
}

impl Mapping {
    /// Maps `len` bytes of an object that is sealed against changes of size and has that size.
    pub fn sealed(fd: impl AsFd, len: usize) -> Result<Self, MapError> {
        check(&fd, len)?;
        Self::unsealed(fd, len)
    }

    /// Maps an object that this process has just made and still owns alone: it is mapped before
    /// it is sealed, because the seal forbids new writable mappings.
    pub fn unsealed(fd: impl AsFd, len: usize) -> Result<Self, MapError> {
        let raw = MmapOptions::new().len(len).map_raw(fd.as_fd().as_raw_fd());
        raw.map(|raw| Self { raw }).map_err(MapError::Map)
    }

    /// Where it begins. What lies there is read and written by the functions below alone.
    pub fn start(&self) -> *const u8 {
        self.raw.as_ptr()
    }

    pub fn len(&self) -> usize {
        self.raw.len()
    }

    pub fn is_empty(&self) -> bool {
        self.raw.len() == 0
    }

    /// The word at `offset`, which must be aligned and inside.
    pub fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && in_bounds(offset, 4, self.len()), "word outside");
        // SAFETY: inside the mapping (asserted above), so the sum does not overflow.
        let at = unsafe { self.raw.as_mut_ptr().add(offset) };
        // SAFETY: aligned and in bounds (asserted); mapped read-write for as long as `self`
        // lives; every process touches this word atomically or, if hostile, not at all of ours.
        unsafe { AtomicU32::from_ptr(at.cast()) }
    }

    /// Copies `bytes` to `offset`.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(in_bounds(offset, bytes.len(), self.len()), "write outside the mapping");
        // SAFETY: inside the mapping (asserted above).
        let at = unsafe { self.raw.as_mut_ptr().add(offset) };
        // SAFETY: source and target are valid for the length (asserted) and cannot overlap: no
        // reference over the target's pages exists but the exclusive ones of `slice_mut`, whose
        // callers own the range they name.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) };
    }

    /// Copies bytes that another process may be writing right now: they may be torn, so look at
    /// the copy only.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        assert!(in_bounds(offset, into.len(), self.len()), "read outside the mapping");
        // SAFETY: inside the mapping (asserted above).
        let at = unsafe { self.raw.as_ptr().add(offset) };
        // SAFETY: both sides are valid for the length (asserted); the pages are foreign memory
        // for this process, so any value is valid for bytes, and no reference to them is made.
        unsafe { std::ptr::copy_nonoverlapping(at, into.as_mut_ptr(), into.len()) };
    }

    /// Appends `len` bytes from `offset` to `out` with one copy (see [`Mapping::read`]).
    pub fn append(&self, offset: usize, len: usize, out: &mut Vec<u8>) {
        assert!(in_bounds(offset, len, self.len()), "read outside the mapping");
        out.reserve(len);
        let spare = out.spare_capacity_mut().as_mut_ptr().cast::<u8>();
        // SAFETY: inside the mapping (asserted above).
        let at = unsafe { self.raw.as_ptr().add(offset) };
        // SAFETY: `spare` has room for `len` bytes (reserved above); see `read` for the source.
        unsafe { std::ptr::copy_nonoverlapping(at, spare, len) };
        // SAFETY: the `len` bytes after the old end have just been written, within capacity.
        unsafe { out.set_len(out.len() + len) };
    }

    /// The bytes of a range that only this process writes and that the caller owns exclusively.
    ///
    /// # Safety
    /// - No other reference to any of these bytes may exist, and `write`/`read` must not be
    ///   called for them, while the slice lives.
    /// - No other process may be able to write them.
    #[expect(clippy::mut_from_ref, reason = "exclusivity is per range and is the caller's duty")]
    pub unsafe fn slice_mut(&self, offset: usize, len: usize) -> &mut [u8] {
        assert!(in_bounds(offset, len, self.len()), "slice outside the mapping");
        // SAFETY: inside the mapping (asserted above).
        let at = unsafe { self.raw.as_mut_ptr().add(offset) };
        // SAFETY: valid for the length, mapped read-write while `self` lives; exclusive by the
        // caller's promise; bytes have no invalid values.
        unsafe { std::slice::from_raw_parts_mut(at, len) }
    }
}

impl ReadOnlyMapping {
    /// Maps `len` bytes of an object that is sealed against changes of size and has that size.
    pub fn sealed(fd: impl AsFd, len: usize) -> Result<Self, MapError> {
        check(&fd, len)?;
        let raw = MmapOptions::new().len(len).map_raw_read_only(fd.as_fd().as_raw_fd());
        raw.map(|raw| Self { raw }).map_err(MapError::Map)
    }

    /// Where it begins. What lies there is read and written by the functions below alone.
    pub fn start(&self) -> *const u8 {
        self.raw.as_ptr()
    }

    pub fn len(&self) -> usize {
        self.raw.len()
    }

    pub fn is_empty(&self) -> bool {
        self.raw.len() == 0
    }

    /// The word at `offset`; it can be loaded and waited on, a store would fault.
    pub fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && in_bounds(offset, 4, self.len()), "word outside");
        // SAFETY: inside the mapping (asserted above).
        let at = unsafe { self.raw.as_mut_ptr().add(offset) };
        // SAFETY: aligned, in bounds, mapped while `self` lives; a 32-bit atomic load of
        // read-only memory is allowed, and this type's users only load.
        unsafe { AtomicU32::from_ptr(at.cast()) }
    }

    /// Bytes that the supervisor has published and does not write again until they are answered.
    ///
    /// # Safety
    /// The supervisor, who is trusted, must not write the range while the slice lives.
    pub unsafe fn slice(&self, offset: usize, len: usize) -> &[u8] {
        assert!(in_bounds(offset, len, self.len()), "slice outside the mapping");
        // SAFETY: inside the mapping (asserted above).
        let at = unsafe { self.raw.as_ptr().add(offset) };
        // SAFETY: valid for the length while `self` lives; unchanged by the caller's promise.
        unsafe { std::slice::from_raw_parts(at, len) }
    }
}

fn in_bounds(offset: usize, len: usize, total: usize) -> bool {
    offset.checked_add(len).is_some_and(|end| end <= total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no memfd and no shared mappings")]
    fn a_future_write_seal_leaves_the_receiver_reading_only() {
        let fd = memfd::create(c"test", 4096).unwrap();
        let mine = Mapping::unsealed(&fd, 4096).unwrap();
        memfd::seal(&fd, Seal::SizeAndFutureWrites).unwrap();
        mine.write(100, b"hello");
        let theirs = ReadOnlyMapping::sealed(&fd, 4096).unwrap();
        // SAFETY: nothing writes the range while the slice lives.
        let bytes = unsafe { theirs.slice(100, 5) };
        assert_eq!(bytes, b"hello");
        assert!(Mapping::sealed(&fd, 4096).is_err(), "no new writable mapping");
        assert!(nix::unistd::ftruncate(&fd, 0).is_err(), "no change of size");
        assert!(nix::unistd::write(&fd, b"x").is_err(), "no write through the descriptor");
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no memfd and no shared mappings")]
    fn unsealed_or_odd_sized_objects_are_refused() {
        let fd = memfd::create(c"test", 4096).unwrap();
        assert!(matches!(ReadOnlyMapping::sealed(&fd, 4096), Err(MapError::NotSealed)));
        memfd::seal(&fd, Seal::Size).unwrap();
        assert!(matches!(ReadOnlyMapping::sealed(&fd, 8192), Err(MapError::Size { .. })));
        assert!(Mapping::sealed(&fd, 4096).is_ok());
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no memfd and no shared mappings")]
    #[should_panic(expected = "outside")]
    fn reads_past_the_end_are_caught() {
        let fd = memfd::create(c"test", 4096).unwrap();
        Mapping::unsealed(&fd, 4096).unwrap().read(4090, &mut [0; 7]);
    }
}
