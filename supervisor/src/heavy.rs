//! Work that keeps a processor busy for long: it must not keep other connections waiting.

use std::sync::LazyLock;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit};

/// From here on, telling the runtime costs less than what it saves: about 100 µs of JSON.
const HEAVY_BYTES: usize = 256 << 10;

/// Pieces of it at a time, far more than keep all processors busy. What is more is done in place, and
/// holds up a thread of the runtime: a thread for each would be memory without end.
static TURNS: LazyLock<Semaphore> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Semaphore::new(8 * processors)
});

/// Runs `work`, which goes over so many bytes. Other tasks of this thread move away if it is much, and
/// not too much is under way.
pub(crate) fn heavy<R>(bytes: usize, work: impl FnOnce() -> R) -> R {
    let turn = if bytes < HEAVY_BYTES { None } else { turn() };
    match turn {
        Some(_turn) => tokio::task::block_in_place(work),
        None => work(),
    }
}

/// Only a runtime with other threads can let its tasks move.
fn turn() -> Option<SemaphorePermit<'static>> {
    let flavor = Handle::try_current().ok()?.runtime_flavor();
    (flavor == RuntimeFlavor::MultiThread).then(|| TURNS.try_acquire().ok())?
}
