//! Where a Unix socket is.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::UnixAddr;

/// A name in a folder that is held open. By way of it a path can be longer than a socket's address, and
/// what is done there one after the other is done in one folder.
#[derive(Debug)]
pub struct SocketPlace {
    folder: File,
    name: PathBuf,
}

impl SocketPlace {
    pub fn open(path: &Path) -> io::Result<Self> {
        let name = path.file_name().map(PathBuf::from);
        let name = name.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            Some(_) | None => Path::new("."),
        };
        let mut options = OpenOptions::new();
        let folder = options.read(true).custom_flags(OFlag::O_DIRECTORY.bits()).open(folder)?;
        Ok(Self { folder, name })
    }

    #[must_use]
    pub fn folder(&self) -> &File {
        &self.folder
    }

    /// Short, and good for as long as this lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.folder.as_raw_fd().to_string()).join(&self.name)
    }

    pub fn address(&self) -> Result<UnixAddr, Errno> {
        UnixAddr::new(&self.path())
    }
}
