//! What a client sends, read: bytes become messages.
//!
//! Rules:
//! 1. Bytes are looked at once, as they come. What is wrong is found with the byte that makes it wrong.
//! 2. Only what has come takes memory, never what was announced. A message takes no more than its limit, compressed or not: a
//!    few bytes that inflate to gigabytes are refused at the limit.
//! 3. A frame that comes whole, as nearly all do, is copied once.

use bytes::{Bytes, BytesMut};

use super::{
    deflate::Inflater,
    frame::{Fault, Head, MAX_CONTROL_BYTES, MAX_HEAD_BYTES, Opcode, unmask},
    message::{Close, Kind, Message},
    utf8::Utf8,
};

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    Message(Message),
    Ping(Bytes),
    Pong,
    Close(Close),
}

/// Reads frames of one connection.
pub(super) struct Decoder {
    max_frame_bytes: u64,
    max_message_bytes: usize,
    inflater: Option<Inflater>,
    /// The start of a head whose end has yet to come.
    part: [u8; MAX_HEAD_BYTES],
    part_len: u8,
    within: Option<Within>,
    /// A message of which not all fragments have come.
    gathering: Option<Box<Gathering>>,
}

/// A frame of which not all has come.
struct Within {
    head: Head,
    got: u64,
    /// The content of a control frame.
    control: BytesMut,
}

struct Gathering {
    kind: Kind,
    is_compressed: bool,
    data: BytesMut,
    utf8: Utf8,
}

impl Decoder {
    pub(super) fn new(max_message_bytes: usize, max_frame_bytes: u64, inflater: Option<Inflater>) -> Self {
        Self {
            max_frame_bytes,
            max_message_bytes,
            inflater,
            part: [0; MAX_HEAD_BYTES],
            part_len: 0,
            within: None,
            gathering: None,
        }
    }

    /// How much of a frame has yet to come, at least.
    pub(super) fn awaited(&self) -> u64 {
        self.within.as_ref().map_or(0, |within| within.head.length - within.got)
    }

    /// Takes bytes, from the start of `bytes`, up to the end of the next thing that came. They are changed on the way.
    ///
    /// Returns how many it took, and what came; all of them, if nothing did.
    ///
    /// # Errors
    /// If the client does what it must not. Nothing can be read after that.
    pub(super) fn take(&mut self, bytes: &mut [u8]) -> Result<(usize, Option<Arrived>), Fault> {
        let mut at = 0;
        loop {
            if self.within.is_none() {
                let head = if self.part_len == 0 {
                    match Head::read(&bytes[at..])? {
                        Some((head, size)) => {
                            at += size;
                            head
                        }
                        None => {
                            let rest = &bytes[at..];
                            self.part[..rest.len()].copy_from_slice(rest);
                            self.part_len = rest.len() as u8;
                            return Ok((bytes.len(), None));
                        }
                    }
                } else {
                    let Some((head, size)) = self.finish_head(&bytes[at..])? else { return Ok((bytes.len(), None)) };
                    at += size;
                    head
                };
                let starts = self.check(&head)?;
                if head.length <= (bytes.len() - at) as u64 {
                    // Nothing of it has to wait.
                    let end = at + head.length as usize;
                    let content = &mut bytes[at..end];
                    unmask(content, head.mask, 0);
                    at = end;
                    if let Some(arrived) = self.take_whole(&head, starts, content)? {
                        return Ok((end, Some(arrived)));
                    }
                    if at == bytes.len() {
                        return Ok((at, None));
                    }
                    continue;
                }
                self.start(&head, starts);
                self.within = Some(Within { head, got: 0, control: BytesMut::new() });
            }
            let Some(within) = &mut self.within else { continue };
            let head = within.head;
            let left = head.length - within.got;
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
            let content = &mut bytes[at..at + n];
            unmask(content, head.mask, within.got);
            within.got += n as u64;
            at += n;
            let is_whole = within.got == head.length;
            if head.opcode.is_control() {
                within.control.extend_from_slice(content);
                if is_whole {
                    let control = std::mem::take(&mut within.control);
                    self.within = None;
                    return Ok((at, Some(control_frame(head.opcode, &control)?)));
                }
            } else {
                if is_whole {
                    self.within = None;
                }
                self.gather(content)?;
                if is_whole && head.is_last {
                    return Ok((at, Some(self.finish_message()?)));
                }
            }
            if at == bytes.len() {
                return Ok((at, None));
            }
        }
    }

