//! Writes JSON: a walk over the Python objects that appends bytes as it goes.
//!
//! Rules:
//! 1. The exact types of JSON come first, by type pointer; everything else is in `special`.
//! 2. Compact (no spaces), UTF-8 as it is; only `"`, `\`, control characters and lone surrogates are escaped, the last
//!    because they have no UTF-8 and a text should never fail a response.
//! 3. NaN and infinity are refused (RFC 8259 §6 has no spelling for them). Floats are as short as reads back equal.
//! 4. Under the GIL a text, number, bool or None is looked at without a reference of our own: nothing that is done with
//!    it runs Python code, and taking one costs two calls in the limited API (17.1 us instead of 14.5 for 10 KB).
//!    Whatever may run Python code is owned first. Without a GIL everything is owned, and read from dicts under their
//!    lock.
//! 5. A dict that changes its size under the walk raises RuntimeError, as a `for` loop does. A list is written up to
//!    the length it had at first, or to its end if that comes sooner. Both end.
//! 6. A refusal names the place: `$.users[3].avatar`. `out` is then as it was before.

use std::io::Write as _;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::type_object::PyTypeInfo;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use super::MAX_DEPTH;
use super::refusal::Refusal;
use super::scan::copy_plain;
use crate::symbols::{Symbols, symbols};

/// Appends `value` as JSON.
///
/// # Errors
/// `TypeError` for a type that has no JSON; `ValueError` for NaN, infinity, or nesting past [`MAX_DEPTH`], which is
/// also where an object that contains itself ends; whatever Python code on the way raises. `out` is as before then.
pub(crate) fn write(py: Python<'_>, value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    let start = out.len();
    let mut writer = Writer { py, out: std::mem::take(out), symbols: symbols() };
    let written = writer.value(value.as_borrowed(), 0);
    *out = writer.out;
    written.map_err(|refusal| {
        out.truncate(start);
        refusal.into_error()
    })
}

/// A member of a list or dict while it is looked at: rule 4.
#[cfg(not(Py_GIL_DISABLED))]
type Member<'a, 'py> = Borrowed<'a, 'py, PyAny>;
#[cfg(Py_GIL_DISABLED)]
type Member<'a, 'py> = Bound<'py, PyAny>;

pub(super) type Written = Result<(), Box<Refusal>>;

pub(super) struct Writer<'py> {
    pub(super) py: Python<'py>,
    pub(super) out: Vec<u8>,
    symbols: &'static Symbols,
}

impl<'py> Writer<'py> {
    #[inline]
    pub(super) fn value(&mut self, value: Borrowed<'_, 'py, PyAny>, depth: u32) -> Written {
        let py = self.py;
        let kind = value.get_type_ptr();
        if kind == PyString::type_object_raw(py) {
            self.text(value)
        } else if kind == PyInt::type_object_raw(py) {
            self.integer(value)
        } else if kind == PyDict::type_object_raw(py) {
            self.dict(value, depth)
        } else if kind == PyList::type_object_raw(py) {
            self.list(value, depth)
        } else if kind == PyFloat::type_object_raw(py) {
            self.float(value)
        } else if kind == PyBool::type_object_raw(py) {
            // SAFETY: only compares the address of the one True.
            let is_true = unsafe { value.as_ptr() == ffi::Py_True() };
            self.out.extend_from_slice(if is_true { b"true" } else { b"false" });
            Ok(())
        } else if value.is_none() {
            self.out.extend_from_slice(b"null");
            Ok(())
        } else if kind == PyTuple::type_object_raw(py) {
            self.tuple(value, depth)
        } else {
            self.special(value.to_owned(), depth)
        }
    }

    #[inline(never)]
    fn dict(&mut self, dict: Borrowed<'_, 'py, PyAny>, depth: u32) -> Written {
        let depth = enter(depth)?;
        let dict = dict.to_owned();
        let mut members = Members::of(&dict);
        self.out.push(b'{');
        while let Some((key, value)) = members.next()? {
            let start = self.out.len();
            if key.get_type_ptr() == PyString::type_object_raw(self.py) && self.lent_text(key.as_borrowed()) {
                self.after_key(value.as_borrowed(), depth, start)?;
            } else {
                self.odd_member(&dict, key.as_borrowed(), value.as_borrowed(), depth)?;
            }
        }
        self.close(b'}');
        Ok(())
    }

