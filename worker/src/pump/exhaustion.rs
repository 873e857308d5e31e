//! Whether a device is out of memory for good, or a request merely wanted too much of it; pure.
//!
//! A request that runs out of device memory is its client's greed unless it is no larger than one that was
//! answered before in this process: then the memory that was there has gone, and a new process may have it
//! again. Three such requests, with no answer to one of their size between them, are a device that is
//! exhausted. However many requests are larger than all that were answered, they say nothing.
//!
//! *Larger* is meant by each dimension of each input and not by bytes alone: many a model needs far more
//! memory for one long row than for many short ones of as many bytes, and a client chooses which it sends.

use crate::engine::InputView;

/// Failures that are one too many.
const FAILURES: usize = 3;
/// Sizes that are remembered of what was answered; none of them is as large as another.
const REMEMBERED: usize = 8;

/// What is known of a worker's device.
#[derive(Debug, Default)]
pub struct Exhaustion {
    answered: Vec<Size>,
    /// Requests that ran out of memory and should not have, since one of their size was answered.
    failed: Vec<Size>,
}

/// What to do after an answer that says that the device's memory ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Verdict {
    GoOn,
    End,
}

/// How large the inputs of a request are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Size(Vec<Extent>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Extent {
    index: u32,
    dims: Vec<u64>,
    bytes: usize,
}

