//! Reading the control socket of one lane when it rings.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram as StdSocket;
use std::sync::Weak;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UnixDatagram;

use super::transport::{Lane, More};

/// After a full budget of packets nothing is read for this long: a flood of doorbells costs the
/// supervisor at most a few per cent of a core, and the counts show it.
const PAUSE: Duration = Duration::from_millis(10);

/// Reads packets and drains completions until the worker closes its end or the lane is gone.
pub async fn listen(lane: Weak<Lane>) -> io::Result<()> {
    let socket = match lane.upgrade() {
        Some(lane) => lane.socket().as_fd().try_clone_to_owned()?,
        None => return Ok(()),
    };
    // Tokio has no SEQPACKET type; for waiting until something can be read any socket type will do.
    let socket = StdSocket::from(socket);
    socket.set_nonblocking(true)?;
    let socket = UnixDatagram::from_std(socket)?;
    loop {
        socket.readable().await?;
        let Some(lane) = lane.upgrade() else { return Ok(()) };
        let mut more = More::No;
        let read = socket.try_io(Interest::READABLE, || {
            more = lane.read_socket();
            match more {
                More::Perhaps | More::Never => Ok(()),
                More::No => Err(io::ErrorKind::WouldBlock.into()),
            }
        });
        lane.drain();
        if more == More::Never {
            // Its exit follows; one that lives on can neither ring nor be given large inputs.
            lane.retire();
            return Ok(());
        }
        drop(lane);
        match (more, read) {
            (More::Perhaps, _) => tokio::time::sleep(PAUSE).await,
            // Readiness was cleared by the `WouldBlock`, nothing else can come out of it.
            (More::No | More::Never, _) => {}
        }
    }
}
