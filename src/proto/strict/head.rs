//! A request head, looked at line by line as its lines come.
//!
//! Nothing is kept of a line that was looked at but what later lines have to agree with. So a head may come in any pieces
//! and is never looked at twice, and what is found first does not depend on the pieces.

use super::{
    Limits, Refusal,
    bytes::{TOKEN, find_control, is, token_len},
    target::{self, Minor, examine_host},
};

/// What is known of a head.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::proto) struct Head {
    /// Where the head starts, behind empty lines, and where its first line starts that was not looked at.
    start: usize,
    at: usize,
    minor: Option<Minor>,
    /// Where the minor version's digit is, if it has to be written anew.
    later: Option<usize>,
    fields: usize,
    has_host: bool,
    length: Option<u64>,
    is_chunked: bool,
}

/// What a look at a head has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proto) enum Seen {
    /// It goes on.
    Part,
    /// It ends before this index, and its content has this framing.
    Whole(usize, Framing),
}

/// How the end of content is found. RFC 9112 §6.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proto) enum Framing {
    /// By its length, which may be 0.
    Length(u64),
    /// By its last chunk.
    Chunked,
}

impl Head {
    /// Looks at the lines of `bytes` that have come since the last look. `bytes` starts where it did then.
    pub(in crate::proto) fn see(&mut self, bytes: &[u8], limits: &Limits) -> Result<Seen, Refusal> {
        if self.minor.is_none() {
            self.skip_empty_lines(bytes)?;
        }
        loop {
            // Not searched like other lines: every head has this one.
            if self.minor.is_some() && bytes[self.at..].starts_with(b"\r\n") {
                return self.check_length(&[], 2, limits).and_then(|()| self.end());
            }
            let Some((line, token)) = self.next_line(bytes, limits)? else { return Ok(Seen::Part) };
            match self.minor {
                None => self.see_request_line(line, token)?,
                Some(minor) => self.see_field(line, token, minor, limits)?,
            }
            self.at += line.len() + 2;
        }
    }

    /// Forgets the empty lines before the head; returns how many bytes these were.
    pub(in crate::proto) fn forget_start(&mut self) -> usize {
        let start = std::mem::take(&mut self.start);
        self.at -= start;
        self.later = self.later.map(|later| later - start);
        start
    }

    /// Where a minor version stands that hyper does not know, to be written over with a 1 (RFC 9110 §2.5).
    pub(in crate::proto) fn later_version(&self) -> Option<usize> {
        self.later
    }

    /// RFC 9112 §2.2: an empty line or several before the request line are ignored.
    fn skip_empty_lines(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        while bytes[self.at..].starts_with(b"\r\n") {
            self.at += 2;
            self.start = self.at;
        }
        match bytes[self.at..] {
            [b'\n', ..] => Err(Refusal::BareLf),
            [b'\r', _, ..] => Err(Refusal::BareCr),
            // Found at once, so that who speaks TLS here need not wait for the end of a line.
            [first, ..] if first != b'\r' && !is(first, TOKEN) => Err(Refusal::Method),
            _ => Ok(()),
        }
    }

