//! The exit codes of `bulkhead`, the only numbers that it ends with.

use std::process::ExitCode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Drained and ended as asked, or the configuration is good (`check`), or what there is was listed, be it
    /// no GPU at all (`devices`).
    Ok = 0,
    /// Something failed while running.
    Failed = 1,
    /// The configuration or the command line is wrong. Nothing was bound. (Also clap's own code.)
    Configuration = 2,
    /// A listener or a file that it needs could not be had.
    Start = 3,
    /// A second signal ended it before everything had drained.
    Forced = 4,
    /// No server answers at the admin socket.
    Unreachable = 5,
    /// The server does not take commands from this user.
    Refused = 6,
    /// The server knows no model of that name.
    UnknownModel = 7,
    /// The server could not do what it was told.
    Undone = 8,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
