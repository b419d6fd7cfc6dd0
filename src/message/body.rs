//! The content of a request or a response: nothing, bytes, or a stream of frames.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::error::{Error, Kind};

/// Content, whole or arriving.
#[derive(Default)]
pub enum Body {
    /// No content.
    #[default]
    Empty,
    /// All of it.
    Full(Bytes),
    /// Frames as they come: data, then perhaps a trailer section.
    Stream(Pin<Box<dyn HttpBody<Data = Bytes, Error = Error> + Send>>),
}

/// Content was larger than the caller allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge {
    /// The limit that was passed, in bytes.
    pub limit: u64,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request body is larger than the limit of {} bytes (max_body_bytes)", self.limit)
    }
}

impl std::error::Error for TooLarge {}

impl Body {
    /// Wraps a stream of frames.
    pub fn stream(body: impl HttpBody<Data = Bytes, Error = Error> + Send + 'static) -> Self {
        Self::Stream(Box::pin(body))
    }

    /// Whether there is certainly no content to come.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    /// Reads everything, holding at most `limit` bytes, and returns it with the trailer section if one came.
    ///
    /// # Errors
    /// `Kind::Limit` with a [`TooLarge`] source as soon as the declared or the received size passes `limit`; whatever
    /// the stream fails with otherwise.
    ///
    /// # Cancel safety
    /// Not cancel safe: what was read is lost.
    pub async fn collect(mut self, limit: u64) -> Result<(Bytes, Option<HeaderMap>), Error> {
        let too_large = || Error::new(Kind::Limit, TooLarge { limit }.to_string()).because(TooLarge { limit });
        if self.size_hint().lower() > limit {
            return Err(too_large());
        }
        let mut body = match self {
            Self::Empty => return Ok((Bytes::new(), None)),
            Self::Full(bytes) => return Ok((bytes, None)),
            Self::Stream(ref mut body) => body.as_mut(),
        };
        let (mut first, mut whole, mut trailers) = (Bytes::new(), BytesMut::new(), None);
        while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            match frame?.into_data() {
                Ok(data) => {
                    if (first.len() + whole.len() + data.len()) as u64 > limit {
                        return Err(too_large());
                    }
                    // Most bodies are one frame: keep it as it came, copy only when a second one follows.
                    if first.is_empty() && whole.is_empty() {
                        first = data;
                    } else {
                        if whole.is_empty() {
                            whole.extend_from_slice(&std::mem::take(&mut first));
                        }
                        whole.extend_from_slice(&data);
                    }
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        Ok((if whole.is_empty() { first } else { whole.freeze() }, trailers))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Self::Stream(body) => write!(f, "Stream({:?})", body.size_hint()),
        }
    }
}

macro_rules! from_bytes {
    ($($from:ty),*) => { $(impl From<$from> for Body {
        fn from(content: $from) -> Self {
            let bytes = Bytes::from(content);
            if bytes.is_empty() { Self::Empty } else { Self::Full(bytes) }
        }
    })* };
}
from_bytes!(Bytes, Vec<u8>, String, &'static str, &'static [u8]);
