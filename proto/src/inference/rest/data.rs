//! A tensor's bytes as the flat `data` array of a reply.

use serde::ser::{Error, Serialize, SerializeSeq, Serializer};
use shared::elements::Elements;
use shared::tensor::DataType;

/// Written as numbers, booleans or strings. What JSON cannot hold is an error: 16-bit floats,
/// values that are not finite, strings that are not UTF-8, half an element at the end.
#[derive(Clone, Copy, Debug)]
pub struct TensorData<'a> {
    pub dtype: DataType,
    pub bytes: &'a [u8],
}

const USE_BINARY: &str = "ask for the output in the binary data format";

impl Serialize for TensorData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(None)?;
        match self.dtype {
            DataType::Bool => fixed(&mut seq, self.bytes, |[b]: [u8; 1]| Ok(b != 0))?,
            DataType::Uint8 => fixed(&mut seq, self.bytes, |b| Ok(u8::from_le_bytes(b)))?,
            DataType::Uint16 => fixed(&mut seq, self.bytes, |b| Ok(u16::from_le_bytes(b)))?,
            DataType::Uint32 => fixed(&mut seq, self.bytes, |b| Ok(u32::from_le_bytes(b)))?,
            DataType::Uint64 => fixed(&mut seq, self.bytes, |b| Ok(u64::from_le_bytes(b)))?,
            DataType::Int8 => fixed(&mut seq, self.bytes, |b| Ok(i8::from_le_bytes(b)))?,
            DataType::Int16 => fixed(&mut seq, self.bytes, |b| Ok(i16::from_le_bytes(b)))?,
            DataType::Int32 => fixed(&mut seq, self.bytes, |b| Ok(i32::from_le_bytes(b)))?,
            DataType::Int64 => fixed(&mut seq, self.bytes, |b| Ok(i64::from_le_bytes(b)))?,
            DataType::Fp32 => fixed(&mut seq, self.bytes, |b| {
                let value = f32::from_le_bytes(b);
                finite(value.is_finite().then_some(value))
            })?,
            DataType::Fp64 => fixed(&mut seq, self.bytes, |b| {
                let value = f64::from_le_bytes(b);
                finite(value.is_finite().then_some(value))
            })?,
            DataType::Fp16 | DataType::Bf16 => {
                let name = self.dtype.name();
                return Err(S::Error::custom(format_args!("JSON has no {name}; {USE_BINARY}")));
            }
            DataType::Bytes => strings(&mut seq, self.bytes)?,
        }
        seq.end()
    }
}

/// `None` is a value that is not finite.
fn finite<T, E: Error>(value: Option<T>) -> Result<T, E> {
    value
        .ok_or_else(|| E::custom(format_args!("JSON cannot hold NaN or an infinity; {USE_BINARY}")))
}

fn fixed<const N: usize, T: Serialize, S: SerializeSeq>(
    seq: &mut S,
    bytes: &[u8],
    read: impl Fn([u8; N]) -> Result<T, S::Error>,
) -> Result<(), S::Error> {
    let (values, rest) = bytes.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(S::Error::custom("the output ends within an element"));
    }
    values.iter().try_for_each(|value| seq.serialize_element(&read(*value)?))
}

fn strings<S: SerializeSeq>(seq: &mut S, bytes: &[u8]) -> Result<(), S::Error> {
    for element in Elements::new(bytes) {
        let element = element.map_err(S::Error::custom)?;
        let text = std::str::from_utf8(element).map_err(|_| {
            S::Error::custom(format_args!("a BYTES element is not UTF-8; {USE_BINARY}"))
        })?;
        seq.serialize_element(text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(dtype: DataType, bytes: &[u8]) -> Result<String, String> {
        serde_json::to_string(&TensorData { dtype, bytes }).map_err(|e| e.to_string())
    }

    #[test]
    fn every_type_has_its_json() {
        let fp32: Vec<u8> = [0.1_f32, -0.0, 1e30].iter().flat_map(|v| v.to_le_bytes()).collect();
        let table: [(DataType, &[u8], &str); 8] = [
            (DataType::Bool, &[0, 1], "[false,true]"),
            (DataType::Uint8, &[0, 255], "[0,255]"),
            (DataType::Int16, &[0xff, 0xff], "[-1]"),
            (DataType::Uint64, &[0xff; 8], "[18446744073709551615]"),
            (DataType::Int64, &[0, 0, 0, 0, 0, 0, 0, 0x80], "[-9223372036854775808]"),
            (DataType::Fp32, &fp32, "[0.1,-0.0,1e+30]"),
            (DataType::Bytes, b"\x01\0\0\0a\0\0\0\0", r#"["a",""]"#),
            (DataType::Fp64, &[], "[]"),
        ];
        for (dtype, bytes, expected) in table {
            assert_eq!(json(dtype, bytes).as_deref(), Ok(expected), "{dtype}");
        }
    }

    #[test]
    fn what_json_cannot_hold_is_an_error() {
        let table: [(DataType, &[u8]); 7] = [
            (DataType::Fp32, &f32::NAN.to_le_bytes()),
            (DataType::Fp64, &f64::INFINITY.to_le_bytes()),
            (DataType::Fp16, &[0, 0]),
            (DataType::Bf16, &[0, 0]),
            (DataType::Bytes, b"\x01\0\0\0\xff"),
            (DataType::Bytes, b"\x09\0\0\0a"),
            (DataType::Int32, &[0, 0, 0]),
        ];
        for (dtype, bytes) in table {
            assert!(json(dtype, bytes).is_err(), "{dtype} {bytes:?}");
        }
    }
}
