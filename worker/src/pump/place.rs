//! Where outputs go, as pure arithmetic.

use shared::limits::{MAX_TENSOR_BYTES, MAX_TENSORS, TENSOR_ALIGN};
use shared::tensor::TensorDesc;

use crate::engine::{PlaceError, PlannedOutput};

/// A place for each planned output, one after the other, and the bytes that they take together.
#[derive(Debug, PartialEq)]
pub(super) struct Layout {
    pub(super) tensors: Vec<TensorDesc>,
    pub(super) total: usize,
}

/// Lays the outputs out. `wanted` has a bit for each output that may be there.
pub(super) fn layout(plan: &[PlannedOutput], wanted: u64) -> Result<Layout, PlaceError> {
    if plan.len() > MAX_TENSORS {
        return Err(PlaceError::TooMany(plan.len()));
    }
    let mut left = wanted;
    let mut total = 0_usize;
    let mut tensors = Vec::with_capacity(plan.len());
    for output in plan {
        let bit = 1_u64.checked_shl(output.index).unwrap_or(0);
        if left & bit == 0 {
            return Err(PlaceError::NotWanted(output.index));
        }
        left &= !bit;
        check_length(output)?;
        let offset = total.next_multiple_of(TENSOR_ALIGN);
        total = offset.checked_add(output.len).ok_or(PlaceError::TooLarge(usize::MAX))?;
        if total > MAX_TENSOR_BYTES {
            return Err(PlaceError::TooLarge(total));
        }
        let PlannedOutput { index, dtype, shape, len } = *output;
        tensors.push(TensorDesc { index, dtype, shape, offset, len });
    }
    Ok(Layout { tensors, total })
}

fn check_length(output: &PlannedOutput) -> Result<(), PlaceError> {
    match output.shape.byte_len(output.dtype) {
        Ok(Some(expected)) if expected != output.len => Err(PlaceError::Length(output.index)),
        Ok(Some(_) | None) => Ok(()),
        Err(_) => Err(PlaceError::TooLarge(output.len)),
    }
}

/// Cuts `memory` into the bytes of each tensor of a layout that fits it.
pub(super) fn split<'a>(mut memory: &'a mut [u8], tensors: &[TensorDesc]) -> Vec<&'a mut [u8]> {
    let mut at = 0;
    let mut parts = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let (_padding, rest) = memory.split_at_mut(tensor.offset - at);
        let (bytes, rest) = rest.split_at_mut(tensor.len);
        parts.push(bytes);
        memory = rest;
        at = tensor.offset + tensor.len;
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::tensor::{DataType, Shape};

    use super::*;

    fn bytes(index: u32, len: usize) -> PlannedOutput {
        PlannedOutput { index, dtype: DataType::Bytes, shape: Shape::new(&[1]).unwrap(), len }
    }

    #[test]
    fn what_the_supervisor_would_take_for_an_attack_is_refused_here() {
        assert_eq!(layout(&[bytes(1, 8)], 0b1), Err(PlaceError::NotWanted(1)));
        assert_eq!(layout(&[bytes(64, 8)], u64::MAX), Err(PlaceError::NotWanted(64)));
        assert_eq!(layout(&[bytes(0, 8); 2], 0b1), Err(PlaceError::NotWanted(0)));
        let odd = PlannedOutput { dtype: DataType::Fp32, ..bytes(0, 5) };
        assert_eq!(layout(&[odd], 0b1), Err(PlaceError::Length(0)));
        let huge = [bytes(0, MAX_TENSOR_BYTES), bytes(1, 1)];
        assert!(matches!(layout(&huge, 0b11), Err(PlaceError::TooLarge(_))));
        assert!(matches!(layout(&[bytes(0, usize::MAX)], 1), Err(PlaceError::TooLarge(_))));
        assert_eq!(layout(&[bytes(0, 1); 65], 1), Err(PlaceError::TooMany(65)));
    }

    proptest! {
        #[test]
        fn outputs_are_aligned_and_apart(lens in proptest::collection::vec(0_usize..200, 0..64)) {
            let plan: Vec<_> = (0..).zip(&lens).map(|(i, len)| bytes(i, *len)).collect();
            let layout = layout(&plan, u64::MAX).unwrap();
            let mut memory = vec![0; layout.total];
            for (i, part) in (1..).zip(split(&mut memory, &layout.tensors)) {
                part.fill(i);
            }
            for (i, (tensor, len)) in (1..).zip(layout.tensors.iter().zip(&lens)) {
                prop_assert!(tensor.offset.is_multiple_of(TENSOR_ALIGN));
                let part = &memory[tensor.offset..tensor.offset + len];
                prop_assert!(part.iter().all(|b| *b == i));
            }
        }
    }
}
