//! Writes JSON: a walk over the Python objects that appends bytes as it goes.
//!
//! Rules:
//! 1. The exact types of JSON come first, by type pointer; everything else is in `special`.
//! 2. Compact (no spaces), UTF-8 as it is; only `"`, `\`, control characters and lone surrogates are escaped, the last
//!    because they have no UTF-8 and a text should never fail a response.
//! 3. NaN and infinity are refused (RFC 8259 §6 has no spelling for them). Floats are as short as reads back equal.
//! 4. Under the GIL nothing is owned while no Python code can run, as nobody else can release it then; a reference costs
//!    two calls in the limited API. `hold` comes before all that may run Python code, and owns every container that the
//!    walk is inside of; what else is needed afterwards is owned too. Without a GIL everything is owned, and read from
//!    dicts under their lock.
//! 5. Containers that change while they are written: see `contents`.
//! 6. Every value ends with a comma, every key with a colon, in one go with what is in front of it. The closing bracket
//!    takes the place of the last comma.
//! 7. A refusal names the place: `$.users[3].avatar`. `out` is then as it was before.

use std::mem::MaybeUninit;

use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::type_object::PyTypeInfo;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use super::MAX_DEPTH;
use super::contents::{ListItems, Members, TupleItems, changed_size};
use super::layout::{Layout, Wide};
use super::open::{self, Open};
use super::out::Out;
use super::refusal::Refusal;
use super::repeats::{self, Repeats};
use crate::symbols::{Symbols, symbols};

/// Appends `value` as JSON.
///
/// # Errors
/// `TypeError` for a type that has no JSON; `ValueError` for NaN, infinity, or nesting past [`MAX_DEPTH`], which is
/// also where an object that contains itself ends; whatever Python code on the way raises. `out` is as before then.
pub(crate) fn write(py: Python<'_>, value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    let start = out.len();
    let mut open_room: open::Room = [MaybeUninit::uninit(); MAX_DEPTH as usize];
    let mut repeats_room: repeats::Room = [MaybeUninit::uninit(); repeats::PLACES];
    let mut writer = Writer {
        py,
        out: Out::new(std::mem::take(out)),
        open: Open::new(&mut open_room),
        repeats: Repeats::new(py, &mut repeats_room),
        layout: Layout::current(py),
        symbols: symbols(),
    };
    let written = writer.value(value.as_borrowed(), 0);
    *out = writer.out.into_bytes();
    match written {
        Ok(()) => {
            // Its comma.
            out.pop();
            Ok(())
        }
        Err(refusal) => {
            out.truncate(start);
            Err(refusal.into_error())
        }
    }
}

pub(super) type Written = Result<(), Box<Refusal>>;

pub(super) struct Writer<'a, 'py> {
    pub(super) py: Python<'py>,
    pub(super) out: Out,
    open: Open<'a>,
    repeats: Repeats<'a, 'py>,
    layout: Layout,
    symbols: &'static Symbols,
}

