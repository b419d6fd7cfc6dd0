//! Walk 9/10, THE DOOR. Before: src/route. After: proto/h1.rs.
//!
//! A Python function as a handler of the server.

use std::sync::Arc;

use http::StatusCode;
use httpy::{Handler, Reply, Request, Response, message::text};
use pyo3::prelude::*;

use crate::{
    driver::{self, Kind},
    response,
    symbols::symbols,
};

/// A Python handler and how to call it.
#[pyclass(frozen, module = "httpy._httpy")]
pub(crate) struct Endpoint {
    inner: Arc<Inner>,
}

struct Inner {
    function: Py<PyAny>,
    kind: Kind,
    status: StatusCode,
}

#[pymethods]
impl Endpoint {
    #[new]
    fn new(function: Py<PyAny>, kind: &str) -> Self {
        let kind = match kind {
            "inline" => Kind::Inline,
            "async" => Kind::Async,
            _ => Kind::Pooled,
        };
        Self { inner: Arc::new(Inner { function, kind, status: StatusCode::OK }) }
    }
}

impl Endpoint {
    pub(crate) fn handler(&self) -> Arc<dyn Handler> {
        Arc::new(Callable(self.inner.clone()))
    }
}

struct Callable(Arc<Inner>);

impl Handler for Callable {
    fn call(&self, _request: Request) -> Reply {
        let (called, responds) = (self.0.clone(), self.0.clone());
        driver::run(
            self.0.kind,
            move |py| call0(py, &called.function).map(Bound::unbind),
            move |py, ended| responds.respond(py, ended),
        )
    }
}

impl Inner {
    fn respond(&self, py: Python<'_>, ended: PyResult<Py<PyAny>>) -> Response {
        let response = ended.and_then(|value| response::from_value(py, value.bind(py), self.status));
        response.unwrap_or_else(|error| {
            error.print(py);
            text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
        })
    }
}

fn call0<'py>(py: Python<'py>, function: &Py<PyAny>) -> PyResult<Bound<'py, PyAny>> {
    match symbols().vectorcall {
        // SAFETY: a live callable and no arguments; the result is a new reference, or null with an exception set.
        Some(vectorcall) => unsafe {
            let result = vectorcall(function.as_ptr(), std::ptr::null(), 0, std::ptr::null_mut());
            Bound::from_owned_ptr_or_err(py, result)
        },
        None => function.bind(py).call0(),
    }
}
