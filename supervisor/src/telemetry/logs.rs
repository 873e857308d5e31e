//! Logs: for a person on a terminal, JSON lines otherwise.

use std::io::IsTerminal as _;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, registry, reload};

use crate::config::{Log, LogFormat};

#[derive(Debug, thiserror::Error)]
#[error("log.filter is not a filter")]
pub struct InvalidFilter(#[source] tracing_subscriber::filter::ParseError);

/// Changes what is logged; a cheap handle.
#[derive(Clone, Debug)]
pub struct LogFilter(reload::Handle<EnvFilter, Registry>);

impl LogFilter {
    /// Logs what `filter` says from now on.
    pub fn set(&self, filter: &str) -> Result<(), InvalidFilter> {
        let filter = parse(filter)?;
        // Refused only if the subscriber is gone, and that stays as long as the process.
        let _gone = self.0.reload(filter);
        Ok(())
    }
}

/// What operators have done is logged whatever else is.
fn parse(filter: &str) -> Result<EnvFilter, InvalidFilter> {
    let filter = EnvFilter::builder().parse(filter).map_err(InvalidFilter)?;
    Ok(filter.add_directive("audit=info".parse().expect("a directive")))
}

/// Installs the process's subscriber, which writes to standard error. Called once; a second call
/// changes nothing.
pub fn start_logs(log: &Log) -> Result<LogFilter, InvalidFilter> {
    let filter = parse(&log.filter)?;
    let to_person = match log.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let colours = to_person && std::io::stderr().is_terminal();
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let lines = if to_person { lines.boxed() } else { lines.json().flatten_event(true).boxed() };
    let (filter, handle) = reload::Layer::new(filter);
    // Only a second subscriber is refused, and the first one serves as well.
    let _already = tracing::subscriber::set_global_default(registry().with(filter).with(lines));
    Ok(LogFilter(handle))
}
