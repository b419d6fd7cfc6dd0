//! Reads JSON: a recursive-descent parser of RFC 8259 that makes the Python objects as it goes.
//!
//! Rules:
//! 1. Numbers with neither fraction nor exponent are `int`, of any size; the others are `float`, correctly rounded.
//! 2. Of a repeated key the last value wins, as in `json`.
//! 3. An escaped lone surrogate (`"\ud800"`) becomes one in the `str`, as in `json`. Bytes that are not UTF-8 are
//!    refused.
//! 4. A byte order mark in front of bytes is skipped (RFC 8259 §8.1 allows it), in front of a `str` refused, as in
//!    `json`.
//! 5. Malformed input raises `json.JSONDecodeError`, a `ValueError`, naming line, column and byte.

use std::sync::MutexGuard;

use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString};

use super::MAX_DEPTH;
use super::keys::Keys;
use super::scan::plain;

/// Reads one JSON document from bytes.
///
/// # Errors
/// `json.JSONDecodeError` where the document is malformed, or past a limit. Other exceptions are the interpreter's own.
pub(crate) fn read<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let body = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let skipped = bytes.len() - body.len();
    Reader::new(py, body, Source::Bytes)
        .document()
        .map_err(|refusal| refusal.into_error(py, body, skipped, Source::Bytes))
}

/// Reads one JSON document from the UTF-8 of a `str`, in which surrogates may be encoded as if they were characters.
pub(super) fn read_text<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    Reader::new(py, bytes, Source::Text).document().map_err(|refusal| refusal.into_error(py, bytes, 0, Source::Text))
}

/// Where the bytes come from, which decides whether encoded surrogates are an error.
#[derive(Clone, Copy, PartialEq)]
enum Source {
    Bytes,
    Text,
}

/// Why reading stopped. Boxed where it is returned, so that the usual result fits two registers.
enum Refusal {
    Malformed { at: usize, reason: &'static str },
    Raised(PyErr),
}

type Reading<T> = Result<T, Box<Refusal>>;

struct Reader<'a, 'py> {
    py: Python<'py>,
    bytes: &'a [u8],
    at: usize,
    source: Source,
    keys: Option<MutexGuard<'static, Keys>>,
    /// The items of all arrays that are still open, so that each list is made at its final size.
    items: Vec<Bound<'py, PyAny>>,
    /// A string while its escapes are replaced.
    text: Vec<u8>,
}

impl<'a, 'py> Reader<'a, 'py> {
    fn new(py: Python<'py>, bytes: &'a [u8], source: Source) -> Self {
        Reader { py, bytes, at: 0, source, keys: Keys::take(), items: Vec::new(), text: Vec::new() }
    }

    fn document(&mut self) -> Reading<Bound<'py, PyAny>> {
        let value = self.value(0)?;
        match self.next_token() {
            None => Ok(value),
            Some(_) => self.refuse("expected the end after the value"),
        }
    }

