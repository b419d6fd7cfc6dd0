//! permessage-deflate (RFC 7692): what both sides agree on, and the two directions of it.
//!
//! Rules:
//! 1. Memory is taken with the first compressed message, not with the connection; where a side keeps no context it is given
//!    back after each. What a connection takes, measured: 48 KB for what comes, and for what goes 203, 221 or 344 KB with a
//!    window of 9, 12 or 15 bits.
//! 2. What comes is inflated in steps, and never past the message limit.
//! 3. What is short goes as it is (RFC 7692 §6: each message for itself).

use bytes::BytesMut;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use http::HeaderValue;

use super::{decoder::too_long, frame::Fault};

/// 9 bits, the smallest window that zlib makes; RFC 7692 has 8.
pub(super) const MIN_WINDOW_BITS: u8 = 9;
pub(super) const MAX_WINDOW_BITS: u8 = 15;

/// 6, zlib's own default: 9 takes three times as long for a hundredth less.
const LEVEL: u32 = 6;

/// 64 bytes. What is shorter has little to win, and costs as much to compress as to send.
pub(super) const MIN_COMPRESSED_BYTES: usize = 64;

/// How much is inflated at a time. 4 KiB: a bomb is noticed after that much more than the limit.
const STEP_BYTES: usize = 4 * 1024;

/// RFC 7692 §7.2.1: what every compressed message would end with, and is left out.
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];

/// What both sides agreed on (RFC 7692 §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    server_keeps_context: bool,
    client_keeps_context: bool,
    server_window_bits: u8,
    client_window_bits: u8,
}

/// Chooses the first of a client's offers that can be had, and what to answer. `window_bits` is the largest window that either
/// side is to keep.
pub(super) fn negotiate<'a>(offers: impl Iterator<Item = &'a str>, window_bits: u8) -> Option<(Agreed, HeaderValue)> {
    // RFC 7692 §5: offers in the order of preference; those that can't be understood are declined.
    offers.flat_map(split_list).find_map(|offer| accept(offer, window_bits.clamp(MIN_WINDOW_BITS, MAX_WINDOW_BITS)))
}

fn accept(offer: &str, window_bits: u8) -> Option<(Agreed, HeaderValue)> {
    let mut parameters = offer.split(';').map(str::trim);
    if !parameters.next()?.eq_ignore_ascii_case("permessage-deflate") {
        return None;
    }
    let mut agreed = Agreed {
        server_keeps_context: true,
        client_keeps_context: true,
        server_window_bits: window_bits,
        client_window_bits: MAX_WINDOW_BITS,
    };
    let (mut seen, mut has_client_window) = (Vec::new(), false);
    for parameter in parameters {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(unquote(value.trim_start()))),
            None => (parameter, None),
        };
        // RFC 7692 §7.1: one that is repeated, unknown, or has a value it can't have declines the offer.
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
        match (name, value) {
            ("server_no_context_takeover", None) => agreed.server_keeps_context = false,
            ("client_no_context_takeover", None) => agreed.client_keeps_context = false,
            ("server_max_window_bits", Some(bits)) => {
                agreed.server_window_bits = window_bits.min(parse_bits(bits).filter(|bits| *bits >= MIN_WINDOW_BITS)?);
            }
            ("client_max_window_bits", None) => {
                has_client_window = true;
                agreed.client_window_bits = window_bits;
            }
            ("client_max_window_bits", Some(bits)) => {
                has_client_window = true;
                agreed.client_window_bits = window_bits.min(parse_bits(bits)?);
            }
            _ => return None,
        }
    }
    let mut answer = "permessage-deflate".to_owned();
    if !agreed.server_keeps_context {
        answer += "; server_no_context_takeover";
    }
    if !agreed.client_keeps_context {
        answer += "; client_no_context_takeover";
    }
    if agreed.server_window_bits < MAX_WINDOW_BITS {
        answer += &format!("; server_max_window_bits={}", agreed.server_window_bits);
    }
    // RFC 7692 §7.1.2.2: only to a client that has said that it knows this.
    if has_client_window {
        answer += &format!("; client_max_window_bits={}", agreed.client_window_bits);
    }
    Some((agreed, HeaderValue::try_from(answer).ok()?))
}

