//! The control socket: a `SEQPACKET` pair, packets with at most one descriptor.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair, sockopt,
};

/// Whether a call may wait for the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Never,
    /// Until the socket's own send or receive timeout, if it has one.
    Block,
}

impl Wait {
    fn flags(self) -> MsgFlags {
        match self {
            Self::Never => MsgFlags::MSG_DONTWAIT,
            Self::Block => MsgFlags::empty(),
        }
    }
}

/// One packet that was received; its bytes are in the [`Inbox`].
#[derive(Debug)]
pub struct Packet {
    pub len: usize,
    /// The packet was longer than the inbox.
    pub truncated: bool,
    pub fds: Vec<OwnedFd>,
}

/// Most descriptors that the kernel passes with one packet (`SCM_MAX_FD`). The receive buffer has
/// room for all of them: nix does not hand out those of a truncated control message, so with less
/// room a hostile sender could leak descriptors into this process.
const MAX_FDS: usize = 253;

/// A connected pair, both ends closed on exec.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// Makes blocking receives fail with `EAGAIN` after `timeout`.
pub fn set_receive_timeout(
    socket: BorrowedFd<'_>,
    timeout: std::time::Duration,
) -> Result<(), Errno> {
    nix::sys::socket::setsockopt(&socket, sockopt::ReceiveTimeout, &time_value(timeout))
}

/// Makes blocking sends fail with `EAGAIN` after `timeout`.
pub fn set_send_timeout(socket: BorrowedFd<'_>, timeout: std::time::Duration) -> Result<(), Errno> {
    nix::sys::socket::setsockopt(&socket, sockopt::SendTimeout, &time_value(timeout))
}

fn time_value(time: std::time::Duration) -> nix::sys::time::TimeVal {
    nix::sys::time::TimeVal::new(
        i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        i64::from(time.subsec_micros()),
    )
}

/// Sends one packet whole or not at all. A peer that has gone is an error, never a signal.
pub fn send(
    socket: BorrowedFd<'_>,
    packet: &[u8],
    fds: &[BorrowedFd<'_>],
    wait: Wait,
) -> Result<(), Errno> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL | wait.flags();
    let bytes = [IoSlice::new(packet)];
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &bytes, control, flags, None) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

/// Room for one packet and its descriptors, to be used again and again.
#[derive(Debug)]
pub struct Inbox {
    bytes: Vec<u8>,
    control: Vec<u8>,
}

impl Inbox {
    /// Room for packets of at most `len` bytes.
    pub fn new(len: usize) -> Self {
        Self { bytes: vec![0; len], control: nix::cmsg_space!([RawFd; MAX_FDS]) }
    }

    /// The bytes of the packet that was received last.
    pub fn bytes(&self, packet: &Packet) -> &[u8] {
        &self.bytes[..packet.len]
    }

    /// Receives one packet; `Ok(None)` is the end: the peer has closed.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, wait: Wait) -> Result<Option<Packet>, Errno> {
        let mut bytes = [IoSliceMut::new(&mut self.bytes)];
        // What an earlier packet left there must not be taken for this one's.
        self.control.fill(0);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | wait.flags();
        let message = loop {
            let control = Some(self.control.as_mut_slice());
            match recvmsg::<()>(socket.as_raw_fd(), &mut bytes, control, flags) {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        let cut = message.flags.contains(MsgFlags::MSG_CTRUNC);
        let truncated = cut || message.flags.contains(MsgFlags::MSG_TRUNC);
        let len = message.bytes;
        let mut fds = Vec::new();
        if cut {
            // nix hands out none of a message that was cut, and some may be installed already.
            fds.extend(installed(&self.control).into_iter().map(own));
        } else {
            for part in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(raw) = part {
                    fds.extend(raw.into_iter().map(own));
                }
            }
        }
        if len == 0 && fds.is_empty() && !truncated {
            return Ok(None);
        }
        Ok(Some(Packet { len, truncated, fds }))
    }
}

