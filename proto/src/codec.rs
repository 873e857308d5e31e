//! Bytes of control messages: bincode behind a size limit.
//!
//! Without a limit a twelve-byte message can make bincode 2 reserve 2^60 bytes and abort the
//! process, so no other file may call it. Trailing bytes are an error too: a packet is one message.

use serde::{Serialize, de::DeserializeOwned};
use shared::limits::MAX_PACKET_BYTES;

#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("the message does not fit a packet of {MAX_PACKET_BYTES} bytes")]
    Encode(#[source] bincode::error::EncodeError),
    #[error("the packet is not a valid message")]
    Decode(#[source] bincode::error::DecodeError),
    #[error("{0} bytes follow the message")]
    Trailing(usize),
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_PACKET_BYTES>()
}

/// Encodes one message as one packet.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, CodecError> {
    let bytes = bincode::serde::encode_to_vec(message, config()).map_err(CodecError::Encode)?;
    if bytes.len() > MAX_PACKET_BYTES {
        return Err(CodecError::Encode(bincode::error::EncodeError::UnexpectedEnd));
    }
    Ok(bytes)
}

/// Decodes one packet, which may come from a hostile worker: bounded work, no panic.
pub fn decode<M: DeserializeOwned>(packet: &[u8]) -> Result<M, CodecError> {
    let (message, read) =
        bincode::serde::decode_from_slice(packet, config()).map_err(CodecError::Decode)?;
    match packet.len() - read {
        0 => Ok(message),
        trailing => Err(CodecError::Trailing(trailing)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::control::Fact;

    #[test]
    fn a_length_of_two_to_the_sixty_is_an_error_not_an_allocation() {
        let huge = [252, 0xff, 0xff, 0xff, 0xff, 253, 0, 0, 0, 0, 0, 0, 0, 16];
        assert!(decode::<Vec<u8>>(&huge).is_err());
        assert!(decode::<String>(&huge[5..]).is_err());
    }

    #[test]
    fn no_fact_is_as_short_as_a_doorbell() {
        let facts = [
            Fact::Confined(vec![]),
            Fact::LoadFailed { message: String::new(), permanent: false },
            Fact::Trimmed { count: 0 },
            Fact::LargeOutput { request: 0 },
        ];
        for fact in facts {
            assert!(encode(&fact).unwrap().len() > 1, "{fact:?}");
        }
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut packet = encode(&7_u32).unwrap();
        packet.push(0);
        assert!(matches!(decode::<u32>(&packet), Err(CodecError::Trailing(1))));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _fact_or_error = decode::<Fact>(&bytes);
        }
    }
}
