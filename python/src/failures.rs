//! HTTPy's own answers to errors: what an `HTTPError` says, and 500 for everything else.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use httpy::{Body, Response, message::refusal};
use pyo3::{
    intern,
    prelude::*,
    types::{PyDict, PyString},
};

use crate::{errors, fields, json, response};

/// The response an `HTTPError` describes.
pub(crate) fn http_error(py: Python<'_>, error: &PyErr) -> PyResult<Response> {
    let error = error.value(py);
    let status = response::status(error.getattr(intern!(py, "status"))?.extract()?)?;
    let mut response = detail_response(py, status, &error.getattr(intern!(py, "detail"))?);
    let headers = error.getattr(intern!(py, "headers"))?;
    if !headers.is_none() {
        let mut fields = HeaderMap::new();
        fields::extend(&mut fields, &headers)?;
        for (name, value) in &fields {
            response.headers_mut().append(name, value.clone());
        }
    }
    Ok(response)
}

fn detail_response(py: Python<'_>, status: StatusCode, detail: &Bound<'_, PyAny>) -> Response {
    let mut out = b"{\"detail\":".to_vec();
    if let Err(error) = json::write(py, detail, &mut out) {
        log_failure(py, "the detail of an error", "", &error);
        return internal_error();
    }
    out.push(b'}');
    let mut response = Response::new(Body::from(out));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A response with a detail, for whom has no interpreter at hand.
pub(crate) fn plain_detail(status: StatusCode, detail: &str) -> Response {
    Python::attach(|py| detail_response(py, status, PyString::new(py, detail).as_any()))
}

/// What a client learns of a crash.
pub(crate) fn internal_error() -> Response {
    refusal(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
}

/// What a client learns of a handler that was given up.
pub(crate) fn unavailable() -> Response {
    refusal(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")
}

/// Logs a handler's failure with its traceback.
pub(crate) fn log_failure(py: Python<'_>, label: &str, target: &str, error: &PyErr) {
    log(py, "%s failed: %s", [label, target], Some(error));
}

/// Logs that a handler took too long.
pub(crate) fn log_late(py: Python<'_>, label: &str, seconds: f64) {
    log(py, "%s was answered with 503 after %s seconds (handler_timeout)", [label, &seconds.to_string()], None);
}

/// Logs an error to the logger `httpy.error`.
fn log(py: Python<'_>, message: &str, [first, second]: [&str; 2], error: Option<&PyErr>) {
    let log = || -> PyResult<()> {
        let logger = py.import("logging")?.call_method1("getLogger", ("httpy.error",))?;
        let kwargs = PyDict::new(py);
        if let Some(error) = error {
            kwargs.set_item("exc_info", errors::raised(py, error))?;
        }
        logger.call_method("error", (message, first, second), Some(&kwargs))?;
        Ok(())
    };
    if let Err(error) = log() {
        error.write_unraisable(py, None);
    }
}
