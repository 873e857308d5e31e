//! One entry of a slot's tensor table: 128 bytes, two cache lines.

use crate::limits::{MAX_DIMS, TENSOR_ALIGN};
use crate::tensor::{DataType, Shape, TensorDesc};

pub const ENTRY_BYTES: usize = 128;
const DIMS_AT: usize = 32;

/// What a worker did that an honest one never does. Each ends the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("the response ring's head jumped by {0}")]
    HeadJump(u32),
    #[error("a completion is not a descriptor")]
    Descriptor,
    #[error("a completion names slot {0}, which does not exist")]
    Slot(u32),
    #[error("a completion of slot {slot} names a request that is not in it")]
    Request { slot: u32 },
    #[error("a completion carries another generation")]
    Generation,
    #[error("a completion has {0} tensors")]
    TensorCount(u32),
    #[error("a tensor table entry has an unknown type or too many dimensions")]
    Entry,
    #[error("a tensor's shape overflows")]
    Shape,
    #[error("a tensor's length does not follow from its type and shape")]
    Length,
    #[error("a tensor lies outside its memory")]
    Bounds,
    #[error("a tensor is not one of the wanted outputs, or stands there twice")]
    Output,
    #[error("an error message is longer than allowed")]
    Message,
    #[error("outputs in a memory object of their own came without that object")]
    MissingObject,
    #[error("a memory object for outputs is not sealed or has another size")]
    BadObject,
    #[error("a packet on the control socket is malformed")]
    Packet,
    #[error("the control socket was closed by a process that lives on")]
    Closed,
}

pub fn encode(tensor: &TensorDesc) -> [u8; ENTRY_BYTES] {
    let mut entry = [0; ENTRY_BYTES];
    entry[0..4].copy_from_slice(&tensor.index.to_le_bytes());
    entry[4] = tensor.dtype.code();
    entry[5] = u8::try_from(tensor.shape.dims().len()).expect("at most MAX_DIMS");
    entry[8..16].copy_from_slice(&(tensor.offset as u64).to_le_bytes());
    entry[16..24].copy_from_slice(&(tensor.len as u64).to_le_bytes());
    let dims = entry[DIMS_AT..].chunks_exact_mut(8);
    for (chunk, dim) in dims.zip(tensor.shape.dims()) {
        chunk.copy_from_slice(&dim.to_le_bytes());
    }
    entry
}

/// Reads an entry that anybody may have written, for tensors in `memory` bytes: types, shape,
/// length and place are consistent in what is returned.
pub fn decode(entry: &[u8; ENTRY_BYTES], memory: usize) -> Result<TensorDesc, Violation> {
    let number = |at: usize| {
        let bytes = entry[at..at + 8].try_into().expect("eight bytes");
        u64::from_le_bytes(bytes)
    };
    let index = u32::from_le_bytes(entry[0..4].try_into().expect("four bytes"));
    let dtype = DataType::from_code(entry[4]).ok_or(Violation::Entry)?;
    let rank = usize::from(entry[5]);
    if rank > MAX_DIMS {
        return Err(Violation::Entry);
    }
    let mut dims = [0; MAX_DIMS];
    for (i, dim) in dims[..rank].iter_mut().enumerate() {
        *dim = number(DIMS_AT + 8 * i);
    }
    let shape = Shape::new(&dims[..rank]).map_err(|_| Violation::Shape)?;
    let offset = usize::try_from(number(8)).map_err(|_| Violation::Bounds)?;
    let len = usize::try_from(number(16)).map_err(|_| Violation::Bounds)?;
    let inside = offset.checked_add(len).is_some_and(|end| end <= memory);
    if !inside || !offset.is_multiple_of(TENSOR_ALIGN) {
        return Err(Violation::Bounds);
    }
    match shape.byte_len(dtype).map_err(|_| Violation::Shape)? {
        Some(expected) if expected != len => Err(Violation::Length),
        Some(_) | None => Ok(TensorDesc { index, dtype, shape, offset, len }),
    }
}

const _: () = assert!(DIMS_AT + 8 * MAX_DIMS == ENTRY_BYTES);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fp32(dims: &[u64], offset: usize) -> TensorDesc {
        let shape = Shape::new(dims).unwrap();
        let len = shape.byte_len(DataType::Fp32).unwrap().unwrap();
        TensorDesc { index: 3, dtype: DataType::Fp32, shape, offset, len }
    }

    #[test]
    fn entries_round_trip() {
        let tensor = fp32(&[1, 3, 224, 224], 128);
        assert_eq!(decode(&encode(&tensor), 1 << 20), Ok(tensor));
    }

    #[test]
    fn entries_that_do_not_add_up_are_violations() {
        let good = fp32(&[4], 64);
        assert_eq!(decode(&encode(&good), 64 + 15), Err(Violation::Bounds));
        assert_eq!(decode(&encode(&TensorDesc { len: 15, ..good }), 4096), Err(Violation::Length));
        assert_eq!(
            decode(&encode(&TensorDesc { offset: usize::MAX - 63, ..good }), 4096),
            Err(Violation::Bounds)
        );
        let mut entry = encode(&good);
        entry[5] = 13;
        assert_eq!(decode(&entry, 4096), Err(Violation::Entry));
        entry = encode(&good);
        entry[4] = 0;
        assert_eq!(decode(&entry, 4096), Err(Violation::Entry));
        entry = encode(&good);
        entry[5] = 2;
        entry[32..48].fill(0xff);
        assert_eq!(decode(&entry, 4096), Err(Violation::Shape));
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_consistent(
            head in any::<[u8; 24]>(), dims in any::<[u16; 12]>(), memory in 0_usize..1 << 20,
        ) {
            let mut entry = [0; ENTRY_BYTES];
            entry[..24].copy_from_slice(&head);
            for (i, dim) in dims.iter().enumerate() {
                entry[32 + 8 * i..34 + 8 * i].copy_from_slice(&dim.to_le_bytes());
            }
            if let Ok(t) = decode(&entry, memory) {
                prop_assert!(t.offset + t.len <= memory);
                if let Some(size) = t.dtype.size() {
                    prop_assert_eq!(usize::try_from(t.shape.elements()).unwrap() * size, t.len);
                }
            }
        }
    }
}
