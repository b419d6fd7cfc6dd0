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
use crate::message::Params;

/// Reads the values from a path that matches `pattern` and holds no `%`.
#[inline]
pub(super) fn from_plain(pattern: &Pattern, path: &str) -> Params {
    let mut params = Params::default();
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
pub(super) fn from_escaped(pattern: &Pattern, path: &str) -> Params {
    let mut params = Params::default();
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
    params.set_decoded(decoded);
    params
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn values(pattern: &str, path: &str) -> Vec<String> {
        let pattern = Pattern::parse(pattern).unwrap();
        let params = match path.contains('%') {
            true => from_escaped(&pattern, path),
            false => from_plain(&pattern, path),
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