    /// The next line without its CRLF, and how long the token is that it starts with. None if its end has yet to come.
    #[inline]
    fn next_line<'b>(&self, bytes: &'b [u8], limits: &Limits) -> Result<Option<(&'b [u8], usize)>, Refusal> {
        let rest = &bytes[self.at..];
        let Some(length) = find_control(rest) else {
            return self.check_length(rest, rest.len(), limits).map(|()| None);
        };
        let line = &rest[..length];
        // Not behind the token only: the processor does both searches at once.
        let token = token_len(rest);
        match rest[length..] {
            [b'\r', b'\n', ..] => self.check_length(line, length + 2, limits).map(|()| Some((line, token))),
            [b'\r'] => self.check_length(line, length + 1, limits).map(|()| None),
            [control, ..] => {
                self.check_length(line, length + 1, limits)?;
                Err(match control {
                    b'\n' => Refusal::BareLf,
                    b'\r' => Refusal::BareCr,
                    _ => Refusal::ControlCharacter,
                })
            }
            [] => Ok(None),
        }
    }

    /// Checks a line, of which the end may have yet to come; with what has come of that it has `size` bytes.
    #[inline]
    fn check_length(&self, line: &[u8], size: usize, limits: &Limits) -> Result<(), Refusal> {
        let before = self.at - self.start;
        if self.minor.is_none() && target::is_target_too_long(line, limits) {
            return Err(Refusal::TargetTooLong);
        }
        // Where both are passed, the one that is passed first.
        if self.minor.is_some() && line.len() > limits.field && before + limits.field <= limits.head {
            return Err(Refusal::FieldTooLong);
        }
        if before + size > limits.head { Err(Refusal::HeadTooLarge) } else { Ok(()) }
    }

    fn see_request_line(&mut self, line: &[u8], method: usize) -> Result<(), Refusal> {
        let minor = target::examine(line, method)?;
        self.minor = Some(minor);
        self.later = (minor == Minor::Later).then(|| self.at + line.len() - 1);
        Ok(())
    }

    #[inline]
    fn see_field(&mut self, line: &[u8], name: usize, minor: Minor, limits: &Limits) -> Result<(), Refusal> {
        if name == 0 || line.get(name) != Some(&b':') {
            return Err(match malformed(line, name) {
                Refusal::FoldedLine if self.fields == 0 => Refusal::SpaceBeforeFields,
                refusal => refusal,
            });
        }
        self.fields += 1;
        if self.fields > limits.fields {
            return Err(Refusal::TooManyFields);
        }
        // Told apart by their lengths: most fields are none of these, and this costs them least.
        let (name, value) = (&line[..name], &line[name + 1..]);
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.see_host(value),
            6 if name.eq_ignore_ascii_case(b"expect") => see_expect(trim(value), minor),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.see_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.see_coding(value, minor),
            _ => Ok(()),
        }
    }

    fn see_host(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if std::mem::replace(&mut self.has_host, true) {
            return Err(Refusal::HostRepeated);
        }
        examine_host(trim(value))
    }

    fn see_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.is_chunked {
            return Err(Refusal::LengthAndCoding);
        }
        let length = number(unpadded(value)).ok_or(Refusal::LengthInvalid)?;
        match self.length.replace(length) {
            Some(_) => Err(Refusal::LengthRepeated),
            None => Ok(()),
        }
    }

    fn see_coding(&mut self, value: &[u8], minor: Minor) -> Result<(), Refusal> {
        if minor == Minor::Zero {
            return Err(Refusal::CodingTooNew);
        }
        if self.length.is_some() {
            return Err(Refusal::LengthAndCoding);
        }
        if std::mem::replace(&mut self.is_chunked, true) {
            return Err(Refusal::CodingRepeated);
        }
        examine_coding(unpadded(value))
    }

    fn end(&self) -> Result<Seen, Refusal> {
        if !self.has_host && self.minor != Some(Minor::Zero) {
            return Err(Refusal::HostMissing);
        }
        let framing = if self.is_chunked { Framing::Chunked } else { Framing::Length(self.length.unwrap_or(0)) };
        Ok(Seen::Whole(self.at + 2, framing))
    }
}

/// Examines a line of a trailer section, without control characters. Returns its name.
pub(super) fn examine_trailer(line: &[u8]) -> Result<&[u8], Refusal> {
    let name = token_len(line);
    if name == 0 || line.get(name) != Some(&b':') {
        return Err(malformed(line, name));
    }
    Ok(&line[..name])
}

/// What is wrong with a field line that starts with a token of `name` bytes and has no colon behind it.
#[cold]
fn malformed(line: &[u8], name: usize) -> Refusal {
    match (name, &line[name..]) {
        (0, [b' ' | b'\t', ..]) => Refusal::FoldedLine,
        (1.., rest) if trim(rest).starts_with(b":") => Refusal::SpaceBeforeColon,
        _ => Refusal::FieldName,
    }
}

/// RFC 9110 §10.1.1. An expectation in an HTTP/1.0 request is ignored.
fn see_expect(value: &[u8], minor: Minor) -> Result<(), Refusal> {
    match minor {
        Minor::Zero => Ok(()),
        _ if value.eq_ignore_ascii_case(b"100-continue") => Ok(()),
        _ => Err(Refusal::ExpectationUnknown),
    }
}

/// RFC 9112 §6.1: `chunked`, once and last. Others are not offered here.
fn examine_coding(value: &[u8]) -> Result<(), Refusal> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    if value.is_empty() || trim(value).len() < value.len() {
        return Err(Refusal::CodingPadded);
    }
    let is_chunked = |coding: &[u8]| trim(coding).eq_ignore_ascii_case(b"chunked");
    let mut codings = value.split(|&byte| byte == b',');
    let is_last = codings.next_back().is_some_and(is_chunked);
    match (codings.any(is_chunked), is_last) {
        (true, true) => Err(Refusal::CodingRepeated),
        (_, false) => Err(Refusal::CodingMisplaced),
        (false, true) => Err(Refusal::CodingUnknown),
    }
}

/// A value without the one space that everybody writes behind the colon.
fn unpadded(value: &[u8]) -> &[u8] {
    value.strip_prefix(b" ").unwrap_or(value)
}

/// A value without the white space around it. RFC 9110 §5.5.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// RFC 9110 §8.6: digits and nothing else. Here also without leading zeros, and no more than a signed number can be:
/// what is larger is negative to some.
fn number(value: &[u8]) -> Option<u64> {
    match value {
        [] | [b'0', _, ..] => return None,
        _ => {}
    }
    let number = value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })?;
    (number <= i64::MAX as u64).then_some(number)
}
