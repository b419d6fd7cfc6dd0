//! What has come on a connection, on its way to hyper.
//!
//! 1. hyper gets whole heads only, and none that is refused: the start of a head waits here for its end, outside of hyper,
//!    which may not even be there yet (`h1.rs`). A head that comes whole, as nearly all do, is not copied.
//! 2. In the place of a refused head, hyper gets one of ours, so that the refusal waits for its turn behind the requests
//!    before it. Nothing behind a refused head is looked at, nor is it given.
//! 3. Content is given as it comes. Where its framing is refused, reading fails.
//! 4. It changes one byte, ever: a minor version that hyper does not know (RFC 9110 §2.5).

use std::io;

use tokio::io::ReadBuf;

use crate::proto::strict::{Chunks, Framing, Head, Limits, Refusal, Seen, Walked};

/// What hyper gets for a head that is refused.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\n\r\n";

/// As well, but the answer to HEAD has no content (RFC 9110 §9.3.2).
const STAND_IN_FOR_HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nhost: refused\r\n\r\n";

/// Follows the bytes of one connection from head to head.
pub(super) struct Intake {
    limits: Limits,
    place: Place,
    /// What is known of the head of which `part` is the start.
    head: Head,
    /// The start of a head whose end has yet to come.
    part: Vec<u8>,
    /// What hyper may have and has not got: heads that came in parts, and what came behind them.
    ready: Vec<u8>,
    given: usize,
    /// How many heads were given, or are about to be.
    heads: u64,
    refused: Option<Refused>,
}

/// Where on the connection the next byte is.
#[derive(Debug)]
enum Place {
    Head,
    /// So many bytes of content are left.
    Content(u64),
    Chunks(Chunks),
    /// Behind what was refused.
    Lost,
}

/// What was refused.
#[derive(Clone, Copy)]
enum Refused {
    Head {
        refusal: Refusal,
        /// What hyper is owed for it.
        stand_in: &'static [u8],
    },
    Content {
        refusal: Refusal,
        /// Of which request. Those before it are not concerned, though they may have yet to be answered.
        number: u64,
    },
}

