//! The frames on the way to h2 and from it, by their headers (RFC 9113 §4.1).
//!
//! h2 keeps to itself some of what we have to know, and ignores what it does not know. So the bytes of a connection are
//! looked at on their way, changed in nothing, and kept only where a few of them make a value. What is looked for:
//!
//! 1. the client's priorities: PRIORITY_UPDATE (RFC 9218 §7.1), an unknown frame to h2;
//! 2. its settings for pushes;
//! 3. how much may be sent on the whole connection, so that what is sent next can be decided as late as possible;
//! 4. frames that do nothing, of which it must not send too many (`calm.rs`);
//! 5. whether a field section has begun and not ended;
//! 6. frames that can't have the length they have: h2 ends the connection as well, but calls it PROTOCOL_ERROR.
//!
//! A frame costs its nine bytes here, whatever its length. Where a client does what it must not, h2 gets the bytes before
//! that and none after.

use super::{super::priority::Said, calm::Allowances};

/// RFC 9113 §3.4.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADER_BYTES: usize = 9;

/// RFC 9113 §6.9.2: both windows begin with it.
const FIRST_WINDOW: i64 = 65_535;

/// RFC 9113 §6.9.1.
const MAX_WINDOW: u32 = 0x7fff_ffff;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const PRIORITY: u8 = 0x2;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;
const PRIORITY_UPDATE: u8 = 0x10;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

const ENABLE_PUSH: u16 = 0x2;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const INITIAL_WINDOW_SIZE: u16 = 0x4;

/// 256 bytes. A priority takes ten; what is longer is all extensions, and counts as not understood.
const MAX_PRIORITY_BYTES: usize = 256;

/// What a client must not do, and what the connection ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offence {
    /// Too many frames that do nothing.
    IdleFrames,
    /// Too many streams reset.
    Resets,
    /// RFC 9218 §7.1: a PRIORITY_UPDATE on a stream, or for stream 0.
    PriorityTarget,
    /// RFC 9218 §7.1: priorities for more streams than may be open.
    PriorityStreams,
    /// RFC 9113 §4.2: a frame of a length that its type does not have.
    FrameLength,
    /// RFC 9113 §6.5.2: a window larger than there are.
    WindowSize,
}

/// Frames from the client.
pub(super) struct Incoming {
    place: Place,
    frame: Header,
    /// The beginning of a header, or of a value that is wanted.
    part: Vec<u8>,
    allowances: Allowances,
    offence: Option<Offence>,
    /// Whether the connection's task knows of it.
    is_told: bool,
    /// Whether a field section has begun and not ended (RFC 9113 §4.3).
    is_within_head: bool,
    heads: u64,
    window: i64,
    pushes: Option<Pushes>,
    /// Whether settings have come since somebody asked for them.
    has_settings: bool,
    priorities: Vec<(u32, Said)>,
}

/// What the client lets the server push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pushes {
    pub(super) is_enabled: bool,
    pub(super) max_streams: u32,
}

/// Where in the stream of frames the next byte is.
///
/// ```text
/// Preface ──► Header ◄──► Payload
/// ```
#[derive(Clone, Copy, Debug)]
enum Place {
    /// So many bytes are left.
    Preface(usize),
    Header,
    /// So many bytes are left.
    Payload(usize),
}

#[derive(Clone, Copy, Debug, Default)]
struct Header {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Header {
    fn read(bytes: &[u8]) -> Self {
        Self {
            length: usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]),
            kind: bytes[3],
            flags: bytes[4],
            stream: number(&bytes[5..9]) & 0x7fff_ffff,
        }
    }

    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Four bytes in network order.
fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

impl Incoming {
    pub(super) fn new(allowances: Allowances) -> Self {
        Self {
            place: Place::Preface(PREFACE.len()),
            frame: Header::default(),
            part: Vec::new(),
            allowances,
            offence: None,
            is_told: false,
            is_within_head: false,
            heads: 0,
            window: FIRST_WINDOW,
            pushes: None,
            has_settings: false,
            priorities: Vec::new(),
        }
    }

