//! What clients speak. Each front end decodes into [`crate::request`], hands over to
//! [`crate::admission`], and encodes the reply; nothing below knows a protocol.
//!
//! - [`http`]: the REST form of the Open Inference Protocol.
//! - [`metrics`]: what operators see: metrics and the status page.

pub mod http;
mod listener;
pub mod metrics;
