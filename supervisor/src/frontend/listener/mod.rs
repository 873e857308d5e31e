//! Connections of a listener, whatever is answered on them: how many there may be, and how long each may
//! do nothing.

mod accept;
mod activity;
mod connection;

pub(super) use accept::serve;
pub(super) use connection::{Limits, Protocols, Service};
