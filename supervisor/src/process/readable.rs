//! Waiting on descriptors that are neither files nor sockets of tokio's kinds.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor, to learn when it becomes readable; within a runtime only.
#[expect(
    deprecated,
    reason = "what takes its place is unsafe, for types whose descriptor can change under tokio; \
              that of an OwnedFd cannot, and this crate has no unsafe code"
)]
pub(super) fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}
