//! Chunked content (RFC 9112 §7.1), walked over byte by byte but for the data in it.
//!
//! ```text
//!         ┌───────────────────────── DataLf ◄─ DataCr ◄──────┐
//!         ▼                                                  │
//! ──► Size ──► (extensions) ──► SizeLf ──► (size > 0) Data ──┘
//!                                  └─────► (size = 0) Trailers ──► LastLf ──► end
//! ```
//!
//! The white space that may stand around an extension's `;` and `=` (BWS) is refused: nobody writes it, and recipients
//! have disagreed about it.

use super::{
    Limits, Refusal,
    bytes::{CONTROL, TOKEN, is},
    head::examine_trailer,
};

/// 16 digits are 64 bits. More can only be zeros, which would have no end.
const MAX_SIZE_DIGITS: u8 = 16;

/// 16 KiB less one, in all of one message's content: hyper stops at 16 KiB. What extensions there are in practice (a
/// signature with every chunk) have 80 bytes.
const MAX_EXTENSION_BYTES: usize = 16 * 1024 - 1;

/// Follows the chunks of one message.
#[derive(Debug, Default)]
pub(in crate::proto) struct Chunks {
    place: Place,
    size: u64,
    extension_bytes: usize,
    /// The present line of the trailer section, and how much came before it.
    trailer: Vec<u8>,
    trailer_bytes: usize,
    trailers: usize,
}

/// What came of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proto) enum Walked {
    /// All bytes are the content's, and more is to come.
    Through,
    /// The content ends before this index.
    ToEnd(usize),
}

/// Where the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In a chunk's size, of which this many digits have come.
    Size(u8),
    /// Behind a `;` or in an extension's name.
    Name {
        is_empty: bool,
    },
    /// Behind the `=` of an extension.
    Value,
    /// In its value, a token.
    Token,
    /// In its value, a quoted string.
    Quoted,
    /// Behind a backslash in one.
    Escaped,
    /// Behind one.
    Unquoted,
    SizeLf,
    /// In a chunk's data, of which `size` bytes are left.
    Data,
    DataCr,
    DataLf,
    Trailers,
    /// Behind the CR of the empty line that ends everything.
    LastLf,
}

impl Default for Place {
    fn default() -> Self {
        Self::Size(0)
    }
}

