//! What processes tell each other of their rooms, in bytes.
//!
//! A packet says who tells it, by a number that each process chooses at random:
//!
//! ```text
//! length (4) | kind (1) | node (8) |
//!   1 message                      | 1 text, 2 binary (1) | length of the name (2) | name | content
//!   2 count                        | members (4)          | name
//!   3 begin: all counts follow, forget those before
//!   4 ask: for all counts          | node (8), 0 for everybody's
//!   5 gone
//!   6 alive
//! ```
//!
//! Numbers are big-endian, and the length is that of what follows it. Only a byte stream needs it.
//!
//! Packets come from processes that are trusted; one that is wrong still neither panics nor takes memory for what it only
//! announces.

use std::{fmt, io};

use bytes::{Bytes, BytesMut};

use super::{
    message::Kind,
    rooms::{MAX_ROOM_MESSAGE_BYTES, MAX_ROOM_NAME_BYTES},
};

/// What is before a name, at most: kind, node, kind of message and length of the name.
const MAX_HEAD_BYTES: usize = 1 + 8 + 1 + 2;
/// The longest packet, without its length.
pub(super) const MAX_PACKET_BYTES: usize = MAX_HEAD_BYTES + MAX_ROOM_NAME_BYTES + MAX_ROOM_MESSAGE_BYTES;
const LENGTH_BYTES: usize = 4;

/// What one process tells the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    Message { room: &'a str, kind: Kind, data: &'a [u8] },
    Count { room: &'a str, members: u32 },
    Begin,
    Ask { whom: u64 },
    Gone,
    Alive,
}

/// A packet that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wrong(&'static str);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Wrong {}

impl<'a> Packet<'a> {
    /// Reads a packet without its length: who tells it, and what.
    pub(super) fn read(bytes: &'a [u8]) -> Result<(u64, Self), Wrong> {
        let (kind, rest) = bytes.split_first().ok_or(Wrong("a packet is empty"))?;
        let (node, rest) = rest.split_first_chunk().ok_or(Wrong("a packet has no node"))?;
        let packet = match kind {
            1 => {
                let (kind, rest) = rest.split_first().ok_or(Wrong("a message has no kind"))?;
                let (length, rest) = rest.split_first_chunk().ok_or(Wrong("a message has no room"))?;
                let length = usize::from(u16::from_be_bytes(*length));
                let (room, data) = rest.split_at_checked(length).ok_or(Wrong("the name of a room ends early"))?;
                if data.len() > MAX_ROOM_MESSAGE_BYTES {
                    return Err(Wrong("a message is too long"));
                }
                let kind = match kind {
                    // What is sent as text has to be UTF-8 (RFC 6455 §8.1).
                    1 if std::str::from_utf8(data).is_ok() => Kind::Text,
                    1 => return Err(Wrong("a text is not UTF-8")),
                    2 => Kind::Binary,
                    _ => return Err(Wrong("a message is neither text nor binary")),
                };
                Self::Message { room: read_name(room)?, kind, data }
            }
            2 => {
                let (members, room) = rest.split_first_chunk().ok_or(Wrong("a count ends early"))?;
                Self::Count { room: read_name(room)?, members: u32::from_be_bytes(*members) }
            }
            4 => {
                let whom = rest.try_into().map_err(|_| Wrong("who is asked is 8 bytes"))?;
                Self::Ask { whom: u64::from_be_bytes(whom) }
            }
            3 | 5 | 6 if !rest.is_empty() => return Err(Wrong("a packet is too long")),
            3 => Self::Begin,
            5 => Self::Gone,
            6 => Self::Alive,
            _ => return Err(Wrong("a packet is of no kind that is known")),
        };
        Ok((u64::from_be_bytes(*node), packet))
    }

