//! What operators are shown: one picture of the server, for everybody who shows it.
//!
//! Owns the [`Board`], on which the control plane hangs what it has and from which admin socket, status
//! page and metrics read. Nobody who hangs something up knows who looks at it, or when: what is shown is
//! made when somebody looks. It decides nothing.

mod board;

pub use board::{Board, InstanceCard, ModelCard, VersionCard};