    /// Writes a member of a dict whose key is no `str`, or a `str` that could not lend its UTF-8. Either may run Python
    /// code, which may take the member out of the dict.
    #[cold]
    #[inline(never)]
    fn odd_member(
        &mut self,
        dict: &Bound<'py, PyAny>,
        key: Borrowed<'_, 'py, PyAny>,
        value: Borrowed<'_, 'py, PyAny>,
        depth: u32,
    ) -> Written {
        // If lending failed, the exception still holds the key. But making one may have run finalisers, so that the
        // value is looked up anew.
        let key = key.to_owned();
        let value = if PyErr::take(self.py).is_none() {
            value.to_owned()
        } else {
            // SAFETY: an exact dict by the caller's check of the type.
            let dict = unsafe { dict.cast_unchecked::<PyDict>() };
            dict.get_item(&key).map_err(Refusal::raised)?.ok_or_else(changed_size)?
        };
        self.member(key.as_borrowed(), value.as_borrowed(), depth)
    }

    /// Writes a key, its value and a comma. Both are owned by the caller.
    #[inline]
    pub(super) fn member(
        &mut self,
        key: Borrowed<'_, 'py, PyAny>,
        value: Borrowed<'_, 'py, PyAny>,
        depth: u32,
    ) -> Written {
        let start = self.out.len();
        if key.get_type_ptr() == PyString::type_object_raw(self.py) {
            self.text(key)?;
        } else {
            self.special_key(key.to_owned(), depth)?;
        }
        self.after_key(value, depth, start)
    }

    /// Writes what follows a key that was written from `start` on.
    #[inline]
    fn after_key(&mut self, value: Borrowed<'_, 'py, PyAny>, depth: u32, start: usize) -> Written {
        let end = self.out.len();
        self.out.push(b':');
        if let Err(refusal) = self.value(value, depth) {
            // The key may be gone by now, but its text is still where we wrote it.
            return Err(refusal.at_key(&self.out[start..end]));
        }
        self.out.push(b',');
        Ok(())
    }

    #[inline(never)]
    pub(super) fn list(&mut self, list: Borrowed<'_, 'py, PyAny>, depth: u32) -> Written {
        let depth = enter(depth)?;
        let list = list.to_owned();
        // SAFETY: a list, or a subclass of it, by the caller's check of the type.
        let length = unsafe { list.cast_unchecked::<PyList>() }.len();
        self.out.push(b'[');
        for index in 0..length {
            let Some(item) = list_item(&list, index) else { break };
            self.item(item.as_borrowed(), index, depth)?;
        }
        self.close(b']');
        Ok(())
    }

    #[inline(never)]
    fn tuple(&mut self, tuple: Borrowed<'_, 'py, PyAny>, depth: u32) -> Written {
        let depth = enter(depth)?;
        let tuple = tuple.to_owned().cast_into::<PyTuple>().map_err(Refusal::raised)?;
        self.out.push(b'[');
        // A tuple never changes, so its items live as long as it does.
        for (index, item) in tuple.iter_borrowed().enumerate() {
            self.item(item, index, depth)?;
        }
        self.close(b']');
        Ok(())
    }

    /// Writes a value and a comma.
    #[inline]
    pub(super) fn item(&mut self, item: Borrowed<'_, 'py, PyAny>, index: usize, depth: u32) -> Written {
        self.value(item, depth).map_err(|refusal| refusal.at_index(index))?;
        self.out.push(b',');
        Ok(())
    }

    /// Ends a container: its bracket takes the place of the last comma, if there is one.
    #[inline]
    pub(super) fn close(&mut self, bracket: u8) {
        match self.out.last_mut() {
            Some(last) if *last == b',' => *last = bracket,
            _ => self.out.push(bracket),
        }
    }

    /// Writes a `str`, or what a subclass of it holds.
    #[inline]
    pub(super) fn text(&mut self, text: Borrowed<'_, 'py, PyAny>) -> Written {
        if self.lent_text(text) { Ok(()) } else { self.odd_text(text) }
    }

    /// Writes a `str` that can lend its UTF-8. If it can't, nothing is written and an exception may be set.
    #[inline]
    fn lent_text(&mut self, text: Borrowed<'_, 'py, PyAny>) -> bool {
        let Some(as_utf8_and_size) = self.symbols.as_utf8_and_size else { return false };
        let mut size = 0;
        // SAFETY: a str by the caller's check of the type, and we are attached.
        let data = unsafe { as_utf8_and_size(text.as_ptr(), &raw mut size) };
        if data.is_null() {
            return false;
        }
        // SAFETY: CPython lends `size` bytes for as long as the str lives. It lives while nothing runs that could release
        // it, and between here and the copy nothing of Python's runs.
        let bytes = unsafe { std::slice::from_raw_parts(data.cast(), size as usize) };
        self.quote(bytes);
        true
    }

