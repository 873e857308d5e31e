//! Log lines to the supervisor: `<N>message` on stderr, N the syslog level, one line each.
//!
//! The supervisor adds model, version and generation; a line without a prefix (a library's) is
//! logged as information. A line is written with one call, so that threads do not mix theirs.

use std::fmt::Arguments;
use std::io::Write;

use shared::text::clean;

/// With prefix and end it stays below `PIPE_BUF`, up to which a write to a pipe is atomic.
const MAX_LINE_BYTES: usize = 4000;

/// Syslog levels.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Level {
    Error = 3,
    Warning = 4,
    Info = 6,
    Debug = 7,
}

pub fn error(message: Arguments<'_>) {
    write(Level::Error, message);
}

pub fn warning(message: Arguments<'_>) {
    write(Level::Warning, message);
}

pub fn info(message: Arguments<'_>) {
    write(Level::Info, message);
}

pub fn debug(message: Arguments<'_>) {
    write(Level::Debug, message);
}

/// Makes every panic, on any thread, one log line and then SIGABRT.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        error(format_args!("{panic}"));
        std::process::abort();
    }));
}

fn write(level: Level, message: Arguments<'_>) {
    let line = line(level, message);
    // There is nowhere left to report a log that cannot be written.
    let _ignored = std::io::stderr().lock().write_all(line.as_bytes());
}

fn line(level: Level, message: Arguments<'_>) -> String {
    format!("<{}>{}\n", level as u8, clean(&message.to_string(), MAX_LINE_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_with_its_level() {
        assert_eq!(line(Level::Warning, format_args!("a\nb")), "<4>a b\n");
        assert!(line(Level::Debug, format_args!("{}", "x".repeat(9000))).len() <= 4096);
    }
}
