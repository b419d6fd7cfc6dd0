//! Cookies (RFC 6265): the `Set-Cookie` field, and values as browsers send them back.

use std::borrow::Cow;

use http::HeaderValue;
use pyo3::{exceptions::PyValueError, intern, prelude::*, types::PyString};

use crate::fields;

/// What a cookie says besides its name and value.
pub(crate) struct Attributes<'py> {
    pub(crate) max_age: Option<i64>,
    pub(crate) expires: Option<Bound<'py, PyAny>>,
    pub(crate) path: Option<String>,
    pub(crate) domain: Option<String>,
    pub(crate) secure: bool,
    pub(crate) httponly: bool,
    pub(crate) samesite: Option<String>,
    pub(crate) partitioned: bool,
}

/// Makes the value of a `Set-Cookie` field (RFC 6265 §4.1).
///
/// # Errors
/// `ValueError` if the name is not a token, or an attribute has a character that would end it.
pub(crate) fn set_cookie(
    py: Python<'_>,
    name: &str,
    value: &str,
    attributes: &Attributes<'_>,
) -> PyResult<HeaderValue> {
    if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err(PyValueError::new_err(format!("cookie name {name:?} is not a token (RFC 6265 §4.1.1)")));
    }
    let mut cookie = format!("{name}={}", quote(value));
    if let Some(seconds) = attributes.max_age {
        cookie.push_str(&format!("; Max-Age={seconds}"));
    }
    if let Some(expires) = &attributes.expires {
        cookie.push_str("; Expires=");
        cookie.push_str(&date(py, expires)?);
    }
    for (label, text) in [("Path", &attributes.path), ("Domain", &attributes.domain)] {
        if let Some(text) = text {
            if text.bytes().any(|byte| byte == b';' || byte.is_ascii_control()) {
                let message = format!("cookie attribute {label} has a character that would end it: {text:?}");
                return Err(PyValueError::new_err(message));
            }
            cookie.push_str(&format!("; {label}={text}"));
        }
    }
    let samesite = attributes.samesite.as_deref().map(|word| match word.to_ascii_lowercase().as_str() {
        "lax" => Ok("Lax"),
        "strict" => Ok("Strict"),
        "none" => Ok("None"),
        _ => Err(PyValueError::new_err(format!("samesite is \"lax\", \"strict\" or \"none\", not {word:?}"))),
    });
    if let Some(word) = samesite.transpose()? {
        cookie.push_str(&format!("; SameSite={word}"));
    }
    for (wanted, label) in
        [(attributes.secure, "Secure"), (attributes.httponly, "HttpOnly"), (attributes.partitioned, "Partitioned")]
    {
        if wanted {
            cookie.push_str(&format!("; {label}"));
        }
    }
    fields::value("set-cookie", &cookie)
}

/// A date as HTTP writes it (RFC 9110 §5.6.7), from a datetime, a number of seconds from now, or text.
fn date(py: Python<'_>, expires: &Bound<'_, PyAny>) -> PyResult<String> {
    if let Ok(text) = expires.cast::<PyString>() {
        return Ok(text.to_cow()?.into_owned());
    }
    let timestamp: f64 = if expires.hasattr(intern!(py, "timestamp"))? {
        expires.call_method0(intern!(py, "timestamp"))?.extract()?
    } else {
        let now: f64 = py.import("time")?.call_method0("time")?.extract()?;
        now + expires.extract::<f64>()?
    };
    let kwargs = pyo3::types::PyDict::new(py);
    kwargs.set_item("usegmt", true)?;
    py.import("email.utils")?.call_method("formatdate", (timestamp,), Some(&kwargs))?.extract()
}

/// Bytes a cookie value may have as they are (RFC 6265 §4.1.1, `cookie-octet`).
fn is_cookie_octet(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x2B | 0x2D..=0x3A | 0x3C..=0x5B | 0x5D..=0x7E)
}

/// Writes a value so that [`unquote`], and Python's `http.cookies`, read it back: in quotes, with octal escapes.
fn quote(value: &str) -> Cow<'_, str> {
    if value.bytes().all(is_cookie_octet) {
        return Cow::Borrowed(value);
    }
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('"');
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' ' => quoted.push(' '),
            byte if is_cookie_octet(byte) => quoted.push(char::from(byte)),
            byte => quoted.push_str(&format!("\\{byte:03o}")),
        }
    }
    quoted.push('"');
    Cow::Owned(quoted)
}

/// Reads a value that may be quoted. What is not UTF-8 in the end is replaced.
pub(crate) fn unquote(value: &str) -> Cow<'_, str> {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Cow::Borrowed(value);
    };
    let (bytes, mut out, mut at) = (inner.as_bytes(), Vec::with_capacity(inner.len()), 0);
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).filter(|digits| digits.iter().all(|digit| (b'0'..b'8').contains(digit)));
        match (bytes[at], octal, bytes.get(at + 1)) {
            (b'\\', Some(digits), _) if digits[0] < b'4' => {
                out.push(digits.iter().fold(0, |value: u8, digit| value * 8 + (digit - b'0')));
                at += 4;
            }
            (b'\\', _, Some(&next)) => {
                out.push(next);
                at += 2;
            }
            (byte, _, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_read_back() {
        for value in ["", "plain", "two words", "a;b", "\"quoted\"", "back\\slash", "caf\u{e9}", "line\r\nbreak"] {
            let quoted = quote(value).into_owned();

            assert_eq!(unquote(&quoted), value);
            assert!(!quoted.contains(['\r', '\n', ';']), "{quoted}");
        }
    }
}
