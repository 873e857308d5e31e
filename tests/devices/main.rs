//! Devices as the server sees them, through the real wrapper and a library that says what a test wants.

mod answers;
mod command;
mod garbage;
mod limits;
mod losses;
mod watch;
