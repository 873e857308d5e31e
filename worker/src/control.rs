//! The worker's end of the control socket.
//!
//! Down come [`Hello`] (once) and [`Handover`]s; up go [`Fact`]s and the doorbell, a packet of one
//! byte. Used by the inference thread alone. Nothing here waits without a limit.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};
use proto::codec::{self, CodecError};
use proto::control::{Fact, Handover, Hello};
use shared::id::RequestId;
use shared::limits::{MAX_PACKET_BYTES, MAX_SLOTS};
use shared::sys::memfd;
use shared::sys::socket::{self, Inbox, Packet, Wait};

/// How long the other side may take to send what it has promised, or to read.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the supervisor has closed the control socket")]
    Closed,
    #[error("cannot set up the control socket")]
    SetUp(#[source] Errno),
    #[error("nothing came on the control socket within {} s", LIMIT.as_secs())]
    Late,
    #[error("cannot receive on the control socket")]
    Receive(#[source] Errno),
    #[error("the supervisor did not read the control socket for {} s", LIMIT.as_secs())]
    Unread,
    #[error("too many descriptors of this user are on their way through sockets")]
    Crowded,
    #[error("cannot send on the control socket")]
    Send(#[source] Errno),
    #[error("a packet on the control socket is too long or has {0} descriptors")]
    Packet(usize),
    #[error(transparent)]
    Codec(#[from] CodecError),
}

#[derive(Debug)]
pub struct Control {
    socket: OwnedFd,
    inbox: Inbox,
    /// Handed over for requests that have not been taken from the ring yet.
    early: VecDeque<(u64, OwnedFd)>,
    reading: Reading,
}

/// Whether packets are received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Honest,
    /// As a hostile worker may choose.
    Stopped,
}

/// The first packet and its two memory objects.
#[derive(Debug)]
pub struct Greeting {
    pub hello: Hello,
    pub requests: OwnedFd,
    pub responses: OwnedFd,
}

impl Control {
    pub fn new(socket: OwnedFd) -> Result<Self, ControlError> {
        socket::set_receive_timeout(socket.as_fd(), LIMIT).map_err(ControlError::SetUp)?;
        socket::set_send_timeout(socket.as_fd(), LIMIT).map_err(ControlError::SetUp)?;
        let (inbox, early) = (Inbox::new(MAX_PACKET_BYTES), VecDeque::new());
        Ok(Self { socket, inbox, early, reading: Reading::Honest })
    }

    pub fn greeting(&mut self) -> Result<Greeting, ControlError> {
        let packet = self.receive()?;
        let hello = codec::decode(self.inbox.bytes(&packet))?;
        let [requests, responses] =
            <[OwnedFd; 2]>::try_from(packet.fds).map_err(|fds| ControlError::Packet(fds.len()))?;
        Ok(Greeting { hello, requests, responses })
    }

    /// The memory object that was sent before `request` was published. Those of other requests
    /// are kept until their turn; the oldest is dropped if there are more than slots, because its
    /// request was then never published.
    pub fn handover(&mut self, request: RequestId) -> Result<OwnedFd, ControlError> {
        if let Some(at) = self.early.iter().position(|(id, _)| *id == request.0) {
            let (_, object) = self.early.remove(at).expect("just found there");
            return Ok(object);
        }
        if self.reading == Reading::Stopped {
            // No object can be mapped from this, so that the request alone fails.
            return memfd::create(c"nothing", 0).map_err(ControlError::Receive);
        }
        loop {
            let packet = self.receive()?;
            let handover: Handover = codec::decode(self.inbox.bytes(&packet))?;
            let [object] = <[OwnedFd; 1]>::try_from(packet.fds)
                .map_err(|fds| ControlError::Packet(fds.len()))?;
            if handover.request == request.0 {
                return Ok(object);
            }
            self.early.push_back((handover.request, object));
            if self.early.len() > MAX_SLOTS {
                self.early.pop_front();
            }
        }
    }

    /// Makes this the only socket on which the process can send.
    pub fn fall_silent_elsewhere(&self) {
        socket::fall_silent_but_on(self.socket.as_fd());
    }

    /// Sends a fact, with the descriptor that it announces, if any.
    pub fn report(&self, fact: &Fact, object: Option<BorrowedFd<'_>>) -> Result<(), ControlError> {
        let packet = codec::encode(fact)?;
        self.send(&packet, object.as_slice(), Wait::Block)
    }

    /// Rings the supervisor. A full queue is as good: it wakes the supervisor too.
    pub fn bell(&self) -> Result<(), ControlError> {
        match self.send(&[1], &[], Wait::Never) {
            Err(ControlError::Unread) => Ok(()),
            other => other,
        }
    }

    /// Sends any bytes, as a hostile worker would.
    pub(crate) fn send_raw(&self, packet: &[u8]) -> Result<(), ControlError> {
        self.send(packet, &[], Wait::Never)
    }

    /// As a hostile worker would: the process lives on.
    pub(crate) fn close(&self) {
        let _ignored = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
    }

    /// As a hostile worker would: what is handed over from now on stays in the socket.
    pub(crate) fn stop_reading(&mut self) {
        self.reading = Reading::Stopped;
    }

    fn send(&self, packet: &[u8], fds: &[BorrowedFd<'_>], wait: Wait) -> Result<(), ControlError> {
        match socket::send(self.socket.as_fd(), packet, fds, wait) {
            Ok(()) => Ok(()),
            Err(Errno::EAGAIN) => Err(ControlError::Unread),
            Err(Errno::ETOOMANYREFS) => Err(ControlError::Crowded),
            Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN) => Err(ControlError::Closed),
            Err(error) => Err(ControlError::Send(error)),
        }
    }

    fn receive(&mut self) -> Result<Packet, ControlError> {
        match self.inbox.receive(self.socket.as_fd(), Wait::Block) {
            Ok(Some(packet)) if packet.truncated => Err(ControlError::Packet(packet.fds.len())),
            Ok(Some(packet)) => Ok(packet),
            Ok(None) | Err(Errno::ECONNRESET) => Err(ControlError::Closed),
            Err(Errno::EAGAIN) => Err(ControlError::Late),
            Err(error) => Err(ControlError::Receive(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_found_in_whatever_order_requests_come() {
        let (mine, theirs) = socket::pair().unwrap();
        let mut control = Control::new(mine).unwrap();
        for (request, len) in [(1, 100), (2, 200), (3, 300)] {
            let object = memfd::create(c"test", len).unwrap();
            let packet = codec::encode(&Handover { request }).unwrap();
            socket::send(theirs.as_fd(), &packet, &[object.as_fd()], Wait::Never).unwrap();
        }
        for (request, len) in [(2, 200), (1, 100), (3, 300)] {
            let object = control.handover(RequestId(request)).unwrap();
            assert_eq!(memfd::size(object), Ok(len));
        }
        drop(theirs);
        assert!(matches!(control.handover(RequestId(4)), Err(ControlError::Closed)));
    }

    #[test]
    fn a_full_queue_is_no_error_for_a_bell_but_a_closed_one_is() {
        let (mine, theirs) = socket::pair().unwrap();
        let control = Control::new(mine).unwrap();
        for _ in 0..10_000 {
            control.bell().unwrap();
        }
        drop(theirs);
        assert!(matches!(control.bell(), Err(ControlError::Closed)));
    }
}
