//! TCP connections of this machine, as `/proc` shows them.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};

/// As they are shown among the descriptors of whoever has them.
pub(crate) fn among_descriptors() -> BTreeSet<String> {
    let lines = table();
    let numbers = lines.lines().skip(1).filter_map(|line| line.split_whitespace().nth(9));
    numbers.map(|number| format!("socket:[{number}]")).collect()
}

/// Bytes that `here` was sent by `there` and has not read; none if there is no such connection.
pub(crate) fn unread(here: SocketAddr, there: SocketAddr) -> Option<u64> {
    let wanted = [shown(here), shown(there)];
    table().lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields.get(1..3)? != wanted {
            return None;
        }
        let (_, received) = fields.get(4)?.split_once(':')?;
        u64::from_str_radix(received, 16).ok()
    })
}

fn table() -> String {
    fs::read_to_string("/proc/net/tcp").unwrap_or_default()
}

/// The kernel shows the four bytes of an address as the number that this machine makes of them.
fn shown(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) => {
            format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port())
        }
        IpAddr::V6(_) => unreachable!("tests use 127.0.0.1"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_was_sent_and_not_read_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let here = listener.local_addr().expect("it is bound");
        let mut client = TcpStream::connect(here).expect("it listens");
        let (mut server, there) = listener.accept().expect("it has connected");
        client.write_all(b"seven b").expect("it is open");
        assert_eq!(unread(here, there), Some(7));
        server.read_exact(&mut [0; 7]).expect("it was sent");
        assert_eq!(unread(here, there), Some(0));
        assert_eq!(unread(there, SocketAddr::from(([127, 0, 0, 1], 1))), None);
    }
}
