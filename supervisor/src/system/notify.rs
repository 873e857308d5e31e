//! What is told to a service manager that wants to hear it, as systemd does of `Type=notify`.
//!
//! Datagrams to the socket that `NOTIFY_SOCKET` names; without it, nothing is told and everything
//! works the same. The process that tells is the one that was started: `MAINPID` stays as it is.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use std::sync::Arc;
use std::time::Duration;

use shared::clock::MonotonicNanos;
use shared::sync::{AtomicBool, Ordering};
use tokio::net::UnixDatagram;
use tokio::time::timeout;
use tracing::warn;

/// How long the service manager may take to make room for a message.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to the service manager, if there is one; a cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Notifier(Option<Arc<Manager>>);

#[derive(Debug)]
struct Manager {
    socket: SocketAddr,
    /// Said once, and only then a reload has something to come back to.
    told_ready: AtomicBool,
    /// So that a manager that has gone is one line in the log.
    warned: AtomicBool,
}

impl Notifier {
    /// As the environment says. An address that is none is told and counts as no manager: the server
    /// is there to serve.
    #[must_use]
    pub fn from_environment() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self(None);
        };
        match address(&name) {
            Ok(socket) => Self::new(socket),
            Err(error) => {
                warn!(NOTIFY_SOCKET = %name.display(), %error, "the service manager cannot be told");
                Self(None)
            }
        }
    }

    fn new(socket: SocketAddr) -> Self {
        let (told_ready, warned) = (AtomicBool::new(false), AtomicBool::new(false));
        Self(Some(Arc::new(Manager { socket, told_ready, warned })))
    }

    /// Whether anybody listens.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.0.is_some()
    }

    /// Tells assignments, one a line. What cannot be told is logged once and changes nothing else.
    pub async fn tell(&self, text: &str) {
        let Some(manager) = &self.0 else { return };
        if text.lines().any(|line| line == "READY=1") {
            // Only this task's own later reads depend on it.
            manager.told_ready.store(true, Ordering::Relaxed);
        }
        if let Err(error) = manager.send(text).await
            && !manager.warned.swap(true, Ordering::Relaxed)
        {
            warn!(%error, "the service manager could not be told");
        }
    }

    /// Has the manager know that `reload` is going on. While the server has not been said to be ready,
    /// a reload is a part of its start, and says nothing of its own.
    pub async fn while_reloading<T>(&self, reload: impl Future<Output = T>) -> T {
        let ready = |m: &Arc<Manager>| m.told_ready.load(Ordering::Relaxed);
        if !self.0.as_ref().is_some_and(ready) {
            return reload.await;
        }
        let now = MonotonicNanos::now().0 / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now}")).await;
        let outcome = reload.await;
        self.tell("READY=1").await;
        outcome
    }
}

impl Manager {
    /// From a socket of its own: the manager's may be another one after its own restart.
    async fn send(&self, text: &str) -> io::Result<()> {
        let socket = StdDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect_addr(&self.socket)?;
        let socket = UnixDatagram::from_std(socket)?;
        match timeout(PATIENCE, socket.send(text.as_bytes())).await {
            Ok(sent) => sent.map(drop),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// A path, or after `@` a name without a file.
fn address(name: &OsString) -> io::Result<SocketAddr> {
    match name.as_bytes().split_first() {
        Some((b'@', rest)) => SocketAddr::from_abstract_name(rest),
        Some((b'/', _)) => SocketAddr::from_pathname(name),
        Some(_) | None => Err(io::Error::other("neither an absolute path nor an abstract name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(manager: &StdDatagram) -> String {
        let mut bytes = [0; 256];
        let len = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    }

    async fn tells(name: OsString, manager: StdDatagram) {
        let notifier = Notifier::new(address(&name).unwrap());
        assert_eq!(notifier.while_reloading(async { 7 }).await, 7);
        notifier.tell("READY=1\nSTATUS=here").await;
        assert_eq!(heard(&manager), "READY=1\nSTATUS=here");
        notifier.while_reloading(async {}).await;
        assert!(heard(&manager).starts_with("RELOADING=1\nMONOTONIC_USEC="));
        assert_eq!(heard(&manager), "READY=1");
        drop(manager);
        notifier.tell("STATUS=nobody").await;
    }

    #[tokio::test]
    async fn a_manager_is_told_by_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        tells(path.clone().into(), StdDatagram::bind(path).unwrap()).await;
    }

    #[tokio::test]
    async fn a_manager_is_told_by_abstract_name() {
        let name = format!("bulkhead-test-{}", std::process::id());
        let at = SocketAddr::from_abstract_name(&name).unwrap();
        tells(format!("@{name}").into(), StdDatagram::bind_addr(&at).unwrap()).await;
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("/{}", "x".repeat(200));
        for name in ["relative", "vsock:2:9", &long] {
            assert!(address(&name.into()).is_err(), "{name}");
        }
    }
}
