//! The decoder without a network and without models: for fuzzing, and for the tests beside it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use hyper::body::{Body, Frame, SizeHint};
use shared::tensor::{DataType, TensorSpec};
use tokio::time::Instant;

use super::body::BodyReader;
use super::headers::BodyKind;
use super::inflate::Coding;
use super::receive::{Received, receive};
use super::seam::{Gate, Slot};
use crate::frontend::http::settings::HttpSettings;
use crate::request::{InferHead, RequestError};

/// Decodes a request that the bytes describe: what the body is, how it is cut, and the body.
/// Any bytes must end in a request or an error.
pub fn fuzz_decode(bytes: &[u8]) {
    let Some((&[how, cut, low, high], body)) = bytes.split_first_chunk() else { return };
    let kind = match how & 3 {
        0 => BodyKind::Json,
        1 => BodyKind::RawBinary,
        _ => BodyKind::JsonThenBinary(u16::from_le_bytes([low, high]).into()),
    };
    let coding = match (how >> 2) & 3 {
        0 => Some(Coding::Gzip),
        1 => Some(Coding::Deflate),
        _ => None,
    };
    let length = if how & 16 == 0 { Length::Announced } else { Length::Unknown };
    let gate = TestGate::of_one(if how & 32 == 0 { DataType::Fp32 } else { DataType::Bytes });
    let pieces = Pieces::new(body, usize::from(cut), length);
    let _request_or_error = decode(pieces, coding, kind, &gate);
}

/// Runs the decoder to its end on pieces that are all there.
pub(super) fn decode(
    pieces: Pieces,
    coding: Option<Coding>,
    kind: BodyKind,
    gate: &TestGate,
) -> Result<Received<TestSlot>, RequestError> {
    let settings = HttpSettings {
        max_body: 1 << 20,
        max_decompressed: 1 << 20,
        max_chunks: 4096,
        ..HttpSettings::default()
    };
    let mut body = BodyReader::new(pieces, coding, &settings)?;
    receive(&mut body, kind, settings.max_json_depth, gate)
        .now_or_never()
        .expect("nothing in the decoder waits for anything but the body")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Announced,
    Unknown,
}

/// A body whose pieces are all there.
#[derive(Debug)]
pub(super) struct Pieces {
    pieces: VecDeque<Bytes>,
    announced: Option<u64>,
}

impl Pieces {
    /// Cut every `size` bytes; 0 is not at all.
    pub(super) fn new(body: &[u8], size: usize, length: Length) -> Self {
        let whole = Bytes::copy_from_slice(body);
        let size = if size == 0 { whole.len().max(1) } else { size };
        let cut = |at: usize| whole.slice(at..whole.len().min(at + size));
        Self {
            pieces: (0..whole.len()).step_by(size).map(cut).collect(),
            announced: match length {
                Length::Announced => u64::try_from(whole.len()).ok(),
                Length::Unknown => None,
            },
        }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.pieces.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        self.announced.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A model that takes whatever is declared.
#[derive(Debug)]
pub(super) struct TestGate {
    inputs: Vec<TensorSpec>,
}

impl TestGate {
    pub(super) fn of_one(dtype: DataType) -> Self {
        let dims = if dtype == DataType::Bytes { vec![1] } else { vec![-1, 2] };
        let name = String::from("a");
        Self {
            inputs: vec![TensorSpec {
                name,
                dtype: Some(dtype),
                dims: Some(dims),
                optional: false,
            }],
        }
    }
}

/// Inputs on the heap.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TestSlot(pub(super) Vec<Vec<u8>>);

impl Gate for TestGate {
    type Slot = TestSlot;

    fn model(&self) -> &str {
        "m"
    }

    fn inputs(&self) -> Result<Vec<TensorSpec>, RequestError> {
        Ok(self.inputs.clone())
    }

    async fn admit(&self, head: &InferHead) -> Result<TestSlot, RequestError> {
        Ok(TestSlot(head.inputs.iter().map(|input| vec![0; input.len]).collect()))
    }
}

impl Slot for TestSlot {
    fn input_mut(&mut self, i: usize) -> &mut [u8] {
        self.0.get_mut(i).map_or(&mut [], Vec::as_mut_slice)
    }

    fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs(60)
    }
}
