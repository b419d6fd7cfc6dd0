//! Frames (RFC 6455 §5.2): their heads, and masks.

use bytes::Bytes;

use super::message::{Close, Kind};

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    fn find(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    /// RFC 6455 §5.5: those that are about the connection, and may come between the fragments of a message.
    pub(super) fn is_control(self) -> bool {
        self as u8 & 8 != 0
    }
}

impl From<Kind> for Opcode {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text,
            Kind::Binary => Self::Binary,
        }
    }
}

/// What a peer does that it must not, and how it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: u16,
    pub(super) says: &'static str,
}

impl Fault {
    pub(super) const fn protocol(says: &'static str) -> Self {
        Self { code: Close::PROTOCOL_ERROR, says }
    }

    pub(super) const fn data(says: &'static str) -> Self {
        Self { code: Close::INVALID_DATA, says }
    }

    pub(super) const fn too_big(says: &'static str) -> Self {
        Self { code: Close::TOO_BIG, says }
    }
}

/// The head of a frame from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) opcode: Opcode,
    pub(super) is_last: bool,
    /// RSV1, which permessage-deflate gives a meaning (RFC 7692 §6).
    pub(super) is_compressed: bool,
    pub(super) length: u64,
    pub(super) mask: [u8; 4],
}

/// 14 bytes: two, a length of eight, and a mask.
pub(super) const MAX_HEAD_BYTES: usize = 14;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const OTHER_RSV: u8 = 0x30;
const MASKED: u8 = 0x80;
/// Longest content of a control frame (RFC 6455 §5.5).
pub(super) const MAX_CONTROL_BYTES: u64 = 125;

impl Head {
    /// Reads a head at the start of `bytes`, and how long it is. None: its end has yet to come.
    ///
    /// # Errors
    /// As soon as the first bytes are wrong, whatever follows.
    #[inline]
    pub(super) fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, Fault> {
        let [first, second, rest @ ..] = bytes else {
            return match bytes {
                [first] => check_first(*first).map(|_| None),
                _ => Ok(None),
            };
        };
        let opcode = check_first(*first)?;
        // RFC 6455 §5.1: a server closes when a frame is not masked.
        if second & MASKED == 0 {
            return Err(Fault::protocol("a frame is not masked"));
        }
        let is_last = first & FIN != 0;
        let short = second & !MASKED;
        if opcode.is_control() {
            if !is_last {
                return Err(Fault::protocol("a control frame is fragmented"));
            }
            if u64::from(short) > MAX_CONTROL_BYTES {
                return Err(Fault::protocol("a control frame is longer than 125 bytes"));
            }
            if first & RSV1 != 0 {
                return Err(Fault::protocol("a control frame is compressed"));
            }
        }
        let (length, rest, taken) = match (short, rest) {
            (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), rest, 4),
            (127, [a, b, c, d, e, f, g, h, rest @ ..]) => {
                (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), rest, 10)
            }
            (126 | 127, _) => return Ok(None),
            (short, rest) => (u64::from(short), rest, 2),
        };
        // RFC 6455 §5.2: the minimal number of bytes must be used, and the most significant bit must be 0.
        let is_minimal = match short {
            126 => length > 125,
            127 => length > 0xFFFF && length >> 63 == 0,
            _ => true,
        };
        if !is_minimal {
            return Err(Fault::protocol("a frame's length is not written in its shortest form"));
        }
        let [a, b, c, d, ..] = rest else { return Ok(None) };
        let head = Self { opcode, is_last, is_compressed: first & RSV1 != 0, length, mask: [*a, *b, *c, *d] };
        Ok(Some((head, taken + 4)))
    }
}

#[inline]
fn check_first(first: u8) -> Result<Opcode, Fault> {
    if first & OTHER_RSV != 0 {
        return Err(Fault::protocol("a reserved bit is set"));
    }
    Opcode::find(first & 0xF).ok_or(Fault::protocol("an opcode is reserved"))
}

