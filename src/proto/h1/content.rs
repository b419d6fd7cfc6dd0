//! Request content, and what happens to the part of it that a handler did not read.
//!
//! The next request on a connection comes behind the content of this one, so unread content is read and thrown away if
//! that is cheap, and else the connection ends with the response. hyper by itself ends it nearly always, and says
//! nothing of it in the response.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use crate::error::{Error, Kind};

/// 256 KiB, as in Go's server: reading so much costs less than a new connection.
const MAX_DISCARDED_BYTES: u64 = 256 * 1024;

/// Request content, as hyper receives it.
pub(super) struct Content {
    incoming: Option<Incoming>,
    /// Whether the client waits for `100 Continue`, which hyper sends when the content is first asked for.
    awaits_continue: bool,
    unread: Arc<Unread>,
}

impl Content {
    pub(super) fn new(incoming: Incoming, awaits_continue: bool, unread: Arc<Unread>) -> Self {
        unread.begin();
        Self { incoming: Some(incoming), awaits_continue, unread }
    }
}

impl HttpBody for Content {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.awaits_continue = false;
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(incoming).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.incoming = None;
        }
        let lost = |error| Error::new(Kind::Peer, "the request body did not arrive whole").because(error);
        Poll::Ready(frame.map(|frame| frame.map_err(lost)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        match self.incoming.take() {
            // RFC 9110 §10.1.1: a final response instead of a 100 leaves open whether the content will still be sent.
            Some(_) if self.awaits_continue => self.unread.leave(Rest::Cut),
            Some(incoming) if !incoming.is_end_stream() => self.unread.leave(Rest::Unwanted { incoming, read: 0 }),
            _ => self.unread.end(),
        }
    }
}

/// What was left of the content of a connection's present request. Content may be dropped on any thread.
#[derive(Default)]
pub(super) struct Unread {
    /// Whether there is content that was not read to its end, held by a handler or left. Most requests have none, and then
    /// nothing here costs more than this.
    in_use: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rest: Rest,
    /// The connection's task.
    waker: Option<Waker>,
}

#[derive(Default)]
enum Rest {
    /// Nothing, or a handler still has it.
    #[default]
    None,
    /// To be read and thrown away.
    Unwanted { incoming: Incoming, read: u64 },
    /// Won't be read: the connection ends with the response.
    Cut,
}

impl Unread {
    /// A request with content begins. hyper has parsed its head, so what was left before it is gone.
    fn begin(&self) {
        self.in_use.store(true, Ordering::Relaxed);
    }

    /// Its content was read to the end.
    fn end(&self) {
        self.in_use.store(false, Ordering::Relaxed);
    }

    /// Whether there can be anything to discard.
    pub(super) fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Relaxed)
    }

    fn leave(&self, rest: Rest) {
        let mut state = self.lock();
        state.rest = rest;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Whether the connection must end with the response that is about to be sent.
    pub(super) fn must_close(&self) -> bool {
        if !self.is_in_use() {
            return false;
        }
        let mut state = self.lock();
        if let Rest::Unwanted { incoming, .. } = &state.rest
            && incoming.size_hint().lower() > MAX_DISCARDED_BYTES
        {
            state.rest = Rest::Cut;
        }
        matches!(state.rest, Rest::Cut)
    }

    /// Reads unwanted content. Pending: more is to come. Ready: there is none, or too much.
    pub(super) fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        while let Rest::Unwanted { incoming, read } = &mut state.rest {
            match ready!(Pin::new(incoming).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    *read += frame.data_ref().map_or(0, |data| data.len() as u64);
                    if *read > MAX_DISCARDED_BYTES {
                        state.rest = Rest::Cut;
                    }
                }
                Some(Err(_)) | None => state.rest = Rest::None,
            }
        }
        match &state.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => state.waker = Some(cx.waker().clone()),
        }
        Poll::Ready(())
    }

    /// Gives up on content that does not come.
    pub(super) fn cut(&self) {
        self.lock().rest = Rest::Cut;
    }

    /// Whether content was given up.
    pub(super) fn is_cut(&self) -> bool {
        matches!(self.lock().rest, Rest::Cut)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
