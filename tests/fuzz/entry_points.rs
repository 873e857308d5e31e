//! What is fuzzed: everything that reads bytes of a hostile worker or of a client.
//!
//! Each function takes any bytes. It must return, and what it accepted must hold together.

#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each target includes this file and calls one function of it"
)]

use proto::codec;
use proto::control::Fact;
use shared::ring::layout::{RequestDescriptor, ResponseDescriptor};
use shared::ring::table::{self, ENTRY_BYTES};

/// A worker's completion, a supervisor's request, and a slot's table: 64 bytes, 64 bytes, then
/// entries of 128; of any of them as many as there are.
pub(crate) fn ring_descriptor(bytes: &[u8]) {
    if let Some((first, rest)) = bytes.split_first_chunk() {
        if let Some(completion) = ResponseDescriptor::decode(first) {
            let again = ResponseDescriptor::decode(&completion.encode());
            assert_eq!(again, Some(completion));
        }
        if let Some(request) = rest.first_chunk().and_then(RequestDescriptor::decode) {
            assert_eq!(RequestDescriptor::decode(&request.encode()), Some(request));
        }
    }
    for entry in bytes.get(128..).unwrap_or_default().as_chunks::<ENTRY_BYTES>().0 {
        for memory in [0, 4096, 1 << 20, usize::MAX] {
            let Ok(tensor) = table::decode(entry, memory) else { continue };
            let end = tensor.offset.checked_add(tensor.len).expect("inside its memory");
            assert!(end <= memory);
            let fixed = tensor.shape.byte_len(tensor.dtype).expect("its length was checked");
            assert!(fixed.is_none_or(|len| len == tensor.len));
            assert_eq!(table::decode(&table::encode(&tensor), memory), Ok(tensor));
        }
    }
}

/// A packet of a worker on the control socket.
pub(crate) fn fact_codec(bytes: &[u8]) {
    if let Ok(fact) = codec::decode::<Fact>(bytes) {
        let packet = codec::encode(&fact).expect("it was no longer than a packet");
        assert_eq!(codec::decode::<Fact>(&packet).expect("just encoded"), fact);
    }
}

/// A client's inference request: how it is cut and coded, then the body.
pub(crate) fn http_decoder(bytes: &[u8]) {
    supervisor::frontend::http::fuzz_decode(bytes);
}