/// The descriptors in the first control message of a buffer that the kernel has filled: a `cmsghdr`
/// (length with itself, level, type) and the numbers. Nothing else comes on such a socket.
fn installed(control: &[u8]) -> Vec<RawFd> {
    let header = size_of::<usize>() + 2 * size_of::<i32>();
    let length = control.first_chunk().map_or(0, |length| usize::from_ne_bytes(*length));
    let kind = control.get(size_of::<usize>()..header).unwrap_or_default();
    let rights =
        [nix::libc::SOL_SOCKET.to_ne_bytes(), nix::libc::SCM_RIGHTS.to_ne_bytes()].concat();
    let numbers = control.get(header..length).unwrap_or_default();
    if kind != rights {
        return Vec::new();
    }
    numbers.as_chunks().0.iter().map(|number| RawFd::from_ne_bytes(*number)).collect()
}

/// Stops this process from sending on any of its connected sockets but `speaks`: what nobody reads
/// there would hold descriptors of this user for ever.
pub fn fall_silent_but_on(speaks: BorrowedFd<'_>) {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for number in numbers.filter(|&number: &RawFd| number != speaks.as_raw_fd()) {
        // What is no socket says so.
        let _no_socket = nix::sys::socket::shutdown(number, nix::sys::socket::Shutdown::Write);
    }
}

fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just installed this descriptor for us in SCM_RIGHTS; nobody else in
    // this process knows its number yet.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no SEQPACKET sockets")]
    fn packets_keep_their_edges_and_carry_descriptors() {
        let (a, b) = pair().unwrap();
        let memory = crate::sys::memfd::create(c"test", 4096).unwrap();
        send(a.as_fd(), b"one", &[memory.as_fd()], Wait::Never).unwrap();
        send(a.as_fd(), b"three", &[], Wait::Never).unwrap();
        let mut inbox = Inbox::new(4);
        let first = inbox.receive(b.as_fd(), Wait::Never).unwrap().unwrap();
        assert_eq!((first.len, first.fds.len(), first.truncated), (3, 1, false));
        assert_eq!(crate::sys::memfd::size(&first.fds[0]), Ok(4096));
        let second = inbox.receive(b.as_fd(), Wait::Never).unwrap().unwrap();
        assert!(second.truncated);
        assert_eq!(inbox.receive(b.as_fd(), Wait::Never).unwrap_err(), Errno::EAGAIN);
        drop(a);
        assert!(inbox.receive(b.as_fd(), Wait::Never).unwrap().is_none());
    }

    #[test]
    fn descriptors_of_a_message_that_was_cut_are_found() {
        let message = |level: i32, kind: i32, fds: &[RawFd]| {
            let len = 16 + 4 * fds.len();
            let mut bytes =
                [&len.to_ne_bytes()[..], &level.to_ne_bytes(), &kind.to_ne_bytes()].concat();
            bytes.extend(fds.iter().flat_map(|fd| fd.to_ne_bytes()));
            bytes.resize(64, 0);
            bytes
        };
        assert_eq!(installed(&message(1, 1, &[5, 9])), [5, 9]);
        assert_eq!(installed(&message(1, 2, &[5])), [0; 0]);
        assert_eq!(installed(&[0; 64]), [0; 0]);
        assert_eq!(installed(&[255; 64]), [0; 0]);
        assert_eq!(installed(&[]), [0; 0]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no SEQPACKET sockets")]
    fn however_many_descriptors_arrive_none_is_leaked() {
        let (a, b) = pair().unwrap();
        let memory = crate::sys::memfd::create(c"leak-probe", 4096).unwrap();
        let open = || {
            let fds = std::fs::read_dir("/proc/self/fd").unwrap();
            let targets = fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
            targets.filter(|t| t.to_string_lossy().contains("leak-probe")).count()
        };
        send(a.as_fd(), b"x", &[memory.as_fd(); MAX_FDS], Wait::Never).unwrap();
        let packet = Inbox::new(4).receive(b.as_fd(), Wait::Never).unwrap().unwrap();
        assert_eq!((packet.fds.len(), open()), (MAX_FDS, MAX_FDS + 1));
        drop(packet);
        assert_eq!(open(), 1);
    }
}
