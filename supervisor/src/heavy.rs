//! Work that keeps a processor busy for long: it must not keep other connections waiting.

use tokio::runtime::{Handle, RuntimeFlavor};

/// From here on, telling the runtime costs less than what it saves: about 100 µs of JSON.
const HEAVY_BYTES: usize = 256 << 10;

/// Runs `work`, which goes over so many bytes. Other tasks of this thread move away if it is much.
pub(crate) fn heavy<R>(bytes: usize, work: impl FnOnce() -> R) -> R {
    let runtime = if bytes < HEAVY_BYTES { None } else { Handle::try_current().ok() };
    match runtime.map(|runtime| runtime.runtime_flavor()) {
        Some(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
