//! What happens once a response was sent: background work, and whoever else waits for that.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use httpy::{Body, Error, Response};
use pyo3::{intern, prelude::*};

use crate::{
    failures::log_failure,
    outgoing::copy_context,
    response::Background,
    site::{Afterwards, Site},
};

/// Runs `background` once the carrier has been given all of the response, or has dropped it.
///
/// It is a callable or a list of them, run one after the other: `async def` in a task on the loop, others on pool
/// threads, each in a copy of the current context. What it raises is logged.
pub(crate) fn with_background(py: Python<'_>, response: Response, background: Background) -> Response {
    let context = match copy_context(py) {
        Ok(context) => context.unbind(),
        Err(error) => {
            log_failure(py, "background work", "it is not run", &error);
            return response;
        }
    };
    response.map(|body| {
        followed(body, move || {
            // None if the runtime ends.
            let Some(site) = Site::here() else { return };
            let work = Work { site: site.clone(), _afterwards: site.begin_afterwards() };
            site.on_loop(Box::new(move |py, event_loop| {
                let started = py.import(intern!(py, "httpy._streams")).and_then(|streams| {
                    let arguments = (event_loop, context, &*background.0, work);
                    streams.call_method1(intern!(py, "start_background"), arguments)
                });
                if let Err(error) = started {
                    log_failure(py, "background work", "it is not run", &error);
                }
            }));
        })
    })
}

/// Background work under way: runs functions on pool threads for it, and counts as under way until it is dropped.
#[pyclass(frozen, module = "httpy._httpy", name = "_Work")]
struct Work {
    site: Arc<Site>,
    _afterwards: Afterwards,
}

#[pymethods]
impl Work {
    /// Calls a function on a pool thread. Returns a future of its result; what it raises is logged, and None then.
    fn __call__<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        function: Py<PyAny>,
        name: String,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = event_loop.py();
        let future = event_loop.call_method0(intern!(py, "create_future"))?;
        let context = copy_context(py)?.unbind();
        let (site, outcome) = (self.site.clone(), future.clone().unbind());
        self.site.on_pool(Box::new(move |py| {
            let value = context.call_method1(py, intern!(py, "run"), (function,)).unwrap_or_else(|error| {
                log_failure(py, "background task", &name, &error);
                py.None()
            });
            site.on_loop(Box::new(move |py, _| {
                let future = outcome.bind(py);
                let done = future.call_method0(intern!(py, "done")).and_then(|done| done.is_truthy());
                if matches!(done, Ok(false))
                    && let Err(error) = future.call_method1(intern!(py, "set_result"), (value,))
                {
                    error.write_unraisable(py, Some(future));
                }
            }));
        }));
        Ok(future)
    }
}

/// Content, and what is called once it was handed over completely or dropped.
pub(crate) fn followed(body: Body, then: impl FnOnce() + Send + 'static) -> Body {
    Body::stream(Followed { body, then: Some(Box::new(then)) })
}

struct Followed {
    body: Body,
    then: Option<Box<dyn FnOnce() + Send>>,
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.body = Body::Empty;
        if let Some(then) = self.then.take() {
            then();
        }
    }
}
