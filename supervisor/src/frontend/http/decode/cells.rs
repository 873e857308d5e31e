//! JSON `data` into a tensor's bytes: flat or nested arrays, in row-major order.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;
use shared::elements::LENGTH_BYTES;
use shared::tensor::DataType;

/// Writes `data` into `out`, which must be filled exactly.
pub(super) fn fill(data: &RawValue, dtype: DataType, out: &mut [u8]) -> Result<(), String> {
    if dtype == DataType::Bytes {
        let mut cells = Strings { rest: out };
        walk(data, &mut cells)?;
        return complete(cells.rest);
    }
    let mut cells = Fixed { dtype, rest: out };
    walk(data, &mut cells)?;
    complete(cells.rest)
}

/// How many strings `data` has, and the bytes that they take as a BYTES tensor.
pub(super) fn measure_strings(data: &RawValue) -> Result<(u64, usize), String> {
    let mut cells = Measured { strings: 0, bytes: 0 };
    walk(data, &mut cells)?;
    Ok((cells.strings, cells.bytes))
}

fn complete(rest: &[u8]) -> Result<(), String> {
    if rest.is_empty() { Ok(()) } else { Err(Misfit::TooFew.to_string()) }
}

fn walk(data: &RawValue, cells: &mut impl Cells) -> Result<(), String> {
    data.deserialize_seq(Walk(cells)).map_err(|e| e.to_string())
}

/// Where the elements go, one call for each in row-major order.
trait Cells {
    fn number(&mut self, _: Number) -> Result<(), Misfit> {
        Err(Misfit::Kind)
    }

    fn boolean(&mut self, _: bool) -> Result<(), Misfit> {
        Err(Misfit::Kind)
    }

    fn string(&mut self, _: &str) -> Result<(), Misfit> {
        Err(Misfit::Kind)
    }
}

#[derive(Clone, Copy)]
enum Number {
    Uint(u64),
    Int(i64),
    Float(f64),
}

#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Misfit {
    #[error("there are more elements than the shape has")]
    TooMany,
    #[error("there are fewer elements than the shape has")]
    TooFew,
    #[error("an element is not of the input's datatype")]
    Kind,
    #[error("an element is out of range for {0}")]
    Range(DataType),
    #[error("a string is longer than 4 GiB")]
    Length,
}

struct Fixed<'a> {
    dtype: DataType,
    rest: &'a mut [u8],
}

impl Fixed<'_> {
    fn put<const N: usize>(&mut self, element: [u8; N]) -> Result<(), Misfit> {
        put(&mut self.rest, &element)
    }

    fn integer(&mut self, value: i128) -> Result<(), Misfit> {
        let out = |_| Misfit::Range(self.dtype);
        match self.dtype {
            DataType::Uint8 => self.put(u8::try_from(value).map_err(out)?.to_le_bytes()),
            DataType::Uint16 => self.put(u16::try_from(value).map_err(out)?.to_le_bytes()),
            DataType::Uint32 => self.put(u32::try_from(value).map_err(out)?.to_le_bytes()),
            DataType::Uint64 => self.put(u64::try_from(value).map_err(out)?.to_le_bytes()),
            DataType::Int8 => self.put(i8::try_from(value).map_err(out)?.to_le_bytes()),
            DataType::Int16 => self.put(i16::try_from(value).map_err(out)?.to_le_bytes()),
            DataType::Int32 => self.put(i32::try_from(value).map_err(out)?.to_le_bytes()),
            DataType::Int64 => self.put(i64::try_from(value).map_err(out)?.to_le_bytes()),
            DataType::Bool
            | DataType::Fp16
            | DataType::Bf16
            | DataType::Fp32
            | DataType::Fp64
            | DataType::Bytes => Err(Misfit::Kind),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "rounds to the nearest, as f32 does")]
    fn single(&mut self, value: f64) -> Result<(), Misfit> {
        let narrow = value as f32;
        if narrow.is_finite() {
            self.put(narrow.to_le_bytes())
        } else {
            Err(Misfit::Range(self.dtype))
        }
    }
}

impl Cells for Fixed<'_> {
    #[expect(clippy::cast_precision_loss, reason = "a float takes the nearest value")]
    fn number(&mut self, number: Number) -> Result<(), Misfit> {
        let float = match number {
            Number::Uint(value) => value as f64,
            Number::Int(value) => value as f64,
            Number::Float(value) => value,
        };
        match (self.dtype, number) {
            (DataType::Fp32, _) => self.single(float),
            (DataType::Fp64, _) => self.put(float.to_le_bytes()),
            (_, Number::Uint(value)) => self.integer(value.into()),
            (_, Number::Int(value)) => self.integer(value.into()),
            (_, Number::Float(value)) => self.integer(integral(value).ok_or(Misfit::Kind)?),
        }
    }

    fn boolean(&mut self, value: bool) -> Result<(), Misfit> {
        if self.dtype == DataType::Bool { self.put([u8::from(value)]) } else { Err(Misfit::Kind) }
    }
}

/// `1.0` and `1e3` are integers; a fraction is not.
#[expect(clippy::cast_possible_truncation, reason = "integral, and within 64 bits")]
fn integral(value: f64) -> Option<i128> {
    (value.fract() == 0.0 && value.abs() < 2_f64.powi(64)).then_some(value as i128)
}