impl Exhaustion {
    /// A request was run to its end.
    pub(super) fn answered(&mut self, inputs: &[InputView<'_>]) {
        if !self.failed.is_empty() {
            self.failed.retain(|failed| !failed.fits(inputs));
        }
        if self.was_answered(inputs) {
            return;
        }
        let size = Size::of(inputs);
        self.answered.retain(|smaller| !smaller.fits(inputs));
        if self.answered.len() == REMEMBERED {
            // What is forgotten only makes fewer failures count.
            self.answered.remove(0);
        }
        self.answered.push(size);
    }

    /// A request ran out of the device's memory, and was answered so.
    pub(super) fn ran_out(&mut self, inputs: &[InputView<'_>]) -> Verdict {
        if !self.was_answered(inputs) {
            return Verdict::GoOn;
        }
        self.failed.push(Size::of(inputs));
        if self.failed.len() < FAILURES { Verdict::GoOn } else { Verdict::End }
    }

    /// Whether a request that is at least as large was.
    fn was_answered(&self, inputs: &[InputView<'_>]) -> bool {
        self.answered.iter().any(|size| size.covers(inputs))
    }
}

impl Size {
    fn of(inputs: &[InputView<'_>]) -> Self {
        let extent = |input: &InputView<'_>| Extent {
            index: input.index,
            dims: input.shape.dims().to_vec(),
            bytes: input.bytes.len(),
        };
        Self(inputs.iter().map(extent).collect())
    }

    /// Whether a request is no larger than this.
    fn covers(&self, inputs: &[InputView<'_>]) -> bool {
        let has_room = |input: &InputView<'_>| {
            self.0.iter().any(|mine| {
                mine.index == input.index
                    && at_most(input.shape.dims(), &mine.dims)
                    && input.bytes.len() <= mine.bytes
            })
        };
        inputs.iter().all(has_room)
    }

    /// Whether this is no larger than a request.
    fn fits(&self, inputs: &[InputView<'_>]) -> bool {
        let has_room = |mine: &Extent| {
            inputs.iter().any(|input| {
                mine.index == input.index
                    && at_most(&mine.dims, input.shape.dims())
                    && mine.bytes <= input.bytes.len()
            })
        };
        self.0.iter().all(has_room)
    }
}

fn at_most(dims: &[u64], of: &[u64]) -> bool {
    dims.len() == of.len() && dims.iter().zip(of).all(|(dim, of)| dim <= of)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::tensor::{DataType, Shape};

    use super::*;

    static BYTES: [u8; 4096] = [0; 4096];

    fn input(index: u32, dims: &[u64]) -> InputView<'static> {
        let shape = Shape::new(dims).unwrap();
        let len = usize::try_from(shape.elements()).unwrap();
        InputView { index, dtype: DataType::Uint8, shape, bytes: &BYTES[..len] }
    }

    fn ran_out(device: &mut Exhaustion, dims: &[u64]) -> Verdict {
        device.ran_out(&[input(0, dims)])
    }

    #[test]
    fn the_third_failure_of_what_was_answered_before_is_the_last() {
        let mut device = Exhaustion::default();
        device.answered(&[input(0, &[8, 16])]);
        assert_eq!(ran_out(&mut device, &[8, 16]), Verdict::GoOn);
        assert_eq!(ran_out(&mut device, &[1, 16]), Verdict::GoOn);
        assert_eq!(ran_out(&mut device, &[8, 1]), Verdict::End);
    }

    #[test]
    fn an_answer_of_at_least_that_size_begins_anew_and_a_smaller_one_does_not() {
        let mut device = Exhaustion::default();
        device.answered(&[input(0, &[8])]);
        for _ in 0..9 {
            assert_eq!(ran_out(&mut device, &[4]), Verdict::GoOn);
            assert_eq!(ran_out(&mut device, &[4]), Verdict::GoOn);
            device.answered(&[input(0, &[4])]);
        }
        assert_eq!(ran_out(&mut device, &[4]), Verdict::GoOn);
        assert_eq!(ran_out(&mut device, &[4]), Verdict::GoOn);
        device.answered(&[input(0, &[3])]);
        assert_eq!(ran_out(&mut device, &[4]), Verdict::End);
    }

    #[test]
    fn one_long_row_is_larger_than_many_short_ones_of_as_many_bytes() {
        let mut device = Exhaustion::default();
        device.answered(&[input(0, &[64, 64])]);
        for _ in 0..9 {
            assert_eq!(ran_out(&mut device, &[1, 4096]), Verdict::GoOn);
        }
    }

    #[test]
    fn an_input_that_was_never_given_before_makes_a_request_larger() {
        let mut device = Exhaustion::default();
        device.answered(&[input(0, &[8])]);
        for _ in 0..9 {
            assert_eq!(device.ran_out(&[input(0, &[8]), input(1, &[1])]), Verdict::GoOn);
        }
    }

    fn any_dims() -> impl Strategy<Value = [u64; 2]> {
        [1_u64..=8, 1_u64..=8]
    }

    proptest! {
        #[test]
        fn however_greedy_a_client_is_it_ends_nothing(
            served in proptest::collection::vec(any_dims(), 0..20),
            greedy in proptest::collection::vec(any_dims(), 1..60),
        ) {
            let mut device = Exhaustion::default();
            for dims in &served {
                device.answered(&[input(0, dims)]);
            }
            let covered = |dims: &[u64; 2]| served.iter().any(|s| at_most(dims, s));
            for dims in greedy.iter().filter(|dims| !covered(dims)) {
                prop_assert_eq!(ran_out(&mut device, dims), Verdict::GoOn);
            }
        }

        #[test]
        fn what_is_answered_now_and_then_never_ends(
            requests in proptest::collection::vec((any_dims(), any::<bool>()), 0..100),
        ) {
            let mut device = Exhaustion::default();
            let mut failures = 0;
            for (dims, is_answered) in requests {
                if is_answered || failures == FAILURES - 1 {
                    device.answered(&[input(0, &[8, 8])]);
                    failures = 0;
                } else {
                    failures += 1;
                    prop_assert_eq!(ran_out(&mut device, &dims), Verdict::GoOn);
                }
            }
        }

        #[test]
        fn little_is_remembered(served in proptest::collection::vec(any_dims(), 0..100)) {
            let mut device = Exhaustion::default();
            for dims in &served {
                device.answered(&[input(0, dims)]);
                prop_assert!(device.was_answered(&[input(0, dims)]));
                prop_assert!(device.answered.len() <= REMEMBERED);
            }
        }
    }
}
