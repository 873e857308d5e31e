//! A request's body in pieces, with limits in bytes, pieces and time.

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::time::{Instant, timeout_at};

use super::inflate::{Coding, Inflater};
use crate::frontend::http::settings::HttpSettings;
use crate::request::{RequestError, What};

/// What is reserved at once for a body that comes in several pieces, whatever it announces.
const FIRST_RESERVE: usize = 64 << 10;
/// Who has sent that much gets room for all that was announced, so that it is not moved on and on.
const EARNED: usize = 1 << 20;

pub(crate) struct BodyReader<'s, B> {
    frames: B,
    settings: &'s HttpSettings,
    until: Instant,
    /// What the client announced, on the wire.
    announced: Option<usize>,
    /// What came, on the wire.
    received: usize,
    chunks: usize,
    /// Gone once the end of the compressed stream was seen.
    inflater: Option<Inflater>,
    inflated: usize,
    /// Came from the wire and is not inflated yet.
    compressed: Bytes,
    /// Ready to be handed out.
    rest: Bytes,
    length_of: LengthOf,
    /// Taken from the budget of all bodies, until this request is over.
    kept: usize,
    /// The connection ended in the middle of it.
    broke_off: bool,
}

impl<B> Drop for BodyReader<'_, B> {
    fn drop(&mut self) {
        self.settings.buffers.give_back(self.kept);
    }
}

/// What the announced length is the length of: the body as it is handed out, or something else.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LengthOf {
    Plain,
    Compressed,
}

impl<'s, B: Body<Data = Bytes> + Unpin> BodyReader<'s, B> {
    /// Checks the announced length before anything is read.
    pub(crate) fn new(
        frames: B,
        coding: Option<Coding>,
        settings: &'s HttpSettings,
    ) -> Result<Self, RequestError> {
        let announced = match frames.size_hint().exact() {
            None => None,
            Some(length) => Some(
                usize::try_from(length)
                    .ok()
                    .filter(|&l| l <= settings.max_body)
                    .ok_or_else(|| too_large(settings.max_body))?,
            ),
        };
        Ok(Self {
            frames,
            settings,
            until: Instant::now() + settings.body_timeout,
            announced,
            received: 0,
            chunks: 0,
            inflater: coding.map(Inflater::new),
            inflated: 0,
            compressed: Bytes::new(),
            rest: Bytes::new(),
            length_of: if coding.is_some() { LengthOf::Compressed } else { LengthOf::Plain },
            kept: 0,
            broke_off: false,
        })
    }

    /// Shortens the time in which the whole body must have come.
    pub(crate) fn limit_until(&mut self, deadline: Instant) {
        self.until = self.until.min(deadline);
    }

    /// Bytes that are still to be handed out, where that is known.
    pub(crate) fn remaining(&self) -> Option<usize> {
        match self.length_of {
            LengthOf::Plain => {
                self.announced.map(|all| (all + self.rest.len()).saturating_sub(self.received))
            }
            LengthOf::Compressed => None,
        }
    }

    /// Most bytes that could still be handed out.
    pub(crate) fn at_most(&self) -> usize {
        self.remaining().unwrap_or(match self.length_of {
            LengthOf::Plain => self.settings.max_body,
            LengthOf::Compressed => self.settings.max_decompressed,
        })
    }

