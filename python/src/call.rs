//! Walk 9/10, THE DOOR. Before: src/route. After: proto/h1.rs.
//!
//! A Python function as a handler of the server: the content is awaited, the function is called where its kind says,
//! and what it returns or raises becomes a response.

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use httpy::{Body, Handler, Reply, Request, Response, error::Kind as Fault, message::text, route::Pattern};
use pyo3::{PyTraverseError, PyVisit, ffi, intern, prelude::*, types::PyString};

use crate::{
    context::{Context, PyContext},
    driver::{self, EventLoop, Finished, Seat, Slot, Stepped},
    errors, fields, json,
    onward::Onward,
    outgoing,
    plan::{self, Described, Plan, Unfit},
    request::{PyRequest, split},
    response::{self, Background},
    threads,
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

/// A Python function and how to call it.
#[pyclass(frozen, module = "httpy._httpy")]
pub(crate) struct Endpoint {
    plan: Plan,
    kind: Kind,
    status: StatusCode,
    stream: bool,
    max_body_bytes: Option<u64>,
    label: String,
    context: Arc<Context>,
    /// Python middleware of this route alone, outermost first; it comes inside the application's.
    middleware: Vec<Py<PyAny>>,
}

#[pymethods]
impl Endpoint {
    #[new]
    #[pyo3(signature = (function, *, kind, context, parameters=Vec::new(), keywords=0, status=200, stream=false, max_body_bytes=None, label=String::new(), middleware=Vec::new()))]
    #[allow(clippy::too_many_arguments)] // Keywords of a constructor.
    fn new(
        py: Python<'_>,
        function: Py<PyAny>,
        kind: &str,
        context: &PyContext,
        parameters: Vec<Described<'_>>,
        keywords: usize,
        status: u16,
        stream: bool,
        max_body_bytes: Option<u64>,
        label: String,
        middleware: Vec<Py<PyAny>>,
    ) -> PyResult<Self> {
        let kind = match kind {
            "inline" => Kind::Inline,
            "async" => Kind::Async,
            "pooled" => Kind::Pooled,
            other => return Err(pyo3::exceptions::PyValueError::new_err(format!("no kind {other:?}"))),
        };
        let required = crate::required(py)?;
        Ok(Self {
            plan: Plan::new(py, function, parameters, keywords, required.bind(py))?,
            kind,
            status: response::status(status)?,
            stream,
            max_body_bytes,
            label,
            context: context.0.clone(),
            middleware,
        })
    }

    fn __repr__(&self) -> String {
        format!("<Endpoint {} {:?}>", self.label, self.kind)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for stage in &self.middleware {
            visit.call(stage)?;
        }
        visit.call(&self.plan.function)
    }
}

impl Endpoint {
    /// The handler for one route.
    ///
    /// # Errors
    /// `ValueError` if the pattern lacks a parameter the function takes from the path.
    pub(crate) fn on_route(
        &self,
        py: Python<'_>,
        pattern: &Pattern,
        prefix: &str,
        max_body_bytes: u64,
        stages: &Arc<[Py<PyAny>]>,
    ) -> PyResult<Arc<Callable>> {
        let plan = self.plan.on_route(py, pattern, prefix)?;
        let stages = match &*self.middleware {
            [] => stages.clone(),
            own => stages.iter().chain(own).map(|stage| stage.clone_ref(py)).collect(),
        };
        Ok(Arc::new(Callable {
            needs_request: plan.needs_request() || self.stream || !stages.is_empty(),
            plan: Arc::new(plan),
            kind: self.kind,
            status: self.status,
            stream: self.stream,
            max_body_bytes: self.max_body_bytes.unwrap_or(max_body_bytes),
            label: self.label.clone(),
            context: self.context.clone(),
            stages,
            refused: None,
        }))
    }
}

/// A Python function on a route.
pub(crate) struct Callable {
    plan: Arc<Plan>,
    kind: Kind,
    status: StatusCode,
    stream: bool,
    max_body_bytes: u64,
    label: String,
    pub(crate) context: Arc<Context>,
    needs_request: bool,
    /// Python middleware around the function, outermost first.
    pub(crate) stages: Arc<[Py<PyAny>]>,
    /// No function: routing said no, and the application wants to see that.
    refused: Option<Refused>,
}

/// An answer of the router's that passes through an application's middleware and error handlers.
struct Refused {
    status: StatusCode,
    detail: String,
    allow: Option<HeaderValue>,
}

/// A request on its way through the door: as it came, until somebody asks for the object.
#[derive(Default)]
struct Asked {
    raw: Option<Request>,
    content: Bytes,
    object: Option<Py<PyRequest>>,
}

/// What is to be done with the outcome of a call.
enum Next<'py> {
    Send(Response),
    /// The application's error handler is a coroutine.
    Await(Bound<'py, PyAny>),
}

/// Handler as the router holds it.
pub(crate) struct Routed(pub(crate) Arc<Callable>);

impl Handler for Routed {
    fn call(&self, mut request: Request) -> Reply {
        let callable = &self.0;
        let content = match &mut request.body {
            // A handler that streams takes the content as it comes.
            _ if callable.stream => Bytes::new(),
            Body::Empty => Bytes::new(),
            Body::Full(content) if content.len() as u64 <= callable.max_body_bytes => std::mem::take(content),
            _ => {
                let callable = callable.clone();
                return Reply::later(async move {
                    let body = std::mem::take(&mut request.body);
                    match body.collect(callable.max_body_bytes).await {
                        Ok((content, _trailers)) => callable.run(request, content).await,
                        Err(error) => callable.refuse(&error),
                    }
                });
            }
        };
        callable.run(request, content)
    }
}

impl Callable {
    /// The content did not come: too large, or cut off.
    fn refuse(&self, error: &httpy::Error) -> Response {
        let (status, detail) = match error.kind() {
            Fault::Limit => (StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
            _ => (StatusCode::BAD_REQUEST, error.to_string()),
        };
        let mut response = plain_detail(status, &detail);
        // The rest of the content is not read, so the connection can't be used again (RFC 9112 §9.3).
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }

    fn run(self: &Arc<Self>, request: Request, content: Bytes) -> Reply {
        // Middleware is asynchronous, whatever it leads to.
        let kind = if self.stages.is_empty() { self.kind } else { Kind::Async };
        match (kind, driver::seat()) {
            (Kind::Inline | Kind::Async, Some(Seat::Here(event_loop))) => {
                #[cfg(unix)]
                driver::pause();
                Python::attach(|py| {
                    let reply = self.run_here(py, &event_loop, request, content);
                    event_loop.after_python(py);
                    reply
                })
            }
            (Kind::Pooled, Some(_)) => self.run_pooled(request, content),
            (_, None) => text(StatusCode::SERVICE_UNAVAILABLE, "This server has no event loop").into(),
        }
    }

    /// What answers in the name of the router, for an application with middleware or error handlers of its own.
    pub(crate) fn refusing(
        py: Python<'_>,
        context: &Arc<Context>,
        stages: &Arc<[Py<PyAny>]>,
        no: &Response,
    ) -> Arc<Self> {
        let detail = no.status().canonical_reason().unwrap_or("Error").to_owned();
        Arc::new(Self {
            plan: Arc::new(Plan::empty(py)),
            kind: Kind::Inline,
            status: StatusCode::OK,
            stream: false,
            max_body_bytes: 0,
            label: String::new(),
            context: context.clone(),
            needs_request: true,
            stages: stages.clone(),
            refused: Some(Refused { status: no.status(), detail, allow: no.headers().get(header::ALLOW).cloned() }),
        })
    }

    /// Answers a request that was refused. Its content is not read.
    pub(crate) fn answer_refused(self: &Arc<Self>, request: Request) -> Reply {
        self.run(Request { body: Body::Empty, ..request }, Bytes::new())
    }

    /// Runs the function on this thread, which is the loop's.
    fn run_here(
        self: &Arc<Self>,
        py: Python<'_>,
        event_loop: &Rc<EventLoop>,
        request: Request,
        content: Bytes,
    ) -> Reply {
        let mut asked = Asked { raw: Some(request), content, object: None };
        let called = self.invoke(py, &mut asked);
        self.follow(py, event_loop, &mut asked, called, true)
    }

    /// Follows an outcome to its response, awaiting what has to be awaited.
    fn follow(
        self: &Arc<Self>,
        py: Python<'_>,
        event_loop: &Rc<EventLoop>,
        asked: &mut Asked,
        called: Result<Bound<'_, PyAny>, Unfit>,
        mut may_handle: bool,
    ) -> Reply {
        let mut outcome = called;
        loop {
            let ended = match outcome {
                Ok(value) if is_coroutine(&value) => match event_loop.step(py, value) {
                    Ok(Stepped::Ended(ended)) => ended.map(|value| value.into_bound(py)).map_err(Unfit::Error),
                    Ok(Stepped::Suspended(trampoline, task)) => {
                        let (slot, waiting) = Slot::new(Some(task));
                        if let Some(request) = &asked.object {
                            request.get().set_slot(slot.clone());
                        }
                        let callable = self.clone();
                        let mut asked = std::mem::take(asked);
                        let finish = move |py: Python<'_>, ended: PyResult<Py<PyAny>>| {
                            let ended = ended.map(|value| value.into_bound(py)).map_err(Unfit::Error);
                            let next = callable.settle(py, &mut asked, ended, may_handle);
                            may_handle = false;
                            match next {
                                Next::Send(response) => Finished::Answer(hand_over(py, response)),
                                Next::Await(coroutine) => Finished::Continue(coroutine.unbind()),
                            }
                        };
                        trampoline.get().finish_into(slot, Box::new(finish));
                        return Reply::later(waiting);
                    }
                    Err(error) => Err(Unfit::Error(error)),
                },
                other => other,
            };
            match self.settle(py, asked, ended, may_handle) {
                Next::Send(response) => return Reply::Now(hand_over(py, response)),
                Next::Await(coroutine) => outcome = Ok(coroutine),
            }
            may_handle = false;
        }
    }

    /// Runs the function on a pool thread.
    fn run_pooled(self: &Arc<Self>, request: Request, content: Bytes) -> Reply {
        let callable = self.clone();
        let (slot, waiting) = Slot::<Left>::new(None);
        let filled = slot.clone();
        threads::submit(Box::new(move |py| {
            let mut asked = Asked { raw: Some(request), content, object: None };
            let called = callable.invoke(py, &mut asked);
            let left = match called {
                // A `def` that returns a coroutine has it awaited, on the loop.
                Ok(value) if is_coroutine(&value) => Left::Await(Box::new((callable, asked, value.unbind(), true))),
                called => match callable.settle(py, &mut asked, called, true) {
                    Next::Send(response) => Left::Response(hand_over(py, response)),
                    Next::Await(coroutine) => Left::Await(Box::new((callable, asked, coroutine.unbind(), false))),
                },
            };
            if let Some(waker) = filled.fill(left) {
                waker.wake();
            }
        }));
        Reply::later(async move {
            match waiting.await {
                Left::Response(response) => response,
                Left::Await(rest) => {
                    let (callable, mut asked, coroutine, may_handle) = *rest;
                    let reply = match driver::seat() {
                        Some(Seat::Here(event_loop)) => Python::attach(|py| {
                            let called = Ok(coroutine.into_bound(py));
                            let reply = callable.follow(py, &event_loop, &mut asked, called, may_handle);
                            event_loop.after_python(py);
                            reply
                        }),
                        None => internal_error().into(),
                    };
                    reply.await
                }
            }
        })
    }

    /// Calls the function with what it takes of a request object.
    pub(crate) fn call_function<'py>(&self, request: &Bound<'py, PyRequest>) -> Result<Bound<'py, PyAny>, Unfit> {
        let Some(refused) = &self.refused else { return self.plan.call(request) };
        let py = request.py();
        let error = errors::http(py, refused.status.as_u16(), &refused.detail);
        if let Some(allow) = &refused.allow {
            let headers = pyo3::types::PyDict::new(py);
            headers.set_item("Allow", fields::value_text(allow))?;
            error.value(py).setattr("headers", headers)?;
        }
        Err(error.into())
    }

    /// Whether the function runs on a pool thread.
    pub(crate) fn is_pooled(&self) -> bool {
        self.kind == Kind::Pooled
    }

    /// Turns the function's outcome into what middleware gets from `next`: a response object, something to await
    /// first, or the exception, if nobody has an answer to it.
    pub(crate) fn settle_inside<'py>(
        &self,
        request: &Bound<'py, PyRequest>,
        outcome: Result<Bound<'py, PyAny>, Unfit>,
        may_handle: bool,
    ) -> PyResult<Inside<'py>> {
        let py = request.py();
        let error = match outcome {
            Ok(value) => return Ok(Inside::Response(response::to_object(py, &value, self.status)?)),
            Err(Unfit::Request(misfits)) => errors::http_with(py, 422, plan::detail(py, misfits)?.as_any()),
            Err(Unfit::Error(error)) => error,
        };
        if may_handle && let Some(on_error) = self.context.on_error() {
            let value = on_error.bind(py).call1((request, errors::raised(py, &error)))?;
            if is_coroutine(&value) {
                return Ok(Inside::Await(value));
            }
            return Ok(Inside::Response(response::to_object(py, &value, self.status)?));
        }
        if errors::is_http(py, &error) {
            return Ok(Inside::Response(response::object_of(py, http_error(py, &error)?)?));
        }
        Err(error)
    }

    /// Calls the function with what it takes.
    fn invoke<'py>(self: &Arc<Self>, py: Python<'py>, asked: &mut Asked) -> Result<Bound<'py, PyAny>, Unfit> {
        if let Some(request) = asked.raw.as_ref().filter(|_| !self.needs_request) {
            return self.plan.call_without_request(py, request);
        }
        let request = self.object(py, asked)?;
        match self.stages.first() {
            Some(first) => Ok(Onward::enter(self, first, &request)?),
            None => self.call_function(&request),
        }
    }

    /// Decides what becomes of an outcome: a response, or the application's own answer to an error.
    fn settle<'py>(
        &self,
        py: Python<'py>,
        asked: &mut Asked,
        outcome: Result<Bound<'py, PyAny>, Unfit>,
        may_handle: bool,
    ) -> Next<'py> {
        let error = match outcome {
            Ok(value) => match response::from_value(py, &value, self.status) {
                Ok(response) => return Next::Send(response),
                Err(error) => error,
            },
            Err(Unfit::Error(error)) => error,
            Err(Unfit::Request(misfits)) => match plan::detail(py, misfits) {
                Ok(detail) => errors::http_with(py, 422, detail.as_any()),
                Err(error) => error,
            },
        };
        let answered = match self.context.on_error().filter(|_| may_handle) {
            Some(on_error) => self.answered(py, on_error, asked, error),
            None => Err(error),
        };
        answered.unwrap_or_else(|error| Next::Send(self.failed(py, asked, &error)))
    }

    /// The application's own answer to an error.
    fn answered<'py>(
        &self,
        py: Python<'py>,
        on_error: &Py<PyAny>,
        asked: &mut Asked,
        error: PyErr,
    ) -> PyResult<Next<'py>> {
        let request = self.object(py, asked)?;
        let value = on_error.bind(py).call1((request, errors::raised(py, &error)))?;
        if is_coroutine(&value) {
            return Ok(Next::Await(value));
        }
        response::from_value(py, &value, self.status).map(Next::Send)
    }

    /// The request object, made now if nobody asked for it before.
    fn object<'py>(&self, py: Python<'py>, asked: &mut Asked) -> PyResult<Bound<'py, PyRequest>> {
        if let Some(raw) = asked.raw.take() {
            let (head, params, body) = split(raw);
            let arriving = self.stream.then_some(body);
            let request = PyRequest::new(head, std::mem::take(&mut asked.content), arriving, self.context.clone());
            request.set_matched(self.plan.clone(), params);
            asked.object = Some(Py::new(py, request)?);
        }
        let gone = || pyo3::exceptions::PyRuntimeError::new_err("the request is gone");
        asked.object.as_ref().map(|request| request.bind(py).clone()).ok_or_else(gone)
    }

    /// HTTPy's own answer to an exception: what an `HTTPError` says, else 500 and the traceback in the log.
    fn failed(&self, py: Python<'_>, asked: &Asked, error: &PyErr) -> Response {
        let answer = if errors::is_http(py, error) { http_error(py, error) } else { Err(error.clone_ref(py)) };
        answer.unwrap_or_else(|error| {
            let target = match asked {
                Asked { raw: Some(request), .. } => format!("{} {}", request.method, request.uri.path()),
                Asked { object: Some(request), .. } => {
                    let head = request.get().head();
                    format!("{} {}", head.method, head.uri.path())
                }
                _ => String::new(),
            };
            log_failure(py, &self.label, &target, &error);
            internal_error()
        })
    }
}

