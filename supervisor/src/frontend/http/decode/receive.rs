//! One request's body, from its first piece to a filled slot.

use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use shared::elements;
use shared::elements::LENGTH_BYTES;
use shared::tensor::DataType;
use tokio::time::Instant;

use super::body::BodyReader;
use super::cells;
use super::headers::BodyKind;
use super::plan::{Plan, Source, Wanted};
use super::scatter::{Scatter, Segment, Verdict, check_total};
use super::seam::{Gate, Slot};
use super::{plan, raw};
use crate::heavy::heavy;
use crate::request::{InferHead, RequestError, What};

/// Up to here a body is read before it gets a slot: most come with their head anyway, and one more
/// copy of the others is cheap.
const SMALL_BODY: usize = 64 << 10;

/// A slot whose inputs are complete, and what the reply should look like.
#[derive(Debug)]
pub(crate) struct Received<S> {
    pub(crate) slot: S,
    pub(crate) client_id: Option<String>,
    pub(crate) wanted: Wanted,
}

/// Reads and checks the JSON, has the request admitted, and fills its slot.
pub(crate) async fn receive<B, G>(
    body: &mut BodyReader<'_, B>,
    kind: BodyKind,
    max_depth: usize,
    gate: &G,
) -> Result<Received<G::Slot>, RequestError>
where
    B: Body<Data = Bytes> + Unpin,
    G: Gate,
{
    match kind {
        BodyKind::Json => {
            let json = body.all().await?;
            let plan = heavy(json.len(), || plan::parse(&json, max_depth))?;
            admit_and_fill(body, plan, gate).await
        }
        BodyKind::JsonThenBinary(length) => {
            if length > body.at_most() {
                return Err(RequestError::invalid(
                    "Inference-Header-Content-Length goes beyond the body",
                ));
            }
            let json = body.take(length).await?;
            let plan = heavy(json.len(), || plan::parse(&json, max_depth))?;
            admit_and_fill(body, plan, gate).await
        }
        BodyKind::RawBinary => {
            let inputs = gate.inputs()?;
            let length = body.measure().await?;
            admit_and_fill(body, raw::plan(&inputs, length)?, gate).await
        }
    }
}

async fn admit_and_fill<B, G>(
    body: &mut BodyReader<'_, B>,
    plan: Plan<'_>,
    gate: &G,
) -> Result<Received<G::Slot>, RequestError>
where
    B: Body<Data = Bytes> + Unpin,
    G: Gate,
{
    let segments = plan.segments();
    let name_of = |input: usize| plan.head.inputs.get(input).map_or("", |i| i.name.as_str());
    let wrong = |verdict: Verdict| verdict.into_error(gate.model(), name_of);
    check_announced(body, &segments).map_err(|e| e.into_error(wrong))?;

    // A slow client with a small body must not hold a slot meanwhile.
    body.gather(SMALL_BODY).await?;
    let mut slot = gate.admit(&plan.head).await?;
    let left: usize = segments.iter().map(|segment| segment.to - segment.from).sum();
    body.limit_until(slot.deadline().min(Instant::now() + upload_time(left)));
    fill_from_json(&plan, &mut slot)?;
    let mut scatter = Scatter::new(segments);
    while let Some(piece) = body.next().await? {
        scatter.push(&piece, &mut slot).map_err(|_| wrong(Verdict::Excess))?;
    }
    if let Some(missing) = scatter.missing() {
        return Err(wrong(Verdict::Missing(missing)));
    }
    check_elements(&plan, &mut slot)?;
    let InferHead { client_id, .. } = plan.head;
    Ok(Received { slot, client_id, wanted: plan.wanted })
}

/// How long a body may take to fill a slot: a moment, and what it needs at a modest rate. Without
/// it, as many clients as there are slots could keep all others waiting with a byte now and then.
fn upload_time(bytes: usize) -> Duration {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    Duration::from_secs(2) + Duration::from_millis(bytes.saturating_mul(1000) / UPLOAD_RATE)
}