/// The head of a frame from a server, and how long it is.
#[inline]
pub(super) fn head(opcode: Opcode, is_compressed: bool, length: usize) -> ([u8; 10], usize) {
    let mut head = [0; 10];
    head[0] = FIN | opcode as u8 | if is_compressed { RSV1 } else { 0 };
    let head_len = match length {
        0..126 => {
            head[1] = length as u8;
            2
        }
        126..=0xFFFF => {
            head[1] = 126;
            head[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            4
        }
        _ => {
            head[1] = 127;
            head[2..].copy_from_slice(&(length as u64).to_be_bytes());
            10
        }
    };
    (head, head_len)
}

/// The frame of a compressed message from a server.
pub(super) fn deflated(opcode: Opcode, content: &[u8]) -> Bytes {
    let (head, head_len) = head(opcode, true, content.len());
    let mut frame = Vec::with_capacity(head_len + content.len());
    frame.extend_from_slice(&head[..head_len]);
    frame.extend_from_slice(content);
    Bytes::from(frame)
}

/// Takes a mask off bytes, the first of which is the `offset`th of the frame's (RFC 6455 §5.3).
#[inline]
pub(super) fn unmask(bytes: &mut [u8], mask: [u8; 4], offset: u64) {
    let mut turned = mask;
    turned.rotate_left((offset & 3) as usize);
    let word = u32::from_ne_bytes(turned);
    let double = u64::from(word) | u64::from(word) << 32;
    let mut words = bytes.chunks_exact_mut(8);
    for chunk in &mut words {
        // Bytes may be anywhere: copied, which costs nothing, and the compiler does several at once.
        let mut eight = [0; 8];
        eight.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(eight) ^ double).to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(turned.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<(Head, usize)>, Fault> {
        Head::read(bytes)
    }

    /// RFC 6455 §5.7: a masked text frame with "Hello".
    #[test]
    fn reads_the_example_of_the_rfc() {
        let mut frame = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];

        let (head, size) = read(&frame).unwrap().unwrap();
        unmask(&mut frame[size..], head.mask, 0);

        assert_eq!((head.opcode, head.is_last, head.length, size), (Opcode::Text, true, 5, 6));
        assert_eq!(&frame[size..], b"Hello");
    }

    #[test]
    fn waits_for_every_byte_of_a_head() {
        let frames: [&[u8]; 3] = [
            &[0x82, 0x80, 1, 2, 3, 4],
            &[0x82, 0xFE, 1, 0, 1, 2, 3, 4],
            &[0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4],
        ];

        for frame in frames {
            for end in 0..frame.len() {
                assert_eq!(read(&frame[..end]), Ok(None), "{frame:?} {end}");
            }
            assert_eq!(read(frame).unwrap().unwrap().1, frame.len());
        }
    }

    #[test]
    fn refuses_what_must_not_be_as_soon_as_it_shows() {
        let mask = [0; 12];
        let cases: [(&[u8], &str); 9] = [
            (&[0xA1], "a reserved bit is set"),
            (&[0x91], "a reserved bit is set"),
            (&[0x83], "an opcode is reserved"),
            (&[0x8B], "an opcode is reserved"),
            (&[0x81, 0x05], "a frame is not masked"),
            (&[0x09, 0x80], "a control frame is fragmented"),
            (&[0x89, 0xFE], "a control frame is longer than 125 bytes"),
            (&[0xC9, 0x80], "a control frame is compressed"),
            (&[0x82, 0xFE, 0, 125], "a frame's length is not written in its shortest form"),
        ];

        for (bytes, says) in cases {
            assert_eq!(read(bytes), Err(Fault::protocol(says)), "{bytes:?}");
        }
        for long in [0x80_00_00_00_00_00_00_00_u64, 0xFFFF] {
            let bytes = [&[0x82, 0xFF], &long.to_be_bytes()[..], &mask].concat();
            assert!(read(&bytes).is_err(), "{long}");
        }
    }

    #[test]
    fn writes_lengths_in_their_shortest_form() {
        let of = |length| {
            let (head, head_len) = head(Opcode::Binary, false, length);
            head[..head_len].to_vec()
        };

        assert_eq!(of(0), [0x82, 0]);
        assert_eq!(of(125), [0x82, 125]);
        assert_eq!(of(126), [0x82, 126, 0, 126]);
        assert_eq!(of(0xFFFF), [0x82, 126, 0xFF, 0xFF]);
        assert_eq!(of(0x1_0000), [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn takes_a_mask_off_in_any_pieces() {
        let mask = [1, 20, 77, 200];
        let plain: Vec<u8> = (0..100).collect();
        let masked: Vec<u8> = plain.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();

        for cut in 0..=masked.len() {
            let mut bytes = masked.clone();
            let (first, second) = bytes.split_at_mut(cut);
            unmask(first, mask, 0);
            unmask(second, mask, cut as u64);
            assert_eq!(bytes, plain, "cut at {cut}");
        }
    }
}