/// What middleware gets from `next`.
pub(crate) enum Inside<'py> {
    Response(Bound<'py, response::PyResponse>),
    Await(Bound<'py, PyAny>),
}

/// What a pool thread leaves for the runtime.
enum Left {
    Response(Response),
    /// Something to await on the loop first; whether its error may be handled by the application.
    Await(Box<(Arc<Callable>, Asked, Py<PyAny>, bool)>),
}

/// A response leaves Python: what is to run after it is arranged.
fn hand_over(py: Python<'_>, mut response: Response) -> Response {
    match response.extensions_mut().remove::<Background>() {
        Some(background) => outgoing::with_background(py, response, background),
        None => response,
    }
}

/// The response an `HTTPError` describes.
fn http_error(py: Python<'_>, error: &PyErr) -> PyResult<Response> {
    let error = error.value(py);
    let status = response::status(error.getattr(intern!(py, "status"))?.extract()?)?;
    let mut response = detail_response(py, status, &error.getattr(intern!(py, "detail"))?);
    let headers = error.getattr(intern!(py, "headers"))?;
    if !headers.is_none() {
        let mut fields = http::HeaderMap::new();
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

fn plain_detail(status: StatusCode, detail: &str) -> Response {
    Python::attach(|py| detail_response(py, status, PyString::new(py, detail).as_any()))
}

pub(crate) fn internal_error() -> Response {
    httpy::route::refusal(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
}

/// Logs a handler's failure with its traceback, to the logger `httpy.error`.
pub(crate) fn log_failure(py: Python<'_>, label: &str, target: &str, error: &PyErr) {
    let log = || -> PyResult<()> {
        let logger = py.import("logging")?.call_method1("getLogger", ("httpy.error",))?;
        let kwargs = pyo3::types::PyDict::new(py);
        kwargs.set_item("exc_info", errors::raised(py, error))?;
        logger.call_method("error", ("%s failed: %s", label, target), Some(&kwargs))?;
        Ok(())
    };
    if let Err(error) = log() {
        error.write_unraisable(py, None);
    }
}

/// Whether a value is to be awaited. The exact type first: it is what `async def` makes.
pub(crate) fn is_coroutine(value: &Bound<'_, PyAny>) -> bool {
    let py = value.py();
    // SAFETY: `value` is a live object.
    let kind = unsafe { ffi::Py_TYPE(value.as_ptr()) } as usize;
    if kind == crate::coroutine_type(py) {
        return true;
    }
    // What handlers commonly return is none; and what can be awaited is no valid answer anyway.
    if value.is_instance_of::<PyString>()
        || value.is_instance_of::<pyo3::types::PyDict>()
        || value.is_instance_of::<response::PyResponse>()
    {
        return false;
    }
    value.hasattr(intern!(py, "__await__")).unwrap_or(false)
}