    /// Puts a head together that comes in pieces. Returns how much of `bytes` belongs to it.
    fn finish_head(&mut self, bytes: &[u8]) -> Result<Option<(Head, usize)>, Fault> {
        let before = usize::from(self.part_len);
        let n = bytes.len().min(MAX_HEAD_BYTES - before);
        self.part[before..before + n].copy_from_slice(&bytes[..n]);
        match Head::read(&self.part[..before + n])? {
            Some((head, size)) => {
                self.part_len = 0;
                Ok(Some((head, size - before)))
            }
            None => {
                self.part_len = (before + n) as u8;
                Ok(None)
            }
        }
    }

    /// Checks what a head says against what came before. Returns what kind of message it starts, if it does.
    fn check(&self, head: &Head) -> Result<Option<Kind>, Fault> {
        if head.opcode.is_control() {
            debug_assert!(head.length <= MAX_CONTROL_BYTES, "checked with the head");
            return Ok(None);
        }
        if head.length > self.max_frame_bytes {
            return Err(Fault::too_big("a frame is too long (ws_max_frame_bytes)"));
        }
        // RFC 6455 §5.4: fragments of one message do not mix with those of another.
        let kind = match (head.opcode, &self.gathering) {
            (Opcode::Continuation, None) => return Err(Fault::protocol("a continuation continues nothing")),
            (Opcode::Continuation, Some(gathering)) => {
                // RFC 7692 §6.1: only the first fragment says whether the message is compressed.
                if head.is_compressed {
                    return Err(Fault::protocol("a continuation is marked as compressed"));
                }
                return self.check_length(head.length, gathering.data.len(), gathering.is_compressed).map(|()| None);
            }
            (_, Some(_)) => return Err(Fault::protocol("a message begins within another")),
            (Opcode::Text, None) => Kind::Text,
            (_, None) => Kind::Binary,
        };
        if head.is_compressed && self.inflater.is_none() {
            return Err(Fault::protocol("a reserved bit is set"));
        }
        self.check_length(head.length, 0, head.is_compressed).map(|()| Some(kind))
    }

    /// Makes a place for a message that does not come whole and in one frame.
    fn start(&mut self, head: &Head, starts: Option<Kind>) {
        if let Some(kind) = starts {
            let is_compressed = head.is_compressed;
            self.gathering =
                Some(Box::new(Gathering { kind, is_compressed, data: BytesMut::new(), utf8: Utf8::default() }));
        }
    }

    /// Refuses a message as soon as it is announced to be too long. What is compressed shows its length later.
    fn check_length(&self, length: u64, before: usize, is_compressed: bool) -> Result<(), Fault> {
        if !is_compressed && length > self.max_message_bytes.saturating_sub(before) as u64 {
            return Err(too_long());
        }
        Ok(())
    }

    /// Takes the content of a frame that came whole.
    #[inline]
    fn take_whole(&mut self, head: &Head, starts: Option<Kind>, content: &[u8]) -> Result<Option<Arrived>, Fault> {
        if head.opcode.is_control() {
            return control_frame(head.opcode, content).map(Some);
        }
        match starts {
            Some(kind) if head.is_last && !head.is_compressed => {
                if kind == Kind::Text && std::str::from_utf8(content).is_err() {
                    return Err(Fault::data("a text message is not UTF-8"));
                }
                return Ok(Some(Arrived::Message(Message { kind, data: Bytes::copy_from_slice(content) })));
            }
            _ => self.start(head, starts),
        }
        self.gather(content)?;
        if head.is_last { self.finish_message().map(Some) } else { Ok(None) }
    }

    /// Takes content of the message that has begun.
    fn gather(&mut self, content: &[u8]) -> Result<(), Fault> {
        let Some(gathering) = &mut self.gathering else { return Ok(()) };
        let before = gathering.data.len();
        let inflated = match &mut self.inflater {
            Some(inflater) if gathering.is_compressed => {
                inflater.inflate(content, &mut gathering.data, self.max_message_bytes)
            }
            _ => {
                gathering.data.extend_from_slice(content);
                Ok(())
            }
        };
        // First, so that what is found first does not depend on the pieces.
        if gathering.kind == Kind::Text && !gathering.utf8.take(&gathering.data[before..]) {
            return Err(Fault::data("a text message is not UTF-8"));
        }
        inflated
    }

