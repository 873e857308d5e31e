//! Binary tensors, cut anywhere by the network, into their places.

use super::seam::Slot;
use crate::request::RequestError;

/// Bytes `from..to` of one input; the part before `from` is written by someone else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) input: usize,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// Where the next byte of the body goes.
pub(super) struct Scatter {
    segments: std::vec::IntoIter<Segment>,
    current: Option<Segment>,
}

/// More came than all inputs take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Excess;

/// An input that is not complete, and the bytes that it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) input: usize,
    pub(super) bytes: usize,
}

impl Scatter {
    pub(super) fn new(segments: Vec<Segment>) -> Self {
        let mut scatter = Self { segments: segments.into_iter(), current: None };
        scatter.advance();
        scatter
    }

    pub(super) fn push(&mut self, mut chunk: &[u8], slot: &mut impl Slot) -> Result<(), Excess> {
        while !chunk.is_empty() {
            let segment = self.current.as_mut().ok_or(Excess)?;
            let length = chunk.len().min(segment.to - segment.from);
            let (now, later) = chunk.split_at(length);
            slot.input_mut(segment.input)
                .get_mut(segment.from..segment.from + length)
                .expect("a slot's input is as long as the head declares it")
                .copy_from_slice(now);
            segment.from += length;
            chunk = later;
            self.advance();
        }
        Ok(())
    }

    pub(super) fn missing(&self) -> Option<Missing> {
        self.current.map(|s| Missing { input: s.input, bytes: s.to - s.from })
    }

    /// Goes on to the next segment that wants bytes, if the current one wants none.
    fn advance(&mut self) {
        if self.current.is_none_or(|s| s.from == s.to) {
            self.current = self.segments.find(|s| s.from < s.to);
        }
    }
}

/// The same verdict from the number of bytes alone, for when it is known in advance.
pub(super) fn check_total(segments: &[Segment], mut available: usize) -> Result<(), Verdict> {
    for segment in segments {
        let wanted = segment.to - segment.from;
        let Some(left) = available.checked_sub(wanted) else {
            let missing = Missing { input: segment.input, bytes: wanted - available };
            return Err(Verdict::Missing(missing));
        };
        available = left;
    }
    if available == 0 { Ok(()) } else { Err(Verdict::Excess) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Missing(Missing),
    Excess,
}

impl Verdict {
    pub(super) fn into_error<'n>(
        self,
        model: &str,
        name_of: impl Fn(usize) -> &'n str,
    ) -> RequestError {
        RequestError::invalid(match self {
            Self::Missing(Missing { input, bytes }) => format!(
                "unexpected size for input '{}' for model '{model}', \
                 expecting {bytes} additional bytes",
                name_of(input)
            ),
            Self::Excess => format!("unexpected additional input data for model '{model}'"),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::*;

    struct Vecs(Vec<Vec<u8>>);

    impl Slot for Vecs {
        fn input_mut(&mut self, i: usize) -> &mut [u8] {
            &mut self.0[i]
        }

        fn deadline(&self) -> Instant {
            unreachable!("scattering knows no time")
        }
    }

    fn segments(lens: &[usize]) -> Vec<Segment> {
        lens.iter().enumerate().map(|(input, &to)| Segment { input, from: 0, to }).collect()
    }

    proptest! {
        #[test]
        fn any_cutting_fills_all_inputs_or_says_what_is_wrong(
            lens in proptest::collection::vec(0..20_usize, 0..6),
            sent in 0..80_usize,
            size in 1..30_usize,
        ) {
            let total: usize = lens.iter().sum();
            let body: Vec<u8> = (0..=255).cycle().take(sent).collect();
            let mut slot = Vecs(lens.iter().map(|&l| vec![0; l]).collect());
            let mut scatter = Scatter::new(segments(&lens));
            let pushed = body.chunks(size).try_for_each(|c| scatter.push(c, &mut slot));
            let known = check_total(&segments(&lens), sent);
            match sent.cmp(&total) {
                std::cmp::Ordering::Equal => {
                    prop_assert_eq!((pushed, scatter.missing(), known), (Ok(()), None, Ok(())));
                    prop_assert_eq!(slot.0.concat(), body);
                }
                std::cmp::Ordering::Greater => {
                    prop_assert_eq!((pushed, known), (Err(Excess), Err(Verdict::Excess)));
                }
                std::cmp::Ordering::Less => {
                    prop_assert_eq!(pushed, Ok(()));
                    let missing = scatter.missing().unwrap();
                    prop_assert_eq!(known, Err(Verdict::Missing(missing)));
                }
            }
        }
    }

    #[test]
    fn a_segment_may_begin_inside_its_input() {
        let mut slot = Vecs(vec![vec![9; 4]]);
        let mut scatter = Scatter::new(vec![Segment { input: 0, from: 2, to: 4 }]);
        assert_eq!(scatter.push(&[1, 2], &mut slot), Ok(()));
        assert_eq!(slot.0[0], [9, 9, 1, 2]);
    }
}
