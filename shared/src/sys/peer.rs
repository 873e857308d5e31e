//! Whom the other end of a Unix socket belongs to.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

/// More groups than a process may be in.
const MAX_GROUPS: usize = 65_536;

/// The groups of the peer beside its own, as they were when it connected.
pub fn groups(socket: BorrowedFd<'_>) -> Result<Vec<u32>, Errno> {
    let mut groups = vec![0_u32; 64];
    loop {
        let mut bytes = libc::socklen_t::try_from(size_of_val(groups.as_slice()))
            .map_err(|_| Errno::EOVERFLOW)?;
        // SAFETY: `groups` has room for `bytes` bytes of whole numbers, any of which are valid, and the
        // kernel writes no more than that; `bytes` is ours and lives as long as the call. The descriptor
        // is borrowed, so it is open.
        let told = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let count = usize::try_from(bytes).unwrap_or(usize::MAX) / size_of::<u32>();
        match Errno::result(told) {
            Ok(_) => {
                groups.truncate(count);
                return Ok(groups);
            }
            // It says how many there are.
            Err(Errno::ERANGE) if (groups.len() + 1..=MAX_GROUPS).contains(&count) => {
                groups.resize(count, 0);
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no Unix sockets")]
    fn our_own_groups_are_the_peers() {
        let (one, _other) = UnixStream::pair().unwrap();
        let mut told = groups(one.as_fd()).unwrap();
        let mut ours: Vec<u32> =
            nix::unistd::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
        told.sort_unstable();
        ours.sort_unstable();
        assert_eq!(told, ours);
        let pipe = std::io::pipe().unwrap();
        assert_eq!(groups(pipe.0.as_fd()), Err(Errno::ENOTSOCK));
    }
}