    /// Writes a `str` that could not lend its UTF-8: it has lone surrogates, or this interpreter lacks the function.
    #[cold]
    #[inline(never)]
    fn odd_text(&mut self, text: Borrowed<'_, 'py, PyAny>) -> Written {
        // Owned before the exception goes, which may be the last to hold it.
        let text = text.to_owned();
        drop(PyErr::take(self.py));
        // SAFETY: a str by the caller's check of the type, we are attached, and the names are NUL-terminated. The
        // result is a new reference or null.
        let encoded = unsafe {
            let encoded = ffi::PyUnicode_AsEncodedString(text.as_ptr(), c"utf-8".as_ptr(), c"surrogatepass".as_ptr());
            Bound::from_owned_ptr_or_err(self.py, encoded).map_err(Refusal::raised)?
        };
        let encoded = encoded.cast_into::<PyBytes>().map_err(Refusal::raised)?;
        self.quote_surrogates(encoded.as_bytes());
        Ok(())
    }

    /// Writes a string in its quotes, of which surrogates are encoded as if they were characters: three bytes, of which
    /// the first is 0xED and the second, as in no other character, at least 0xA0.
    fn quote_surrogates(&mut self, mut rest: &[u8]) {
        self.out.push(b'"');
        while let Some(at) = rest.windows(2).position(|pair| pair[0] == 0xED && pair[1] >= 0xA0) {
            let (before, after) = rest.split_at(at);
            self.quoted(before);
            let Some((&[_, second, third], after)) = after.split_first_chunk::<3>() else { break };
            let code = 0xD000 | u16::from(second & 0x3F) << 6 | u16::from(third & 0x3F);
            // Infallible: it writes to a Vec.
            let _ = write!(self.out, "\\u{code:04x}");
            rest = after;
        }
        self.quoted(rest);
        self.out.push(b'"');
    }

    /// Writes a string in its quotes.
    #[inline]
    fn quote(&mut self, utf8: &[u8]) {
        self.out.push(b'"');
        self.quoted(utf8);
        self.out.push(b'"');
    }

    #[inline]
    fn quoted(&mut self, bytes: &[u8]) {
        let length = copy_plain(bytes, &mut self.out);
        if length < bytes.len() {
            self.escape(&bytes[length..]);
        }
    }

    #[cold]
    #[inline(never)]
    fn escape(&mut self, mut rest: &[u8]) {
        while let Some((&byte, tail)) = rest.split_first() {
            let short = match byte {
                b'"' => b'"',
                b'\\' => b'\\',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                b'\x08' => b'b',
                b'\x0c' => b'f',
                _ => b'u',
            };
            self.out.extend_from_slice(&[b'\\', short]);
            if short == b'u' {
                let digit = |value: u8| b"0123456789abcdef"[usize::from(value & 15)];
                self.out.extend_from_slice(&[b'0', b'0', digit(byte >> 4), digit(byte)]);
            }
            let length = copy_plain(tail, &mut self.out);
            rest = &tail[length..];
        }
    }

