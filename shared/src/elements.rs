//! The elements of a BYTES tensor: a little-endian `u32` length and that many bytes, each.

use std::iter::FusedIterator;

/// Bytes of the length in front of each element.
pub const LENGTH_BYTES: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidElements {
    #[error("the last element of a BYTES tensor is cut off")]
    CutOff,
    #[error("a BYTES tensor has {has} elements, its shape says {expected}")]
    Count { has: u64, expected: u64 },
}

/// Walks over the elements; ends after the first error.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<&'a [u8], InvalidElements>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let split = || {
            let (length, rest) = self.rest.split_first_chunk::<LENGTH_BYTES>()?;
            rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
        };
        let Some((element, rest)) = split() else {
            self.rest = &[];
            return Some(Err(InvalidElements::CutOff));
        };
        self.rest = rest;
        Some(Ok(element))
    }
}

impl FusedIterator for Elements<'_> {}

/// Checks that `bytes` are exactly `expected` whole elements.
pub fn check(bytes: &[u8], expected: u64) -> Result<(), InvalidElements> {
    let mut has = 0;
    for element in Elements::new(bytes) {
        element?;
        has += 1;
    }
    if has == expected { Ok(()) } else { Err(InvalidElements::Count { has, expected }) }
}

/// Appends one element; `None`, and nothing is appended, if it is longer than a length can say.
#[must_use]
pub fn append(element: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let length = u32::try_from(element.len()).ok()?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(element);
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn elements_must_be_whole_and_as_many_as_said() {
        let mut bytes = Vec::new();
        append(b"one", &mut bytes).unwrap();
        append(b"", &mut bytes).unwrap();
        assert_eq!(check(&bytes, 2), Ok(()));
        assert_eq!(check(&bytes, 3), Err(InvalidElements::Count { has: 2, expected: 3 }));
        assert_eq!(check(&bytes[..10], 2), Err(InvalidElements::CutOff));
        assert_eq!(check(&[255; 4], 1), Err(InvalidElements::CutOff));
        assert_eq!(check(&[], 0), Ok(()));
    }

    proptest! {
        #[test]
        fn elements_round_trip(elements in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..20), 0..10,
        )) {
            let mut bytes = Vec::new();
            for element in &elements {
                append(element, &mut bytes).unwrap();
            }
            let read: Result<Vec<_>, _> = Elements::new(&bytes).collect();
            prop_assert_eq!(read.unwrap(), elements);
        }

        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Elements::new(&bytes).count() <= bytes.len() / 4 + 1);
        }
    }
}
