//! Sockets that a service manager has opened before this process, and keeps open after it: what
//! clients send while no server runs waits there.
//!
//! `LISTEN_FDS` counts them from descriptor 3 on, `LISTEN_FDNAMES` names them, `LISTEN_PID` says for
//! whom they are. Workers get nothing of it: their environment is made for them, and the descriptors
//! are closed on exec.

use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{SockType, getsockopt, sockopt};
use shared::sys::inherit;
use tracing::warn;

/// More than this server could have any use for.
const MOST: u16 = 64;

#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    #[error("LISTEN_FDS = {0:?}: expected a number from 0 to {MOST}")]
    Count(String),
    #[error("LISTEN_FDNAMES names {names} of {count} sockets")]
    Names { names: usize, count: usize },
    #[error("socket {name:?} (descriptor {number}) cannot be taken over")]
    Take { name: String, number: RawFd, source: Errno },
    #[error("there are several sockets {0:?}, and one is served")]
    Several(String),
    #[error("socket {0:?} is not a TCP socket that listens")]
    Kind(String),
}

/// The sockets, by name; each is handed out once.
#[derive(Debug, Default)]
pub struct Activation(Vec<(String, OwnedFd)>);

impl Activation {
    /// Takes over what this process was given. Once, before anything else is opened.
    pub fn take() -> Result<Self, ActivationError> {
        let variable = |name: &str| std::env::var(name).ok();
        let own = std::process::id().to_string();
        // The variables are left to children by whoever does not clear them, and then mean another.
        if variable("LISTEN_PID").is_none_or(|pid| pid != own) {
            return Ok(Self::default());
        }
        let count = variable("LISTEN_FDS").unwrap_or_default();
        let names = names(&count, variable("LISTEN_FDNAMES").as_deref())?;
        let taken =
            names.into_iter().zip(inherit::FIRST..).map(|(name, number)| {
                match inherit::take(number) {
                    Ok(socket) => Ok((name, socket)),
                    Err(source) => Err(ActivationError::Take { name, number, source }),
                }
            });
        Ok(Self(taken.collect::<Result<_, _>>()?))
    }

    /// The TCP socket of this name, if there is one, checked.
    pub fn tcp(&mut self, name: &str) -> Result<Option<TcpListener>, ActivationError> {
        let Some(at) = self.0.iter().position(|(found, _)| found == name) else { return Ok(None) };
        let (_, socket) = self.0.swap_remove(at);
        if self.0.iter().any(|(found, _)| found == name) {
            return Err(ActivationError::Several(name.to_owned()));
        }
        let kind = || ActivationError::Kind(name.to_owned());
        let listener = listening(socket).ok_or_else(kind)?;
        // Only an address of the internet can be read as one.
        listener.local_addr().map_err(|_| kind())?;
        listener.set_nonblocking(true).map_err(|_| kind())?;
        Ok(Some(listener))
    }

    /// Closes what nobody has asked for, and says so.
    pub fn close_the_rest(self) {
        for (name, _socket) in self.0 {
            warn!(name, "a socket that the service manager opened is not used and closed");
        }
    }
}

fn listening(socket: OwnedFd) -> Option<TcpListener> {
    let stream = getsockopt(&socket.as_fd(), sockopt::SockType) == Ok(SockType::Stream);
    let listens = getsockopt(&socket.as_fd(), sockopt::AcceptConn) == Ok(true);
    (stream && listens).then(|| TcpListener::from(socket))
}

/// The name of each socket. One alone that has no name is where clients arrive.
fn names(count: &str, names: Option<&str>) -> Result<Vec<String>, ActivationError> {
    let number = count.parse::<u16>().ok().filter(|number| *number <= MOST);
    let number = usize::from(number.ok_or_else(|| ActivationError::Count(count.to_owned()))?);
    match names {
        // So a manager calls what nobody has named.
        None | Some("unknown") if number == 1 => Ok(vec!["http".to_owned()]),
        None => Ok(vec!["unknown".to_owned(); number]),
        Some(_) if number == 0 => Ok(Vec::new()),
        Some(text) => {
            let names: Vec<String> = text.split(':').map(str::to_owned).collect();
            match names.len() == number {
                true => Ok(names),
                false => Err(ActivationError::Names { names: names.len(), count: number }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn activation(sockets: Vec<(&str, OwnedFd)>) -> Activation {
        Activation(sockets.into_iter().map(|(name, socket)| (name.to_owned(), socket)).collect())
    }

    fn tcp() -> OwnedFd {
        TcpListener::bind("127.0.0.1:0").unwrap().into()
    }

    #[test]
    fn each_socket_has_a_name() {
        assert_eq!(names("2", Some("http:metrics")).unwrap(), ["http", "metrics"]);
        assert_eq!(names("1", None).unwrap(), ["http"]);
        assert_eq!(names("1", Some("unknown")).unwrap(), ["http"]);
        assert_eq!(names("1", Some("other")).unwrap(), ["other"]);
        assert_eq!(names("2", None).unwrap(), ["unknown", "unknown"]);
        assert!(names("0", Some("")).unwrap().is_empty());
        for (count, named) in [("", None), ("-1", None), ("65", None), ("2", Some("http"))] {
            assert!(names(count, named).is_err(), "{count:?} {named:?}");
        }
    }

    #[test]
    fn only_a_tcp_socket_that_listens_is_one() {
        let mut good = activation(vec![("metrics", tcp()), ("http", tcp())]);
        assert!(good.tcp("http").unwrap().is_some());
        assert!(good.tcp("http").unwrap().is_none());
        assert!(good.tcp("metrics").unwrap().is_some());
        assert!(activation(vec![("http", tcp()), ("http", tcp())]).tcp("http").is_err());
        let folder = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = std::net::TcpStream::connect(address.local_addr().unwrap()).unwrap();
        let wrong: [OwnedFd; 4] = [
            UdpSocket::bind("127.0.0.1:0").unwrap().into(),
            UnixListener::bind(folder.path().join("s")).unwrap().into(),
            connected.into(),
            std::fs::File::open("/dev/null").unwrap().into(),
        ];
        for socket in wrong {
            assert!(activation(vec![("http", socket)]).tcp("http").is_err());
        }
    }
}
