//! The process that runs one model instance.
//!
//! It boots through phases that are types ([`inherit`], [`confine`], [`boot`]), then one thread takes requests
//! from the ring, runs the engine and publishes completions ([`pump`]), and another waits for
//! commands ([`session`]). There is no async runtime, and nothing here knows a model but through
//! [`engine`].
//!
//! A panic is a bug of ours and ends the process by SIGABRT: after one, nothing that the engine
//! holds can be trusted, and a fresh process is cheap. What a *model* does wrong is an error of its
//! request (an exception) or the end of this process alone (a crash).
//!
//! A module uses only modules of a strictly lower level: 1 and 2 [`confine`], [`telemetry`],
//! [`control`], [`engine`]; 3 [`inherit`], [`pump`]; 4 [`load`], [`session`], [`zygote`];
//! 5 [`boot`].

pub mod boot;
pub mod confine;
pub mod control;
pub mod engine;
pub mod inherit;
pub mod load;
pub mod pump;
pub mod session;
pub mod telemetry;
pub mod zygote;

pub use boot::{Program, run};