struct Strings<'a> {
    rest: &'a mut [u8],
}

impl Cells for Strings<'_> {
    fn string(&mut self, value: &str) -> Result<(), Misfit> {
        let length = u32::try_from(value.len()).map_err(|_| Misfit::Length)?;
        put(&mut self.rest, &length.to_le_bytes())?;
        put(&mut self.rest, value.as_bytes())
    }
}

struct Measured {
    strings: u64,
    bytes: usize,
}

impl Cells for Measured {
    fn string(&mut self, value: &str) -> Result<(), Misfit> {
        u32::try_from(value.len()).map_err(|_| Misfit::Length)?;
        self.strings += 1;
        self.bytes += LENGTH_BYTES + value.len();
        Ok(())
    }
}

fn put(rest: &mut &mut [u8], element: &[u8]) -> Result<(), Misfit> {
    let (cell, after) =
        std::mem::take(rest).split_at_mut_checked(element.len()).ok_or(Misfit::TooMany)?;
    cell.copy_from_slice(element);
    *rest = after;
    Ok(())
}

/// Visits an array and, for each element that is an array itself, that one.
struct Walk<'c, C>(&'c mut C);

impl<'de, C: Cells> Visitor<'de> for Walk<'_, C> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Walk(&mut *self.0))?.is_some() {}
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.0.number(Number::Uint(value)).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.0.number(Number::Int(value)).map_err(E::custom)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.0.number(Number::Float(value)).map_err(E::custom)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.0.boolean(value).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.0.string(value).map_err(E::custom)
    }
}

impl<'de, C: Cells> DeserializeSeed<'de> for Walk<'_, C> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(dtype: DataType, json: &str, len: usize) -> Result<Vec<u8>, String> {
        let mut out = vec![0xaa; len];
        fill(serde_json::from_str(json).unwrap(), dtype, &mut out).map(|()| out)
    }

    #[test]
    fn every_type_is_written_little_endian() {
        let fp32: Vec<u8> = [0.1_f32, 2.0, -3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let table: [(DataType, &str, &[u8]); 14] = [
            (DataType::Bool, "[true,false]", &[1, 0]),
            (DataType::Uint8, "[0,255,1.0,2e1]", &[0, 255, 1, 20]),
            (DataType::Int8, "[[-128],[127]]", &[0x80, 0x7f]),
            (DataType::Uint16, "[513]", &[1, 2]),
            (DataType::Int16, "[-2]", &[0xfe, 0xff]),
            (DataType::Uint32, "[4294967295]", &[0xff; 4]),
            (DataType::Int32, "[-1]", &[0xff; 4]),
            (DataType::Uint64, "[18446744073709551615]", &[0xff; 8]),
            (DataType::Int64, "[-1,-1.0]", &[0xff; 16]),
            (DataType::Fp32, "[[0.1,2],[-3]]", &fp32),
            (DataType::Fp64, "[1]", &1_f64.to_le_bytes()),
            (DataType::Fp64, "[[],[]]", &[]),
            (DataType::Bytes, r#"["a\u00e4",[""]]"#, "\x03\0\0\0aä\0\0\0\0".as_bytes()),
            (DataType::Bytes, "[]", &[]),
        ];
        for (dtype, json, expected) in table {
            assert_eq!(filled(dtype, json, expected.len()).as_deref(), Ok(expected), "{json}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let table = [
            (DataType::Bool, "[1]", 1),
            (DataType::Uint8, "[256]", 1),
            (DataType::Uint8, "[-1]", 1),
            (DataType::Uint8, "[1.5]", 1),
            (DataType::Uint8, "[true]", 1),
            (DataType::Uint8, "[null]", 1),
            (DataType::Uint8, "[{}]", 1),
            (DataType::Uint8, "[1,2]", 1),
            (DataType::Uint8, "[1]", 2),
            (DataType::Uint8, "1", 1),
            (DataType::Uint64, "[18446744073709551616]", 8),
            (DataType::Int64, "[9223372036854775808]", 8),
            (DataType::Int64, "[1e300]", 8),
            (DataType::Fp32, "[1e39]", 4),
            (DataType::Fp64, "[1e999]", 8),
            (DataType::Fp32, r#"["1"]"#, 4),
            (DataType::Fp16, "[1]", 2),
            (DataType::Bytes, "[1]", 5),
            (DataType::Bytes, r#"["a"]"#, 4),
            (DataType::Bytes, r#"["a"]"#, 6),
            (DataType::Bytes, r#"["\ud800"]"#, 7),
            (DataType::Bytes, r#""a""#, 5),
        ];
        for (dtype, json, len) in table {
            assert!(filled(dtype, json, len).is_err(), "{dtype} {json}");
        }
    }

    #[test]
    fn strings_are_measured_as_they_are_written() {
        let raw: &RawValue = serde_json::from_str(r#"["a\n",["ä"]]"#).unwrap();
        assert_eq!(measure_strings(raw), Ok((2, 12)));
        assert!(measure_strings(serde_json::from_str("[1]").unwrap()).is_err());
    }
}
