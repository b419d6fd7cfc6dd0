//! What goes through a WebSocket: messages, and how it ends.

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

use super::{
    deflate::{self, MAX_WINDOW_BITS, MIN_WINDOW_BITS},
    frame::{self, Opcode},
};

/// Whether a message is text or bytes (RFC 6455 §5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Anything.
    Binary,
}

/// A message as it was received. That of [`Kind::Text`] is valid UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What its content is.
    pub kind: Kind,
    /// Its content.
    pub data: Bytes,
}

/// A message ready to be sent: its frame is made once, however many it is sent to. A clone is three pointers and two counts.
///
/// RFC 6455 §5.1: what a server sends is not masked, so the frame is the same for everybody. Where compression was agreed on it
/// is made anew, by each connection for itself, which makes it shorter by what the connection has sent before; or once for all
/// with the same window ([`Prepared::for_many`]).
#[derive(Clone, Debug)]
pub struct Prepared {
    kind: Kind,
    /// Head and content.
    frame: Bytes,
    head_len: u8,
    deflated: Option<Arc<Deflated>>,
}

/// Compressed frames that are made when the first connection asks for one: one for each size of the window. None in it: the
/// message does not deflate.
type Deflated = [OnceLock<Option<Bytes>>; (MAX_WINDOW_BITS - MIN_WINDOW_BITS + 1) as usize];

impl Prepared {
    /// Makes the frame of a text message.
    pub fn text(text: &str) -> Self {
        Self::new(Kind::Text, text.as_bytes())
    }

    /// Makes the frame of a binary message.
    pub fn binary(data: &[u8]) -> Self {
        Self::new(Kind::Binary, data)
    }

    /// Makes the frame of a message as it was received.
    pub fn from_message(message: &Message) -> Self {
        Self::new(message.kind, &message.data)
    }

    pub(super) fn new(kind: Kind, data: &[u8]) -> Self {
        let (head, head_len) = frame::head(Opcode::from(kind), false, data.len());
        let mut whole = Vec::with_capacity(head_len + data.len());
        whole.extend_from_slice(&head[..head_len]);
        whole.extend_from_slice(data);
        // At most ten bytes.
        Self { kind, frame: Bytes::from(whole), head_len: head_len as u8, deflated: None }
    }

    /// Has the message compressed once for all it is sent to, instead of once by each connection.
    ///
    /// RFC 7692 §7.2.1 lets a sender refer to what it has sent before; it need not. What refers to nothing before it is
    /// understood by everybody. That costs each connection the help of what it has sent before, for this message and the
    /// next one.
    #[must_use]
    pub fn for_many(mut self) -> Self {
        if self.deflated.is_none() && self.data().len() >= deflate::MIN_COMPRESSED_BYTES {
            self.deflated = Some(Arc::default());
        }
        self
    }

    /// Whether it is text.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its content.
    pub fn data(&self) -> &[u8] {
        &self.frame[usize::from(self.head_len)..]
    }

    /// How many bytes its frame has.
    pub fn len(&self) -> usize {
        self.frame.len()
    }

    /// Never: a frame has a head.
    pub fn is_empty(&self) -> bool {
        self.frame.is_empty()
    }

    /// Whether compressed frames of it are the same for many.
    pub(super) fn is_for_many(&self) -> bool {
        self.deflated.is_some()
    }

    /// The compressed frame for everybody with a window of so many bits. None: it goes as it is.
    pub(super) fn deflated(&self, window_bits: u8) -> Option<Bytes> {
        let place = usize::from(window_bits.checked_sub(MIN_WINDOW_BITS)?);
        let made = self.deflated.as_ref()?.get(place)?.get_or_init(|| {
            let deflated = deflate::deflate_alone(self.data(), window_bits)?;
            Some(frame::deflated(Opcode::from(self.kind), &deflated))
        });
        made.clone()
    }

    pub(super) fn into_frame(self) -> Bytes {
        self.frame
    }
}

/// How a WebSocket ends: a code (RFC 6455 §7.4) and what was said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The code.
    pub code: u16,
    /// Why, in at most 123 bytes.
    pub reason: Cow<'static, str>,
}

impl Close {
    /// Done.
    pub const NORMAL: u16 = 1000;
    /// The server stops, or a page was left.
    pub const GOING_AWAY: u16 = 1001;
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// The peer closed without saying a code. Never sent.
    pub const NO_STATUS: u16 = 1005;
    /// The connection ended without a close. Never sent.
    pub const ABNORMAL: u16 = 1006;
    /// Text that is not UTF-8, or data that does not inflate.
    pub const INVALID_DATA: u16 = 1007;
    /// A rule of the application's was broken.
    pub const POLICY: u16 = 1008;
    /// A message was too long.
    pub const TOO_BIG: u16 = 1009;
    /// The handler failed.
    pub const INTERNAL_ERROR: u16 = 1011;

    /// 123 bytes: what a control frame has room for behind the code (RFC 6455 §5.5).
    pub const MAX_REASON_BYTES: usize = 123;

    /// A close with a reason.
    pub fn new(code: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code, reason: reason.into() }
    }

    /// Whether an endpoint may send this code. RFC 6455 §7.4.1 and §7.4.2, with what IANA has registered since.
    pub fn is_sendable(code: u16) -> bool {
        matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}
