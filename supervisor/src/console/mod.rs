//! What an operator sees: commands are sent to a running server, and its answers shown.
//!
//! Owns a client of the admin socket ([`client`]) and how its answers look: `shown` and `told` as tables for
//! a person, or as JSON for a program. It decides nothing and changes nothing by itself. Text of others is
//! cleaned before it reaches a terminal.

pub mod client;
mod documents;
mod run;
mod shown;
mod table;
mod told;
mod units;

pub use documents::{completions, manual, manuals};
pub use run::{devices, run};
