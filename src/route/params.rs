//! The values of path parameters, and the percent-decoding that makes them (RFC 3986 §2.1).
//!
//! A path is split at `/` first and decoded afterwards, so `%2F` never separates segments. In a parameter of one
//! segment it decodes to `/`. In a `path` parameter it stays as written, `%2F` or `%2f`, the only way to keep it apart
//! from a real slash; everything else there is decoded.
//!
//! Nothing here resolves `.` and `..`, encoded or not: whoever opens files by these values has to refuse them.

use std::borrow::Cow;

use memchr::{memchr, memchr_iter};
use percent_encoding::percent_decode_str;

use super::pattern::{Converter, Pattern, Segment};

/// The values that a path has for its pattern's parameters, in the order of the pattern.
///
/// While nothing had to be decoded the values are ranges of the path, which therefore is given again to read them: this
/// type borrows nothing and can travel with the request. Up to four values need no allocation; decoding needs one.
#[derive(Clone, Debug, Default)]
pub struct Params {
    first: [Span; INLINE],
    more: Vec<Span>,
    count: usize,
    /// All values, one after the other, if the path had anything to decode.
    decoded: Option<Box<str>>,
}

/// A range of bytes; half the size of `Range<usize>`.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    end: u32,
}

impl Params {
    /// The value of the parameter at `index`, counted from 0; none past the last one.
    ///
    /// `path` is the path that was looked up.
    #[inline]
    pub fn get<'a>(&'a self, path: &'a str, index: usize) -> Option<&'a str> {
        if index >= self.count {
            return None;
        }
        let span = self.first.get(index).or_else(|| self.more.get(index - INLINE))?;
        self.decoded.as_deref().unwrap_or(path).get(span.start as usize..span.end as usize)
    }

    /// Reads the values from a path that matches `pattern` and holds no `%`.
    #[inline]
    pub(super) fn from_plain(pattern: &Pattern, path: &str) -> Self {
        let mut params = Self::default();
        let mut start = 1;
        for segment in pattern.segments() {
            match segment {
                Segment::Literal(text) => start += text.len() + 1,
                Segment::Parameter(parameter) if parameter.shape.converter == Converter::Path => {
                    params.push(start, path.len());
                }
                Segment::Parameter(parameter) => {
                    let end = memchr(b'/', &path.as_bytes()[start..]).map_or(path.len(), |at| start + at);
                    params.push(start + parameter.shape.prefix.len(), end - parameter.shape.suffix.len());
                    start = end + 1;
                }
            }
        }
        params
    }

    /// Reads the values from a path that matches `pattern` and whose encoding [`is_decodable`].
    #[cold]
    pub(super) fn from_escaped(pattern: &Pattern, path: &str) -> Self {
        let mut params = Self::default();
        let mut decoded = String::new();
        let mut rest = &path[1..];
        for segment in pattern.segments() {
            let (raw, after) = rest.split_once('/').unwrap_or((rest, ""));
            if let Segment::Parameter(parameter) = segment {
                let start = decoded.len();
                if parameter.shape.converter == Converter::Path {
                    decode_but_slashes(rest, &mut decoded);
                } else {
                    decoded.push_str(parameter.shape.value(&decode(raw)).unwrap_or_default());
                }
                params.push(start, decoded.len());
            }
            rest = after;
        }
        params.decoded = Some(decoded.into());
        params
    }

    /// The casts lose nothing: `Table::find` refuses paths longer than `u32`, and decoding only shortens.
    #[inline]
    fn push(&mut self, start: usize, end: usize) {
        let span = Span { start: start as u32, end: end as u32 };
        match self.first.get_mut(self.count) {
            Some(place) => *place = span,
            None => self.more.push(span),
        }
        self.count += 1;
    }
}

/// Whether every `%` is followed by two hexadecimal digits and the decoded bytes are UTF-8.
pub(super) fn is_decodable(path: &str) -> bool {
    let bytes = path.as_bytes();
    let is_complete = |at: usize| bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    // No character spans two segments, for the slash between them is ASCII; so the whole path is checked at once.
    memchr_iter(b'%', bytes).all(is_complete) && percent_decode_str(path).decode_utf8().is_ok()
}

/// Decodes one segment of a path that [`is_decodable`]; for such a path "lossy" loses nothing.
pub(super) fn decode(segment: &str) -> Cow<'_, str> {
    percent_decode_str(segment).decode_utf8_lossy()
}

/// Decodes everything but encoded slashes.
fn decode_but_slashes(rest: &str, decoded: &mut String) {
    let mut start = 0;
    for at in memchr_iter(b'%', rest.as_bytes()) {
        let escape = &rest[at..at + 3];
        if escape.eq_ignore_ascii_case("%2F") {
            decoded.push_str(&decode(&rest[start..at]));
            decoded.push_str(escape);
            start = at + 3;
        }
    }
    decoded.push_str(&decode(&rest[start..]));
}

/// Four, because deeper resources are rare: `/{owner}/{repository}/{branch}/{path:path}` still fits.
const INLINE: usize = 4;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn values(pattern: &str, path: &str) -> Vec<String> {
        let pattern = Pattern::parse(pattern).unwrap();
        let params = match path.contains('%') {
            true => Params::from_escaped(&pattern, path),
            false => Params::from_plain(&pattern, path),
        };
        (0..).map_while(|index| params.get(path, index).map(str::to_owned)).collect()
    }

    #[test]
    fn values_are_read_without_their_literal_surroundings() {
        assert_eq!(values("/a/{b}/c/{d}.json/*e", "/a/1/c/2.json/3/4"), ["1", "2", "3/4"]);
        assert_eq!(values("/a/{b}/c/{d}.json/*e", "/a/%31/c/%32%2Ejson/3/%34"), ["1", "2", "3/4"]);
    }

    #[test]
    fn a_path_value_may_be_empty() {
        assert_eq!(values("/a/*rest", "/a/"), [""]);
        assert_eq!(values("/%61/*rest", "/%2561/"), [""]);
    }

    #[test]
    fn more_values_than_fit_inline_are_kept() {
        assert_eq!(values("/{a}/{b}/{c}/{d}/{e}/{f}", "/1/2/3/4/5/6"), ["1", "2", "3", "4", "5", "6"]);
        assert_eq!(values("/{a}/{b}/{c}/{d}/{e}/{f}", "/1/2/3/4/5/%36"), ["1", "2", "3", "4", "5", "6"]);
    }

    #[test]
    fn an_encoded_slash_is_a_slash_in_a_segment_and_stays_encoded_in_a_path() {
        assert_eq!(values("/{a}/*b", "/x%2Fy/x%2Fy/%2f/%20%C3%A9"), ["x/y", "x%2Fy/%2f/ é"]);
        assert_eq!(values("/*a", "/%2F%2F"), ["%2F%2F"]);
    }

    #[test]
    fn decoding_happens_once() {
        assert_eq!(values("/{a}/*b", "/%2541/%252F"), ["%41", "%2F"]);
    }

    #[test]
    fn malformed_escapes_and_bytes_that_are_not_utf_8_are_not_decodable() {
        for path in
            ["/%", "/%2", "/%zz", "/%2g", "/%/2", "/%%41", "/%FF", "/%C3", "/%C3/%A9", "/%C3%2F%A9", "/%+1", "/%é"]
        {
            assert!(!is_decodable(path), "{path}");
        }
        for path in ["/", "/%41", "/%C3%A9", "/%00", "/%25", "/é%41"] {
            assert!(is_decodable(path), "{path}");
        }
    }
}
