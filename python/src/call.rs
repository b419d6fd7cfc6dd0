//! Walk 9/10, THE DOOR. Before: src/route. After: proto/h1.rs.
//!
//! A Python function as a handler of the server.

use std::sync::Arc;

use http::StatusCode;
use httpy::{Handler, Reply, Request, Response, message::text};
use pyo3::prelude::*;

use crate::{
    driver::{self, EventLoop, Seat, Slot, Stepped},
    response,
    symbols::symbols,
};

/// How a handler is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `def` with `inline=True`: on the loop's thread.
    Inline,
    /// `async def`: on the loop.
    Async,
    /// `def`: on a pool thread.
    Pooled,
}

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
    fn call(&self, request: Request) -> Reply {
        match driver::seat() {
            Some(Seat::Here(event_loop)) => Python::attach(|py| self.0.run_here(py, &event_loop, request)),
            None => Reply::Now(text(StatusCode::SERVICE_UNAVAILABLE, "no loop")),
        }
    }
}

impl Inner {
    fn run_here(self: &Arc<Self>, py: Python<'_>, event_loop: &std::rc::Rc<EventLoop>, _request: Request) -> Reply {
        #[cfg(unix)]
        driver::pause();
        let called = call0(py, &self.function);
        let reply = match (self.kind, called) {
            (Kind::Async, Ok(coroutine)) => match event_loop.step(py, coroutine) {
                Ok(Stepped::Ended(ended)) => Reply::Now(self.respond(py, ended)),
                Ok(Stepped::Suspended(trampoline, task)) => {
                    let (slot, waiting) = Slot::new(Some(task));
                    let inner = self.clone();
                    trampoline.get().finish_into(slot, Box::new(move |py, ended| inner.respond(py, ended)));
                    Reply::later(waiting)
                }
                Err(error) => Reply::Now(self.respond(py, Err(error))),
            },
            (_, called) => Reply::Now(self.respond(py, called.map(Bound::unbind))),
        };
        event_loop.after_python(py);
        reply
    }

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
