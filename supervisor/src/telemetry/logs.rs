//! Logs: for a person on a terminal, JSON lines otherwise.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::Subscriber;

use crate::config::{Log, LogFormat};

#[derive(Debug, thiserror::Error)]
#[error("log.filter is not a filter")]
pub struct InvalidFilter(#[source] tracing_subscriber::filter::ParseError);

/// Installs the process's subscriber, which writes to standard error. Called once; a second call
/// changes nothing.
pub fn start_logs(log: &Log) -> Result<(), InvalidFilter> {
    let filter = EnvFilter::builder().parse(&log.filter).map_err(InvalidFilter)?;
    let to_person = match log.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let colours = to_person && std::io::stderr().is_terminal();
    let lines = Subscriber::builder()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours);
    // Only a second subscriber is refused, and the first one serves as well.
    let _already = if to_person {
        tracing::subscriber::set_global_default(lines.finish())
    } else {
        tracing::subscriber::set_global_default(lines.json().flatten_event(true).finish())
    };
    Ok(())
}
