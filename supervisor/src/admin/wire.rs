//! Lines in and out of a connection, each within a time and a length.

use std::time::Duration;

use proto::admin::request::MAX_LINE_BYTES;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
    ReadHalf, WriteHalf, split,
};
use tokio::time::timeout;

/// How long somebody is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the first byte of a line.
    pub(super) idle: Duration,
    /// From there to its end.
    pub(super) line: Duration,
    /// For a piece of an answer to be taken.
    pub(super) write: Duration,
}

/// Bytes of an answer for which there is a time.
const PIECE: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Wire<S> {
    reader: BufReader<ReadHalf<S>>,
    writer: WriteHalf<S>,
    patience: Patience,
}

/// What came in place of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoLine {
    /// The other end has closed, said nothing for too long, or was cut off within a line.
    Gone,
    TooLong,
}

/// An answer was not taken in time, or there is nobody to take it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Deaf;

impl<S: AsyncRead + AsyncWrite> Wire<S> {
    pub(super) fn new(stream: S, patience: Patience) -> Self {
        let (reader, writer) = split(stream);
        Self { reader: BufReader::new(reader), writer, patience }
    }

    /// Without its end. What has no end is no line: who knows what was still to come.
    pub(super) async fn line(&mut self) -> Result<Vec<u8>, NoLine> {
        let first = timeout(self.patience.idle, self.reader.fill_buf()).await;
        if !matches!(first, Ok(Ok(bytes)) if !bytes.is_empty()) {
            return Err(NoLine::Gone);
        }
        let mut line = Vec::new();
        let mut bounded = (&mut self.reader).take(MAX_LINE_BYTES as u64 + 1);
        let read = timeout(self.patience.line, bounded.read_until(b'\n', &mut line)).await;
        match read {
            Ok(Ok(_)) if line.ends_with(b"\n") => {
                line.pop();
                Ok(line)
            }
            Ok(Ok(_)) if line.len() > MAX_LINE_BYTES => Err(NoLine::TooLong),
            Ok(Ok(_) | Err(_)) | Err(_) => Err(NoLine::Gone),
        }
    }

    pub(super) async fn write(&mut self, answer: &str) -> Result<(), Deaf> {
        for piece in answer.as_bytes().chunks(PIECE) {
            let written = timeout(self.patience.write, self.writer.write_all(piece)).await;
            if !matches!(written, Ok(Ok(()))) {
                return Err(Deaf);
            }
        }
        Ok(())
    }

    /// Waits until the other end says something, or closes.
    pub(super) async fn stirs(&mut self) -> Stir {
        match self.reader.fill_buf().await {
            Ok(bytes) if !bytes.is_empty() => Stir::Spoke,
            Ok(_) | Err(_) => Stir::Gone,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stir {
    Spoke,
    Gone,
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const NEVER: Duration = Duration::from_secs(3600);

    fn wire(patience: Patience) -> (Wire<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(1 << 20);
        (Wire::new(ours, patience), theirs)
    }

    fn patient() -> Patience {
        Patience { idle: NEVER, line: NEVER, write: NEVER }
    }

    #[tokio::test]
    async fn lines_come_one_by_one_and_only_whole() {
        let (mut wire, mut client) = wire(patient());
        client.write_all(b"one\n\ntwo").await.unwrap();
        assert_eq!(wire.line().await, Ok(b"one".to_vec()));
        assert_eq!(wire.line().await, Ok(Vec::new()));
        drop(client);
        assert_eq!(wire.line().await, Err(NoLine::Gone));
    }

    #[tokio::test]
    async fn a_line_has_a_longest_length() {
        let (mut wire, mut client) = wire(patient());
        client.write_all(&[b'x'; MAX_LINE_BYTES]).await.unwrap();
        client.write_all(b"\n").await.unwrap();
        assert_eq!(wire.line().await.unwrap().len(), MAX_LINE_BYTES);
        client.write_all(&[b'x'; MAX_LINE_BYTES + 1]).await.unwrap();
        assert_eq!(wire.line().await, Err(NoLine::TooLong));
    }

    #[tokio::test]
    async fn who_says_nothing_or_half_of_something_is_given_up() {
        let (mut quiet, _client) = wire(Patience { idle: SOON, ..patient() });
        assert_eq!(quiet.line().await, Err(NoLine::Gone));
        let (mut half, mut client) = wire(Patience { line: SOON, ..patient() });
        client.write_all(b"{").await.unwrap();
        assert_eq!(half.line().await, Err(NoLine::Gone));
    }

    #[tokio::test]
    async fn who_does_not_read_is_given_up() {
        let (mut wire, _client) = wire(Patience { write: SOON, ..patient() });
        assert_eq!(wire.write(&"x".repeat(1 << 20)).await, Ok(()));
        assert_eq!(wire.write("x").await, Err(Deaf));
    }
}