    fn value(&mut self, depth: u32) -> Reading<Bound<'py, PyAny>> {
        match self.next_token() {
            Some(b'"') => {
                self.at += 1;
                self.string().map(Bound::into_any)
            }
            Some(b'{') => self.object(depth).map(Bound::into_any),
            Some(b'[') => self.array(depth).map(Bound::into_any),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true").map(|()| PyBool::new(self.py, true).to_owned().into_any()),
            Some(b'f') => self.word(b"false").map(|()| PyBool::new(self.py, false).to_owned().into_any()),
            Some(b'n') => self.word(b"null").map(|()| self.py.None().into_bound(self.py)),
            _ => self.refuse("expected a value"),
        }
    }

    fn object(&mut self, depth: u32) -> Reading<Bound<'py, PyDict>> {
        self.enter(depth)?;
        let dict = PyDict::new(self.py);
        if self.next_token() == Some(b'}') {
            self.at += 1;
            return Ok(dict);
        }
        loop {
            if self.next_token() != Some(b'"') {
                return self.refuse("expected a key in double quotes");
            }
            self.at += 1;
            let key = self.key()?;
            if self.next_token() != Some(b':') {
                return self.refuse("expected ':'");
            }
            self.at += 1;
            let value = self.value(depth + 1)?;
            dict.set_item(key, value).map_err(Refusal::raised)?;
            match self.next_token() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return self.refuse("expected ',' or '}'"),
            }
        }
        self.at += 1;
        Ok(dict)
    }

    fn array(&mut self, depth: u32) -> Reading<Bound<'py, PyList>> {
        self.enter(depth)?;
        if self.next_token() == Some(b']') {
            self.at += 1;
            return Ok(PyList::empty(self.py));
        }
        let first = self.items.len();
        loop {
            let value = self.value(depth + 1)?;
            self.items.push(value);
            match self.next_token() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return self.refuse("expected ',' or ']'"),
            }
        }
        self.at += 1;
        PyList::new(self.py, self.items.drain(first..)).map_err(Refusal::raised)
    }

    /// Steps over the opening bracket.
    fn enter(&mut self, depth: u32) -> Reading<()> {
        const { assert!(MAX_DEPTH == 256, "the text below names the limit") };
        if depth >= MAX_DEPTH {
            return self.refuse("nested deeper than 256 levels");
        }
        self.at += 1;
        Ok(())
    }

    fn word(&mut self, word: &'static [u8]) -> Reading<()> {
        if !self.bytes[self.at..].starts_with(word) {
            return self.refuse("expected a value");
        }
        self.at += word.len();
        Ok(())
    }

    /// Reads a key, its opening quote behind us.
    #[inline]
    fn key(&mut self) -> Reading<Bound<'py, PyString>> {
        let rest = &self.bytes[self.at..];
        let length = plain(rest);
        let (py, source, start) = (self.py, self.source, self.at);
        if rest.get(length) == Some(&b'"')
            && let Some(keys) = &mut self.keys
        {
            self.at += length + 1;
            let bytes = &rest[..length];
            return keys.find_or_make(py, bytes, || make_text(py, bytes, start, source));
        }
        self.string()
    }

    /// Reads a string, its opening quote behind us.
    #[inline]
    fn string(&mut self) -> Reading<Bound<'py, PyString>> {
        let rest = &self.bytes[self.at..];
        let length = plain(rest);
        if rest.get(length) == Some(&b'"') {
            let start = self.at;
            self.at += length + 1;
            return make_text(self.py, &rest[..length], start, self.source);
        }
        self.escaped_string()
    }

    /// Reads a string with escapes in it, or one that is malformed.
    #[cold]
    #[inline(never)]
    fn escaped_string(&mut self) -> Reading<Bound<'py, PyString>> {
        let start = self.at;
        let mut lone_surrogates = false;
        self.text.clear();
        loop {
            let rest = &self.bytes[self.at..];
            let length = plain(rest);
            self.text.extend_from_slice(&rest[..length]);
            self.at += length;
            match rest.get(length) {
                Some(b'"') => break,
                Some(b'\\') => lone_surrogates |= self.escape()?,
                Some(_) => return self.refuse("control character in a string"),
                None => {
                    // Points at the opening quote, as `json` does.
                    self.at = start - 1;
                    return self.refuse("unterminated string");
                }
            }
        }
        let raw = &self.bytes[start..self.at];
        self.at += 1;
        // Whether the bytes are UTF-8 is asked of them as they came: the offset is then right, and a surrogate that
        // was spelt as an escape can't make one that was encoded as bytes acceptable.
        if self.source == Source::Bytes {
            check_utf8(raw, start)?;
        }
        let source = if lone_surrogates { Source::Text } else { self.source };
        make_text(self.py, &self.text, start, source)
    }

    /// Reads one escape and appends what it stands for. Returns whether that is half of a surrogate pair.
    fn escape(&mut self) -> Reading<bool> {
        let character = match self.bytes.get(self.at + 1) {
            Some(&byte @ (b'"' | b'\\' | b'/')) => byte,
            Some(b'b') => b'\x08',
            Some(b'f') => b'\x0c',
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return self.refuse("unknown escape in a string"),
        };
        self.text.push(character);
        self.at += 2;
        Ok(false)
    }

    fn unicode_escape(&mut self) -> Reading<bool> {
        let Some(first) = self.four_digits(self.at) else {
            return self.refuse("expected four hexadecimal digits after \\u");
        };
        self.at += 6;
        let mut code = first;
        if (0xD800..0xDC00).contains(&first)
            && let Some(second @ 0xDC00..0xE000) = self.four_digits(self.at)
        {
            code = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
            self.at += 6;
        }
        match char::from_u32(code) {
            Some(character) => {
                self.text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                Ok(false)
            }
            None => {
                let tail = |shift: u32| 0x80 | (code >> shift & 0x3F) as u8;
                self.text.extend_from_slice(&[0xED, tail(6), tail(0)]);
                Ok(true)
            }
        }
    }

    /// The value of `\uXXXX` at `at`, if that is what stands there.
    fn four_digits(&self, at: usize) -> Option<u32> {
        let digits = self.bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0, |code, &digit| Some(code << 4 | char::from(digit).to_digit(16)?))
    }

    fn number(&mut self) -> Reading<Bound<'py, PyAny>> {
        let start = self.at;
        let negative = self.bytes[start] == b'-';
        let mut digits = Digits::default();
        self.at += usize::from(negative);
        let whole = self.digits(&mut digits)?;
        if whole > 1 && self.bytes[self.at - whole] == b'0' {
            self.at -= whole;
            return self.refuse("a number can't start with 0");
        }
        let next = self.bytes.get(self.at).copied();
        if !matches!(next, Some(b'.' | b'e' | b'E')) {
            return self.integer(start, negative, whole, digits.value);
        }
        let mut power: i64 = 0;
        if next == Some(b'.') {
            self.at += 1;
            power = -(self.digits(&mut digits)? as i64);
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            power = power.saturating_add(self.exponent()?);
        }
        self.float(start, negative, &digits, power)
    }

    #[inline]
    fn integer(&mut self, start: usize, negative: bool, digits: usize, value: u64) -> Reading<Bound<'py, PyAny>> {
        if digits <= 18 {
            // Eighteen nines are less than 2^63.
            let value = if negative { -(value as i64) } else { value as i64 };
            let Ok(value) = value.into_pyobject(self.py);
            return Ok(value.into_any());
        }
        self.large_integer(start)
    }

    #[cold]
    #[inline(never)]
    fn large_integer(&mut self, start: usize) -> Reading<Bound<'py, PyAny>> {
        let digits = String::from_utf8_lossy(&self.bytes[start..self.at]);
        self.py.get_type::<PyInt>().call1((digits,)).map_err(|error| {
            // Python 3.11 and later convert no more than 4300 digits unless told (CVE-2020-10735).
            if error.is_instance_of::<PyValueError>(self.py) {
                Box::new(Refusal::Malformed {
                    at: start,
                    reason: "integer of too many digits (see sys.set_int_max_str_digits)",
                })
            } else {
                Refusal::raised(error)
            }
        })
    }

    #[inline]
    fn float(&mut self, start: usize, negative: bool, digits: &Digits, power: i64) -> Reading<Bound<'py, PyAny>> {
        // Both the digits and the power of ten are exact floats here, and IEEE 754 rounds the one operation on them
        // correctly (Clinger 1990). The rest goes to the standard library, which is as exact and four times as slow.
        let exact = digits.count <= 19 && digits.value <= 1 << 53 && power.unsigned_abs() < POWERS_OF_TEN.len() as u64;
        let value = if exact {
            let ten = POWERS_OF_TEN[power.unsigned_abs() as usize];
            let value = if power < 0 { digits.value as f64 / ten } else { digits.value as f64 * ten };
            if negative { -value } else { value }
        } else {
            // ASCII by construction, and a number by the grammar above.
            let text = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default();
            text.parse().unwrap_or(f64::INFINITY)
        };
        if value.is_infinite() {
            self.at = start;
            return self.refuse("number too large for a float");
        }
        Ok(PyFloat::new(self.py, value).into_any())
    }

    /// Reads one or more digits, and returns how many.
    #[inline]
    fn digits(&mut self, digits: &mut Digits) -> Reading<usize> {
        let start = self.at;
        while let Some(&byte) = self.bytes.get(self.at)
            && byte.is_ascii_digit()
        {
            digits.value = digits.value.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
            self.at += 1;
        }
        let count = self.at - start;
        digits.count += count;
        if count == 0 { self.refuse("expected a digit") } else { Ok(count) }
    }

    fn exponent(&mut self) -> Reading<i64> {
        self.at += 1;
        let sign = self.bytes.get(self.at).copied();
        if let Some(b'+' | b'-') = sign {
            self.at += 1;
        }
        let mut digits = Digits::default();
        let count = self.digits(&mut digits)?;
        // An exponent that does not fit here leaves the fast way, and its text is parsed again in full.
        let value = if count <= 18 { digits.value as i64 } else { i64::MAX / 2 };
        Ok(if sign == Some(b'-') { -value } else { value })
    }

    /// Skips white space and returns the byte behind it, without stepping over that.
    #[inline]
    fn next_token(&mut self) -> Option<u8> {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    #[cold]
    fn refuse<T>(&self, reason: &'static str) -> Reading<T> {
        Err(Box::new(Refusal::Malformed { at: self.at, reason }))
    }
}

