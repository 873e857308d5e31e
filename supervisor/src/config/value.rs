//! Values that people write: durations, sizes, counts; how each is read, shown and bounded.

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Value;

/// Bytes, written `64MiB` or as a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size(pub(super) usize);

/// Something with a smallest and a largest value.
pub(super) trait Quantity: PartialOrd + Sized {
    /// What to write, as "a duration such as \"2s\"".
    const KIND: &'static str;
    fn read(value: &Value) -> Option<Self>;
    fn show(&self) -> String;
}

impl Quantity for Duration {
    const KIND: &'static str = "a duration such as \"2s\", \"150ms\" or \"5m\"";

    fn read(value: &Value) -> Option<Self> {
        humantime::parse_duration(value.as_str()?).ok()
    }

    fn show(&self) -> String {
        show_duration(*self)
    }
}

impl Quantity for Size {
    const KIND: &'static str = "a size such as \"64MiB\", \"4GiB\" or a number of bytes";

    fn read(value: &Value) -> Option<Self> {
        match value.as_integer() {
            Some(bytes) => usize::try_from(bytes).ok().map(Self),
            None => parse_size(value.as_str()?),
        }
    }

    fn show(&self) -> String {
        show_size(self.0)
    }
}

macro_rules! whole_number {
    ($($type:ty),+) => {$(
        impl Quantity for $type {
            const KIND: &'static str = "a whole number";

            fn read(value: &Value) -> Option<Self> {
                value.as_integer()?.try_into().ok()
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

whole_number!(u16, u32);

impl Quantity for f64 {
    const KIND: &'static str = "a number";

    fn read(value: &Value) -> Option<Self> {
        let whole = value.as_integer().and_then(|n| i32::try_from(n).ok());
        value.as_float().or(whole.map(Self::from)).filter(|number| number.is_finite())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// "from A to B", as an error message needs it.
pub(super) fn show_range<Q: Quantity>(range: &RangeInclusive<Q>) -> String {
    format!("{} from {} to {}", Q::KIND, range.start().show(), range.end().show())
}

pub(super) fn show_names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("{name:?}")).collect();
    format!("[{}]", quoted.join(", "))
}

const UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

/// Digits and a unit of [`UNITS`]. `MB` is refused: people mean either of two numbers by it.
fn parse_size(text: &str) -> Option<Size> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let unit = unit.trim_start();
    let shift = match unit {
        "" => 0,
        unit => UNITS.iter().find(|(name, _)| *name == unit)?.1,
    };
    let number: usize = digits.parse().ok()?;
    number.checked_mul(1 << shift).map(Size)
}

/// The largest unit that divides the number.
pub(super) fn show_size(bytes: usize) -> String {
    let divides = |shift: u32| bytes != 0 && bytes.trailing_zeros() >= shift;
    let (unit, shift) = UNITS.into_iter().find(|(_, shift)| divides(*shift)).unwrap_or(("B", 0));
    format!("{}{unit}", bytes >> shift)
}

/// `1h30m`, `150ms`, `0s`: as [`humantime`] reads it, in units that need no calendar.
pub(super) fn show_duration(duration: Duration) -> String {
    let secs = duration.as_secs();
    let nanos = duration.subsec_nanos();
    let parts: [(u64, &str); 6] = [
        (secs / 3600, "h"),
        (secs / 60 % 60, "m"),
        (secs % 60, "s"),
        (u64::from(nanos / 1_000_000), "ms"),
        (u64::from(nanos / 1_000 % 1_000), "us"),
        (u64::from(nanos % 1_000), "ns"),
    ];
    let mut text = String::new();
    for (number, unit) in parts.into_iter().filter(|(number, _)| *number > 0) {
        write!(text, "{number}{unit}").expect("a string takes any text");
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn size(text: &str) -> Option<usize> {
        Size::read(&Value::from(text)).map(|size| size.0)
    }

    #[test]
    fn sizes_are_read_in_binary_units_only() {
        assert_eq!(size("64MiB"), Some(64 << 20));
        assert_eq!(size("4 GiB"), Some(4 << 30));
        assert_eq!(size("4096"), Some(4096));
        assert_eq!(size("0B"), Some(0));
        assert_eq!(Size::read(&Value::from(10)).map(|s| s.0), Some(10));
        for bad in ["", "MiB", "64MB", "64mib", "1.5GiB", "-1", "1 2", "99999999999999999999", "ä"]
        {
            assert_eq!(size(bad), None, "{bad:?}");
        }
        assert_eq!(size("18446744073709551615TiB"), None);
        assert_eq!(Size::read(&Value::from(-1)), None);
    }

    #[test]
    fn durations_need_a_unit() {
        let read = |text: &str| Duration::read(&Value::from(text));
        assert_eq!(read("150ms"), Some(Duration::from_millis(150)));
        assert_eq!(read("1h 30m"), Some(Duration::from_secs(5400)));
        for bad in ["", "2", "s", "-1s", "2 parsecs", "99999999999999999999s"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
        assert_eq!(Duration::read(&Value::from(2)), None);
    }

    #[test]
    fn what_is_shown_is_what_a_person_would_write() {
        assert_eq!(show_size(64 << 20), "64MiB");
        assert_eq!(show_size(1000), "1000B");
        assert_eq!(show_size(0), "0B");
        assert_eq!(show_duration(Duration::from_secs(24 * 3600)), "24h");
        assert_eq!(show_duration(Duration::from_millis(1500)), "1s500ms");
        assert_eq!(show_duration(Duration::ZERO), "0s");
    }

    proptest! {
        #[test]
        fn sizes_round_trip(bytes in any::<usize>()) {
            prop_assert_eq!(size(&show_size(bytes)), Some(bytes));
        }

        #[test]
        fn durations_round_trip(nanos in 0..u64::MAX) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(Duration::read(&Value::from(show_duration(duration))), Some(duration));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let value = Value::from(text);
            let _size = Size::read(&value);
            let _duration = Duration::read(&value);
        }
    }
}