    /// Looks at bytes on their way to h2. Returns how many of them it may have: all, but for the offending frame and what
    /// comes after it.
    pub(super) fn see(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            let seen = match self.place {
                Place::Preface(left) => {
                    let n = left.min(rest.len());
                    self.place = if n == left { Place::Header } else { Place::Preface(left - n) };
                    n
                }
                Place::Header => self.see_header(rest),
                Place::Payload(left) => self.see_payload(rest, left),
            };
            if self.offence.is_some() {
                return bytes.len() - rest.len();
            }
            rest = &rest[seen..];
        }
        bytes.len()
    }

    /// What the client has done wrong since this was asked, if it has.
    pub(super) fn take_offence(&mut self) -> Option<Offence> {
        self.offence.filter(|_| !std::mem::replace(&mut self.is_told, true))
    }

    /// Whether the client has done wrong: nothing more of it is looked at.
    pub(super) fn has_offended(&self) -> bool {
        self.offence.is_some()
    }

    /// Whether a field section has begun and not ended.
    pub(super) fn is_within_head(&self) -> bool {
        self.is_within_head
    }

    /// How many field sections have begun.
    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    /// How many bytes of content the client has allowed for the whole connection since its start.
    pub(super) fn window(&self) -> i64 {
        self.window
    }

    /// What the client lets the server push, if it has said anything since this was asked.
    pub(super) fn take_pushes(&mut self) -> Option<Pushes> {
        if std::mem::take(&mut self.has_settings) { self.pushes } else { None }
    }

    /// The priorities that the client has changed since this was asked.
    pub(super) fn take_priorities(&mut self) -> Vec<(u32, Said)> {
        std::mem::take(&mut self.priorities)
    }

    /// The client has made us reset a stream.
    pub(super) fn blame_for_reset(&mut self) {
        if !self.allowances.resets.take() {
            self.offence = Some(Offence::Resets);
        }
    }

    /// Content was sent: the client may say how much more it takes.
    pub(super) fn allow_for_sent(&mut self, bytes: usize) {
        self.allowances.frames.give((bytes / 512) as u32);
    }

    fn see_header(&mut self, bytes: &[u8]) -> usize {
        // Nearly always the whole header is there.
        let mut n = HEADER_BYTES;
        let header = if self.part.is_empty() && bytes.len() >= HEADER_BYTES {
            Header::read(bytes)
        } else {
            n = (HEADER_BYTES - self.part.len()).min(bytes.len());
            self.part.extend_from_slice(&bytes[..n]);
            if self.part.len() < HEADER_BYTES {
                return n;
            }
            let header = Header::read(&self.part);
            self.part.clear();
            header
        };
        self.frame = header;
        self.place = Place::Payload(header.length);
        self.begin_frame();
        if header.length == 0 {
            self.end_frame();
        }
        n
    }

    fn begin_frame(&mut self) {
        let Header { length, kind, stream, .. } = self.frame;
        let frames = &mut self.allowances.frames;
        let has_length = match kind {
            PRIORITY => length == 5,
            RST_STREAM | WINDOW_UPDATE => length == 4,
            SETTINGS => length % 6 == 0 && !(self.frame.has(ACK) && length > 0),
            PING => length == 8,
            PRIORITY_UPDATE => length >= 4,
            _ => true,
        };
        let is_allowed = match kind {
            DATA if length > 0 || self.frame.has(END_STREAM) => {
                frames.give(1);
                true
            }
            HEADERS => {
                frames.give(8);
                self.is_within_head = true;
                self.heads += 1;
                true
            }
            RST_STREAM => true,
            // SETTINGS, PING, PRIORITY, WINDOW_UPDATE, CONTINUATION, empty DATA, and what nobody knows.
            _ => frames.take(),
        };
        self.offence = if !has_length {
            Some(Offence::FrameLength)
        } else if !is_allowed {
            Some(Offence::IdleFrames)
        } else if kind == RST_STREAM && !self.allowances.resets.take() {
            Some(Offence::Resets)
        } else if kind == PRIORITY_UPDATE && stream != 0 {
            Some(Offence::PriorityTarget)
        } else {
            return;
        };
    }

    fn see_payload(&mut self, bytes: &[u8], left: usize) -> usize {
        let n = left.min(bytes.len());
        let seen = &bytes[..n];
        match self.frame.kind {
            SETTINGS => self.see_settings(seen),
            WINDOW_UPDATE if self.frame.stream == 0 => self.part.extend_from_slice(seen),
            PRIORITY_UPDATE if self.part.len() <= 4 + MAX_PRIORITY_BYTES => {
                let room = 4 + MAX_PRIORITY_BYTES + 1 - self.part.len();
                self.part.extend_from_slice(&seen[..n.min(room)]);
            }
            _ => {}
        }
        self.place = Place::Payload(left - n);
        if n == left {
            self.end_frame();
        }
        n
    }

    /// RFC 9113 §6.5.1: settings of six bytes each.
    fn see_settings(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.part.push(*byte);
            if let [a, b, value @ ..] = self.part.as_slice()
                && value.len() == 4
            {
                // RFC 9113 §6.5.2: what a client does not say is that it takes any number of pushes.
                let pushes = self.pushes.get_or_insert(Pushes { is_enabled: true, max_streams: u32::MAX });
                match u16::from_be_bytes([*a, *b]) {
                    ENABLE_PUSH => pushes.is_enabled = number(value) == 1,
                    MAX_CONCURRENT_STREAMS => pushes.max_streams = number(value),
                    INITIAL_WINDOW_SIZE if number(value) > MAX_WINDOW => self.offence = Some(Offence::WindowSize),
                    _ => {}
                }
                self.part.clear();
            }
        }
    }

    fn end_frame(&mut self) {
        match self.frame.kind {
            HEADERS | CONTINUATION if self.frame.has(END_HEADERS) => self.is_within_head = false,
            SETTINGS if !self.frame.has(ACK) => {
                self.pushes.get_or_insert(Pushes { is_enabled: true, max_streams: u32::MAX });
                self.has_settings = true;
            }
            WINDOW_UPDATE if self.part.len() == 4 => self.window += i64::from(number(&self.part) & 0x7fff_ffff),
            PRIORITY_UPDATE => self.end_priority_update(),
            _ => {}
        }
        self.part.clear();
        self.place = Place::Header;
    }

    fn end_priority_update(&mut self) {
        let Some((stream, value)) = self.part.split_at_checked(4) else { return };
        let stream = number(stream) & 0x7fff_ffff;
        if stream == 0 {
            self.offence = Some(Offence::PriorityTarget);
        } else {
            let value = if value.len() <= MAX_PRIORITY_BYTES { value } else { b"" };
            self.priorities.push((stream, Said::read(value)));
        }
    }
}

