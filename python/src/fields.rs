//! Header fields as Python sees them: read-only on requests, mutable on responses.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use pyo3::{
    exceptions::{PyKeyError, PyTypeError, PyValueError},
    prelude::*,
    types::{PyDict, PyIterator, PyList, PyString},
};

use crate::{request::PyRequest, response::PyResponse, symbols::symbols};

/// A field value as text: field values are bytes, read as ISO-8859-1 (RFC 9110 §5.5), so every byte has a character.
pub(crate) fn value_text(value: &HeaderValue) -> Cow<'_, str> {
    match value.to_str() {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(value.as_bytes().iter().map(|&byte| char::from(byte)).collect()),
    }
}

/// Makes a field name.
///
/// # Errors
/// `ValueError` if it is not a token (RFC 9110 §5.6.2).
pub(crate) fn name(text: &str) -> PyResult<HeaderName> {
    let not_a_token = |_| PyValueError::new_err(format!("field name {text:?} is not a token (RFC 9110 §5.6.2)"));
    HeaderName::from_bytes(text.as_bytes()).map_err(not_a_token)
}

/// Makes a field value.
///
/// # Errors
/// `ValueError` for control characters (a line break would split the response, RFC 9110 §5.5) and for characters
/// outside ISO-8859-1.
pub(crate) fn value(name: &str, text: &str) -> PyResult<HeaderValue> {
    let invalid = |what: &str| PyValueError::new_err(format!("value of field {name:?} {what} (RFC 9110 §5.5)"));
    if text.is_ascii() {
        return HeaderValue::from_str(text).map_err(|_| invalid("has a control character"));
    }
    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
    let bytes = bytes.ok_or_else(|| invalid("has a character outside ISO-8859-1; encode it first"))?;
    HeaderValue::from_bytes(&bytes).map_err(|_| invalid("has a control character"))
}

/// Reads fields from a mapping or an iterable of pairs.
pub(crate) fn extend(headers: &mut HeaderMap, fields: &Bound<'_, PyAny>) -> PyResult<()> {
    let mut add = |key: &Bound<'_, PyAny>, text: &Bound<'_, PyAny>| -> PyResult<()> {
        let key = text_of(key)?;
        headers.append(name(&key)?, value(&key, &text_of(text)?)?);
        Ok(())
    };
    if let Ok(dict) = fields.cast::<PyDict>() {
        for (key, text) in dict.iter() {
            add(&key, &text)?;
        }
        return Ok(());
    }
    let pairs = if fields.hasattr("items")? { fields.call_method0("items")? } else { fields.clone() };
    for pair in pairs.try_iter()? {
        let (key, text): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair?.extract()?;
        add(&key, &text)?;
    }
    Ok(())
}

/// The text of a `str` without a copy, where the interpreter lends it: the limited API copies it twice.
///
/// # Errors
/// `UnicodeEncodeError` for lone surrogates, which have no UTF-8.
pub(crate) fn lent<'a>(text: &'a Bound<'_, PyString>) -> PyResult<Cow<'a, str>> {
    let Some(as_utf8_and_size) = symbols().as_utf8_and_size else { return text.to_cow() };
    let mut size = 0;
    // SAFETY: `text` is a live str, and we are attached.
    let data = unsafe { as_utf8_and_size(text.as_ptr(), &raw mut size) };
    if data.is_null() {
        return Err(PyErr::fetch(text.py()));
    }
    // SAFETY: CPython lends `size` bytes of UTF-8 for as long as the str lives, which the borrow outlives not.
    Ok(Cow::Borrowed(unsafe {
        std::str::from_utf8_unchecked(std::slice::from_raw_parts(data.cast(), size.unsigned_abs()))
    }))
}

