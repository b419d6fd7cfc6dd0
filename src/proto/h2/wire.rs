//! The byte stream of an HTTP/2 connection as h2 sees it.
//!
//! 1. What is read passes [`Incoming`], what is written [`Outgoing`]. From an [`Offence`] on, h2 gets nothing more to read.
//! 2. What is written is gathered until the connection has been polled, so that responses that are ready together go out
//!    together, and frames of 16 KiB four at a time. h2 would write them one by one.
//! 3. When the stream takes no more, h2 gets to know after [`GATHERED_BYTES`], and [`Wire::room`] says so: whose content is
//!    sent next is decided when it can be sent.
//! 4. The first frame, SETTINGS, is told one more setting, which h2 does not know: RFC 9218 §2.1, that the priorities of RFC
//!    7540 mean nothing here.
//! 5. The client's end of stream is told a poll later than the bytes before it, so that what can be answered at once is.
//! 6. h2 does not close the stream: what closing takes is decided when h2 has ended.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    super::priority::Said,
    calm::Allowances,
    frames::{Incoming, Offence, Outgoing, Pushes},
};
use crate::message::Stream;

/// 64 KiB: four frames of the usual size. More would be out of reach of priorities.
pub(super) const GATHERED_BYTES: usize = 64 * 1024;

/// 4 KiB. What an idle connection keeps of the memory that gathering took.
const KEPT_BYTES: usize = 4 * 1024;

/// RFC 9218 §2.1: SETTINGS_NO_RFC7540_PRIORITIES, 1.
const NO_OLD_PRIORITIES: [u8; 6] = [0, 9, 0, 0, 0, 1];

/// A handle to the stream: h2 holds one, the connection's task another.
#[derive(Clone)]
pub(super) struct Wire(Rc<RefCell<State>>);

struct State {
    io: Stream,
    incoming: Incoming,
    outgoing: Outgoing,
    gathered: Vec<u8>,
    /// How much of `gathered` is written.
    written: usize,
    /// How many bytes were read, and written, since the start.
    read_bytes: u64,
    written_bytes: u64,
    /// Whether flushing waits for the end of the connection's poll.
    is_gathering: bool,
    has_settings: bool,
    /// Whether the stream took less than it was given.
    is_blocked: bool,
    /// Whether bytes were read since the connection's task began this poll.
    has_news: bool,
    ended: bool,
}

impl Wire {
    pub(super) fn new(io: Stream, allowances: Allowances) -> Self {
        Self(Rc::new(RefCell::new(State {
            io,
            incoming: Incoming::new(allowances),
            outgoing: Outgoing::new(),
            gathered: Vec::new(),
            written: 0,
            read_bytes: 0,
            written_bytes: 0,
            is_gathering: false,
            has_settings: false,
            is_blocked: false,
            has_news: false,
            ended: false,
        })))
    }

    /// Begins a poll of the connection. From the first one on, what is written waits for [`Wire::poll_send`].
    pub(super) fn begin(&self) {
        let mut state = self.0.borrow_mut();
        state.is_gathering = true;
        state.has_news = false;
    }

