//! What the driver says, held against sense; pure.
//!
//! A figure that cannot be true is no figure: it becomes `None` or [`Used::Unknown`], never zero.

use std::collections::BTreeMap;

use shared::text::clean;

use super::reading::{Memory, Used};

/// Devices of one machine that are looked at; the driver itself knows no more.
pub const MOST_DEVICES: u32 = 64;
/// Slices of one device. Today's have at most seven.
pub const MOST_SLICES: u32 = 16;
/// Processes on one device.
pub const MOST_PROCESSES: u32 = 4096;
/// Bytes of a device: far more than any has, far less than what garbage looks like.
pub const MOST_MEMORY: u64 = 1 << 46;
const NAME_BYTES: usize = 96;
const WHY_BYTES: usize = 200;

/// A process as one list of the driver's has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    pub number: u32,
    /// `None` if it was not said.
    pub bytes: Option<u64>,
}

/// `used` does not include what is reserved, as in the second version of the driver's answer.
pub fn memory(total: u64, reserved: u64, used: u64) -> Option<Memory> {
    let total = total.checked_sub(reserved)?;
    ((1..=MOST_MEMORY).contains(&total) && used <= total).then_some(Memory { total, used })
}

pub fn busy(percent: u32) -> Option<u8> {
    u8::try_from(percent).ok().filter(|percent| *percent <= 100)
}

pub fn name(text: &str) -> String {
    match clean(text, NAME_BYTES).trim() {
        "" => "without a name".to_owned(),
        name => name.to_owned(),
    }
}

/// An error's text.
pub fn why(error: &dyn std::fmt::Display) -> String {
    clean(&error.to_string(), WHY_BYTES)
}

/// Whether nobody in it has more than the device has.
pub fn is_possible(list: &[Listed], most: u64) -> bool {
    list.iter().all(|listed| listed.bytes.is_none_or(|bytes| bytes <= most))
}

/// Everybody who computes or draws. A process that does both is in both lists with all that it has:
/// it counts once.
pub fn together(compute: &[Listed], graphics: &[Listed], most: u64) -> BTreeMap<u32, Used> {
    let mut all = sums(compute, most);
    for (number, used) in sums(graphics, most) {
        all.entry(number).and_modify(|other| *other = larger(*other, used)).or_insert(used);
    }
    all
}

fn sums(list: &[Listed], most: u64) -> BTreeMap<u32, Used> {
    let mut sums: BTreeMap<u32, Option<u64>> = BTreeMap::new();
    for listed in list {
        let sum = sums.entry(listed.number).or_insert(Some(0));
        *sum = sum.zip(listed.bytes).map(|(sum, bytes)| sum.saturating_add(bytes));
    }
    // Whoever is listed has a context on the device, which takes memory: where the driver says 0, as it
    // does in some containers, it does not know.
    let used = |sum: Option<u64>| match sum {
        Some(bytes) if (1..=most).contains(&bytes) => Used::Bytes(bytes),
        Some(_) | None => Used::Unknown,
    };
    sums.into_iter().map(|(number, sum)| (number, used(sum))).collect()
}

fn larger(one: Used, other: Used) -> Used {
    match (one, other) {
        (Used::Bytes(one), Used::Bytes(other)) => Used::Bytes(one.max(other)),
        (Used::Unknown, _) | (_, Used::Unknown) => Used::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listed(number: u32, bytes: u64) -> Listed {
        Listed { number, bytes: Some(bytes) }
    }

    #[test]
    fn what_is_reserved_is_not_given_out() {
        assert_eq!(memory(100, 10, 90), Some(Memory { total: 90, used: 90 }));
        for (total, reserved, used) in [(100, 10, 91), (10, 11, 0), (0, 0, 0), (u64::MAX, 0, 0)] {
            assert_eq!(memory(total, reserved, used), None, "{total} {reserved} {used}");
        }
    }

    #[test]
    fn more_than_all_the_time_is_not_said() {
        assert_eq!([busy(0), busy(100), busy(101), busy(300)], [Some(0), Some(100), None, None]);
    }

    #[test]
    fn names_are_printable() {
        assert_eq!(name("NVIDIA\nH200\u{7}"), "NVIDIA H200");
        assert_eq!(name(" \n"), "without a name");
    }

    #[test]
    fn whoever_is_in_both_lists_counts_once() {
        let both = together(&[listed(1, 5), listed(2, 7)], &[listed(1, 6), listed(3, 8)], 100);
        let expected = [(1, 6), (2, 7), (3, 8)].map(|(n, b)| (n, Used::Bytes(b)));
        assert_eq!(both, BTreeMap::from(expected));
    }

    #[test]
    fn unknown_is_not_zero_and_zero_is_unknown() {
        let unsaid = Listed { number: 1, bytes: None };
        let seen = together(&[unsaid, listed(2, 0), listed(3, 101), listed(4, 9)], &[], 100);
        let unknown = seen.iter().filter(|(_, used)| **used == Used::Unknown);
        assert_eq!(unknown.map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(together(&[unsaid], &[listed(1, 5)], 100)[&1], Used::Unknown);
        assert!(is_possible(&[unsaid, listed(2, 100)], 100));
        assert!(!is_possible(&[unsaid, listed(2, 101)], 100));
    }

    proptest! {
        #[test]
        fn nobody_has_more_than_there_is(
            compute in prop::collection::vec((0_u32..9, any::<Option<u64>>()), 0..20),
            graphics in prop::collection::vec((0_u32..9, any::<Option<u64>>()), 0..20),
            most in 1..=MOST_MEMORY,
        ) {
            let list = |list: &[(u32, Option<u64>)]| -> Vec<Listed> {
                list.iter().map(|&(number, bytes)| Listed { number, bytes }).collect()
            };
            let (compute, graphics) = (list(&compute), list(&graphics));
            let seen = together(&compute, &graphics, most);
            for listed in compute.iter().chain(&graphics) {
                prop_assert!(seen.contains_key(&listed.number));
            }
            for used in seen.values() {
                prop_assert!(matches!(used, Used::Unknown | Used::Bytes(1..)));
                prop_assert!(!matches!(used, Used::Bytes(bytes) if *bytes > most));
            }
        }
    }
}