fn text_of(object: &Bound<'_, PyAny>) -> PyResult<String> {
    if let Ok(text) = object.cast::<PyString>() {
        return Ok(text.to_cow()?.into_owned());
    }
    if let Ok(bytes) = object.cast::<pyo3::types::PyBytes>() {
        return Ok(bytes.as_bytes().iter().map(|&byte| char::from(byte)).collect());
    }
    Err(PyTypeError::new_err(format!("header fields are str, not {}", object.get_type().name()?)))
}

/// All lines of a field, joined as RFC 9110 §5.3 allows.
pub(crate) fn joined(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let first = value_text(values.next()?).into_owned();
    Some(values.fold(first, |mut all, value| {
        all.push_str(", ");
        all.push_str(&value_text(value));
        all
    }))
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), value_text(value).into_owned())).collect()
}

fn names(headers: &HeaderMap) -> Vec<String> {
    headers.keys().map(|name| name.as_str().to_owned()).collect()
}

fn all(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(|value| value_text(value).into_owned()).collect()
}

fn iterate<'py>(py: Python<'py>, items: Vec<String>) -> PyResult<Bound<'py, PyIterator>> {
    PyList::new(py, items)?.try_iter()
}

/// Whether a mapping of these items equals another object, which may be any mapping.
pub(crate) fn equals(items: Vec<(String, String)>, other: &Bound<'_, PyAny>) -> PyResult<bool> {
    let mine = PyDict::new(other.py());
    for (name, value) in items {
        mine.set_item(name, value)?;
    }
    let theirs = PyDict::new(other.py());
    if theirs.as_any().call_method1("update", (other,)).is_err() {
        return Ok(false);
    }
    mine.eq(theirs)
}

/// A request's header fields: case-insensitive and multi-valued.
#[pyclass(frozen, mapping, module = "httpy")]
pub(crate) struct Headers(pub(crate) Py<PyRequest>);

impl Headers {
    fn map(&self) -> &HeaderMap {
        &self.0.get().head().headers
    }
}

#[pymethods]
impl Headers {
    fn __getitem__(&self, name: &str) -> PyResult<String> {
        joined(self.map(), name).ok_or_else(|| PyKeyError::new_err(name.to_owned()))
    }

    fn __contains__(&self, name: &Bound<'_, PyAny>) -> bool {
        name.extract::<Cow<'_, str>>().is_ok_and(|name| self.map().contains_key(&*name))
    }

    fn __len__(&self) -> usize {
        self.map().keys_len()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        iterate(py, names(self.map()))
    }

    /// Returns a field's value, its lines joined with `, `; the default if it is not there.
    #[pyo3(signature = (name, /, default=None))]
    fn get<'py>(&self, py: Python<'py>, name: &str, default: Option<Bound<'py, PyAny>>) -> Option<Bound<'py, PyAny>> {
        match joined(self.map(), name) {
            Some(value) => Some(PyString::new(py, &value).into_any()),
            None => default,
        }
    }

    /// Returns the values of a field's lines, in order.
    #[pyo3(signature = (name, /))]
    fn getlist(&self, name: &str) -> Vec<String> {
        all(self.map(), name)
    }

    /// Returns the names, in lower case, each once.
    fn keys(&self) -> Vec<String> {
        names(self.map())
    }

    /// Returns the value of each name.
    fn values(&self) -> Vec<String> {
        self.map().keys().filter_map(|name| joined(self.map(), name.as_str())).collect()
    }

    /// Returns (name, value) pairs, each name once.
    fn items(&self) -> Vec<(String, String)> {
        let map = self.map();
        map.keys().filter_map(|name| Some((name.as_str().to_owned(), joined(map, name.as_str())?))).collect()
    }

    /// Returns (name, value) pairs, one for each line.
    fn multi_items(&self) -> Vec<(String, String)> {
        pairs(self.map())
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        equals(self.items(), other)
    }

    fn __repr__(&self) -> String {
        format!("Headers({:?})", self.multi_items())
    }
}