/// RFC 9110 §5.6.1: a list. A comma in quotes is none; no parameter that is known has one, but an unknown one may.
fn split_list(line: &str) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    let parts = line.split(move |character| {
        is_quoted ^= character == '"';
        character == ',' && !is_quoted
    });
    parts.map(str::trim).filter(|part| !part.is_empty())
}

/// RFC 6455 §9.1: a value may be a quoted string that is a token.
fn unquote(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// RFC 7692 §7.1.2: 8 to 15, without leading zeros.
fn parse_bits(text: &str) -> Option<u8> {
    match text {
        "8" => Some(8),
        "9" => Some(9),
        "10" => Some(10),
        "11" => Some(11),
        "12" => Some(12),
        "13" => Some(13),
        "14" => Some(14),
        "15" => Some(15),
        _ => None,
    }
}

/// Inflates what a client sends.
pub(super) struct Inflater {
    agreed: Agreed,
    state: Option<Box<Decompress>>,
}

impl Inflater {
    pub(super) fn new(agreed: Agreed) -> Self {
        Self { agreed, state: None }
    }

    /// Inflates a piece of a message behind what `out` holds of it, which never gets larger than `limit`.
    pub(super) fn inflate(&mut self, mut bytes: &[u8], out: &mut BytesMut, limit: usize) -> Result<(), Fault> {
        let bits = self.agreed.client_window_bits.max(MIN_WINDOW_BITS);
        let state = self.state.get_or_insert_with(|| Box::new(Decompress::new_with_window_bits(false, bits)));
        let mut step = [0; STEP_BYTES];
        let (mut before, mut room) = (state.total_out(), (limit - out.len()) as u64);
        loop {
            let (read, written) = (state.total_in(), state.total_out());
            let status = state.decompress(bytes, &mut step, FlushDecompress::None);
            let read = (state.total_in() - read) as usize;
            let written = (state.total_out() - written) as usize;
            // Also what fits of too much: whether it is text does not depend on the steps then.
            out.extend_from_slice(&step[..written.min(limit - out.len())]);
            if out.len() == limit && state.total_out() - before > room {
                return Err(too_long());
            }
            bytes = &bytes[read..];
            match status {
                Ok(Status::StreamEnd) => {
                    // RFC 7692 §7.2.3.5: a block may be marked as the last one; what follows starts anew.
                    state.reset(false);
                    (before, room) = (0, (limit - out.len()) as u64);
                    if bytes.is_empty() {
                        return Ok(());
                    }
                }
                Ok(_) if bytes.is_empty() && written < STEP_BYTES => return Ok(()),
                Ok(Status::BufError) if read == 0 && written == 0 => {
                    return Err(Fault::data("a compressed message does not inflate"));
                }
                Ok(_) => {}
                Err(_) => return Err(Fault::data("a compressed message does not inflate")),
            }
        }
    }

    /// Ends a message.
    pub(super) fn finish(&mut self, out: &mut BytesMut, limit: usize) -> Result<(), Fault> {
        self.inflate(&TAIL, out, limit)?;
        if !self.agreed.client_keeps_context {
            self.state = None;
        }
        Ok(())
    }
}

/// Deflates what a client is sent.
pub(super) struct Deflater {
    agreed: Agreed,
    state: Option<Box<Compress>>,
    /// Whether the client's window has something in it that this has not deflated.
    is_outrun: bool,
}

/// Deflates a message for everybody with a window of so many bits, whatever they were sent before. None: it goes as it is.
pub(super) fn deflate_alone(data: &[u8], window_bits: u8) -> Option<Vec<u8>> {
    let agreed = Agreed {
        server_keeps_context: false,
        client_keeps_context: false,
        server_window_bits: window_bits,
        client_window_bits: window_bits,
    };
    Deflater::new(agreed).deflate(data)
}

impl Deflater {
    pub(super) fn new(agreed: Agreed) -> Self {
        Self { agreed, state: None, is_outrun: false }
    }

    /// The window that messages are deflated with.
    pub(super) fn window_bits(&self) -> u8 {
        self.agreed.server_window_bits
    }

    /// The client was sent a message that was deflated elsewhere: what came before that is further back in its window than is
    /// known here, and must not be referred to any more.
    pub(super) fn forget(&mut self) {
        self.is_outrun = true;
    }

    /// Deflates a message. None: it goes as it is.
    pub(super) fn deflate(&mut self, mut data: &[u8]) -> Option<Vec<u8>> {
        if data.len() < MIN_COMPRESSED_BYTES {
            return None;
        }
        let bits = self.agreed.server_window_bits;
        let state = self
            .state
            .get_or_insert_with(|| Box::new(Compress::new_with_window_bits(Compression::new(LEVEL), false, bits)));
        // Only now: most members of a room are never sent anything of their own.
        if std::mem::take(&mut self.is_outrun) {
            state.reset();
        }
        let mut out = Vec::with_capacity(data.len() / 2 + MIN_COMPRESSED_BYTES);
        loop {
            if out.capacity() - out.len() < TAIL.len() + 2 {
                out.reserve(out.len());
            }
            let before = state.total_in();
            let deflated = state.compress_vec(data, &mut out, FlushCompress::Sync);
            let read = (state.total_in() - before) as usize;
            data = &data[read..];
            // It fails only if it is used after its end.
            if deflated.is_err() {
                self.state = None;
                return None;
            }
            // With room left everything has come out.
            if data.is_empty() && out.len() < out.capacity() {
                break;
            }
        }
        if !self.agreed.server_keeps_context {
            self.state = None;
        }
        if out.ends_with(&TAIL) {
            out.truncate(out.len() - TAIL.len());
        }
        Some(out)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::ws::message::Close;

    fn answer(offer: &str, bits: u8) -> Option<String> {
        negotiate([offer].into_iter(), bits).map(|(_, answer)| answer.to_str().unwrap().to_owned())
    }

    /// RFC 7692 §7.1.
    #[test]
    fn agrees_on_what_both_sides_can_do() {
        let cases = [
            ("permessage-deflate", 15, "permessage-deflate"),
            ("Permessage-Deflate", 12, "permessage-deflate; server_max_window_bits=12"),
            ("permessage-deflate; client_max_window_bits", 15, "permessage-deflate; client_max_window_bits=15"),
            (
                "permessage-deflate;client_max_window_bits=8",
                12,
                "permessage-deflate; server_max_window_bits=12; client_max_window_bits=8",
            ),
            ("permessage-deflate; client_max_window_bits=\"10\"", 15, "permessage-deflate; client_max_window_bits=10"),
            ("permessage-deflate; server_max_window_bits=10", 12, "permessage-deflate; server_max_window_bits=10"),
            ("permessage-deflate; server_no_context_takeover", 15, "permessage-deflate; server_no_context_takeover"),
            ("permessage-deflate; client_no_context_takeover", 15, "permessage-deflate; client_no_context_takeover"),
            // The first one can't be had, the second one can.
            ("permessage-deflate; server_max_window_bits=8, permessage-deflate", 15, "permessage-deflate"),
            ("x-webkit-deflate-frame, permessage-foo; a=\"b,c\", permessage-deflate", 15, "permessage-deflate"),
        ];

        for (offer, bits, wanted) in cases {
            assert_eq!(answer(offer, bits).as_deref(), Some(wanted), "{offer}");
        }
    }

    #[test]
    fn declines_offers_that_are_wrong() {
        for parameter in [
            "server_max_window_bits",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=09",
            "client_max_window_bits=x",
            "client_max_window_bits=",
            "server_no_context_takeover=1",
            "client_no_context_takeover; client_no_context_takeover",
            "unknown",
        ] {
            assert_eq!(answer(&format!("permessage-deflate; {parameter}"), 15), None, "{parameter}");
        }
        assert_eq!(answer("deflate", 15), None);
        assert_eq!(answer("", 15), None);
    }

    fn agreed(keeps: bool, bits: u8) -> Agreed {
        Agreed {
            server_keeps_context: keeps,
            client_keeps_context: keeps,
            server_window_bits: bits,
            client_window_bits: bits,
        }
    }

    /// Text that compresses, but not to nothing.
    fn sample(n: usize) -> Vec<u8> {
        (0..n).flat_map(|n| format!("{} {};", n * n % 7919, n).into_bytes()).take(n).collect()
    }

    #[test]
    fn what_was_deflated_inflates_whatever_was_agreed() {
        for keeps in [true, false] {
            for bits in MIN_WINDOW_BITS..=MAX_WINDOW_BITS {
                let (mut deflater, mut inflater) =
                    (Deflater::new(agreed(keeps, bits)), Inflater::new(agreed(keeps, bits)));
                for size in [64, 65, 1000, 5000, 100_000, 64] {
                    let data = sample(size);
                    let deflated = deflater.deflate(&data).unwrap();
                    let mut out = BytesMut::new();
                    for piece in deflated.chunks(777) {
                        inflater.inflate(piece, &mut out, size).unwrap();
                    }
                    inflater.finish(&mut out, size).unwrap();
                    assert!(out == data, "{keeps} {bits} {size}");
                }
            }
        }
    }

    #[test]
    fn context_makes_the_second_of_two_alike_shorter() {
        let lengths = |keeps| {
            let mut deflater = Deflater::new(agreed(keeps, 15));
            [sample(500), sample(500)].map(|data| deflater.deflate(&data).unwrap().len())
        };

        let (kept, fresh) = (lengths(true), lengths(false));

        assert!(kept[1] * 4 < kept[0], "{kept:?}");
        assert_eq!(fresh[0], fresh[1]);
    }

    /// What is deflated for many refers to nothing before it, and what comes behind it to nothing that it has moved away.
    #[test]
    fn messages_for_many_come_between_those_for_one() {
        for bits in MIN_WINDOW_BITS..=MAX_WINDOW_BITS {
            let (mut deflater, mut inflater) = (Deflater::new(agreed(true, bits)), Inflater::new(agreed(true, bits)));
            let (own, shared) = (sample(300), sample(2000));
            for round in 0..4 {
                let deflated = if round % 2 == 0 {
                    deflater.deflate(&own).unwrap()
                } else {
                    deflater.forget();
                    deflate_alone(&shared, bits).unwrap()
                };
                let mut out = BytesMut::new();
                inflater.inflate(&deflated, &mut out, 2000).unwrap();
                inflater.finish(&mut out, 2000).unwrap();
                assert!(out == if round % 2 == 0 { &own } else { &shared }, "{bits} {round}");
            }
        }
    }

    /// RFC 7692 §7.2.3.1 and §7.2.3.4: "Hello" in the ways that the RFC shows.
    #[test]
    fn inflates_the_examples_of_the_rfc() {
        let mut inflater = Inflater::new(agreed(true, 15));
        let examples: [&[u8]; 5] = [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
            // The same again, by the context.
            &[0xf2, 0x00, 0x11, 0x00, 0x00],
            // A block without compression.
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            // A block that says it is the last one.
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            // Two blocks.
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ];

        for example in examples {
            let mut out = BytesMut::new();
            inflater.inflate(example, &mut out, 100).unwrap();
            inflater.finish(&mut out, 100).unwrap();
            assert_eq!(&out[..], b"Hello", "{example:x?}");
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let mut deflater = Deflater::new(agreed(false, 15));
        let bomb = deflater.deflate(&vec![0; 10_000_000]).unwrap();
        assert!(bomb.len() < 20_000);
        let inflate = |limit| {
            let mut out = BytesMut::new();
            let mut inflater = Inflater::new(agreed(false, 15));
            let result = inflater.inflate(&bomb, &mut out, limit).and_then(|()| inflater.finish(&mut out, limit));
            (result, out.len())
        };

        assert_eq!(inflate(10_000_000), (Ok(()), 10_000_000));
        let (result, held) = inflate(9_999_999);
        assert_eq!(result.unwrap_err().code, Close::TOO_BIG);
        assert!(held <= 9_999_999);
        let (result, held) = inflate(1000);
        assert_eq!((result.unwrap_err().code, held), (Close::TOO_BIG, 1000));
    }

    #[test]
    fn what_is_no_deflate_is_refused() {
        let mut inflater = Inflater::new(agreed(true, 15));

        let fault = inflater.inflate(&[0xFF; 20], &mut BytesMut::new(), 1000).unwrap_err();

        assert_eq!(fault.code, Close::INVALID_DATA);
    }

    #[test]
    fn short_messages_go_as_they_are() {
        let mut deflater = Deflater::new(agreed(true, 15));

        assert_eq!(deflater.deflate(&[b'a'; 63]), None);
        assert!(deflater.deflate(&[b'a'; 64]).is_some());
    }
}
