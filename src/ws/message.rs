//! What goes through a WebSocket: messages, and how it ends.

use std::borrow::Cow;

use bytes::Bytes;

use super::frame::{self, Opcode};

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

/// A message ready to be sent: its frame is made once, however many it is sent to. A clone is two pointers and a count.
///
/// RFC 6455 §5.1: what a server sends is not masked, so the frame is the same for everybody. Only where compression was agreed
/// on is it made anew, by each connection for itself.
#[derive(Clone, Debug)]
pub struct Prepared {
    kind: Kind,
    /// Head and content.
    frame: Bytes,
    head_len: u8,
}

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

    fn new(kind: Kind, data: &[u8]) -> Self {
        let (head, head_len) = frame::head(Opcode::from(kind), false, data.len());
        let mut whole = Vec::with_capacity(head_len + data.len());
        whole.extend_from_slice(&head[..head_len]);
        whole.extend_from_slice(data);
        // At most ten bytes.
        Self { kind, frame: Bytes::from(whole), head_len: head_len as u8 }
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
