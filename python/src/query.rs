//! Query strings, read on demand (WHATWG URL §5.1, `application/x-www-form-urlencoded`).

use std::borrow::Cow;

use pyo3::{
    exceptions::PyKeyError,
    prelude::*,
    types::{PyIterator, PyList},
};

use crate::fields;

/// The values of `name` in a query, in order.
pub(crate) fn values<'q>(query: &'q str, name: &'q str) -> impl Iterator<Item = Cow<'q, str>> {
    pieces(query).filter(move |(key, _)| decode(key) == name).map(|(_, value)| decode(value))
}

/// The last value of `name`.
pub(crate) fn last<'q>(query: &'q str, name: &'q str) -> Option<Cow<'q, str>> {
    values(query, name).last()
}

fn pieces(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|piece| !piece.is_empty()).map(|piece| piece.split_once('=').unwrap_or((piece, "")))
}

/// `+` is a space, percent-encoded bytes are UTF-8, and what is neither is replaced. Most need no decoding.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

/// A request's query parameters, or a form's fields: multi-valued.
#[pyclass(frozen, mapping, module = "httpy")]
pub(crate) struct QueryParams(pub(crate) Box<str>);

impl QueryParams {
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (key, _) in pieces(&self.0) {
            let key = decode(key);
            if !names.iter().any(|known| *known == key) {
                names.push(key.into_owned());
            }
        }
        names
    }
}

#[pymethods]
impl QueryParams {
    fn __getitem__(&self, name: &str) -> PyResult<String> {
        last(&self.0, name).map(Cow::into_owned).ok_or_else(|| PyKeyError::new_err(name.to_owned()))
    }

    fn __contains__(&self, name: &Bound<'_, PyAny>) -> bool {
        name.extract::<Cow<'_, str>>().is_ok_and(|name| last(&self.0, &name).is_some())
    }

    fn __len__(&self) -> usize {
        self.names().len()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        PyList::new(py, self.names())?.try_iter()
    }

    /// Returns the last value of a name; the default if it is not there.
    #[pyo3(signature = (name, /, default=None))]
    fn get<'py>(&self, py: Python<'py>, name: &str, default: Option<Bound<'py, PyAny>>) -> Option<Bound<'py, PyAny>> {
        match last(&self.0, name) {
            Some(value) => Some(pyo3::types::PyString::new(py, &value).into_any()),
            None => default,
        }
    }

    /// Returns the values of a name, in order.
    #[pyo3(signature = (name, /))]
    fn getlist(&self, name: &str) -> Vec<String> {
        values(&self.0, name).map(Cow::into_owned).collect()
    }

    /// Returns the names, each once.
    fn keys(&self) -> Vec<String> {
        self.names()
    }

    /// Returns the last value of each name.
    fn values(&self) -> Vec<String> {
        self.items().into_iter().map(|(_, value)| value).collect()
    }

    /// Returns (name, last value) pairs, each name once.
    fn items(&self) -> Vec<(String, String)> {
        let value = |name: &String| last(&self.0, name).unwrap_or_default().into_owned();
        self.names()
            .into_iter()
            .map(|name| {
                let value = value(&name);
                (name, value)
            })
            .collect()
    }

    /// Returns (name, value) pairs, as they were sent.
    fn multi_items(&self) -> Vec<(String, String)> {
        pieces(&self.0).map(|(key, value)| (decode(key).into_owned(), decode(value).into_owned())).collect()
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        fields::equals(self.items(), other)
    }

    fn __str__(&self) -> &str {
        &self.0
    }

    fn __repr__(&self) -> String {
        format!("QueryParams({:?})", self.multi_items())
    }
}
