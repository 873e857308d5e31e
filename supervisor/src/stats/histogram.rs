//! How long things took: counts by buckets that are a sixteenth of their octave wide.
//!
//! Times are whole microseconds. Up to 16 µs each has a bucket of its own; from there on 16 buckets lie
//! between two powers of two, so that the middle of a bucket is off by 1/32 at most. The last bucket takes
//! what is longer than a day and a half, which no timeout allows.

use shared::sync::{AtomicU64, Ordering};

/// Buckets of one octave, and the times below which each microsecond has one.
const STEPS: u64 = 1 << STEP_BITS;
const STEP_BITS: u32 = 4;
/// Times from 2 to the power of this on are all in the last bucket.
const LONGEST_BITS: u32 = 37;
const BUCKETS: usize = ((LONGEST_BITS - STEP_BITS + 1) << STEP_BITS) as usize;

/// Counts that many add to at once.
#[derive(Debug)]
pub(super) struct Histogram(Box<[AtomicU64]>);

/// The counts of a histogram at a moment, or what came to them in a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape(Box<[u64]>);

impl Default for Histogram {
    fn default() -> Self {
        Self((0..BUCKETS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Default for Shape {
    fn default() -> Self {
        Self(vec![0; BUCKETS].into())
    }
}

impl Histogram {
    pub(super) fn add(&self, micros: u64) {
        self.0[bucket(micros)].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn shape(&self) -> Shape {
        Shape(self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect())
    }
}

impl Shape {
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The time that this part of all did not exceed, in microseconds; `None` if there were none.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<u64> {
        let all = self.count();
        if all == 0 {
            return None;
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank among fewer requests than there will ever be"
        )]
        let rank = ((all as f64 * part).ceil() as u64).clamp(1, all);
        let mut seen = 0;
        let reached = self.0.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        reached.map(middle)
    }

    /// How many took less than 2 to the power of `first` microseconds, than to that of `first + 1`, and so
    /// on up to `last`, each without those before, and how many took longer.
    pub fn octaves(&self, first: u32, last: u32) -> impl Iterator<Item = u64> {
        let edges = (first..=last).map(|bits| bucket(1 << bits)).chain([BUCKETS]);
        let mut from = 0;
        edges.map(move |to| {
            let count = self.0[from..to].iter().sum();
            from = to;
            count
        })
    }

    /// What came since `before`, which is an earlier shape of the same histogram.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self(self.0.iter().zip(&before.0).map(|(now, then)| now.saturating_sub(*then)).collect())
    }

    pub(super) fn occupied(&self) -> Vec<(u16, u64)> {
        (0..).zip(&self.0).filter(|(_, count)| **count > 0).map(|(i, count)| (i, *count)).collect()
    }

    pub(super) fn add(&mut self, occupied: &[(u16, u64)]) {
        for (i, count) in occupied {
            self.0[usize::from(*i)] += count;
        }
    }
}

fn bucket(micros: u64) -> usize {
    let micros = micros.min((1 << LONGEST_BITS) - 1);
    let octave = micros.max(STEPS).ilog2() - STEP_BITS;
    // Below 16, the time is its own number; above, each octave adds 16 and the leading bit is one of them.
    let index = u64::from(octave << STEP_BITS) + (micros >> octave);
    usize::try_from(index).expect("at most BUCKETS")
}

fn middle(bucket: usize) -> u64 {
    let bucket = u64::try_from(bucket).expect("at most BUCKETS");
    if bucket < 2 * STEPS {
        return bucket;
    }
    let octave = (bucket >> STEP_BITS) - 1;
    let low = (bucket - (octave << STEP_BITS)) << octave;
    low + (1 << octave) / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONGEST: u64 = (1 << LONGEST_BITS) - 1;

    fn of(times: &[u64]) -> Shape {
        let histogram = Histogram::default();
        times.iter().for_each(|&time| histogram.add(time));
        histogram.shape()
    }

    #[test]
    fn no_time_is_too_long_and_none_is_lost() {
        let shape = of(&[0, 1, 15, 16, 17, LONGEST, LONGEST + 1, u64::MAX]);
        assert_eq!(shape.count(), 8);
        assert_eq!(shape.quantile(0.0), Some(0));
        assert!(shape.quantile(1.0).unwrap() > LONGEST / 32 * 31);
        assert_eq!(Shape::default().quantile(0.5), None);
    }

    #[test]
    fn octaves_cut_where_they_say() {
        let shape = of(&[0, 63, 64, 127, 128, 255, 256, 1 << 30]);
        assert_eq!(shape.octaves(6, 8).collect::<Vec<_>>(), [2, 2, 2, 2]);
    }

    proptest! {
        #[test]
        fn a_time_is_known_to_within_a_part_in_32(time in 0..LONGEST) {
            let told = middle(bucket(time));
            prop_assert!(told.abs_diff(time) * 32 <= time, "{time} is told as {told}");
        }

        #[test]
        fn longer_times_never_have_lower_buckets(a in 0..LONGEST, b in 0..LONGEST) {
            prop_assert!((a <= b) == (bucket(a) <= bucket(b)) || bucket(a) == bucket(b));
        }

        #[test]
        fn quantiles_are_those_of_the_sorted_list(
            mut times in prop::collection::vec(0..10_000_000_u64, 1..300),
            part in 0.0..1.0_f64,
        ) {
            let shape = of(&times);
            times.sort_unstable();
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation,
                clippy::cast_sign_loss, reason = "a few hundred")]
            let rank = ((times.len() as f64 * part).ceil() as usize).max(1);
            let (exact, told) = (times[rank - 1], shape.quantile(part).unwrap());
            prop_assert!(told.abs_diff(exact) * 20 <= exact, "{told} for {exact}");
        }

        #[test]
        fn what_came_and_what_was_make_what_is(
            before in prop::collection::vec(0..1_000_000_u64, 0..50),
            after in prop::collection::vec(0..1_000_000_u64, 0..50),
        ) {
            let all = of(&[before.clone(), after.clone()].concat());
            let mut sum = of(&before);
            let came = all.since(&sum);
            prop_assert_eq!(&came, &of(&after));
            sum.add(&came.occupied());
            prop_assert_eq!(sum, all);
        }
    }
}
