//! Request content, released to the client as it is read.
//!
//! The client may send as much as a stream's window and no more, until somebody reads; what was read may be sent again. So
//! a handler that does not read holds its client up, and nobody else.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::side::Side;
use crate::error::{Error, Kind};

/// Request content, as h2 receives it.
pub(super) struct Content {
    incoming: RecvStream,
    /// How much is to come, if the client has said.
    declared: Option<u64>,
    /// Who sends `100 Continue`, if the client waits for that.
    awaits_continue: Option<Arc<Side>>,
    part: Part,
}

/// ```text
/// Data ──► Trailers ──► End
///   └───────────────────▲ (an error)
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Data,
    Trailers,
    End,
}

impl Content {
    pub(super) fn new(incoming: RecvStream, declared: Option<u64>, awaits_continue: Option<Arc<Side>>) -> Self {
        Self { incoming, declared, awaits_continue, part: Part::Data }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let polled = self.incoming.poll_data(cx);
        // RFC 9110 §10.1.1: it may be left out once content has come.
        if let Some(side) = self.awaits_continue.take()
            && polled.is_pending()
        {
            side.send_continue();
        }
        let data = ready!(polled);
        if let Some(Ok(data)) = &data {
            // It can't be more than was received.
            let _ = self.incoming.flow_control().release_capacity(data.len());
            self.declared = self.declared.map(|left| left.saturating_sub(data.len() as u64));
        }
        Poll::Ready(data)
    }
}

impl HttpBody for Content {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let error = loop {
            match self.part {
                Part::Data => match ready!(self.poll_data(cx)) {
                    Some(Ok(data)) if data.is_empty() => {}
                    Some(Ok(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Some(Err(error)) => break error,
                    None => self.part = Part::Trailers,
                },
                Part::Trailers => {
                    let trailers = ready!(self.incoming.poll_trailers(cx));
                    self.part = Part::End;
                    match trailers {
                        Ok(trailers) => return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
                        Err(error) => break error,
                    }
                }
                Part::End => return Poll::Ready(None),
            }
        };
        self.part = Part::End;
        let lost = Error::new(Kind::Peer, "the request body did not arrive whole").because(error);
        Poll::Ready(Some(Err(lost)))
    }

    fn is_end_stream(&self) -> bool {
        self.part == Part::End || self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match (self.part, self.declared) {
            (Part::Data, Some(left)) => SizeHint::with_exact(left),
            (Part::Data, None) => SizeHint::default(),
            _ => SizeHint::with_exact(0),
        }
    }
}
