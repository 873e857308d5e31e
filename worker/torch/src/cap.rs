//! The allocator's limit as the setting that libtorch takes, a fraction of the device. Pure.

use proto::control::{DeviceMemory, Segments};
use worker::engine::device::allocator_limit;

/// What the allocator is told, and what that comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cap {
    pub(crate) settings: String,
    pub(crate) limit: u64,
}

/// Of the fraction, and how many parts of 1 they tell apart.
const DIGITS: usize = 12;
const PARTS: u128 = 1_000_000_000_000;

impl Cap {
    /// For devices of which the largest has `total` bytes: one fraction holds for all of them, so that on a
    /// smaller one it leaves less.
    pub(crate) fn new(memory: DeviceMemory, total: u64) -> Self {
        let limit = allocator_limit(memory.quota).min(total);
        // Rounded down, which no rounding of libtorch's makes up for: it multiplies in doubles, whose
        // error is far below a byte, and drops what is behind the point. 1 is no limit but the device.
        let parts = match total {
            0 => 0,
            total => u128::from(limit) * PARTS / u128::from(total),
        };
        let (whole, part) = (parts / PARTS, parts % PARTS);
        let fraction = format!("{whole}.{part:0DIGITS$}");
        let expandable = match memory.segments {
            Segments::Fixed => "False",
            Segments::Expandable => "True",
        };
        let settings =
            format!("per_process_memory_fraction:{fraction},expandable_segments:{expandable}");
        Self { settings, limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(quota: u64) -> DeviceMemory {
        DeviceMemory { quota, segments: Segments::Fixed }
    }

    /// As libtorch 2.11 computes it, in `DeviceCachingAllocator::setMemoryFraction`.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is what libtorch does"
    )]
    fn allowed(cap: &Cap, total: u64) -> u64 {
        let fraction = cap.settings.split([':', ',']).nth(1).unwrap();
        let fraction: f64 = fraction.parse().unwrap();
        if fraction < 1.0 { (fraction * total as f64) as u64 } else { u64::MAX }
    }

    #[test]
    fn both_settings_are_spelled_as_libtorch_reads_them() {
        let cap = Cap::new(memory(2 << 30), 6 << 30);
        let fraction = "per_process_memory_fraction:0.250000000000";
        assert_eq!(cap.settings, format!("{fraction},expandable_segments:False"));
        assert_eq!(cap.limit, 3 << 29);
        let expandable = DeviceMemory { segments: Segments::Expandable, ..memory(2 << 30) };
        assert!(Cap::new(expandable, 6 << 30).settings.ends_with(",expandable_segments:True"));
    }

    #[test]
    fn a_quota_beyond_the_device_is_the_device() {
        let cap = Cap::new(memory(100 << 30), 16 << 30);
        assert!(cap.settings.starts_with("per_process_memory_fraction:1.0000"), "{cap:?}");
        assert_eq!(cap.limit, 16 << 30);
        assert_eq!(Cap::new(memory(0), 16 << 30).limit, 0);
        assert!(Cap::new(memory(1 << 30), 0).settings.contains(":0.000000000000,"));
    }

    #[test]
    fn the_limit_is_never_passed_and_hardly_missed() {
        for total in [1 << 30, 16_945_512_448, 84_929_347_584, 150_000_000_001, 1 << 48] {
            for quota in
                (1..400_u64).map(|step| ((step * 7919) << 20) + step * 131).chain([1, 1 << 40])
            {
                let cap = Cap::new(memory(quota), total);
                let allowed = allowed(&cap, total).min(total);
                assert!(allowed <= cap.limit, "{allowed} of {cap:?}");
                assert!(cap.limit - allowed <= 1024, "{allowed} of {cap:?}");
            }
        }
    }
}