    /// The next piece, never empty; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, RequestError> {
        if !self.rest.is_empty() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        match self.inflater {
            Some(_) => self.inflate().await,
            None => self.receive().await,
        }
    }

    /// Waits for the rest of a body that is known to be small, without copying what is there.
    pub(crate) async fn gather(&mut self, small: usize) -> Result<(), RequestError> {
        match self.remaining() {
            Some(remaining) if remaining <= small && remaining > self.rest.len() => {
                self.rest = self.take(remaining).await?;
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Exactly `length` bytes; what came beyond them is handed out later.
    pub(crate) async fn take(&mut self, length: usize) -> Result<Bytes, RequestError> {
        let mut first = self.next().await?.unwrap_or_default();
        if first.len() >= length {
            let taken = first.split_to(length);
            self.rest = first;
            return Ok(taken);
        }
        self.keep(first.len())?;
        let mut taken = BytesMut::with_capacity(length.min(FIRST_RESERVE));
        taken.extend_from_slice(&first);
        while taken.len() < length {
            let Some(mut piece) = self.next().await? else { return Err(short(taken.len())) };
            self.keep(piece.len())?;
            taken.extend_from_slice(&piece.split_to(piece.len().min(length - taken.len())));
            self.rest = piece;
        }
        Ok(taken.freeze())
    }

    /// Everything that is left.
    pub(crate) async fn all(&mut self) -> Result<Bytes, RequestError> {
        let first = self.next().await?.unwrap_or_default();
        let Some(second) = self.next().await? else { return Ok(first) };
        let expected = self.announced.unwrap_or_default().max(first.len() + second.len());
        self.keep(first.len() + second.len())?;
        let mut all = BytesMut::with_capacity(expected.min(FIRST_RESERVE));
        all.extend_from_slice(&first);
        all.extend_from_slice(&second);
        while let Some(piece) = self.next().await? {
            self.keep(piece.len())?;
            if all.len() >= EARNED {
                all.reserve(piece.len() + self.remaining().unwrap_or_default());
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    /// Counts bytes that are about to be put together with others.
    fn keep(&mut self, bytes: usize) -> Result<(), RequestError> {
        if !self.settings.buffers.take(bytes) {
            let message = "too many request bodies are waiting for their rest";
            return Err(RequestError::new(What::QueueFull, message));
        }
        self.kept += bytes;
        Ok(())
    }

    /// How many bytes are still to be handed out; keeps what it had to read to know that.
    pub(crate) async fn measure(&mut self) -> Result<usize, RequestError> {
        if let Some(remaining) = self.remaining() {
            return Ok(remaining);
        }
        self.rest = self.all().await?;
        Ok(self.rest.len())
    }

    /// Whether nothing was read yet, so that the client was not asked to send either.
    pub(crate) fn is_untouched(&self) -> bool {
        self.received == 0
    }

    /// Whether its client left in the middle of it.
    pub(crate) fn broke_off(&self) -> bool {
        self.broke_off
    }

    /// Reads on without keeping anything; whether the end was reached within `most` bytes.
    pub(crate) async fn discard(&mut self, most: usize) -> Discarded {
        let stop = self.received.saturating_add(most);
        if self.announced.is_some_and(|all| all > stop) {
            return Discarded::InPart;
        }
        loop {
            match self.receive().await {
                Ok(None) => return Discarded::Wholly,
                Ok(Some(_)) if self.received <= stop => {}
                Ok(Some(_)) | Err(_) => return Discarded::InPart,
            }
        }
    }

    async fn inflate(&mut self) -> Result<Option<Bytes>, RequestError> {
        while let Some(inflater) = &mut self.inflater {
            // A bomb keeps the processor busy without ever waiting for the client.
            tokio::task::consume_budget().await;
            let piece = if !self.compressed.is_empty() {
                inflater.step(&mut self.compressed)?
            } else if let Some(frame) = self.receive().await? {
                self.compressed = frame;
                continue;
            } else {
                self.inflater.take().map_or(Ok(Bytes::new()), Inflater::finish)?
            };
            self.inflated += piece.len();
            if self.inflated > self.settings.max_decompressed {
                return Err(too_large(self.settings.max_decompressed));
            }
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// The next piece from the wire.
    async fn receive(&mut self) -> Result<Option<Bytes>, RequestError> {
        while self.announced != Some(self.received) {
            let Some(data) = self.frame().await? else { return Ok(None) };
            self.received = self.received.saturating_add(data.len());
            if self.received > self.settings.max_body {
                return Err(too_large(self.settings.max_body));
            }
            if self.announced.is_none() || data.is_empty() {
                self.chunks += 1;
            }
            if self.chunks > self.settings.max_chunks {
                let message =
                    format!("the body comes in more than {} chunks", self.settings.max_chunks);
                return Err(RequestError::new(What::TooLarge, message));
            }
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// One frame; trailers count as an empty one. A timer is made only if there is none yet.
    async fn frame(&mut self) -> Result<Option<Bytes>, RequestError> {
        let frame = match self.frames.frame().now_or_never() {
            Some(ready) => ready,
            None => {
                let until = self.until.min(Instant::now() + self.settings.stall_timeout);
                timeout_at(until, self.frames.frame()).await.map_err(|_| {
                    RequestError::new(What::SlowBody, "the body took too long to arrive")
                })?
            }
        };
        match frame {
            None => Ok(None),
            Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
            Some(Err(_)) => {
                self.broke_off = true;
                Err(RequestError::invalid("the body could not be read to its end"))
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discarded {
    Wholly,
    InPart,
}

fn too_large(limit: usize) -> RequestError {
    let message = format!("the request body exceeds the maximum allowed of {limit} bytes");
    RequestError::new(What::TooLarge, message)
}

fn short(length: usize) -> RequestError {
    RequestError::invalid(format!(
        "Inference-Header-Content-Length goes beyond the body of {length} bytes"
    ))
}
