//! JSON at the door: Python objects straight to bytes (`write`), and bytes straight to Python objects (`read`).
//!
//! Rules:
//! 1. What the `json` module reads or writes is read or written alike, save for the list in rule 2.
//!    `tests_py/test_json.py` shows it.
//! 2. Stricter than `json`, because RFC 8259 is: no `NaN` or `Infinity` in either direction, nor a number too large
//!    for a float (`1e999`, which `json` turns into infinity); bytes must be UTF-8, not UTF-16 or UTF-32, and hold no
//!    encoded surrogates; nesting ends at [`MAX_DEPTH`].
//! 3. Looser than `json` when writing: sets, enums, dates, UUIDs, decimals, dataclasses and models, see `special`.
//! 4. Neither direction builds a tree in between, and neither panics on what it is given.
//!
//! Why no parser crate. jiter is made for this, but does not compile for the limited API of Python 3.9, ends at 200
//! levels, refuses lone surrogates and turns every exception into a text. serde_json's visitor has no place for integers
//! past 64 bits and refuses lone surrogates. And both are slower. 27 bytes and 10 KB, AMD EPYC, CPython 3.11, fat LTO:
//! jiter 0.17 105 ns and 42 us (built for 3.10, with its cache of all strings), serde_json 129 ns and 53 us, this 108 ns
//! and 28 us, of which it could save 15 ns in the limited API of 3.10.

#[cfg_attr(Py_GIL_DISABLED, allow(dead_code, reason = "nothing is read in place there"))]
mod contents;
mod keys;
#[cfg_attr(Py_GIL_DISABLED, allow(dead_code, reason = "nothing is read in place there"))]
mod layout;
#[cfg_attr(Py_GIL_DISABLED, allow(dead_code, reason = "nothing is read in place there"))]
mod open;
mod out;
mod read;
mod refusal;
mod repeats;
mod scan;
mod special;
mod write;

use std::borrow::Cow;
use std::cell::Cell;

use bytes::Bytes;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PyString};

use crate::symbols::symbols;

pub(crate) use contents::TupleItems;
pub(crate) use layout::{Layout, json_layout, test_layout};
pub(crate) use read::read;
pub(crate) use write::write;

/// Returns a value as JSON.
///
/// # Errors
/// As `write`.
pub(crate) fn to_bytes(py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    written(py, value, |out| {
        // What is not kept need not be copied.
        if out.capacity() > LARGEST_KEPT { Bytes::from(std::mem::take(out)) } else { Bytes::copy_from_slice(out) }
    })
}

/// Calls `take` with a value as JSON.
///
/// Every thread writes to the room it wrote to before, so that nothing grows, and what is made of it has just the length
/// it needs. For the 11 KB document that is 0.3 us less than growing, and for small ones it is not more.
#[inline]
fn written<T>(py: Python<'_>, value: &Bound<'_, PyAny>, take: impl FnOnce(&mut Vec<u8>) -> T) -> PyResult<T> {
    thread_local!(static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) });
    // Taken out, as the walk may run Python code that writes JSON too. Where a thread ends there is none.
    let mut out = ROOM.try_with(Cell::take).unwrap_or_default();
    write(py, value, &mut out)?;
    let taken = take(&mut out);
    if out.capacity() <= LARGEST_KEPT {
        out.clear();
        let _ = ROOM.try_with(|room| room.set(out));
    }
    Ok(taken)
}

/// 64 KiB for each thread that writes, which is more than almost all answers have.
const LARGEST_KEPT: usize = 64 * 1024;

/// Levels of arrays and objects, in both directions, so that what was read can be written. RFC 8259 §9 leaves the
/// limit to us. Twice what `serde_json` allows and far past any real document; at this depth either direction uses
/// less than 128 KiB of stack, which is the smallest default for a thread (musl).
pub(crate) const MAX_DEPTH: u32 = 256;

/// Writes a value as JSON.
#[pyfunction]
#[pyo3(signature = (value, /))]
pub(crate) fn json_dumps<'py>(py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    written(py, value, |out| PyBytes::new(py, out))
}

/// Reads a JSON document.
#[pyfunction]
#[pyo3(signature = (data, /))]
pub(crate) fn json_loads<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = data.py();
    if let Ok(bytes) = data.cast::<PyBytes>() {
        read(py, bytes.as_bytes())
    } else if let Ok(text) = data.cast::<PyString>() {
        read::read_text(py, &utf8(text)?)
    } else if let Ok(bytes) = data.cast::<PyByteArray>() {
        // Copied, as a finaliser that runs while we read could change it.
        read(py, &bytes.to_vec())
    } else if data.is_instance_of::<PyMemoryView>() {
        let bytes = py.get_type::<PyBytes>().call1((data,))?;
        read(py, bytes.cast::<PyBytes>()?.as_bytes())
    } else {
        let found = data.get_type().qualname()?;
        Err(PyTypeError::new_err(format!("JSON is read from bytes, str, bytearray or memoryview, not {found}")))
    }
}

/// Returns the UTF-8 of a text, lent if the interpreter can. Lone surrogates come out as three bytes each, as if
/// they were characters ("WTF-8").
fn utf8<'a>(text: &'a Bound<'_, PyString>) -> PyResult<Cow<'a, [u8]>> {
    if let Some(as_utf8_and_size) = symbols().as_utf8_and_size {
        let mut size = 0;
        // SAFETY: `text` is a str, and we are attached.
        let data = unsafe { as_utf8_and_size(text.as_ptr(), &raw mut size) };
        if !data.is_null() {
            // SAFETY: CPython lends `size` bytes for as long as the str lives, and `text` keeps it alive for 'a.
            return Ok(Cow::Borrowed(unsafe { std::slice::from_raw_parts(data.cast(), size as usize) }));
        }
        // Out of memory, which the next call finds out again, or a lone surrogate.
        drop(PyErr::take(text.py()));
    }
    // SAFETY: `text` is a str, we are attached, and the names are NUL-terminated. The result is a new reference or null.
    let bytes = unsafe {
        let encoded = ffi::PyUnicode_AsEncodedString(text.as_ptr(), c"utf-8".as_ptr(), c"surrogatepass".as_ptr());
        Bound::from_owned_ptr_or_err(text.py(), encoded)?
    };
    Ok(Cow::Owned(bytes.cast::<PyBytes>()?.as_bytes().to_vec()))
}