    fn finish_message(&mut self) -> Result<Arrived, Fault> {
        let Some(mut gathering) = self.gathering.take() else { return Ok(Arrived::Pong) };
        if let Some(inflater) = &mut self.inflater
            && gathering.is_compressed
        {
            let before = gathering.data.len();
            let finished = inflater.finish(&mut gathering.data, self.max_message_bytes);
            if gathering.kind == Kind::Text && !gathering.utf8.take(&gathering.data[before..]) {
                return Err(Fault::data("a text message is not UTF-8"));
            }
            finished?;
        }
        if gathering.kind == Kind::Text && !gathering.utf8.is_whole() {
            return Err(Fault::data("a text message is not UTF-8"));
        }
        Ok(Arrived::Message(Message { kind: gathering.kind, data: gathering.data.freeze() }))
    }
}

/// A message is longer than it may be.
pub(super) fn too_long() -> Fault {
    Fault::too_big("a message is too long (ws_max_message_bytes)")
}

fn control_frame(opcode: Opcode, content: &[u8]) -> Result<Arrived, Fault> {
    match opcode {
        Opcode::Ping => Ok(Arrived::Ping(Bytes::copy_from_slice(content))),
        Opcode::Close => read_close(content).map(Arrived::Close),
        _ => Ok(Arrived::Pong),
    }
}

