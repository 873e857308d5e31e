//! The `parameters` of a model of this engine.
//!
//! ```text
//! load_delay_ms        load so much longer
//! load_fail            fail for good, with this message
//! load_fail_transient  fail in a way that a repeat may mend, with this message
//! load_crash           segv, abort, kill, exit, exit N: end in the middle of loading
//! allocate_mb          hold so many MiB from loading on
//! delay_us             answer each request so much later
//! device_mb            hold so many MiB of the device from loading on; more than its limit fails the load
//! device_mb_per_row    need so many MiB of it for each row of a request (the first dimension)
//! device_limit         "none": an allocator that cannot be told of a limit
//! device_overlap       "true": requests are begun, and waited for while the next one is prefetched
//! load_device_fault    the device is lost while loading, with this message
//! ```
//! Those of the device (see `device`) mean nothing on the CPU.
//!
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
    pub device: DeviceSettings,
}

/// What it does with its device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceSettings {
    pub bytes: u64,
    pub bytes_per_row: u64,
    pub limit: DeviceLimit,
    pub overlaps: bool,
    pub load_fault: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceLimit {
    #[default]
    OfQuota,
    None,
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
            device: DeviceSettings::read(parameters)?,
        })
    }
}

impl DeviceSettings {
    fn read(parameters: &BTreeMap<String, String>) -> Result<Self, LoadError> {
        let text = |key: &str| parameters.get(key).map(String::as_str);
        let bytes = |key: &str| {
            let megabytes = text(key).map_or(Ok(0), |value| parse(key, value))?;
            Ok(megabytes.saturating_mul(1 << 20))
        };
        Ok(Self {
            bytes: bytes("device_mb")?,
            bytes_per_row: bytes("device_mb_per_row")?,
            limit: match text("device_limit") {
                None => DeviceLimit::OfQuota,
                Some("none") => DeviceLimit::None,
                Some(other) => return Err(invalid("device_limit", other)),
            },
            overlaps: match text("device_overlap") {
                None | Some("false") => false,
                Some("true") => true,
                Some(other) => return Err(invalid("device_overlap", other)),
            },
            load_fault: text("load_device_fault").map(str::to_owned),
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
    fn a_device_has_settings_of_its_own() {
        let device = read(&[("device_mb", "3"), ("device_limit", "none")]).unwrap().device;
        let expected =
            DeviceSettings { bytes: 3 << 20, limit: DeviceLimit::None, ..Default::default() };
        assert_eq!(device, expected);
        assert!(read(&[("device_limit", "7")]).is_err());
        assert!(read(&[("device_overlap", "often")]).is_err());
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        let error = read(&[("delay_us", "soon")]).unwrap_err().to_string();
        assert_eq!(error, r#"parameter "delay_us" of the echo engine cannot be "soon""#);
        assert!(read(&[("load_crash", "maybe")]).is_err());
    }
}