/// Bytes per second.
const UPLOAD_RATE: u64 = 128 << 10;

/// Why a request is refused before it takes a slot.
enum Refusal {
    Length(Verdict),
    TooLarge(usize),
}

impl Refusal {
    fn into_error(self, of_length: impl Fn(Verdict) -> RequestError) -> RequestError {
        match self {
            Self::Length(verdict) => of_length(verdict),
            Self::TooLarge(limit) => RequestError::new(
                What::TooLarge,
                format!("the binary data exceeds the maximum allowed of {limit} bytes"),
            ),
        }
    }
}

/// Nobody gets a slot for more bytes than can still come.
fn check_announced<B>(body: &BodyReader<'_, B>, segments: &[Segment]) -> Result<(), Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    match body.remaining() {
        Some(remaining) => check_total(segments, remaining).map_err(Refusal::Length),
        None => match check_total(segments, body.at_most()) {
            Ok(()) | Err(Verdict::Excess) => Ok(()),
            Err(Verdict::Missing(_)) => Err(Refusal::TooLarge(body.at_most())),
        },
    }
}

fn fill_from_json(plan: &Plan<'_>, slot: &mut impl Slot) -> Result<(), RequestError> {
    for (i, (source, decl)) in plan.sources.iter().zip(&plan.head.inputs).enumerate() {
        match source {
            Source::Binary => {}
            Source::OneElement => {
                let length = decl.len.saturating_sub(LENGTH_BYTES);
                let length = u32::try_from(length).map_err(|_| too_long(&decl.name))?;
                let prefix = slot.input_mut(i).first_chunk_mut::<LENGTH_BYTES>();
                *prefix.ok_or_else(|| too_long(&decl.name))? = length.to_le_bytes();
            }
            Source::Json(data) => {
                let cells = slot.input_mut(i);
                heavy(data.get().len(), || cells::fill(data, decl.dtype, cells)).map_err(|e| {
                    RequestError::invalid(format!("input '{}': data: {e}", decl.name))
                })?;
            }
        }
    }
    Ok(())
}

fn too_long(name: &str) -> RequestError {
    RequestError::invalid(format!("input '{name}': the element does not fit"))
}

