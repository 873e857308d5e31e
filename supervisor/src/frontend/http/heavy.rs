//! Work that keeps a processor busy for long: it must not keep other connections waiting.

use tokio::runtime::{Handle, RuntimeFlavor};

/// From here on, telling the runtime costs less than what it saves: about 100 µs of JSON.
const HEAVY_BYTES: usize = 256 << 10;

/// Runs `work`, which goes over so many bytes. Other tasks of this thread move away if it is much.
pub(super) fn heavy<R>(bytes: usize, work: impl FnOnce() -> R) -> R {
    let can_move = Handle::try_current()
        .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
    if bytes >= HEAVY_BYTES && can_move { tokio::task::block_in_place(work) } else { work() }
}