impl Chunks {
    /// Walks over bytes of the content and perhaps what follows it.
    pub(in crate::proto) fn walk(&mut self, bytes: &[u8], limits: &Limits) -> Result<Walked, Refusal> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.place {
                Place::Data => {
                    let n = usize::try_from(self.size).unwrap_or(usize::MAX).min(bytes.len() - at);
                    self.size -= n as u64;
                    at += n;
                    if self.size == 0 {
                        self.place = Place::DataCr;
                    }
                    continue;
                }
                Place::Trailers => self.see_trailer(byte, limits)?,
                Place::LastLf if byte == b'\n' => return Ok(Walked::ToEnd(at + 1)),
                Place::LastLf => return Err(Refusal::BareCr),
                place => self.place = self.step(place, byte)?,
            }
            at += 1;
        }
        Ok(Walked::Through)
    }

    #[inline]
    fn step(&mut self, place: Place, byte: u8) -> Result<Place, Refusal> {
        let next = match (place, byte) {
            (Place::Size(digits), _) => return self.see_size(digits, byte),
            (Place::SizeLf, b'\n') if self.size == 0 => Place::Trailers,
            (Place::SizeLf, b'\n') => Place::Data,
            (Place::DataCr, b'\r') => Place::DataLf,
            (Place::DataLf, b'\n') => Place::Size(0),
            (Place::SizeLf, _) => return Err(Refusal::BareCr),
            (Place::DataCr | Place::DataLf, _) => return Err(Refusal::ChunkEnd),
            _ => return self.see_extension(place, byte),
        };
        Ok(next)
    }

    #[inline]
    fn see_size(&mut self, digits: u8, byte: u8) -> Result<Place, Refusal> {
        if let Some(digit) = (byte as char).to_digit(16) {
            if digits == MAX_SIZE_DIGITS {
                return Err(Refusal::ChunkSize);
            }
            self.size = self.size << 4 | u64::from(digit);
            return Ok(Place::Size(digits + 1));
        }
        match byte {
            // What is larger is negative to some.
            _ if digits == 0 || self.size > i64::MAX as u64 => Err(Refusal::ChunkSize),
            b'\r' => Ok(Place::SizeLf),
            b';' => Ok(Place::Name { is_empty: true }),
            b'\n' => Err(Refusal::BareLf),
            _ => Err(Refusal::ChunkSize),
        }
    }

    #[cold]
    /// RFC 9112 §7.1.1: `;name`, `;name=token` or `;name="quoted string"`, any number of them.
    fn see_extension(&mut self, place: Place, byte: u8) -> Result<Place, Refusal> {
        self.extension_bytes += 1;
        if self.extension_bytes > MAX_EXTENSION_BYTES {
            return Err(Refusal::ChunkExtensionsTooLong);
        }
        match (place, byte) {
            (Place::Name { .. }, byte) if is(byte, TOKEN) => Ok(Place::Name { is_empty: false }),
            (Place::Name { is_empty: false }, b'=') => Ok(Place::Value),
            (Place::Value, b'"') => Ok(Place::Quoted),
            (Place::Value | Place::Token, byte) if is(byte, TOKEN) => Ok(Place::Token),
            (Place::Quoted, b'"') => Ok(Place::Unquoted),
            (Place::Quoted, b'\\') => Ok(Place::Escaped),
            (Place::Quoted | Place::Escaped, b'\t' | b' '..=b'~' | 0x80..) => Ok(Place::Quoted),
            (Place::Name { is_empty: false } | Place::Token | Place::Unquoted, b'\r') => Ok(Place::SizeLf),
            (Place::Name { is_empty: false } | Place::Token | Place::Unquoted, b';') => {
                Ok(Place::Name { is_empty: true })
            }
            (_, b'\n') => Err(Refusal::BareLf),
            _ => Err(Refusal::ChunkExtension),
        }
    }

    /// Looks at one byte of the trailer section.
    fn see_trailer(&mut self, byte: u8, limits: &Limits) -> Result<(), Refusal> {
        let is_last = byte == b'\r' && self.trailer.is_empty();
        self.trailer_bytes += if is_last { 2 } else { 1 };
        if self.trailer_bytes > limits.head {
            return Err(Refusal::TrailersTooLarge);
        }
        match byte {
            b'\n' => self.end_trailer(limits),
            _ if is_last => {
                self.place = Place::LastLf;
                Ok(())
            }
            _ if self.trailer.last() == Some(&b'\r') => Err(Refusal::BareCr),
            byte if is(byte, CONTROL) && byte != b'\r' => Err(Refusal::ControlCharacter),
            byte if self.trailer.len() == limits.field && byte != b'\r' => Err(Refusal::FieldTooLong),
            byte => {
                self.trailer.push(byte);
                Ok(())
            }
        }
    }

    fn end_trailer(&mut self, limits: &Limits) -> Result<(), Refusal> {
        let line = self.trailer.strip_suffix(b"\r").ok_or(Refusal::BareLf)?;
        let name = examine_trailer(line)?;
        if FORBIDDEN.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden)) {
            return Err(Refusal::TrailerForbidden);
        }
        self.trailers += 1;
        if self.trailers > limits.fields {
            return Err(Refusal::TrailersTooLarge);
        }
        self.trailer.clear();
        Ok(())
    }
}

/// RFC 9110 §6.5.1: no fields for framing, routing, authentication, request modifiers, or that say what the content is. Whoever
/// merges a trailer section into the head would have them forged.
const FORBIDDEN: &[&[u8]] = &[
    // Framing, and the connection.
    b"content-length",
    b"transfer-encoding",
    b"trailer",
    b"te",
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"upgrade",
    // Routing, and who is said to have sent it.
    b"host",
    b"forwarded",
    b"via",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-proto",
    b"x-real-ip",
    b"max-forwards",
    // Authentication.
    b"authorization",
    b"proxy-authorization",
    b"cookie",
    // What the request asks for.
    b"cache-control",
    b"expect",
    b"if-match",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"if-unmodified-since",
    b"pragma",
    b"range",
    // What the content is.
    b"content-encoding",
    b"content-range",
    b"content-type",
];
