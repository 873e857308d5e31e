//! Memory objects of one request's own, for what does not fit a slot, as the worker sees them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::memory::{MapError, Mapping, ReadOnlyMapping};
use crate::ring::producer::{CreateError, create};
use crate::sys::memfd::Seal;

/// The inputs of one request, handed over by the supervisor before it published the request.
#[derive(Debug)]
pub struct InputObject {
    map: ReadOnlyMapping,
}

impl InputObject {
    /// Maps an object that must be sealed and have exactly `len` bytes.
    pub fn map(fd: &OwnedFd, len: usize) -> Result<Self, MapError> {
        ReadOnlyMapping::sealed(fd, len).map(|map| Self { map })
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the supervisor, who is trusted, has written the object before it handed it over
        // and never writes it again.
        unsafe { self.map.slice(0, self.map.len()) }
    }
}

/// The outputs of one request: written by the worker, then sent up.
#[derive(Debug)]
pub struct OutputObject {
    map: Mapping,
    fd: OwnedFd,
}

impl OutputObject {
    /// `len` zero bytes; the size is sealed.
    pub fn create(len: usize) -> Result<Self, CreateError> {
        let (fd, map) = create(c"bulkhead-outputs", len, Seal::Size)?;
        Ok(Self { map, fd })
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: this process made the object and is the only one that writes it; `&mut self`
        // makes this the only reference into it. The supervisor copies out of it later.
        unsafe { self.map.slice_mut(0, self.map.len()) }
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The descriptor to send to the supervisor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no memfd and no shared mappings")]
    fn what_a_worker_writes_can_be_mapped_by_whoever_gets_the_descriptor() {
        let mut made = OutputObject::create(5000).unwrap();
        made.bytes_mut()[4999] = 7;
        let received = made.fd().try_clone_to_owned().unwrap();
        assert!(InputObject::map(&received, 4096).is_err(), "another size");
        assert_eq!(InputObject::map(&received, 5000).unwrap().bytes()[4999], 7);
    }
}
