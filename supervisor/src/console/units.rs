//! Figures as a person reads them; pure but for the present, which is passed in.

use std::time::{Duration, UNIX_EPOCH};

/// Bytes with one decimal, in the unit that leaves one to four digits before it.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = UNITS.len() - 1;
    let shift = (0..=power).rev().find(|&n| n == 0 || bytes >> (10 * n) > 0).unwrap_or(0);
    if shift == 0 {
        return format!("{bytes} B");
    }
    let tenths = (u128::from(bytes) * 10) >> (10 * shift);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[shift])
}

pub(super) fn or_dash<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

/// The two largest units of a time.
pub(super) fn time(millis: u64) -> String {
    let seconds = millis / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if seconds == 0 => format!("{millis}ms"),
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        (_, _, _) => format!("{days}d{hours:02}h"),
    }
}

/// How many in a second, with one decimal where there are few.
pub(super) fn per_second(rate: f64) -> String {
    match rate {
        0.0 => "0/s".to_owned(),
        rate if rate < 99.95 => format!("{rate:.1}/s"),
        rate => format!("{rate:.0}/s"),
    }
}

pub(super) fn micros(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros}us"),
        1000..100_000 => format!("{}.{}ms", micros / 1000, micros % 1000 / 100),
        _ => time(micros / 1000),
    }
}

pub(super) fn ago(at: u64, now: u64) -> String {
    format!("{} ago", time(now.saturating_sub(at)))
}

/// A moment, in UTC.
pub(super) fn moment(millis: u64) -> String {
    // The calendar of the formatter ends with the year 9999.
    const LAST: u64 = 253_402_300_799_999;
    let at = UNIX_EPOCH + Duration::from_millis(millis.min(LAST));
    humantime::format_rfc3339_millis(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_can_be_read() {
        let shown = [0, 1023, 1024, 1536, (1 << 30) - 1, 5 << 30, u64::MAX].map(bytes);
        let expected =
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1023.9 MiB", "5.0 GiB", "16777215.9 TiB"];
        assert_eq!(shown, expected);
        let shown = [7, 1000, 61_000, 3_661_000, 90_000_000].map(time);
        assert_eq!(shown, ["7ms", "1s", "1m01s", "1h01m", "1d01h"]);
        assert_eq!([0.0, 0.26, 250.4].map(per_second), ["0/s", "0.3/s", "250/s"]);
        assert_eq!([999, 1550, 100_000, 2_000_000].map(micros), ["999us", "1.5ms", "100ms", "2s"]);
        assert_eq!(moment(0), "1970-01-01T00:00:00.000Z");
        assert!(moment(u64::MAX).starts_with("9999"));
    }
}
