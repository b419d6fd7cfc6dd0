//! What handlers return, turned into responses.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use httpy::{Body, Response};
use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict, PyList, PyString},
};

fn answer(status: StatusCode, kind: &'static str, content: Vec<u8>) -> Response {
    let mut response = Response::new(Body::Full(Bytes::from(content)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Turns a handler's return value into a response.
pub(crate) fn from_value(py: Python<'_>, value: &Bound<'_, PyAny>, status: StatusCode) -> PyResult<Response> {
    if let Ok(text) = value.cast_exact::<PyString>() {
        return Ok(answer(status, "text/plain; charset=utf-8", text.to_cow()?.as_bytes().to_vec()));
    }
    if value.is_exact_instance_of::<PyDict>() || value.is_exact_instance_of::<PyList>() {
        let text = py.import("json")?.call_method1("dumps", (value,))?;
        return Ok(answer(status, "application/json", text.cast::<PyString>()?.to_cow()?.as_bytes().to_vec()));
    }
    if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        return Ok(answer(status, "application/octet-stream", bytes.as_bytes().to_vec()));
    }
    Err(pyo3::exceptions::PyTypeError::new_err("can't make a response of this"))
}
