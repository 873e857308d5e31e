//! Between the supervisor and a zygote, a process that has a framework loaded and makes workers by
//! copying itself.
//!
//! On a socket of packets like a worker's: [`ForkRequest`]s down, with two or three descriptors (the
//! worker's control socket, its log pipe, the folder of its control group if it has one); one
//! [`ZygoteFact`] up for each, after one [`ZygoteFact::Ready`]. A zygote never reads a byte of a
//! model, but what it says is checked all the same.

use serde::{Deserialize, Serialize};

/// Make a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkRequest {
    /// What a worker that is started as a program gets as arguments, its name first.
    pub arguments: Vec<String>,
    /// Variables of its environment that the zygote's own does not have, or has with another value.
    pub environment: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ZygoteFact {
    /// The framework is loaded; requests are taken from now on.
    Ready,
    /// The worker exists; it is a child of the supervisor.
    Forked { pid: i32 },
    /// There is no worker.
    Failed { message: String },
}
