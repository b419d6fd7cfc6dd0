//! The request line and the host: what a message asks for, and of whom.
//!
//! Targets are held to RFC 3986 (§3.3, §3.4), with the exceptions that browsers make: `[`, `]`, `^` and `|` stay as they are
//! in a path, and these and `\`, `` ` ``, `{`, `}` in a query (WHATWG URL, path and query percent-encode sets). Bytes above
//! ASCII, `"`, `<`, `>` and `#` come from nobody who keeps to either.

use std::net::Ipv6Addr;

use memchr::memchr;

use super::{
    Limits, Refusal,
    bytes::{HOST, PATH, QUERY, is},
};

/// The minor version of HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Minor {
    Zero,
    One,
    /// RFC 9110 §2.5: a higher one is processed as the highest that is known, 1.
    Later,
}

/// Examines a request line, its line end taken off, which starts with a token of `method` bytes.
pub(super) fn examine(line: &[u8], method: usize) -> Result<Minor, Refusal> {
    let target = match (&line[..method], &line[method..]) {
        (_, [] | [b'\t', ..]) | ([], [b' ', ..]) => return Err(Refusal::RequestLine),
        (_, [b' ', target @ ..]) => target,
        _ => return Err(Refusal::Method),
    };
    let method = &line[..method];
    let (target, version) = target.split_at(target_len(target)?);
    let minor = match version {
        [b' ', version @ ..] => examine_version(version).map_err(|refusal| match refusal {
            Refusal::Version if examine_form(method, target).is_err() => Refusal::NotHttp,
            refusal => refusal,
        })?,
        // HTTP/0.9 had no version (RFC 1945 §4.1).
        [] | [b'\t', ..] => return Err(Refusal::RequestLine),
        [b'#', ..] => return Err(Refusal::TargetFragment),
        _ => return Err(Refusal::TargetCharacter),
    };
    examine_form(method, target)?;
    Ok(minor)
}

/// Whether the target of a request line, of which the end may have yet to come, is longer than the limit.
pub(super) fn is_target_too_long(line: &[u8], limits: &Limits) -> bool {
    if line.len() <= limits.target {
        return false;
    }
    let Some(method) = memchr(b' ', line) else { return false };
    let target = &line[method + 1..];
    // A head that is too large before its target is too long is a head that is too large.
    memchr(b' ', target).unwrap_or(target.len()) > limits.target && method + 1 + limits.target <= limits.head
}

/// How many bytes from the start can be those of a target.
fn target_len(bytes: &[u8]) -> Result<usize, Refusal> {
    let (mut at, mut class) = (0, PATH);
    while let Some(&byte) = bytes.get(at) {
        if is(byte, class) {
            at += 1;
        } else if byte == b'?' {
            class = QUERY;
            at += 1;
        } else if byte == b'%' {
            // RFC 3986 §2.1. What `%zz` or `%2` is, every decoder decides for itself.
            match bytes.get(at + 1..at + 3) {
                Some([high, low]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => at += 3,
                _ => return Err(Refusal::TargetEscape),
            }
        } else {
            break;
        }
    }
    Ok(at)
}

/// RFC 9112 §2.3: `HTTP/`, a digit, a dot, a digit, and in capitals.
fn examine_version(version: &[u8]) -> Result<Minor, Refusal> {
    match version {
        b"HTTP/1.1" => Ok(Minor::One),
        b"HTTP/1.0" => Ok(Minor::Zero),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => Ok(Minor::Later),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(Refusal::VersionUnsupported),
        _ if version.is_empty() || version.iter().any(|byte| matches!(byte, b' ' | b'\t')) => Err(Refusal::RequestLine),
        _ => Err(Refusal::Version),
    }
}

/// RFC 9112 §3.2: origin form or absolute form; authority form for CONNECT and only there; `*` for OPTIONS.
fn examine_form(method: &[u8], target: &[u8]) -> Result<(), Refusal> {
    let is_form = match (method, target) {
        (_, []) => return Err(Refusal::RequestLine),
        (b"CONNECT", authority) => {
            let has_port = authority.last().is_some_and(u8::is_ascii_digit) && memchr(b':', authority).is_some();
            return Err(if has_port && is_host(authority) { Refusal::Connect } else { Refusal::TargetForm });
        }
        (_, [b'/', ..]) => true,
        (method, b"*") => method == b"OPTIONS",
        (_, target) => is_absolute(target),
    };
    if is_form { Ok(()) } else { Err(Refusal::TargetForm) }
}

/// `http://authority...`. RFC 9110 §4.2.4: user information in it is an error, for it only serves to deceive.
fn is_absolute(target: &[u8]) -> bool {
    let Some(rest) = strip_prefix(target, b"http://").or_else(|| strip_prefix(target, b"https://")) else {
        return false;
    };
    is_host(rest.split(|byte| matches!(byte, b'/' | b'?')).next().unwrap_or_default())
}

fn strip_prefix<'b>(bytes: &'b [u8], prefix: &[u8]) -> Option<&'b [u8]> {
    let (start, rest) = bytes.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Examines the value of a Host field.
///
/// Only targets without an authority may have an empty one (RFC 9112 §3.2), and `http` has no such (RFC 9110 §4.2.1).
pub(super) fn examine_host(value: &[u8]) -> Result<(), Refusal> {
    match value {
        [] => Err(Refusal::HostEmpty),
        [b':', port @ ..] if port.iter().all(u8::is_ascii_digit) => Err(Refusal::HostEmpty),
        value if is_host(value) => Ok(()),
        _ => Err(Refusal::HostInvalid),
    }
}

/// RFC 9110 §7.2: `uri-host [ ":" port ]`, the host not empty. RFC 3986 §3.2.2: an address in brackets or a name.
pub(in crate::proto) fn is_host(value: &[u8]) -> bool {
    let port = match value {
        [b'[', rest @ ..] => {
            let Some(end) = memchr(b']', rest) else { return false };
            // IPvFuture is not there yet, and zones (RFC 6874) mean nothing to others.
            let is_address = std::str::from_utf8(&rest[..end]).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok());
            if !is_address {
                return false;
            }
            &rest[end + 1..]
        }
        _ => {
            // No escapes: DNS has no names that need them, and who decodes them is a matter of opinion.
            let end = value.iter().position(|&byte| !is(byte, HOST)).unwrap_or(value.len());
            if end == 0 {
                return false;
            }
            &value[end..]
        }
    };
    match port {
        [] => true,
        [b':', digits @ ..] => is_port(digits),
        _ => false,
    }
}

/// RFC 3986 §3.2.3: digits, or none for the default. TCP has 16 bits for it.
fn is_port(digits: &[u8]) -> bool {
    let port = digits.iter().try_fold(0_u32, |port, digit| {
        (digit.is_ascii_digit() && port < 10_000).then(|| port * 10 + u32::from(digit - b'0'))
    });
    port.is_some_and(|port| port <= u32::from(u16::MAX))
}