/// A response's header fields: case-insensitive and multi-valued.
#[pyclass(frozen, mapping, module = "httpy")]
pub(crate) struct MutableHeaders(pub(crate) Py<PyResponse>);

impl MutableHeaders {
    fn with<R>(&self, f: impl FnOnce(&mut HeaderMap) -> R) -> R {
        f(&mut self.0.get().lock().headers)
    }
}

#[pymethods]
impl MutableHeaders {
    fn __getitem__(&self, name: &str) -> PyResult<String> {
        self.with(|map| joined(map, name)).ok_or_else(|| PyKeyError::new_err(name.to_owned()))
    }

    fn __setitem__(&self, name: &str, text: &str) -> PyResult<()> {
        let (key, value) = (self::name(name)?, value(name, text)?);
        self.with(|map| map.insert(key, value));
        Ok(())
    }

    fn __delitem__(&self, name: &str) -> PyResult<()> {
        self.with(|map| map.remove(name)).map(drop).ok_or_else(|| PyKeyError::new_err(name.to_owned()))
    }

    fn __contains__(&self, name: &Bound<'_, PyAny>) -> bool {
        name.extract::<Cow<'_, str>>().is_ok_and(|name| self.with(|map| map.contains_key(&*name)))
    }

    fn __len__(&self) -> usize {
        self.with(|map| map.keys_len())
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        iterate(py, self.with(|map| names(map)))
    }

    /// Returns a field's value, its lines joined with `, `; the default if it is not there.
    #[pyo3(signature = (name, /, default=None))]
    fn get<'py>(&self, py: Python<'py>, name: &str, default: Option<Bound<'py, PyAny>>) -> Option<Bound<'py, PyAny>> {
        match self.with(|map| joined(map, name)) {
            Some(value) => Some(PyString::new(py, &value).into_any()),
            None => default,
        }
    }

    /// Returns the values of a field's lines, in order.
    #[pyo3(signature = (name, /))]
    fn getlist(&self, name: &str) -> Vec<String> {
        self.with(|map| all(map, name))
    }

    /// Returns the names, in lower case, each once.
    fn keys(&self) -> Vec<String> {
        self.with(|map| names(map))
    }

    /// Returns the value of each name.
    fn values(&self) -> Vec<String> {
        self.with(|map| map.keys().filter_map(|name| joined(map, name.as_str())).collect())
    }

    /// Returns (name, value) pairs, each name once.
    fn items(&self) -> Vec<(String, String)> {
        self.with(|map| {
            map.keys().filter_map(|name| Some((name.as_str().to_owned(), joined(map, name.as_str())?))).collect()
        })
    }

    /// Returns (name, value) pairs, one for each line.
    fn multi_items(&self) -> Vec<(String, String)> {
        self.with(|map| pairs(map))
    }

    /// Adds a line and keeps those already there.
    #[pyo3(signature = (name, value, /))]
    fn add(&self, name: &str, value: &str) -> PyResult<()> {
        let (key, value) = (self::name(name)?, self::value(name, value)?);
        self.with(|map| map.append(key, value));
        Ok(())
    }

    /// Sets a field unless it is there, and returns its value.
    #[pyo3(signature = (name, value, /))]
    fn setdefault(&self, name: &str, value: &str) -> PyResult<String> {
        let (key, value) = (self::name(name)?, self::value(name, value)?);
        Ok(self.with(|map| {
            map.entry(key).or_insert(value);
            joined(map, name).unwrap_or_default()
        }))
    }

    /// Sets every field of a mapping or of pairs.
    #[pyo3(signature = (fields, /))]
    fn update(&self, fields: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut new = HeaderMap::new();
        extend(&mut new, fields)?;
        self.with(|map| {
            for key in new.keys() {
                map.remove(key);
            }
            for (key, value) in &new {
                map.append(key, value.clone());
            }
        });
        Ok(())
    }

    fn __repr__(&self) -> String {
        format!("MutableHeaders({:?})", self.multi_items())
    }
}