/// Frames to the client.
pub(super) struct Outgoing {
    /// The beginning of a header.
    part: Vec<u8>,
    payload_left: usize,
    content_bytes: i64,
}

impl Outgoing {
    pub(super) fn new() -> Self {
        Self { part: Vec::with_capacity(HEADER_BYTES), payload_left: 0, content_bytes: 0 }
    }

    /// How many bytes of content, as the windows count them, have been sent since the start.
    pub(super) fn content_bytes(&self) -> i64 {
        self.content_bytes
    }

    /// Looks at bytes that h2 has written.
    pub(super) fn see(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let n = self.payload_left.min(bytes.len());
                self.payload_left -= n;
                bytes = &bytes[n..];
            } else if self.part.is_empty() && bytes.len() >= HEADER_BYTES {
                self.begin_frame(Header::read(bytes));
                bytes = &bytes[HEADER_BYTES..];
            } else {
                let n = (HEADER_BYTES - self.part.len()).min(bytes.len());
                self.part.extend_from_slice(&bytes[..n]);
                bytes = &bytes[n..];
                if self.part.len() == HEADER_BYTES {
                    self.begin_frame(Header::read(&self.part));
                    self.part.clear();
                }
            }
        }
    }

    fn begin_frame(&mut self, header: Header) {
        self.payload_left = header.length;
        if header.kind == DATA {
            self.content_bytes += header.length as i64;
        }
    }
}
