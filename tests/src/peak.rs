//! The most that a process has of its own memory while something happens to it.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::workers::private_memory_now;

/// Between two looks, each of which walks through all pages of the process.
const EVERY: Duration = Duration::from_millis(20);

/// Looks at a process until somebody wants to know.
#[derive(Debug)]
pub struct Peak {
    stop: Sender<()>,
    thread: JoinHandle<u64>,
}

impl Peak {
    pub fn watch(pid: u32) -> Self {
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let mut most = private_memory_now(pid);
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                most = most.max(private_memory_now(pid));
            }
            most.unwrap_or(0)
        });
        Self { stop, thread }
    }

    /// In kilobytes.
    pub fn finish(self) -> u64 {
        drop(self.stop);
        self.thread.join().expect("it only looks")
    }
}