/// The digits of a number without its point. The value is right if there are no more than 19.
#[derive(Default)]
struct Digits {
    value: u64,
    count: usize,
}

/// The powers of ten that a float holds exactly.
const POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// Makes a `str`. CPython checks the UTF-8 while it decodes, so nobody does it before.
#[inline]
fn make_text<'py>(py: Python<'py>, bytes: &[u8], at: usize, source: Source) -> Reading<Bound<'py, PyString>> {
    PyString::from_bytes(py, bytes).or_else(|error| make_odd_text(py, bytes, at, source, error))
}

#[cold]
#[inline(never)]
fn make_odd_text<'py>(
    py: Python<'py>,
    bytes: &[u8],
    at: usize,
    source: Source,
    error: PyErr,
) -> Reading<Bound<'py, PyString>> {
    if source == Source::Bytes {
        check_utf8(bytes, at)?;
        return Err(Refusal::raised(error));
    }
    // SAFETY: the slice is `len` bytes long, we are attached, and the name is NUL-terminated. The result is a new
    // reference to a str, or null.
    unsafe {
        let text =
            ffi::PyUnicode_DecodeUTF8(bytes.as_ptr().cast(), bytes.len() as ffi::Py_ssize_t, c"surrogatepass".as_ptr());
        Ok(Bound::from_owned_ptr_or_err(py, text).map_err(Refusal::raised)?.cast_into_unchecked())
    }
}

