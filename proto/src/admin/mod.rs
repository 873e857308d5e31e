//! What operators and their programs exchange with a server.
//!
//! - [`request`]: what is asked, a JSON object a line.
//! - [`reply`]: what is answered, likewise; and what the answers to single commands hold.
//! - [`status`]: what a server has and how it does.

pub mod reply;
pub mod request;
pub mod status;