    /// Ends a poll of the connection: sends what was gathered.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(cx)
    }

    /// How many bytes can be gathered before some have to be sent.
    pub(super) fn room(&self) -> usize {
        GATHERED_BYTES - self.0.borrow().gathered.len()
    }

    /// Whether the stream takes less than there is to send.
    pub(super) fn is_blocked(&self) -> bool {
        self.0.borrow().is_blocked
    }

    /// How many bytes of content the client still takes on the whole connection, if all that h2 was given has been sent.
    pub(super) fn window(&self) -> i64 {
        let state = self.0.borrow();
        state.incoming.window() - state.outgoing.content_bytes()
    }

    /// What the client has done wrong since this was asked, if it has.
    pub(super) fn take_offence(&self) -> Option<Offence> {
        self.0.borrow_mut().incoming.take_offence()
    }

    /// The client has made us reset a stream.
    pub(super) fn blame_for_reset(&self) {
        self.0.borrow_mut().incoming.blame_for_reset();
    }

    /// Whether a field section has begun and not ended, and how many have begun.
    pub(super) fn head(&self) -> (bool, u64) {
        let state = self.0.borrow();
        (state.incoming.is_within_head(), state.incoming.heads())
    }

    /// What the client lets the server push, if it has said anything since this was asked.
    pub(super) fn take_pushes(&self) -> Option<Pushes> {
        self.0.borrow_mut().incoming.take_pushes()
    }

    /// The priorities that the client has changed since this was asked.
    pub(super) fn take_priorities(&self) -> Vec<(u32, Said)> {
        self.0.borrow_mut().incoming.take_priorities()
    }

    /// How many bytes have come since the start, and how many the client has taken: of everything if the stream is blocked,
    /// else of content, which is what it may hold up.
    pub(super) fn moved_bytes(&self) -> (u64, u64) {
        let state = self.0.borrow();
        let content_bytes = u64::try_from(state.outgoing.content_bytes()).unwrap_or_default();
        (state.read_bytes, if state.is_blocked { state.written_bytes } else { content_bytes })
    }

    /// Whether the client has closed its side.
    pub(super) fn has_ended(&self) -> bool {
        self.0.borrow().ended
    }

    /// Takes the stream apart; none while h2 holds it.
    pub(super) fn into_stream(self) -> Option<Stream> {
        Rc::try_unwrap(self.0).ok().map(|state| state.into_inner().io)
    }
}

impl State {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_blocked = true;
        ready!(self.poll_write_gathered(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.is_blocked = false;
        if self.gathered.capacity() > KEPT_BYTES {
            self.gathered.shrink_to(KEPT_BYTES);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.gathered.len() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.gathered[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => {
                    self.written += n;
                    self.written_bytes += n as u64;
                }
            }
        }
        self.gathered.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Gathers bytes, and writes them if they are many.
    fn poll_take(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.gathered.len() >= GATHERED_BYTES {
            self.is_blocked = true;
            ready!(self.poll_write_gathered(cx))?;
            self.is_blocked = false;
        }
        let n = bytes.len().min(GATHERED_BYTES - self.gathered.len());
        let taken = &bytes[..n];
        let content_before = self.outgoing.content_bytes();
        self.outgoing.see(taken);
        self.incoming.allow_for_sent((self.outgoing.content_bytes() - content_before) as usize);
        if self.has_settings {
            self.gathered.extend_from_slice(taken);
        } else {
            self.gather_settings(taken);
        }
        Poll::Ready(Ok(n))
    }

    /// Gathers the bytes that begin with the first frame, with one more setting in it. h2 writes it as one piece.
    #[cold]
    fn gather_settings(&mut self, bytes: &[u8]) {
        self.has_settings = true;
        let length = usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
        let (frame, rest) = bytes.split_at(9 + length);
        let longer = u16::try_from(length + NO_OLD_PRIORITIES.len()).expect("h2 knows fewer than ten settings");
        self.gathered.push(0);
        self.gathered.extend_from_slice(&longer.to_be_bytes());
        self.gathered.extend_from_slice(&frame[3..]);
        self.gathered.extend_from_slice(&NO_OLD_PRIORITIES);
        self.gathered.extend_from_slice(rest);
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.0.borrow_mut();
        if state.incoming.has_offended() {
            // The connection's task knows, and ends the connection.
            return Poll::Pending;
        }
        if !state.ended {
            let before = buf.filled().len();
            ready!(Pin::new(&mut state.io).poll_read(cx, buf))?;
            let new = &buf.filled()[before..];
            if !new.is_empty() {
                state.has_news = true;
                state.read_bytes += new.len() as u64;
                let seen = state.incoming.see(new);
                buf.set_filled(before + seen);
                // Nothing at all would be the end of the stream.
                return if seen == 0 { Poll::Pending } else { Poll::Ready(Ok(())) };
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

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.0.borrow_mut();
        if state.is_gathering { Poll::Ready(Ok(())) } else { state.poll_send(cx) }
    }

    /// Sends everything and keeps the stream open.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(cx)
    }
}
