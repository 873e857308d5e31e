//! Reading the control socket of one lane when it rings.

use std::os::fd::AsFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::transport::{Lane, More};

/// After a full budget of packets nothing is read for this long: a flood of doorbells costs the
/// supervisor at most a few per cent of a core, and the counts show it.
const PAUSE: Duration = Duration::from_millis(10);

/// Reads packets and drains completions until the worker closes its end or the lane is gone.
pub async fn listen(lane: Weak<Lane>) -> std::io::Result<()> {
    let socket = match lane.upgrade() {
        Some(lane) => lane.socket().as_fd().try_clone_to_owned()?,
        None => return Ok(()),
    };
    let socket = AsyncFd::register_with_interest(socket, Interest::READABLE)?;
    loop {
        let mut ready = socket.readable().await?;
        let Some(lane) = lane.upgrade() else { return Ok(()) };
        let more = read_once(&lane);
        drop(lane);
        match more {
            More::Perhaps => {
                drop(ready);
                tokio::time::sleep(PAUSE).await;
            }
            More::No => ready.clear_ready(),
            More::Never => return Ok(()),
        }
    }
}

fn read_once(lane: &Arc<Lane>) -> More {
    let more = lane.read_socket();
    lane.drain();
    more
}
