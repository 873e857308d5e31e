//! BYTES tensors: each element is a little-endian `u32` length and that many bytes.

/// Bytes of the length in front of each element.
pub const LENGTH_BYTES: usize = 4;

/// The elements of a BYTES tensor whose bytes may come from anyone. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
}

/// An element's length, or the element itself, goes beyond the end of the tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an element of a BYTES tensor is cut short")]
pub struct CutShort;

impl<'a> Elements<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn split(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.rest.split_first_chunk::<LENGTH_BYTES>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (element, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Some(element)
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<&'a [u8], CutShort>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let element = self.split().ok_or(CutShort);
        if element.is_err() {
            self.rest = &[];
        }
        Some(element)
    }
}

/// How many elements a BYTES tensor holds.
pub fn count(bytes: &[u8]) -> Result<u64, CutShort> {
    Elements::new(bytes).try_fold(0, |n, element| element.map(|_| n + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_elements_are_read_and_cut_ones_are_refused() {
        let two = b"\x02\0\0\0ab\0\0\0\0";
        let read: Result<Vec<_>, _> = Elements::new(two).collect();
        assert_eq!(read, Ok(vec![&b"ab"[..], &b""[..]]));
        assert_eq!(count(two), Ok(2));
        assert_eq!(count(b""), Ok(0));
        for cut in [&b"\x01"[..], b"\x02\0\0\0a", b"\xff\xff\xff\xffabc", b"\0\0\0\0\0"] {
            assert_eq!(count(cut), Err(CutShort), "{cut:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_counted_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(n) = count(&bytes) {
                prop_assert!(n * 4 <= bytes.len() as u64);
            }
        }
    }
}
