//! The socket in the file system: nobody's but ours from the start, and gone at the end.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
    PermissionsExt as _, chown,
};
use std::os::unix::net;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, bind, connect, listen, socket};
use nix::sys::stat::{Mode, fchmod};
use tokio::net::UnixListener;

use super::peer::Rights;
use crate::system::SocketPlace;

/// Operators that may wait until they are accepted.
const BACKLOG: i32 = 64;

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("its folder cannot be made or opened")]
    Folder(#[source] io::Error),
    #[error("the file beside it that says whose turn it is cannot be used")]
    Lock(#[source] io::Error),
    #[error("another server is taking it over just now")]
    Race,
    #[error("another server listens there")]
    Taken,
    #[error("there is something else at its place")]
    NotASocket,
    #[error("what is there cannot be asked or removed")]
    Existing(#[source] io::Error),
    #[error("it cannot be made")]
    Bind(#[source] Errno),
    #[error("it cannot be given to its group")]
    Group(#[source] io::Error),
    #[error("it cannot be listened on")]
    Listen(#[source] io::Error),
}

/// A socket that is listened on; its file is removed when this is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    pub(super) listener: UnixListener,
    _file: SocketFile,
}

#[derive(Debug)]
struct SocketFile {
    place: SocketPlace,
    /// Device and number: what another server has put there is not ours to remove.
    identity: (u64, u64),
}

impl AdminSocket {
    /// Within a runtime.
    pub fn bind(path: &Path, rights: Rights) -> Result<Self, BindError> {
        make_folder(path).map_err(BindError::Folder)?;
        let place = SocketPlace::open(path).map_err(BindError::Folder)?;
        // Two servers that both find what a third has left must not remove each other's.
        let lock = Flock::lock(lock_file(&place)?, FlockArg::LockExclusiveNonblock);
        let _alone = lock.map_err(|(_, error)| {
            if error == Errno::EWOULDBLOCK {
                BindError::Race
            } else {
                BindError::Lock(error.into())
            }
        })?;
        clear(&place)?;
        let listener = bind_at(&place).map_err(BindError::Bind)?;
        let made = made_at(&place).map_err(BindError::Existing)?;
        let identity = made.metadata().map(|found| (found.dev(), found.ino()));
        let identity = identity.map_err(BindError::Existing)?;
        let file = SocketFile { place, identity };
        if let Some(group) = rights.group() {
            share(&made, group).map_err(BindError::Group)?;
        }
        // Nobody can connect before this.
        let backlog = Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN);
        listen(&listener, backlog).map_err(|e| BindError::Listen(e.into()))?;
        let listener = UnixListener::from_std(net::UnixListener::from(listener));
        Ok(Self { listener: listener.map_err(BindError::Listen)?, _file: file })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let path = self.place.path();
        if fs::symlink_metadata(&path).is_ok_and(|m| (m.dev(), m.ino()) == self.identity) {
            let _gone = fs::remove_file(&path);
        }
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o755).create(folder)
}

/// A file that nobody else can open, and so not lock: whoever can read the folder could lock that. It stays,
/// since a file that is removed can be locked twice.
fn lock_file(place: &SocketPlace) -> Result<File, BindError> {
    let mut path = place.path().into_os_string();
    path.push(".lock");
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
    options.open(path).map_err(BindError::Lock)
}

/// Removes what a server that is gone has left.
fn clear(place: &SocketPlace) -> Result<(), BindError> {
    match fs::symlink_metadata(place.path()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BindError::Existing(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket),
        Ok(_) => {}
    }
    match knock(place) {
        // Without waiting it is refused by a full backlog, too.
        Ok(()) | Err(Errno::EAGAIN) => Err(BindError::Taken),
        Err(Errno::ECONNREFUSED) => fs::remove_file(place.path()).map_err(BindError::Existing),
        Err(error) => Err(BindError::Existing(error.into())),
    }
}

fn knock(place: &SocketPlace) -> Result<(), Errno> {
    let socket = unconnected()?;
    connect(socket.as_raw_fd(), &place.address()?)
}

/// With mode 0600 from the moment in which it can be seen: a socket's own mode is what its file gets,
/// less what the umask takes.
fn bind_at(place: &SocketPlace) -> Result<OwnedFd, Errno> {
    let socket = unconnected()?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(socket.as_raw_fd(), &place.address()?)?;
    Ok(socket)
}

/// The file of the socket itself.
fn made_at(place: &SocketPlace) -> io::Result<File> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(place.path())
}

fn unconnected() -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

fn share(made: &File, group: u32) -> io::Result<()> {
    // By its descriptor: the name could have come to mean something else.
    let itself = Path::new("/proc/self/fd").join(made.as_raw_fd().to_string());
    chown(&itself, None, Some(group))?;
    fs::set_permissions(&itself, Permissions::from_mode(0o660))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights() -> Rights {
        Rights::with_group(None).unwrap()
    }

    #[tokio::test]
    async fn a_socket_is_ours_alone_and_goes_with_its_server() {
        let folder = tempfile::tempdir().unwrap();
        // Longer than an address.
        let path = folder.path().join("x".repeat(120)).join("admin.sock");
        let socket = AdminSocket::bind(&path, rights()).unwrap();
        let found = fs::metadata(&path).unwrap();
        assert!(found.file_type().is_socket());
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_a_dead_server_left_is_replaced_and_a_living_ones_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = AdminSocket::bind(&path, rights()).unwrap();
        let second = AdminSocket::bind(&path, rights()).unwrap_err();
        assert!(matches!(second, BindError::Taken), "{second:?}");
        // Somebody has put another one in its place, which stays.
        fs::remove_file(&path).unwrap();
        let _other = net::UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        fs::write(&path, "precious").unwrap();
        let error = AdminSocket::bind(&path, rights()).unwrap_err();
        assert!(matches!(error, BindError::NotASocket), "{error:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_group_is_let_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let own = nix::unistd::Group::from_gid(nix::unistd::getegid()).ok().flatten();
        let Some(own) = own else { return };
        let rights = Rights::with_group(Some(&own.name)).unwrap();
        let _socket = AdminSocket::bind(&path, rights).unwrap();
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.permissions().mode() & 0o777, found.gid()), (0o660, own.gid.as_raw()));
    }
}