/// RFC 6455 §5.5.1 and §7.4.
fn read_close(content: &[u8]) -> Result<Close, Fault> {
    match content {
        [] => Ok(Close::new(Close::NO_STATUS, "")),
        [_] => Err(Fault::protocol("a close has half a code")),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !Close::is_sendable(code) {
                return Err(Fault::protocol("a close has a code that must not be sent"));
            }
            match std::str::from_utf8(reason) {
                Ok(reason) => Ok(Close::new(code, reason.to_owned())),
                Err(_) => Err(Fault::data("a close has a reason that is not UTF-8")),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MASK: [u8; 4] = [9, 8, 7, 6];

    fn frame(first: u8, content: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match content.len() {
            n @ 0..126 => frame.push(0x80 | n as u8),
            n => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(n as u16).to_be_bytes());
            }
        }
        frame.extend_from_slice(&MASK);
        frame.extend(content.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
        frame
    }

    fn decoder() -> Decoder {
        Decoder::new(1000, 500, None)
    }

    /// Everything that comes of bytes, fed in pieces of this size.
    fn read(decoder: &mut Decoder, bytes: &[u8], piece: usize) -> Result<Vec<Arrived>, Fault> {
        let mut all = Vec::new();
        for piece in bytes.chunks(piece) {
            let mut piece = piece.to_vec();
            let mut rest = &mut piece[..];
            while !rest.is_empty() {
                let (taken, arrived) = decoder.take(rest)?;
                all.extend(arrived);
                rest = &mut rest[taken..];
            }
        }
        Ok(all)
    }

    fn text(content: &str) -> Arrived {
        Arrived::Message(Message { kind: Kind::Text, data: Bytes::copy_from_slice(content.as_bytes()) })
    }

    #[test]
    fn reads_the_same_in_any_pieces() {
        let bytes = [
            frame(0x81, b"Hello"),
            frame(0x01, "fr\u{e4}g".as_bytes()),
            frame(0x89, b"ping"),
            frame(0x00, b""),
            frame(0x80, "mente\u{1F600}".as_bytes()),
            frame(0x82, &[0; 300]),
            frame(0x81, b""),
            frame(0x88, b"\x03\xe8bye"),
        ]
        .concat();
        let binary = Message { kind: Kind::Binary, data: Bytes::from(vec![0; 300]) };
        let wanted = [
            text("Hello"),
            Arrived::Ping(Bytes::from_static(b"ping")),
            text("fr\u{e4}gmente\u{1F600}"),
            Arrived::Message(binary),
            text(""),
            Arrived::Close(Close::new(1000, "bye")),
        ];

        for piece in 1..=bytes.len() {
            assert_eq!(read(&mut decoder(), &bytes, piece).unwrap(), wanted, "in pieces of {piece}");
        }
    }

    #[test]
    fn refuses_fragments_out_of_order() {
        let cases = [
            (frame(0x80, b"a"), "a continuation continues nothing"),
            ([frame(0x01, b"a"), frame(0x81, b"b")].concat(), "a message begins within another"),
            (frame(0xC1, b"a"), "a reserved bit is set"),
        ];

        for (bytes, says) in cases {
            for piece in [1, bytes.len()] {
                assert_eq!(read(&mut decoder(), &bytes, piece), Err(Fault::protocol(says)));
            }
        }
    }

    #[test]
    fn a_message_may_be_as_long_as_its_limit_and_no_longer() {
        let frames = |sizes: &[usize]| {
            let mut first = 0x02;
            let mut bytes = Vec::new();
            for (index, size) in sizes.iter().enumerate() {
                let last = if index + 1 == sizes.len() { 0x80 } else { 0 };
                bytes.extend(frame(first | last, &vec![7; *size]));
                first = 0;
            }
            bytes
        };
        let too_big = |result: Result<Vec<Arrived>, Fault>| result.unwrap_err().code;

        assert_eq!(read(&mut decoder(), &frames(&[500, 500]), 64).unwrap().len(), 1);
        assert_eq!(too_big(read(&mut decoder(), &frames(&[500, 500, 1]), 64)), Close::TOO_BIG);
        assert_eq!(read(&mut decoder(), &frames(&[500]), 64).unwrap().len(), 1);
        assert_eq!(too_big(read(&mut decoder(), &frames(&[501]), 64)), Close::TOO_BIG);
        // Announced is enough.
        assert_eq!(
            too_big(read(&mut decoder(), &[0x82, 0xFF, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4], 64)),
            Close::TOO_BIG
        );
    }

    #[test]
    fn finds_bad_text_before_its_frame_has_come() {
        let mut bytes = frame(0x81, b"ok\xF4\x90rest that never comes");
        bytes.truncate(6 + 4);

        assert_eq!(read(&mut decoder(), &bytes, 1).unwrap_err().code, Close::INVALID_DATA);
        assert_eq!(read(&mut decoder(), &bytes, 100).unwrap_err().code, Close::INVALID_DATA);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the messages, the fragments and the pieces: what was sent is what comes.
        #[test]
        fn what_was_sent_is_what_comes(
            messages in prop::collection::vec(
                (any::<bool>(), prop::collection::vec("\\PC{0,40}", 1..5), any::<bool>()),
                1..6,
            ),
            piece in 1..200_usize,
        ) {
            let (mut bytes, mut wanted) = (Vec::new(), Vec::new());
            for (is_text, fragments, has_ping) in &messages {
                let first = if *is_text { 1 } else { 2 };
                for (index, fragment) in fragments.iter().enumerate() {
                    let opcode = if index == 0 { first } else { 0 };
                    let last = if index + 1 == fragments.len() { 0x80 } else { 0 };
                    bytes.extend(frame(opcode | last, fragment.as_bytes()));
                    if *has_ping && last == 0 {
                        bytes.extend(frame(0x89, b"ping"));
                        wanted.push(Arrived::Ping(Bytes::from_static(b"ping")));
                    }
                }
                let kind = if *is_text { Kind::Text } else { Kind::Binary };
                wanted.push(Arrived::Message(Message { kind, data: Bytes::from(fragments.concat()) }));
            }

            prop_assert_eq!(read(&mut decoder(), &bytes, piece).unwrap(), wanted);
        }

        /// Whatever comes: there is no panic, and it is read the same in any pieces.
        #[test]
        fn anything_is_read_the_same_in_any_pieces(bytes in prop::collection::vec(any::<u8>(), 0..200), piece in 1..50_usize) {
            let whole = read(&mut decoder(), &bytes, bytes.len().max(1));
            let pieces = read(&mut decoder(), &bytes, piece);

            prop_assert_eq!(whole, pieces);
        }
    }

    #[test]
    fn refuses_closes_that_must_not_be() {
        for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
            let close = frame(0x88, &code.to_be_bytes());
            assert_eq!(read(&mut decoder(), &close, 100).unwrap_err().code, Close::PROTOCOL_ERROR, "{code}");
        }
        for code in [1000_u16, 1003, 1007, 1014, 3000, 4999] {
            let close = frame(0x88, &code.to_be_bytes());
            assert_eq!(read(&mut decoder(), &close, 100).unwrap(), [Arrived::Close(Close::new(code, ""))]);
        }
        assert_eq!(read(&mut decoder(), &frame(0x88, b"\x03"), 9).unwrap_err().code, Close::PROTOCOL_ERROR);
        assert_eq!(read(&mut decoder(), &frame(0x88, b"\x03\xe8\xff"), 9).unwrap_err().code, Close::INVALID_DATA);
        assert_eq!(
            read(&mut decoder(), &frame(0x88, b""), 9).unwrap(),
            [Arrived::Close(Close::new(Close::NO_STATUS, ""))]
        );
    }
}
