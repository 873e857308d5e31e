//! Operators: what they ask and are told, who they may be, and what they cannot do to a server.

mod clients;
mod commands;
mod socket;
mod streams;