fn check_utf8(bytes: &[u8], at: usize) -> Reading<()> {
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(()),
        Err(error) => Err(Box::new(Refusal::Malformed { at: at + error.valid_up_to(), reason: "invalid UTF-8" })),
    }
}

impl Refusal {
    #[cold]
    fn raised(error: PyErr) -> Box<Refusal> {
        Box::new(Refusal::Raised(error))
    }

    #[cold]
    fn into_error(self, py: Python<'_>, bytes: &[u8], skipped: usize, source: Source) -> PyErr {
        match self {
            Refusal::Raised(error) => error,
            Refusal::Malformed { at, reason } => {
                decode_error(py, bytes, at, skipped, source, reason).unwrap_or_else(|error| error)
            }
        }
    }
}

/// Makes a `json.JSONDecodeError` with our message, and its attributes counted in characters as it promises.
fn decode_error(
    py: Python<'_>,
    bytes: &[u8],
    at: usize,
    skipped: usize,
    source: Source,
    reason: &'static str,
) -> PyResult<PyErr> {
    let before = &bytes[..at];
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
    let column = 1 + characters(&before[line_start..]);
    let message = format!("invalid JSON at line {line} column {column} (byte {}): {reason}", at + skipped);
    let errors = if source == Source::Text { "surrogatepass" } else { "replace" };
    let document = PyBytes::new(py, bytes).call_method1("decode", ("utf-8", errors))?;
    let error = py.import("json")?.getattr("JSONDecodeError")?.call1((reason, document, characters(before)))?;
    error.setattr("args", (message,))?;
    Ok(PyErr::from_value(error))
}

fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte & 0xC0 != 0x80).count()
}
