//! Pure verdict on what a worker has of its devices, look by look.
//!
//! Beyond the soft threshold it is asked to give back what it only keeps, and gets smaller batches if
//! that does not help; beyond its quota, look after look, it must go. A look that shows nothing certain
//! is neither good nor bad: unknown is not zero, and not a reason to end anybody.

use std::fmt;

/// What was seen of a worker on its devices; of several, on the fullest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceUse {
    /// It uses none of them so far.
    Nothing,
    Bytes(u64),
    /// How much it has cannot be told; why. Not the same as nothing.
    Blind(String),
    /// A device of it is lost; why.
    Lost(String),
}

/// Looks in a row above the quota before a worker must go: one may fall between an allocation and its
/// refusal.
const MOST_OVER: u32 = 3;
/// Looks above the soft threshold after a worker was asked to give back, until its batches become
/// smaller; and until it is asked again.
const UNTIL_SMALLER: u32 = 3;
const UNTIL_AGAIN: u32 = 10;

/// The looks at one worker.
#[derive(Clone, Debug)]
pub struct DeviceWatch {
    quota: u64,
    soft: u64,
    over: u32,
    /// Looks in a row above the soft threshold.
    above: u32,
    smaller: bool,
}

/// What a look asks for.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing new.
    Steady,
    /// It should give back what it only keeps.
    Trim,
    /// The same, and it should get smaller batches until [`Advice::Relax`].
    Squeeze,
    /// It may have its usual batches again.
    Relax,
    /// It has more than it may, and keeps it.
    Over {
        used: u64,
        quota: u64,
    },
    Lost(String),
}

impl DeviceWatch {
    /// `soft` is a part of the quota, 0 to 1.
    #[must_use]
    pub fn new(quota: u64, soft: f64) -> Self {
        // In thousandths, which is as fine as anybody sets it.
        let thousandths =
            (1..=1000_u32).rev().find(|&n| f64::from(n) / 1000.0 <= soft).unwrap_or(1);
        let soft = quota / 1000 * u64::from(thousandths);
        Self { quota, soft, over: 0, above: 0, smaller: false }
    }

    pub fn on(&mut self, seen: &DeviceUse) -> Advice {
        let used = match seen {
            DeviceUse::Bytes(used) => *used,
            DeviceUse::Nothing => 0,
            DeviceUse::Blind(_) => return Advice::Steady,
            DeviceUse::Lost(why) => return Advice::Lost(why.clone()),
        };
        self.over = if used > self.quota { self.over.saturating_add(1) } else { 0 };
        if self.over >= MOST_OVER {
            return Advice::Over { used, quota: self.quota };
        }
        if used <= self.soft {
            self.above = 0;
            return if std::mem::take(&mut self.smaller) { Advice::Relax } else { Advice::Steady };
        }
        self.above = self.above.saturating_add(1);
        match self.above {
            1 => Advice::Trim,
            looks if looks > UNTIL_SMALLER && !self.smaller => {
                self.smaller = true;
                Advice::Squeeze
            }
            looks if looks % UNTIL_AGAIN == 0 => Advice::Trim,
            _ => Advice::Steady,
        }
    }
}

impl DeviceUse {
    /// Of two devices the graver: lost, then blind, then the fuller.
    #[must_use]
    pub fn graver(self, other: Self) -> Self {
        let rank = |seen: &Self| match seen {
            Self::Nothing => (0, 0),
            Self::Bytes(bytes) => (1, *bytes),
            Self::Blind(_) => (2, 0),
            Self::Lost(_) => (3, 0),
        };
        if rank(&other) > rank(&self) { other } else { self }
    }
}

impl fmt::Display for DeviceUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Bytes(bytes) => write!(f, "{bytes} bytes"),
            Self::Blind(why) => write!(f, "blind: {why}"),
            Self::Lost(why) => write!(f, "lost: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUOTA: u64 = 1000;

    fn watch() -> DeviceWatch {
        DeviceWatch::new(QUOTA, 0.9)
    }

    fn advice(watch: &mut DeviceWatch, looks: &[u64]) -> Vec<Advice> {
        looks.iter().map(|&used| watch.on(&DeviceUse::Bytes(used))).collect()
    }

    #[test]
    fn beyond_the_soft_threshold_it_trims_then_squeezes_and_relaxes_below() {
        use Advice::{Relax, Squeeze, Steady, Trim};
        let mut watch = watch();
        let looks = [900, 901, 950, 950, 950, 950, 950, 950, 950, 950, 950, 800, 800, 901];
        let expected = [
            Steady, Trim, Steady, Steady, Squeeze, Steady, Steady, Steady, Steady, Steady, Trim,
            Relax, Steady, Trim,
        ];
        assert_eq!(advice(&mut watch, &looks), expected);
    }

    #[test]
    fn beyond_the_quota_for_some_looks_in_a_row_it_must_go() {
        let mut first = watch();
        let looks = [1001, 1002, 1000, 1001, 1001];
        assert!(!advice(&mut first, &looks).iter().any(|a| matches!(a, Advice::Over { .. })));
        assert_eq!(first.on(&DeviceUse::Bytes(1003)), Advice::Over { used: 1003, quota: QUOTA });
    }

    #[test]
    fn a_blind_look_says_nothing_and_a_lost_device_ends_it() {
        let mut watch = watch();
        let _advice = advice(&mut watch, &[1001, 1001]);
        assert_eq!(watch.on(&DeviceUse::Blind("no right".into())), Advice::Steady);
        assert_eq!(watch.on(&DeviceUse::Bytes(1001)), Advice::Over { used: 1001, quota: QUOTA });
        assert_eq!(watch.on(&DeviceUse::Lost("Xid".into())), Advice::Lost("Xid".into()));
    }

    #[test]
    fn the_graver_of_two_devices_counts() {
        let (blind, lost) = (DeviceUse::Blind(String::new()), DeviceUse::Lost(String::new()));
        let bytes = DeviceUse::Bytes;
        assert_eq!(bytes(3).graver(bytes(5)), bytes(5));
        assert_eq!(bytes(3).graver(blind.clone()), blind);
        assert_eq!(lost.clone().graver(blind), lost);
        assert_eq!(DeviceUse::Nothing.graver(bytes(0)), bytes(0));
    }

    proptest! {
        /// Squeezed and relaxed by turns; never told to go below the quota.
        #[test]
        fn advice_is_consistent(looks in prop::collection::vec(0_u64..1200, 0..100)) {
            let mut watch = watch();
            let mut smaller = false;
            for used in looks {
                match watch.on(&DeviceUse::Bytes(used)) {
                    Advice::Squeeze => prop_assert!(!std::mem::replace(&mut smaller, true)),
                    Advice::Relax => prop_assert!(std::mem::replace(&mut smaller, false)),
                    Advice::Over { .. } => prop_assert!(used > QUOTA),
                    Advice::Trim => prop_assert!(used > 900),
                    Advice::Steady => {}
                    Advice::Lost(_) => prop_assert!(false),
                }
            }
        }
    }
}