/// A worker walks BYTES tensors by their lengths, so they are checked where they come in.
fn check_elements(plan: &Plan<'_>, slot: &mut impl Slot) -> Result<(), RequestError> {
    for (i, (source, decl)) in plan.sources.iter().zip(&plan.head.inputs).enumerate() {
        let binary = match source {
            Source::Binary => decl.dtype == DataType::Bytes,
            Source::OneElement | Source::Json(_) => false,
        };
        if binary {
            elements::check(slot.input_mut(i), decl.shape.elements())
                .map_err(|e| RequestError::invalid(format!("input '{}': {e}", decl.name)))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::frontend::http::decode::fuzz::{Length, Pieces, TestGate, decode};
    use crate::frontend::http::decode::fuzz_decode;
    use crate::frontend::http::decode::inflate::Coding;

    const JSON: &str = r#"{"inputs":[
        {"name":"a","shape":[1,2],"datatype":"UINT8","data":[[1,2]]},
        {"name":"b","shape":[1],"datatype":"BYTES","data":["xyz"]}]}"#;
    const MIXED: &str = r#"{"id":"7","inputs":[
        {"name":"a","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":8}},
        {"name":"b","shape":[1],"datatype":"INT8","data":[-1]},
        {"name":"c","shape":[0],"datatype":"INT64","parameters":{"binary_data_size":0}},
        {"name":"d","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":9}}]}"#;
    const TENSORS: &[u8] = b"\x01\x02\x03\x04\x05\x06\x07\x08\x01\0\0\0x\0\0\0\0";

    /// A body that is a request, how to read it, and the inputs that it has.
    type Valid = (Vec<u8>, BodyKind, TestGate, Vec<Vec<u8>>);

    fn valid() -> Vec<Valid> {
        let fp32 = || TestGate::of_one(DataType::Fp32);
        let mixed = [MIXED.as_bytes(), TENSORS].concat();
        let mixed_inputs = vec![TENSORS[..8].to_vec(), vec![0xff], vec![], TENSORS[8..].to_vec()];
        let xyz = b"\x03\0\0\0xyz".to_vec();
        vec![
            (JSON.into(), BodyKind::Json, fp32(), vec![vec![1, 2], xyz.clone()]),
            (mixed, BodyKind::JsonThenBinary(MIXED.len()), fp32(), mixed_inputs),
            (vec![7; 16], BodyKind::RawBinary, fp32(), vec![vec![7; 16]]),
            (b"xyz".into(), BodyKind::RawBinary, TestGate::of_one(DataType::Bytes), vec![xyz]),
        ]
    }

    fn pack(coding: Option<Coding>, body: &[u8]) -> Vec<u8> {
        match coding {
            None => body.to_vec(),
            Some(Coding::Gzip) => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(body).unwrap();
                encoder.finish().unwrap()
            }
            Some(Coding::Deflate) => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(body).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    const CODINGS: [Option<Coding>; 3] = [None, Some(Coding::Gzip), Some(Coding::Deflate)];
    const LENGTHS: [Length; 2] = [Length::Announced, Length::Unknown];

    fn error(body: &[u8], kind: BodyKind) -> RequestError {
        let gate = TestGate::of_one(DataType::Fp32);
        let [known, unknown] =
            LENGTHS.map(|l| decode(Pieces::new(body, 5, l), None, kind, &gate).unwrap_err());
        assert_eq!(known.what, unknown.what, "{known} / {unknown}");
        known
    }

    proptest! {
        #[test]
        fn any_cutting_gives_the_same_request(size in 0..200_usize, coding in 0..3_usize) {
            for (body, kind, gate, inputs) in valid() {
                let packed = pack(CODINGS[coding], &body);
                for length in LENGTHS {
                    let pieces = Pieces::new(&packed, size, length);
                    let received = decode(pieces, CODINGS[coding], kind, &gate).unwrap();
                    prop_assert_eq!(&received.slot.0, &inputs);
                }
            }
        }

        #[test]
        fn any_bytes_are_a_request_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            fuzz_decode(&bytes);
        }
    }

    /// The corpus of the fuzz target, changed at random, always in the same ways.
    #[test]
    fn http_decoder_never_panics() {
        let mut random = StdRng::seed_from_u64(0x0b01_4ead);
        for round in 0..4000_usize {
            let (body, kind, ..) = valid().swap_remove(round % 4);
            let coding = CODINGS[random.random_range(0..3)];
            let mut bytes = described(kind, coding, random.random(), &pack(coding, &body));
            for _ in 0..random.random_range(0..6) {
                mutate(&mut bytes, &mut random);
            }
            fuzz_decode(&bytes);
        }
    }

    fn described(kind: BodyKind, coding: Option<Coding>, cut: u8, body: &[u8]) -> Vec<u8> {
        let (kind, length) = match kind {
            BodyKind::Json => (0, 0),
            BodyKind::RawBinary => (1, 0),
            BodyKind::JsonThenBinary(length) => (2, u16::try_from(length).unwrap()),
        };
        let coding = match coding {
            Some(Coding::Gzip) => 0,
            Some(Coding::Deflate) => 1,
            None => 2,
        };
        let [low, high] = length.to_le_bytes();
        [&[kind | coding << 2, cut, low, high], body].concat()
    }

    fn mutate(bytes: &mut Vec<u8>, random: &mut StdRng) {
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..5) {
            0 => bytes[at] = random.random(),
            1 => bytes[at] ^= 1 << random.random_range(0..8),
            2 => bytes.truncate(at.max(1)),
            3 => bytes.insert(at, *b"[]{}\",:0-e".get(random.random_range(0..10_usize)).unwrap()),
            _ => {
                let end = (at + random.random_range(0..20)).min(bytes.len());
                bytes.extend_from_within(at..end);
            }
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_named() {
        let kind = BodyKind::JsonThenBinary(MIXED.len());
        let body = [MIXED.as_bytes(), TENSORS].concat();
        let short = error(&body[..body.len() - 3], kind);
        assert!(short.message.contains("unexpected size for input 'd'"), "{short}");
        assert!(short.message.contains("expecting 3 additional bytes"), "{short}");
        let long = error(&[&body[..], b"x"].concat(), kind);
        assert_eq!(long.message, "unexpected additional input data for model 'm'");
        let none = error(MIXED.as_bytes(), BodyKind::Json);
        assert!(none.message.contains("expecting 8 additional bytes"), "{none}");
        for length in [body.len() + 1, usize::MAX] {
            assert_eq!(error(&body, BodyKind::JsonThenBinary(length)).what, What::Invalid);
        }
        assert_eq!(error(b"", BodyKind::Json).what, What::Invalid);
    }

    #[test]
    fn elements_are_checked_where_they_come_in() {
        let json = br#"{"inputs":[{"name":"a","shape":[2],"datatype":"BYTES",
            "parameters":{"binary_data_size":9}}]}"#;
        for tensor in [b"\x09\0\0\0abcde", b"\x05\0\0\0abcde", b"\0\0\0\0\0\0\0\0\0"] {
            let body = [&json[..], tensor].concat();
            let error = error(&body, BodyKind::JsonThenBinary(json.len()));
            assert!(error.message.contains("BYTES tensor"), "{error}");
        }
    }

    #[test]
    fn bodies_over_the_limits_end_early() {
        let gate = TestGate::of_one(DataType::Fp32);
        let large = vec![b' '; (1 << 20) + 1];
        for length in LENGTHS {
            let pieces = Pieces::new(&large, 60_000, length);
            let error = decode(pieces, None, BodyKind::Json, &gate).unwrap_err();
            assert_eq!(error.what, What::TooLarge, "{length:?}");
            assert!(error.message.contains("exceeds the maximum allowed"), "{error}");
        }
        for coding in [Coding::Gzip, Coding::Deflate] {
            let bomb = pack(Some(coding), &vec![b' '; 64 << 20]);
            let pieces = Pieces::new(&bomb, 0, Length::Announced);
            let error = decode(pieces, Some(coding), BodyKind::Json, &gate).unwrap_err();
            assert_eq!(error.what, What::TooLarge, "{coding:?}");
        }
        let many = Pieces::new(&[b' '; 5000], 1, Length::Unknown);
        let error = decode(many, None, BodyKind::Json, &gate).unwrap_err();
        assert!(error.message.contains("chunks"), "{error}");
        let announced = Pieces::new(&[b' '; 5000], 1, Length::Announced);
        let error = decode(announced, None, BodyKind::Json, &gate).unwrap_err();
        assert_eq!(error.what, What::Invalid);
    }

    #[test]
    fn nobody_gets_a_slot_for_more_than_can_come() {
        let json = br#"{"inputs":[{"name":"a","shape":[1],"datatype":"UINT8",
            "parameters":{"binary_data_size":4294967296}}]}"#;
        let gate = TestGate::of_one(DataType::Fp32);
        let kind = BodyKind::JsonThenBinary(json.len());
        let known = decode(Pieces::new(json, 0, Length::Announced), None, kind, &gate);
        assert_eq!(known.unwrap_err().what, What::Invalid);
        let unknown = decode(Pieces::new(json, 0, Length::Unknown), None, kind, &gate);
        assert_eq!(unknown.unwrap_err().what, What::TooLarge);
    }
}
