//! What the HTTP front end is told from outside.

use std::sync::Arc;
use std::time::Duration;

use super::budget::ByteBudget;
use super::turnover::Turnover;
use crate::route::Routes;
use crate::telemetry::traces::Traces;

/// Limits and permissions of one listener.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Most bytes of a request body on the wire, and of the tensors of a reply in JSON.
    pub max_body: usize,
    /// Most bytes of a request body after its compression was undone.
    pub max_decompressed: usize,
    /// Most bytes of all outputs of a reply.
    pub max_reply: usize,
    /// Room for all bodies together that wait for their rest.
    pub buffers: Arc<ByteBudget>,
    /// Most pieces of a body whose length was not announced.
    pub max_chunks: usize,
    /// Deepest nesting of a request's JSON; up to 127.
    pub max_json_depth: usize,
    /// Most open connections; further ones wait to be accepted.
    pub max_connections: usize,
    /// From the first byte of a request, or from accepting a connection, to the end of the head.
    pub header_timeout: Duration,
    /// From the end of the head to the end of the body.
    pub body_timeout: Duration,
    /// From one piece of a body to the next.
    pub stall_timeout: Duration,
    /// How long a connection may do nothing.
    pub idle_timeout: Duration,
    pub repository_control: RepositoryControl,
}

/// Whether clients of this listener may load and unload models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepositoryControl {
    Allowed,
    Forbidden,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            max_body: 64 << 20,
            max_decompressed: 64 << 20,
            max_reply: 256 << 20,
            buffers: Arc::new(ByteBudget::new(1 << 30)),
            max_chunks: 65_536,
            max_json_depth: 100,
            max_connections: 1024,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            repository_control: RepositoryControl::Forbidden,
        }
    }
}

/// What the front end works with.
#[derive(Clone, Debug)]
pub struct HttpDeps {
    pub settings: HttpSettings,
    pub routes: Routes,
    pub turnover: Arc<Turnover>,
    pub traces: Traces,
}
