//! Request content, released to the client as it is read.
//!
//! The client may send as much as a stream's window and no more, until somebody reads; what was read may be sent again. So
//! a handler that does not read holds its client up, and nobody else. A client that is slower than a reader is held to a
//! least rate.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::side::Side;
use crate::{
    config::Config,
    error::{Error, Kind},
};

/// Request content, as h2 receives it.
pub(super) struct Content {
    /// None once it is left to the task that answers.
    incoming: Option<RecvStream>,
    /// How much is to come, if the client has said.
    declared: Option<u64>,
    side: Arc<Side>,
    /// Whether the client waits for `100 Continue`.
    awaits_continue: bool,
    part: Part,
    inflow: Inflow,
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
    pub(super) fn new(
        incoming: RecvStream,
        declared: Option<u64>,
        awaits_continue: bool,
        side: Arc<Side>,
        config: &Config,
    ) -> Self {
        let incoming = Some(incoming);
        Self { incoming, declared, side, awaits_continue, part: Part::Data, inflow: Inflow::new(config) }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let polled = incoming.poll_data(cx);
        // RFC 9110 §10.1.1: it may be left out once content has come.
        if std::mem::take(&mut self.awaits_continue) && polled.is_pending() {
            self.side.send_continue();
        }
        match polled {
            Poll::Ready(Some(Ok(data))) => {
                // It can't be more than was received.
                let _ = incoming.flow_control().release_capacity(data.len());
                self.declared = self.declared.map(|left| left.saturating_sub(data.len() as u64));
                self.inflow.add(data.len());
                Poll::Ready(Some(Ok(data)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(lost(error)))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                ready!(self.inflow.poll_slow(cx));
                tracing::info!(kind = "limit", "request content came too slowly (body_min_rate)");
                self.side.refuse_late();
                let message = "the request body came too slowly (body_min_rate)";
                Poll::Ready(Some(Err(Error::new(Kind::Peer, message))))
            }
        }
    }
}

fn lost(error: h2::Error) -> Error {
    Error::new(Kind::Peer, "the request body did not arrive whole").because(error)
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
                    let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
                    let trailers = ready!(incoming.poll_trailers(cx));
                    self.part = Part::End;
                    match trailers {
                        Ok(trailers) => return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
                        Err(error) => break lost(error),
                    }
                }
                Part::End => return Poll::Ready(None),
            }
        };
        self.part = Part::End;
        Poll::Ready(Some(Err(error)))
    }

    fn is_end_stream(&self) -> bool {
        self.part == Part::End || self.incoming.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match (self.part, self.declared) {
            (Part::Data, Some(left)) => SizeHint::with_exact(left),
            (Part::Data, None) => SizeHint::default(),
            _ => SizeHint::with_exact(0),
        }
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        if self.part != Part::End
            && let Some(incoming) = self.incoming.take().filter(|incoming| !incoming.is_end_stream())
        {
            self.side.leave(incoming);
        }
    }
}

/// How fast content comes, measured over as much waiting for it as it may take. The time in which nobody waited for it does
/// not count: that is how long a handler takes.
struct Inflow {
    /// Over how much waiting is measured, and how much has to come in it.
    period: Duration,
    enough: f64,
    /// How much has come, and how long was waited, in the present measurement.
    received: f64,
    waited: Duration,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Inflow {
    fn new(config: &Config) -> Self {
        let period = config.body_timeout;
        let enough = period.as_secs_f64() * config.body_min_rate as f64;
        Self { period, enough, received: 0.0, waited: Duration::ZERO, since: None, timer: None }
    }

    /// Content has come.
    fn add(&mut self, bytes: usize) {
        self.received += bytes as f64;
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
        if self.waited >= self.period && self.received >= self.enough {
            (self.received, self.waited) = (0.0, Duration::ZERO);
        }
    }

    /// Waits for content. Ready: it comes too slowly.
    fn poll_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.enough == 0.0 {
            return Poll::Pending;
        }
        let now = Instant::now();
        let waited = self.waited + self.since.map_or(Duration::ZERO, |since| now - since);
        if waited >= self.period {
            if self.received < self.enough {
                return Poll::Ready(());
            }
            (self.received, self.waited) = (0.0, Duration::ZERO);
            self.since = Some(now);
        }
        let since = *self.since.get_or_insert(now);
        let Some(deadline) = since.checked_add(self.period.saturating_sub(self.waited)) else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        if timer.as_mut().poll(cx).is_ready() {
            // To look again what has come by then.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