impl Intake {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            place: Place::Head,
            head: Head::default(),
            part: Vec::new(),
            ready: Vec::new(),
            given: 0,
            heads: 0,
            refused: None,
        }
    }

    /// Looks at bytes that came into a buffer of hyper's. Returns how many of them stay there; the others it has taken.
    ///
    /// Not within a head: use [`Self::take`] there.
    pub(super) fn admit(&mut self, bytes: &mut [u8]) -> usize {
        debug_assert!(!self.is_within_head(), "the start of the head would be overtaken");
        let mut at = 0;
        while at < bytes.len() {
            at += match &mut self.place {
                Place::Head => match self.see_head(&mut bytes[at..]) {
                    Some(end) => end,
                    None => {
                        if self.refused.is_none() {
                            self.part.extend_from_slice(&bytes[at + self.head.forget_start()..]);
                        }
                        break;
                    }
                },
                Place::Content(left) => {
                    let n = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    *left -= n as u64;
                    if *left == 0 {
                        self.place = Place::Head;
                    }
                    n
                }
                Place::Chunks(chunks) => match chunks.walk(&bytes[at..], &self.limits) {
                    Ok(Walked::Through) => bytes.len() - at,
                    Ok(Walked::ToEnd(end)) => {
                        self.place = Place::Head;
                        end
                    }
                    Err(refusal) => {
                        self.refuse_content(refusal);
                        break;
                    }
                },
                Place::Lost => break,
            }
        }
        at
    }

    /// Takes bytes that came elsewhere than into a buffer of hyper's.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        debug_assert!(!self.is_ready(), "what is ready would be overtaken");
        let mut whole = std::mem::take(&mut self.part);
        whole.extend_from_slice(bytes);
        match self.see_head(&mut whole) {
            Some(end) => {
                let admitted = self.admit(&mut whole[end..]);
                whole.truncate(end + admitted);
                (self.ready, self.given) = (whole, 0);
            }
            None if self.refused.is_none() => {
                whole.drain(..self.head.forget_start());
                self.part = whole;
            }
            None => {}
        }
    }

    /// Gives hyper what is ready for it. Whether there was anything.
    pub(super) fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.given < self.ready.len() {
            let n = buf.remaining().min(self.ready.len() - self.given);
            buf.put_slice(&self.ready[self.given..self.given + n]);
            self.given += n;
            if self.given == self.ready.len() {
                (self.ready, self.given) = (Vec::new(), 0);
            }
            return true;
        }
        match &mut self.refused {
            Some(Refused::Head { stand_in, .. }) if !stand_in.is_empty() => {
                let (now, later) = stand_in.split_at(buf.remaining().min(stand_in.len()));
                buf.put_slice(now);
                *stand_in = later;
                true
            }
            _ => false,
        }
    }

    /// Refuses the head that is waited for.
    pub(super) fn refuse_head(&mut self, refusal: Refusal) {
        let part = std::mem::take(&mut self.part);
        self.refuse(refusal, &part);
    }

    /// Refuses the content that is waited for.
    pub(super) fn refuse_content(&mut self, refusal: Refusal) {
        self.place = Place::Lost;
        self.refused = Some(Refused::Content { refusal, number: self.heads });
    }

    /// Why the `number`th head was refused, counted from 1, if it was.
    pub(super) fn find_refusal(&self, number: u64) -> Option<Refusal> {
        match self.refused {
            Some(Refused::Head { refusal, .. }) if number == self.heads => Some(refusal),
            _ => None,
        }
    }

    /// Why the content of the `number`th request was refused, if it was.
    pub(super) fn find_content_refusal(&self, number: u64) -> Option<Refusal> {
        match self.refused {
            Some(Refused::Content { refusal, number: refused }) if refused == number => Some(refusal),
            _ => None,
        }
    }

    /// Fails if hyper is to get nothing any more.
    pub(super) fn check(&self) -> io::Result<()> {
        match self.refused {
            Some(Refused::Content { refusal, .. }) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, refusal.answer().1))
            }
            _ => Ok(()),
        }
    }

    /// Whether anything was refused: there is nothing left to read.
    pub(super) fn has_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// Whether the connection began as none of HTTP/1.x does. RFC 9113 §3.4: a preface that is none is a reason to close.
    pub(super) fn is_foreign(&self) -> bool {
        self.heads == 1 && matches!(self.refused, Some(Refused::Head { refusal: Refusal::NotHttp, .. }))
    }

    /// Whether a head has begun and not ended.
    pub(super) fn is_within_head(&self) -> bool {
        !self.part.is_empty()
    }

    /// Whether content has begun and not ended.
    pub(super) fn is_within_content(&self) -> bool {
        matches!(self.place, Place::Content(_) | Place::Chunks(_))
    }

    /// Whether something is ready for hyper.
    pub(super) fn is_ready(&self) -> bool {
        self.given < self.ready.len()
            || matches!(self.refused, Some(Refused::Head { stand_in, .. }) if !stand_in.is_empty())
    }

    /// Whether hyper has parsed every head there is, being at number `parsed`, and all content behind them has come.
    pub(super) fn is_at_rest(&self, parsed: u64) -> bool {
        matches!(self.place, Place::Head) && self.heads == parsed && !self.is_ready()
    }

    /// Looks at a head at the start of `bytes`, and returns where it ends. None: its end has yet to come, or it is refused.
    #[inline]
    fn see_head(&mut self, bytes: &mut [u8]) -> Option<usize> {
        match self.head.see(bytes, &self.limits) {
            Ok(Seen::Part) => None,
            Ok(Seen::Whole(end, framing)) => {
                if let Some(at) = self.head.later_version() {
                    bytes[at] = b'1';
                }
                self.head = Head::default();
                self.heads += 1;
                self.place = match framing {
                    Framing::Length(0) => Place::Head,
                    Framing::Length(length) => Place::Content(length),
                    Framing::Chunked => Place::Chunks(Chunks::default()),
                };
                Some(end)
            }
            Err(refusal) => {
                self.refuse(refusal, bytes);
                None
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal, head: &[u8]) {
        let head = &head[self.head.forget_start().min(head.len())..];
        let stand_in = if head.starts_with(b"HEAD ") { STAND_IN_FOR_HEAD } else { STAND_IN };
        self.place = Place::Lost;
        self.heads += 1;
        self.refused = Some(Refused::Head { refusal, stand_in });
    }
}
