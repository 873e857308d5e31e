//! Whose turn is soon when more want to run than there are processors.
//!
//! A fault must not be felt next door, and a worker that starts is work for tens or hundreds of
//! milliseconds: it does that in long slices, behind whoever has a request to answer. What answers
//! requests here wakes often and runs briefly, so this process asks for short ones. Nobody's share of
//! the processor changes, and nothing else is lost where the kernel cannot do it.

use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::Pid;
use shared::sys::slice::{self, Heirs};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// Soon, and short.
    Short,
    /// As the kernel gives them to everybody.
    Usual,
    /// Later, and long.
    Long,
}

impl Turns {
    /// For the first thread of a process, or the calling one.
    pub(super) fn give(self, thread: Option<Pid>) -> Result<(), Errno> {
        let (length, heirs) = match self {
            Self::Short => (Some(Duration::from_micros(300)), Heirs::Same),
            Self::Usual => (None, Heirs::Same),
            // The most that the kernel takes. Threads that are started meanwhile will answer requests.
            Self::Long => (Some(Duration::from_millis(100)), Heirs::Usual),
        };
        slice::set(thread, length, heirs)
    }
}

/// For the calling thread, and those that it starts from now on.
pub fn take(turns: Turns) -> Result<(), Errno> {
    turns.give(None)
}