impl<'py> Writer<'_, 'py> {
    /// Writes a value and a comma: rule 6.
    #[inline(never)]
    pub(super) fn value(&mut self, value: Borrowed<'_, 'py, PyAny>, depth: u32) -> Written {
        self.value_here(value, depth)
    }

    /// `value` for the loops, where most values are, and none is worth a call.
    #[inline(always)]
    fn value_here(&mut self, value: Borrowed<'_, 'py, PyAny>, depth: u32) -> Written {
        let py = self.py;
        let kind = value.get_type_ptr();
        if kind == PyString::type_object_raw(py) {
            self.text(value, b',')
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
            let (word, length) = if is_true { (*b"true,   ", 5) } else { (*b"false,  ", 6) };
            self.out.put(word, length);
            Ok(())
        } else if value.is_none() {
            self.out.put(*b"null,   ", 5);
            Ok(())
        } else if kind == PyTuple::type_object_raw(py) {
            self.tuple(value, depth)
        } else {
            self.hold();
            self.special(value.to_owned(), depth)
        }
    }

    /// Comes before whatever may run Python code: rule 4.
    #[inline]
    fn hold(&mut self) {
        self.open.hold();
    }

    #[inline(never)]
    fn dict(&mut self, dict: Borrowed<'_, 'py, PyAny>, depth: u32) -> Written {
        let depth = enter(depth)?;
        self.open.enter(dict);
        let written = self.members(dict, depth);
        self.open.leave();
        written
    }

    #[inline]
    fn members(&mut self, dict: Borrowed<'_, 'py, PyAny>, depth: u32) -> Written {
        let mut members = Members::of(dict, &self.layout);
        self.out.push(b'{');
        while let Some((key, value)) = members.next(&self.open)? {
            let start = self.out.len();
            if let Some(piece) = self.repeats.find(key.as_borrowed()) {
                // SAFETY: both `repeats` and `out` are ours.
                unsafe { self.out.repeat(piece) };
            } else if key.get_type_ptr() == PyString::type_object_raw(self.py)
                && self.lent_text(key.as_borrowed(), b':')
            {
                // The keys of the outermost object stand there once.
                if depth > 1
                    && !self.repeats.is_full()
                    && let Some(piece) = self.out.piece(start)
                {
                    self.repeats.remember(key.as_borrowed(), piece);
                }
            } else {
                self.odd_member(dict, key.as_borrowed(), value.as_borrowed(), depth)?;
                continue;
            }
            self.after_key(value.as_borrowed(), depth, start)?;
        }
        self.close(b'{', b'}');
        Ok(())
    }

    /// Writes a member of a dict whose key is no `str`, or a `str` that could not lend its UTF-8. Either may run Python
    /// code, which may take the member out of the dict.
    #[cold]
    #[inline(never)]
    fn odd_member(
        &mut self,
        dict: Borrowed<'_, 'py, PyAny>,
        key: Borrowed<'_, 'py, PyAny>,
        value: Borrowed<'_, 'py, PyAny>,
        depth: u32,
    ) -> Written {
        self.hold();
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
            self.text(key, b':')?;
        } else {
            self.special_key(key.to_owned(), depth)?;
        }
        self.after_key(value, depth, start)
    }

    /// Writes the value of a key that was written, with its colon, from `start` on.
    #[inline(always)]
    fn after_key(&mut self, value: Borrowed<'_, 'py, PyAny>, depth: u32, start: usize) -> Written {
        let end = self.out.len() - 1;
        // The key may be gone by then, but its text is still where we wrote it.
        self.value_here(value, depth).map_err(|refusal| refusal.at_key(&self.out.as_bytes()[start..end]))
    }

    #[inline(never)]
    pub(super) fn list(&mut self, list: Borrowed<'_, 'py, PyAny>, depth: u32) -> Written {
        let depth = enter(depth)?;
        self.open.enter(list);
        let written = self.items(list, depth);
        self.open.leave();
        written
    }

    #[inline]
    fn items(&mut self, list: Borrowed<'_, 'py, PyAny>, depth: u32) -> Written {
        let items = ListItems::of(list, &self.layout);
        self.out.push(b'[');
        let mut index = 0;
        while let Some(item) = items.at(index, &self.open) {
            self.value_here(item.as_borrowed(), depth).map_err(|refusal| refusal.at_index(index))?;
            index += 1;
        }
        self.close(b'[', b']');
        Ok(())
    }

    #[inline(never)]
    fn tuple(&mut self, tuple: Borrowed<'_, 'py, PyAny>, depth: u32) -> Written {
        let depth = enter(depth)?;
        self.open.enter(tuple);
        let written = self.tuple_items(tuple, depth);
        self.open.leave();
        written
    }

    #[inline]
    fn tuple_items(&mut self, tuple: Borrowed<'_, 'py, PyAny>, depth: u32) -> Written {
        let items = TupleItems::of(tuple, &self.layout);
        self.out.push(b'[');
        let mut index = 0;
        while let Some(item) = items.at(index) {
            self.item(item, index, depth)?;
            index += 1;
        }
        self.close(b'[', b']');
        Ok(())
    }

    /// Writes an item of an array.
    pub(super) fn item(&mut self, item: Borrowed<'_, 'py, PyAny>, index: usize, depth: u32) -> Written {
        self.value(item, depth).map_err(|refusal| refusal.at_index(index))
    }

    /// Ends a container: its bracket takes the place of the last comma, if there is one.
    #[inline]
    pub(super) fn close(&mut self, opening: u8, closing: u8) {
        if self.out.as_bytes().last() == Some(&opening) {
            self.out.put([closing, b','], 2);
        } else {
            self.out.replace_last(closing);
            self.out.push(b',');
        }
    }

    /// Writes a `str`, or what a subclass of it holds, and the byte that comes after it.
    #[inline]
    pub(super) fn text(&mut self, text: Borrowed<'_, 'py, PyAny>, after: u8) -> Written {
        if self.lent_text(text, after) { Ok(()) } else { self.odd_text(text, after) }
    }

    /// Writes a `str` that can lend its UTF-8. If it can't, nothing is written and an exception may be set.
    #[inline]
    fn lent_text(&mut self, text: Borrowed<'_, 'py, PyAny>, after: u8) -> bool {
        // SAFETY: a str by the caller's check of the type.
        let Some(ascii) = (unsafe { self.layout.ascii(text.as_ptr()) }) else {
            return self.lent_wide(text, after);
        };
        // SAFETY: borrowed from a str that nothing releases here, as nothing of Python's runs.
        unsafe {
            if !self.out.quote_ascii(ascii, after) {
                self.quote_escaped(ascii.bytes(), after);
            }
        }
        true
    }

    #[inline(never)]
    fn lent_wide(&mut self, text: Borrowed<'_, 'py, PyAny>, after: u8) -> bool {
        // SAFETY: a str by the caller's check of the type, that nothing releases here, as nothing of Python's runs.
        match unsafe { self.layout.wide(text.as_ptr()) } {
            Some(Wide::Utf8(bytes)) => self.quote(bytes, after),
            Some(Wide::Latin1(text)) => self.out.quote_characters(text, after),
            Some(Wide::Ucs2(text)) => self.out.quote_characters(text, after),
            Some(Wide::Ucs4(text)) => self.out.quote_characters(text, after),
            None => return self.lent_utf8(text, after),
        }
        true
    }

    #[inline(never)]
    fn lent_utf8(&mut self, text: Borrowed<'_, 'py, PyAny>, after: u8) -> bool {
        let Some(as_utf8_and_size) = self.symbols.as_utf8_and_size else { return false };
        // The exception for a lone surrogate is an object, of which making one may run finalisers.
        self.hold();
        let mut size = 0;
        // SAFETY: a str by the caller's check of the type, and we are attached.
        let data = unsafe { as_utf8_and_size(text.as_ptr(), &raw mut size) };
        if data.is_null() {
            return false;
        }
        // SAFETY: CPython lends `size` bytes for as long as the str lives. It lives while nothing runs that could release
        // it, and between here and the copy nothing of Python's runs.
        let bytes = unsafe { std::slice::from_raw_parts(data.cast(), size as usize) };
        self.quote(bytes, after);
        true
    }

    #[inline]
    fn quote(&mut self, utf8: &[u8], after: u8) {
        if !self.out.quote(utf8, after) {
            self.quote_escaped(utf8, after);
        }
    }

    #[cold]
    #[inline(never)]
    fn quote_escaped(&mut self, bytes: &[u8], after: u8) {
        self.out.push(b'"');
        self.out.escape(bytes);
        self.out.extend(&[b'"', after]);
    }

    /// Writes a `str` that could not lend its UTF-8: it has lone surrogates, or this interpreter lacks the function.
    #[cold]
    #[inline(never)]
    fn odd_text(&mut self, text: Borrowed<'_, 'py, PyAny>, after: u8) -> Written {
        self.hold();
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
        self.quote_surrogates(encoded.as_bytes(), after);
        Ok(())
    }

    /// Writes a string in its quotes, of which surrogates are encoded as if they were characters: three bytes, of which
    /// the first is 0xED and the second, as in no other character, at least 0xA0.
    fn quote_surrogates(&mut self, mut rest: &[u8], after: u8) {
        self.out.push(b'"');
        while let Some(at) = rest.windows(2).position(|pair| pair[0] == 0xED && pair[1] >= 0xA0) {
            let (before, tail) = rest.split_at(at);
            self.out.escape(before);
            let Some((&[_, second, third], tail)) = tail.split_first_chunk::<3>() else { break };
            let code = 0xD000 | u16::from(second & 0x3F) << 6 | u16::from(third & 0x3F);
            self.out.extend(format!("\\u{code:04x}").as_bytes());
            rest = tail;
        }
        self.out.escape(rest);
        self.out.extend(&[b'"', after]);
    }

    /// Writes an `int`, or what a subclass of it holds.
    #[inline]
    pub(super) fn integer(&mut self, integer: Borrowed<'_, 'py, PyAny>) -> Written {
        // SAFETY: an int by the caller's check of the type.
        match unsafe { self.layout.integer(integer.as_ptr()) } {
            Some(value) => {
                self.out.integer(value);
                Ok(())
            }
            None => self.odd_integer(integer),
        }
    }

    #[inline(never)]
    fn odd_integer(&mut self, integer: Borrowed<'_, 'py, PyAny>) -> Written {
        let mut overflow = 0;
        // SAFETY: an int by the caller's check of the type, and we are attached; on an int this can't fail.
        let value = unsafe { ffi::PyLong_AsLongLongAndOverflow(integer.as_ptr(), &raw mut overflow) };
        if overflow != 0 {
            return self.large_integer(integer);
        }
        self.out.integer(value);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn large_integer(&mut self, integer: Borrowed<'_, 'py, PyAny>) -> Written {
        // Of many digits, Python 3.12 makes a text with Python code.
        self.hold();
        let integer = integer.to_owned();
        // SAFETY: as above; the result is a new reference or null. Unlike `str()` this asks no subclass.
        let digits = unsafe {
            Bound::from_owned_ptr_or_err(self.py, ffi::PyNumber_ToBase(integer.as_ptr(), 10))
                .map_err(|error| self.too_many_digits(error))?
        };
        let digits = digits.cast_into::<PyString>().map_err(Refusal::raised)?;
        self.out.extend(digits.to_cow().map_err(Refusal::raised)?.as_bytes());
        self.out.push(b',');
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
        let value =
            unsafe { self.layout.float(float.as_ptr()).unwrap_or_else(|| ffi::PyFloat_AsDouble(float.as_ptr())) };
        if !value.is_finite() {
            return Err(not_finite(value));
        }
        self.out.float(value);
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
