//! Undoes a body's compression, a bounded step at a time.

use std::io::Write;

use bytes::{Buf, Bytes};
use flate2::write::GzDecoder;
use flate2::{Decompress, FlushDecompress, Status};

use crate::request::RequestError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    /// What HTTP calls deflate: the zlib format.
    Deflate,
}

/// Most output of one step of a zlib stream; gzip's is of the same order.
const STEP: usize = 64 << 10;

pub(super) enum Inflater {
    Gzip(Box<GzDecoder<Vec<u8>>>),
    Zlib { stream: Decompress, ended: Ended },
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Yes,
    No,
}

impl Inflater {
    pub(super) fn new(coding: Coding) -> Self {
        match coding {
            Coding::Gzip => Self::Gzip(Box::new(GzDecoder::new(Vec::new()))),
            Coding::Deflate => Self::Zlib { stream: Decompress::new(true), ended: Ended::No },
        }
    }

    /// Takes some of `input`, which is not empty, and returns what came of it so far.
    pub(super) fn step(&mut self, input: &mut Bytes) -> Result<Bytes, RequestError> {
        match self {
            Self::Gzip(decoder) => {
                let taken = decoder.write(input).map_err(|_| corrupt())?;
                if taken == 0 {
                    return Err(trailing());
                }
                input.advance(taken);
                Ok(std::mem::take(decoder.get_mut()).into())
            }
            Self::Zlib { ended: Ended::Yes, .. } => Err(trailing()),
            Self::Zlib { stream, ended } => {
                let (taken, out) = zlib_step(stream, ended, input)?;
                if taken == 0 && out.is_empty() && *ended == Ended::No {
                    return Err(corrupt());
                }
                input.advance(taken);
                Ok(out)
            }
        }
    }

    /// What was still held back, after the last input; an error if the stream is not complete.
    pub(super) fn finish(mut self) -> Result<Bytes, RequestError> {
        match &mut self {
            Self::Gzip(decoder) => {
                decoder.try_finish().map_err(|_| corrupt())?;
                Ok(std::mem::take(decoder.get_mut()).into())
            }
            Self::Zlib { ended: Ended::Yes, .. } => Ok(Bytes::new()),
            Self::Zlib { stream, ended } => {
                let (_, out) = zlib_step(stream, ended, &[])?;
                if *ended == Ended::Yes { Ok(out) } else { Err(corrupt()) }
            }
        }
    }
}

fn zlib_step(
    stream: &mut Decompress,
    ended: &mut Ended,
    input: &[u8],
) -> Result<(usize, Bytes), RequestError> {
    let mut out = Vec::with_capacity(STEP);
    let before = stream.total_in();
    let status =
        stream.decompress_vec(input, &mut out, FlushDecompress::None).map_err(|_| corrupt())?;
    if status == Status::StreamEnd {
        *ended = Ended::Yes;
    }
    let taken = usize::try_from(stream.total_in() - before).map_err(|_| corrupt())?;
    Ok((taken, out.into()))
}

fn corrupt() -> RequestError {
    RequestError::invalid("the compressed body is corrupt or incomplete")
}

fn trailing() -> RequestError {
    RequestError::invalid("there are bytes after the end of the compressed body")
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    fn compress(coding: Coding, data: &[u8]) -> Vec<u8> {
        match coding {
            Coding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Coding::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    fn inflate(coding: Coding, pieces: &[&[u8]]) -> Result<Vec<u8>, RequestError> {
        let mut inflater = Inflater::new(coding);
        let mut out = Vec::new();
        for piece in pieces.iter().filter(|p| !p.is_empty()) {
            let mut input = Bytes::copy_from_slice(piece);
            while !input.is_empty() {
                let step = inflater.step(&mut input)?;
                assert!(step.len() <= 2 * STEP);
                out.extend_from_slice(&step);
            }
        }
        out.extend_from_slice(&inflater.finish()?);
        Ok(out)
    }

    const BOTH: [Coding; 2] = [Coding::Gzip, Coding::Deflate];

    #[test]
    fn truncated_and_trailing_bytes_are_refused() {
        for coding in BOTH {
            let whole = compress(coding, b"hello hello hello");
            assert_eq!(inflate(coding, &[&whole]).unwrap(), b"hello hello hello");
            for cut in 0..whole.len() {
                assert!(inflate(coding, &[&whole[..cut]]).is_err(), "{coding:?} {cut}");
            }
            assert!(inflate(coding, &[&whole, b"x"]).is_err(), "{coding:?}");
            assert!(inflate(coding, &[b"not compressed at all"]).is_err(), "{coding:?}");
        }
    }

    #[test]
    fn a_bomb_comes_in_small_steps() {
        for coding in BOTH {
            let bomb = compress(coding, &vec![0; 8 << 20]);
            assert_eq!(inflate(coding, &[&bomb]).unwrap().len(), 8 << 20);
        }
    }

    proptest! {
        #[test]
        fn any_cutting_gives_the_same(
            data in proptest::collection::vec(0..4_u8, 0..2000),
            size in 1..50_usize,
        ) {
            for coding in BOTH {
                let whole = compress(coding, &data);
                let pieces: Vec<&[u8]> = whole.chunks(size).collect();
                prop_assert_eq!(inflate(coding, &pieces).unwrap(), data.clone());
            }
        }

        #[test]
        fn any_bytes_are_inflated_or_refused(data in proptest::collection::vec(any::<u8>(), 1..200)) {
            for coding in BOTH {
                let _bytes_or_error = inflate(coding, &[&data]);
            }
        }
    }
}
