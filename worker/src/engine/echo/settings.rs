//! The `parameters` of a model of this engine.
//!
//! ```text
//! load_delay_ms        load so much longer
//! load_fail            fail for good, with this message
//! load_fail_transient  fail in a way that a repeat may mend, with this message
//! load_crash           segv, abort, kill, exit, exit N: end in the middle of loading
//! allocate_mb          hold so many MiB from loading on
//! delay_us             answer each request so much later
//! ```
//! Other parameters are not this engine's business.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::LoadError;
use crate::engine::echo::command::{Crash, crash};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub load_delay: Duration,
    pub load_failure: Option<LoadError>,
    pub load_crash: Option<Crash>,
    pub allocate_bytes: usize,
    pub delay: Duration,
}

impl Settings {
    pub fn read(parameters: &BTreeMap<String, String>) -> Result<Self, LoadError> {
        let text = |key: &str| parameters.get(key).cloned();
        let number = |key: &str| parameters.get(key).map_or(Ok(0), |value| parse(key, value));
        let megabytes = usize::try_from(number("allocate_mb")?).unwrap_or(usize::MAX);
        let crash_of = |value: &String| crash(value).ok_or_else(|| invalid("load_crash", value));
        Ok(Self {
            load_delay: Duration::from_millis(number("load_delay_ms")?),
            load_failure: text("load_fail")
                .map(LoadError::Permanent)
                .or_else(|| text("load_fail_transient").map(LoadError::Transient)),
            load_crash: parameters.get("load_crash").map(crash_of).transpose()?,
            allocate_bytes: megabytes.saturating_mul(1 << 20),
            delay: Duration::from_micros(number("delay_us")?),
        })
    }
}

fn parse(key: &str, value: &str) -> Result<u64, LoadError> {
    value.trim().parse().map_err(|_| invalid(key, value))
}

fn invalid(key: &str, value: &str) -> LoadError {
    LoadError::Permanent(format!("parameter {key:?} of the echo engine cannot be {value:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parameters: &[(&str, &str)]) -> Result<Settings, LoadError> {
        Settings::read(&parameters.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect())
    }

    #[test]
    fn parameters_are_read() {
        assert_eq!(read(&[("other", "x")]), Ok(Settings::default()));
        let settings = read(&[
            ("delay_us", "5"),
            ("allocate_mb", "2"),
            ("load_crash", "exit 3"),
            ("load_fail_transient", "later"),
        ]);
        let expected = Settings {
            delay: Duration::from_micros(5),
            allocate_bytes: 2 << 20,
            load_crash: Some(Crash::Exit(3)),
            load_failure: Some(LoadError::Transient("later".into())),
            ..Settings::default()
        };
        assert_eq!(settings, Ok(expected));
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        let error = read(&[("delay_us", "soon")]).unwrap_err().to_string();
        assert_eq!(error, r#"parameter "delay_us" of the echo engine cannot be "soon""#);
        assert!(read(&[("load_crash", "maybe")]).is_err());
    }
}
