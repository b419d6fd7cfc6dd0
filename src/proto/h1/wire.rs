//! The byte stream of an HTTP/1.x connection as hyper sees it.
//!
//! 1. What is read passes [`Heads`], which keeps a verdict on every head.
//! 2. What is written is gathered until the connection has been polled, so that pipelined requests that arrive together
//!    are answered together. hyper's own `pipeline_flush` does as much, but flushes nothing while any byte is unparsed
//!    (an answer waits for ever if half a request, or just CRLF, follows its own) and lets a body grow in memory without
//!    bound. Measured, 16 pipelined requests: 0.6 us each gathered, 5.0 us written one by one.
//! 3. The client's end of stream is told a poll later than the bytes before it. A client that half-closes behind its
//!    request is then answered if the answer is at hand, and else counts as gone, because TCP can't tell it from one that
//!    closed. nginx does the same.
//! 4. There are no vectored writes. Measured: hyper's queue of parts costs 70 ns on a small response, and saves the copy of
//!    a large one, 80 ns at 11 KB.
//! 5. hyper does not close the stream: what closing takes (RFC 9112 §9.6) is decided when hyper has ended.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    message::Stream,
    proto::strict::{Heads, Limits, Refusal},
};

/// 8 KiB: sixteen small answers. What is larger goes out by itself and is not copied.
const GATHERED_BYTES: usize = 8 * 1024;

/// A handle to the stream: hyper holds one, the connection's task another.
#[derive(Clone)]
pub(super) struct Wire(Rc<RefCell<State>>);

struct State {
    io: Stream,
    heads: Heads,
    /// How many heads hyper has parsed.
    parsed: u64,
    gathered: Vec<u8>,
    /// How much of `gathered` is written.
    written: usize,
    /// Whether something was written and not flushed.
    unflushed: bool,
    /// Whether hyper has bytes that it could not write yet.
    is_full: bool,
    /// Whether bytes were read since the connection's task began this poll.
    has_news: bool,
    ended: bool,
    /// How many bytes the client took.
    taken: u64,
}

impl Wire {
    pub(super) fn new(io: Stream, limits: Limits) -> Self {
        Self(Rc::new(RefCell::new(State {
            io,
            heads: Heads::new(limits),
            parsed: 0,
            gathered: Vec::new(),
            written: 0,
            unflushed: false,
            is_full: false,
            has_news: false,
            ended: false,
            taken: 0,
        })))
    }

    /// Begins a poll of the connection.
    pub(super) fn begin(&self) {
        self.0.borrow_mut().has_news = false;
    }

    /// Ends a poll of the connection: sends what was gathered. Ready when hyper, too, has nothing left to send.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(cx)
    }

    /// Counts one parsed head and returns the verdict on it.
    pub(super) fn next_verdict(&self) -> Option<Refusal> {
        let mut state = self.0.borrow_mut();
        state.parsed += 1;
        state.heads.refusal(state.parsed - 1)
    }

    /// How many heads were parsed.
    pub(super) fn parsed(&self) -> u64 {
        self.0.borrow().parsed
    }

    /// How many bytes the client has taken.
    pub(super) fn taken(&self) -> u64 {
        self.0.borrow().taken
    }

    /// Whether a request head has begun and not ended.
    pub(super) fn is_within_head(&self) -> bool {
        self.0.borrow().heads.is_within_head()
    }

    /// Whether the client has closed its side.
    pub(super) fn has_ended(&self) -> bool {
        self.0.borrow().ended
    }

    /// Takes the stream apart; none while hyper holds it.
    pub(super) fn into_stream(self) -> Option<Stream> {
        Rc::try_unwrap(self.0).ok().map(|state| state.into_inner().io)
    }
}

impl State {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_write_gathered(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.unflushed = false;
        // What stopped hyper was a stream that was full, and that stream will wake this task.
        if self.is_full { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn poll_write_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.gathered.len() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.gathered[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => {
                    self.written += n;
                    self.taken += n as u64;
                }
            }
        }
        self.gathered.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Gathers bytes if they are few, else writes them.
    fn poll_take(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        self.is_full = true;
        if self.gathered.len() + bytes.len() > GATHERED_BYTES {
            ready!(self.poll_write_gathered(cx))?;
        }
        let taken = if bytes.len() <= GATHERED_BYTES {
            self.gathered.extend_from_slice(bytes);
            bytes.len()
        } else {
            let taken = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
            self.taken += taken as u64;
            taken
        };
        self.is_full = false;
        Poll::Ready(Ok(taken))
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.0.borrow_mut();
        if !state.ended {
            let before = buf.filled().len();
            ready!(Pin::new(&mut state.io).poll_read(cx, buf))?;
            let new = &buf.filled()[before..];
            if !new.is_empty() {
                state.has_news = true;
                state.heads.see(new);
                return Poll::Ready(Ok(()));
            }
            state.ended = true;
        }
        if state.has_news {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_take(cx, bytes)
    }

    /// Nothing to do: the poll of the connection ends with [`Wire::poll_send`].
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Sends everything and keeps the stream open.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }
}