    /// Makes the packet, with its length.
    pub(super) fn write(&self, node: u64) -> Bytes {
        let size = match self {
            Self::Message { room, data, .. } => room.len() + data.len(),
            Self::Count { room, .. } => room.len(),
            _ => 8,
        };
        let mut bytes = Vec::with_capacity(LENGTH_BYTES + MAX_HEAD_BYTES + size);
        bytes.extend_from_slice(&[0; LENGTH_BYTES]);
        let kind = match self {
            Self::Message { .. } => 1,
            Self::Count { .. } => 2,
            Self::Begin => 3,
            Self::Ask { .. } => 4,
            Self::Gone => 5,
            Self::Alive => 6,
        };
        bytes.push(kind);
        bytes.extend_from_slice(&node.to_be_bytes());
        match self {
            Self::Message { room, kind, data } => {
                bytes.push(if *kind == Kind::Text { 1 } else { 2 });
                // At most 255 bytes, which `Rooms` has checked.
                bytes.extend_from_slice(&(room.len() as u16).to_be_bytes());
                bytes.extend_from_slice(room.as_bytes());
                bytes.extend_from_slice(data);
            }
            Self::Count { room, members } => {
                bytes.extend_from_slice(&members.to_be_bytes());
                bytes.extend_from_slice(room.as_bytes());
            }
            Self::Ask { whom } => bytes.extend_from_slice(&whom.to_be_bytes()),
            Self::Begin | Self::Gone | Self::Alive => {}
        }
        // Less than 17 MiB.
        let length = (bytes.len() - LENGTH_BYTES) as u32;
        bytes[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        Bytes::from(bytes)
    }
}

fn read_name(bytes: &[u8]) -> Result<&str, Wrong> {
    if bytes.is_empty() || bytes.len() > MAX_ROOM_NAME_BYTES {
        return Err(Wrong("the name of a room has 1 to 255 bytes"));
    }
    std::str::from_utf8(bytes).map_err(|_| Wrong("the name of a room is not UTF-8"))
}

/// A packet without its length.
pub(super) fn without_length(packet: &Bytes) -> Bytes {
    packet.slice(LENGTH_BYTES..)
}

/// Takes a whole packet off the beginning of a buffer. None: its end has yet to come.
pub(super) fn split(buffer: &mut BytesMut) -> Result<Option<Bytes>, io::Error> {
    let Some(length) = buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if length > MAX_PACKET_BYTES {
        return Err(io::Error::other(Wrong("a packet is too long")));
    }
    if buffer.len() < LENGTH_BYTES + length {
        return Ok(None);
    }
    Ok(Some(buffer.split_to(LENGTH_BYTES + length).freeze()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packets() -> Vec<Packet<'static>> {
        vec![
            Packet::Message { room: "a room", kind: Kind::Text, data: "h\u{e9}llo".as_bytes() },
            Packet::Message { room: "r", kind: Kind::Binary, data: &[0, 255] },
            Packet::Message { room: "r", kind: Kind::Binary, data: &[] },
            Packet::Count { room: "r\u{f6}om", members: 70_000 },
            Packet::Begin,
            Packet::Ask { whom: 0 },
            Packet::Gone,
            Packet::Alive,
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        for packet in packets() {
            let written = packet.write(0x0102_0304_0506_0708);

            assert_eq!(Packet::read(&without_length(&written)), Ok((0x0102_0304_0506_0708, packet)));
        }
    }

    #[test]
    fn a_count_looks_as_the_head_of_this_file_says() {
        let written = Packet::Count { room: "ab", members: 3 }.write(5);

        assert_eq!(written[..], [0, 0, 0, 15, 2, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 3, b'a', b'b']);
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        let node = [0, 0, 0, 0, 0, 0, 0, 5];
        let with = |kind: u8, rest: &[u8]| [&[kind], &node[..], rest].concat();
        for (bytes, says) in [
            (vec![], "a packet is empty"),
            (vec![1, 2, 3], "a packet has no node"),
            (with(0, b""), "a packet is of no kind that is known"),
            (with(7, b""), "a packet is of no kind that is known"),
            (with(1, b""), "a message has no kind"),
            (with(1, b"\x01\x00"), "a message has no room"),
            (with(1, b"\x01\x00\x05room"), "the name of a room ends early"),
            (with(1, b"\x01\x00\x00text"), "the name of a room has 1 to 255 bytes"),
            (with(1, b"\x03\x00\x01rx"), "a message is neither text nor binary"),
            (with(1, b"\x01\x00\x01r\xff"), "a text is not UTF-8"),
            (with(1, b"\x01\x00\x01\xff"), "the name of a room is not UTF-8"),
            (with(2, b"\x00\x00\x00"), "a count ends early"),
            (with(2, b"\x00\x00\x00\x01"), "the name of a room has 1 to 255 bytes"),
            (with(3, b"x"), "a packet is too long"),
            (with(4, b"1234567"), "who is asked is 8 bytes"),
            (with(5, b"x"), "a packet is too long"),
        ] {
            assert_eq!(Packet::read(&bytes), Err(Wrong(says)), "{bytes:?}");
        }
    }

    #[test]
    fn a_name_has_at_most_255_bytes() {
        let count = |length| {
            let room = "r".repeat(length);
            let written = Packet::Count { room: &room, members: 1 }.write(5);
            Packet::read(&without_length(&written)).map(|_| ())
        };

        assert_eq!(count(255), Ok(()));
        assert_eq!(count(256), Err(Wrong("the name of a room has 1 to 255 bytes")));
    }

    #[test]
    fn a_packet_that_is_announced_too_long_is_refused_before_it_comes() {
        let announced = |length: usize| split(&mut BytesMut::from(&(length as u32).to_be_bytes()[..]));

        assert!(announced(MAX_PACKET_BYTES).unwrap().is_none());
        assert!(announced(MAX_PACKET_BYTES + 1).is_err());
    }

    proptest! {
        /// Whatever comes: no panic, and what is understood is what would be written.
        #[test]
        fn whatever_comes_is_a_packet_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64), kind in 0..8_u8) {
            for bytes in [bytes.clone(), [&[kind], &bytes[..]].concat()] {
                if let Ok((node, packet)) = Packet::read(&bytes) {
                    prop_assert_eq!(&without_length(&packet.write(node))[..], &bytes[..]);
                }
            }
        }

        /// However a stream is cut into pieces, the same packets come of it.
        #[test]
        fn a_stream_may_be_cut_anywhere(cuts in prop::collection::vec(1..40_usize, 1..30)) {
            let stream: Vec<u8> = packets().iter().flat_map(|packet| packet.write(5)).collect();
            let (mut buffer, mut rest, mut found) = (BytesMut::new(), &stream[..], 0);
            for cut in cuts.iter().cycle() {
                let (piece, left) = rest.split_at((*cut).min(rest.len()));
                buffer.extend_from_slice(piece);
                rest = left;
                while let Some(packet) = split(&mut buffer).unwrap() {
                    let packet = without_length(&packet);
                    prop_assert_eq!(Packet::read(&packet).unwrap().1, packets()[found].clone());
                    found += 1;
                }
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(found, packets().len());
        }
    }
}
