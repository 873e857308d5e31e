//! Memory objects for tensors that do not fit a slot: one object, one request. Whoever makes one
//! writes it; the worker maps what the supervisor made, the supervisor never maps what a worker made.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::map::{MapError, Mapping, ReadOnlyMapping};
use crate::sys::memfd::{self, Seal};

#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("cannot create a memory object of {0} bytes")]
    Create(usize, #[source] Errno),
    #[error("cannot seal a memory object")]
    Seal(#[source] Errno),
    #[error(transparent)]
    Map(#[from] MapError),
    #[error("a memory object that was received is not sealed or has another size")]
    Foreign,
    #[error("cannot read a memory object")]
    Read(#[source] Errno),
}

/// An object that this process has made and alone can write.
#[derive(Debug)]
pub struct OwnObject {
    map: Mapping,
    fd: OwnedFd,
}

impl OwnObject {
    /// `len` zero bytes, at least 1. Pages cost memory when they are touched.
    pub fn create(len: usize) -> Result<Self, ObjectError> {
        let fd =
            memfd::create(c"bulkhead-tensors", len).map_err(|e| ObjectError::Create(len, e))?;
        let map = Mapping::unsealed(&fd, len)?;
        // Whoever receives the descriptor can neither write it nor change its size.
        memfd::seal(&fd, Seal::SizeAndFutureWrites).map_err(ObjectError::Seal)?;
        Ok(Self { map, fd })
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `&mut self` makes this the only reference into the mapping, and the seal keeps
        // every other process from mapping it writable.
        unsafe { self.map.slice_mut(0, self.map.len()) }
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The descriptor to pass on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// An object that came from the supervisor, whom a worker trusts.
#[derive(Debug)]
pub struct TrustedObject {
    map: ReadOnlyMapping,
}

impl TrustedObject {
    /// Maps an object that must be sealed and have exactly `len` bytes.
    pub fn map(fd: &OwnedFd, len: usize) -> Result<Self, MapError> {
        ReadOnlyMapping::sealed(fd, len).map(|map| Self { map })
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the supervisor has written the object before it handed it over and never writes
        // it again.
        unsafe { self.map.slice(0, self.map.len()) }
    }
}

/// An object that came from a process that is not trusted. It is read with `pread`, which cannot
/// fault whatever is done to the object meanwhile.
#[derive(Debug)]
pub struct ForeignObject {
    fd: OwnedFd,
    len: usize,
}

impl ForeignObject {
    /// Takes an object that must be sealed against changes of size and have exactly `len` bytes.
    pub fn accept(fd: OwnedFd, len: usize) -> Result<Self, ObjectError> {
        if !memfd::is_sealed(&fd, Seal::Size) || memfd::size(&fd) != Ok(len) {
            return Err(ObjectError::Foreign);
        }
        Ok(Self { fd, len })
    }

    /// Appends a part to `out`; a range outside the object is an error.
    pub fn append(&self, offset: usize, len: usize, out: &mut Vec<u8>) -> Result<(), ObjectError> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(ObjectError::Foreign);
        }
        let start = out.len();
        out.resize(start + len, 0);
        let mut done = 0;
        while done < len {
            let at = i64::try_from(offset + done).map_err(|_| ObjectError::Foreign)?;
            match nix::sys::uio::pread(&self.fd, &mut out[start + done..], at) {
                Ok(0) => return Err(ObjectError::Foreign),
                Ok(read) => done += read,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(ObjectError::Read(error)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_writes_the_other_reads() {
        let mut object = OwnObject::create(10_000).unwrap();
        object.bytes_mut()[9_000..9_003].copy_from_slice(b"abc");
        let fd = object.fd().try_clone_to_owned().unwrap();
        assert!(TrustedObject::map(&fd, 4096).is_err(), "another size");
        assert_eq!(TrustedObject::map(&fd, 10_000).unwrap().bytes()[9_000..9_003], *b"abc");
        let foreign = ForeignObject::accept(fd, 10_000).unwrap();
        let mut out = b"x".to_vec();
        foreign.append(9_000, 3, &mut out).unwrap();
        assert_eq!(out, b"xabc");
        assert!(foreign.append(9_999, 2, &mut out).is_err());
        assert!(foreign.append(usize::MAX, 2, &mut out).is_err());
    }

    #[test]
    fn objects_that_could_change_are_refused() {
        let fd = memfd::create(c"test", 4096).unwrap();
        assert!(ForeignObject::accept(fd.try_clone().unwrap(), 4096).is_err(), "not sealed");
        memfd::seal(&fd, Seal::Size).unwrap();
        assert!(ForeignObject::accept(fd.try_clone().unwrap(), 4095).is_err(), "another size");
        let (pipe, _other) = nix::unistd::pipe().unwrap();
        assert!(ForeignObject::accept(pipe, 4096).is_err(), "not a memory object");
    }
}