    /// Writes an `int`, or what a subclass of it holds.
    #[inline]
    pub(super) fn integer(&mut self, integer: Borrowed<'_, 'py, PyAny>) -> Written {
        let mut overflow = 0;
        // SAFETY: an int by the caller's check of the type, and we are attached; on an int this can't fail.
        let value = unsafe { ffi::PyLong_AsLongLongAndOverflow(integer.as_ptr(), &raw mut overflow) };
        if overflow != 0 {
            return self.large_integer(integer);
        }
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn large_integer(&mut self, integer: Borrowed<'_, 'py, PyAny>) -> Written {
        let integer = integer.to_owned();
        // SAFETY: as above; the result is a new reference or null. Unlike `str()` this asks no subclass.
        let digits = unsafe {
            Bound::from_owned_ptr_or_err(self.py, ffi::PyNumber_ToBase(integer.as_ptr(), 10))
                .map_err(|error| self.too_many_digits(error))?
        };
        let digits = digits.cast_into::<PyString>().map_err(Refusal::raised)?;
        self.out.extend_from_slice(digits.to_cow().map_err(Refusal::raised)?.as_bytes());
        Ok(())
    }

    /// Python 3.11 and later convert no more than 4300 digits unless told (CVE-2020-10735).
    fn too_many_digits(&self, error: PyErr) -> Box<Refusal> {
        if error.is_instance_of::<PyValueError>(self.py) {
            Refusal::value("integer of too many digits", "see sys.set_int_max_str_digits")
        } else {
            Refusal::raised(error)
        }
    }

    /// Writes a `float`, or what a subclass of it holds.
    #[inline]
    pub(super) fn float(&mut self, float: Borrowed<'_, 'py, PyAny>) -> Written {
        // SAFETY: a float by the caller's check of the type, and we are attached; on a float this can't fail.
        let value = unsafe { ffi::PyFloat_AsDouble(float.as_ptr()) };
        if !value.is_finite() {
            return Err(not_finite(value));
        }
        self.out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
        Ok(())
    }
}

/// Steps one level down.
#[inline]
pub(super) fn enter(depth: u32) -> Result<u32, Box<Refusal>> {
    if depth >= MAX_DEPTH {
        return Err(Refusal::value(format!("nested deeper than {MAX_DEPTH} levels, or containing itself"), ""));
    }
    Ok(depth + 1)
}

#[cold]
pub(super) fn not_finite(value: f64) -> Box<Refusal> {
    let name = if value.is_nan() { "NaN" } else { "Infinity" };
    Refusal::value(format!("{name} is not JSON serializable"), "")
}

/// The items of a dict in order: rule 5.
struct Members<'a, 'py> {
    dict: &'a Bound<'py, PyAny>,
    position: ffi::Py_ssize_t,
    left: usize,
}

impl<'a, 'py> Members<'a, 'py> {
    #[inline]
    fn of(dict: &'a Bound<'py, PyAny>) -> Self {
        // SAFETY: an exact dict by the caller's check of the type.
        let left = unsafe { dict.cast_unchecked::<PyDict>() }.len();
        Members { dict, position: 0, left }
    }

    #[inline]
    #[allow(clippy::type_complexity, reason = "a pair of members, perhaps, or a refusal")]
    fn next(&mut self) -> Result<Option<(Member<'a, 'py>, Member<'a, 'py>)>, Box<Refusal>> {
        let member = self.step();
        match (&member, self.left) {
            (Some(_), 1..) => self.left -= 1,
            (None, 0) => {}
            _ => return Err(changed_size()),
        }
        Ok(member)
    }

    #[cfg(not(Py_GIL_DISABLED))]
    #[inline]
    fn step(&mut self) -> Option<(Member<'a, 'py>, Member<'a, 'py>)> {
        let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: an exact dict by the caller's check of the type, and we are attached. The members are borrowed from
        // the dict; `Writer` owns what it needs for longer than it takes until Python code may run.
        unsafe {
            (ffi::PyDict_Next(self.dict.as_ptr(), &raw mut self.position, &raw mut key, &raw mut value) != 0).then(
                || {
                    let py = self.dict.py();
                    (Borrowed::from_ptr(py, key), Borrowed::from_ptr(py, value))
                },
            )
        }
    }

    #[cfg(Py_GIL_DISABLED)]
    fn step(&mut self) -> Option<(Member<'a, 'py>, Member<'a, 'py>)> {
        let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
        pyo3::sync::critical_section::with_critical_section(self.dict, || {
            // SAFETY: an exact dict by the caller's check of the type, locked, so that the members live until they are
            // owned.
            unsafe {
                (ffi::PyDict_Next(self.dict.as_ptr(), &raw mut self.position, &raw mut key, &raw mut value) != 0).then(
                    || {
                        let py = self.dict.py();
                        (Bound::from_borrowed_ptr(py, key), Bound::from_borrowed_ptr(py, value))
                    },
                )
            }
        })
    }
}

#[cold]
fn changed_size() -> Box<Refusal> {
    Refusal::raised(PyRuntimeError::new_err("dictionary changed size during iteration"))
}

/// The item of a list at `index`, if the list is still that long.
#[cfg(not(Py_GIL_DISABLED))]
#[inline]
fn list_item<'a, 'py>(list: &'a Bound<'py, PyAny>, index: usize) -> Option<Member<'a, 'py>> {
    // SAFETY: a list by the caller's check of the type, and we are attached. The item is borrowed from the list; `Writer`
    // owns what it needs for longer than it takes until Python code may run.
    unsafe {
        let item = ffi::PyList_GetItem(list.as_ptr(), index as ffi::Py_ssize_t);
        if item.is_null() {
            ffi::PyErr_Clear();
            return None;
        }
        Some(Borrowed::from_ptr(list.py(), item))
    }
}

#[cfg(Py_GIL_DISABLED)]
fn list_item<'a, 'py>(list: &'a Bound<'py, PyAny>, index: usize) -> Option<Member<'a, 'py>> {
    list.cast::<PyList>().ok()?.get_item(index).ok()
}
