//! Between the supervisor and a zygote, a process that has a framework loaded and makes workers by
//! copying itself.
//!
//! On a socket of packets like a worker's: [`ForkRequest`]s down, each with the worker's control socket,
//! its log pipe and a descriptor for each of its control groups; one [`ZygoteFact`] up for each, after
//! one [`ZygoteFact::Ready`]. A zygote never reads a byte of a model, but what it says is checked all
//! the same.

use serde::{Deserialize, Serialize};

/// Make a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkRequest {
    /// What a worker that is started as a program gets as arguments, its name first.
    pub arguments: Vec<String>,
    /// Variables of its environment that the zygote's own does not have, or has with another value.
    pub environment: Vec<(String, String)>,
    /// What the descriptors after the first two are for, in their order.
    pub groups: Vec<Entrance>,
}

/// How a worker comes into one of its control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entrance {
    /// It is made in it: the folder of a group of version 2. At most one.
    Born,
    /// It moves itself before anything else: the list of threads of a group of version 1. A thread
    /// that moves itself spares the kernel a wait of ten milliseconds for all others.
    Join,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ZygoteFact {
    /// The framework is loaded; requests are taken from now on.
    Ready,
    /// The worker exists, and has tried to enter its groups; it is a child of the supervisor.
    Forked { pid: i32 },
    /// There is no worker.
    Failed { message: String },
}
