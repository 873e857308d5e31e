//! Anonymous memory objects and their seals.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A memory object of `len` zero bytes. Its size can still change: see [`seal`].
pub fn create(name: &CStr, len: usize) -> Result<OwnedFd, Errno> {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    nix::unistd::ftruncate(&fd, i64::try_from(len).map_err(|_| Errno::EFBIG)?)?;
    Ok(fd)
}

/// What can no longer be done to a memory object, by anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// The size is fixed; all who map it may write.
    Size,
    /// The size is fixed and no new writable mapping can be made, so that whoever receives the
    /// descriptor can only read; mappings that exist keep writing.
    SizeAndFutureWrites,
}

impl Seal {
    fn flags(self) -> SealFlag {
        let size = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
        match self {
            Self::Size => size,
            Self::SizeAndFutureWrites => size | SealFlag::F_SEAL_FUTURE_WRITE,
        }
    }
}

/// Applies `seal`, and forbids further seals.
pub fn seal(fd: impl AsFd, seal: Seal) -> Result<(), Errno> {
    fcntl(fd, FcntlArg::F_ADD_SEALS(seal.flags() | SealFlag::F_SEAL_SEAL)).map(drop)
}

/// Whether at least `seal` holds for a descriptor that came from elsewhere.
pub fn is_sealed(fd: impl AsFd, seal: Seal) -> bool {
    fcntl(fd, FcntlArg::F_GET_SEALS)
        .is_ok_and(|bits| SealFlag::from_bits_truncate(bits).contains(seal.flags()))
}

/// The size in bytes.
pub fn size(fd: impl AsFd) -> Result<usize, Errno> {
    let stat = nix::sys::stat::fstat(fd)?;
    usize::try_from(stat.st_size).map_err(|_| Errno::EOVERFLOW)
}
