//! What operators and their programs exchange with a server.
//!
//! - [`status`]: what a server has and how it does.

pub mod status;
