//! What a tensor is, as plain data with checked constructors; no bytes, no framework.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::{MAX_DIMS, MAX_TENSOR_BYTES};

/// Element types of the Open Inference Protocol (plus BF16, as Triton has it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum DataType {
    Bool = 1,
    Uint8 = 2,
    Uint16 = 3,
    Uint32 = 4,
    Uint64 = 5,
    Int8 = 6,
    Int16 = 7,
    Int32 = 8,
    Int64 = 9,
    Fp16 = 10,
    Fp32 = 11,
    Fp64 = 12,
    /// Variable length: each element is a little-endian `u32` length and that many bytes.
    Bytes = 13,
    Bf16 = 14,
}

impl DataType {
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
        Self::Bf16,
    ];

    /// The protocol's spelling, as in `"datatype": "FP32"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
            Self::Bf16 => "BF16",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// Reads the number that stands in a tensor table; a worker may have written it.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.code() == code)
    }

    pub fn code(self) -> u8 {
        self as u8
    }

    /// Bytes of one element, `None` for [`DataType::Bytes`].
    pub fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidShape {
    #[error("a tensor may have at most {MAX_DIMS} dimensions, this one has {0}")]
    TooManyDims(usize),
    #[error("the number of elements overflows")]
    Overflow,
    #[error("a tensor may have at most {MAX_TENSOR_BYTES} bytes, this one has more")]
    TooLarge,
}

/// The shape of a tensor that exists: at most [`MAX_DIMS`] dimensions whose product fits.
///
/// Copyable and without heap, because one is made for every tensor of every request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    dims: [u64; MAX_DIMS],
    len: u8,
}

impl Shape {
    pub fn new(dims: &[u64]) -> Result<Self, InvalidShape> {
        let mut all = [0; MAX_DIMS];
        let Some(kept) = all.get_mut(..dims.len()) else {
            return Err(InvalidShape::TooManyDims(dims.len()));
        };
        kept.copy_from_slice(dims);
        checked_product(dims)?;
        let len = u8::try_from(dims.len()).expect("at most MAX_DIMS, which fits a byte");
        Ok(Self { dims: all, len })
    }

    pub fn dims(&self) -> &[u64] {
        &self.dims[..usize::from(self.len)]
    }

    /// The product of the dimensions; 1 for a scalar, 0 if any dimension is 0.
    pub fn elements(&self) -> u64 {
        checked_product(self.dims()).expect("checked by the constructor")
    }

    /// Bytes that `elements` take for a type of fixed size; `Ok(None)` for [`DataType::Bytes`].
    pub fn byte_len(&self, dtype: DataType) -> Result<Option<usize>, InvalidShape> {
        let Some(size) = dtype.size() else { return Ok(None) };
        let elements = usize::try_from(self.elements()).map_err(|_| InvalidShape::Overflow)?;
        let bytes = elements.checked_mul(size).ok_or(InvalidShape::Overflow)?;
        if bytes > MAX_TENSOR_BYTES {
            return Err(InvalidShape::TooLarge);
        }
        Ok(Some(bytes))
    }
}

/// The product, also checked with the zeros left out, so that `[0, huge, huge]` is refused alike.
fn checked_product(dims: &[u64]) -> Result<u64, InvalidShape> {
    let non_zero = dims.iter().filter(|&&d| d != 0);
    let product = non_zero
        .copied()
        .try_fold(1_u64, u64::checked_mul)
        .filter(|&p| i64::try_from(p).is_ok())
        .ok_or(InvalidShape::Overflow)?;
    Ok(if dims.contains(&0) { 0 } else { product })
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dims().fmt(f)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<String> = self.dims().iter().map(u64::to_string).collect();
        write!(f, "[{}]", dims.join(","))
    }
}

impl Serialize for Shape {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.dims().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&Vec::<u64>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// What a model says of one input or output. `None` is "not known yet": TorchScript files carry
/// neither types nor shapes, so they come from `config.pbtxt` or from the first run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    pub name: String,
    pub dtype: Option<DataType>,
    /// With the batch dimension in front where the model batches; -1 is any size.
    pub dims: Option<Vec<i64>>,
    /// May be left out of a request (inputs only).
    pub optional: bool,
}

/// One tensor of one request or reply: which it is, and where its bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorDesc {
    /// Index into the model's inputs or outputs.
    pub index: u32,
    pub dtype: DataType,
    pub shape: Shape,
    /// Byte offset in the slot's data area (or in the request's own memory object).
    pub offset: usize,
    /// Bytes; for a type of fixed size always elements × size.
    pub len: usize,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn products_that_overflow_are_refused_even_beside_a_zero() {
        assert_eq!(Shape::new(&[u64::MAX, 2]), Err(InvalidShape::Overflow));
        assert_eq!(Shape::new(&[0, u64::MAX, 2]), Err(InvalidShape::Overflow));
        assert_eq!(Shape::new(&[1 << 62, 2]), Err(InvalidShape::Overflow));
        assert_eq!(Shape::new(&[1; 13]), Err(InvalidShape::TooManyDims(13)));
    }

    #[test]
    fn byte_length_is_bounded() {
        let shape = Shape::new(&[1 << 40]).unwrap();
        assert_eq!(shape.byte_len(DataType::Fp32), Err(InvalidShape::TooLarge));
        assert_eq!(shape.byte_len(DataType::Bytes), Ok(None));
        assert_eq!(Shape::new(&[]).unwrap().byte_len(DataType::Fp64), Ok(Some(8)));
        assert_eq!(Shape::new(&[3, 0]).unwrap().byte_len(DataType::Fp64), Ok(Some(0)));
    }

    #[test]
    fn type_names_and_codes_round_trip() {
        for t in DataType::ALL {
            assert_eq!(DataType::from_name(t.name()), Some(t));
            assert_eq!(DataType::from_code(t.code()), Some(t));
        }
        assert_eq!(DataType::from_code(0), None);
        assert_eq!(DataType::from_code(15), None);
    }

    proptest! {
        #[test]
        fn any_dims_give_a_shape_or_an_error(dims in proptest::collection::vec(any::<u64>(), 0..16)) {
            if let Ok(shape) = Shape::new(&dims) {
                prop_assert_eq!(shape.dims(), &dims[..]);
                let wide: u128 = dims.iter().map(|&d| u128::from(d)).product();
                prop_assert_eq!(u128::from(shape.elements()), wide);
            }
        }
    }
}
