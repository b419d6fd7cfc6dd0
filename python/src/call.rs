//! Walk 9/10, THE DOOR. Before: src/route. After: proto/h1.rs.
//!
//! A Python function as a handler of the server: the content is awaited, the function is called where its kind says,
//! and what it returns or raises becomes a response.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use httpy::{Body, Handler, Reply, Request, Response, error::Kind as Fault, route::Pattern};
use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::PyException,
    intern,
    prelude::*,
    types::{PyDict, PyString},
};

use crate::{
    afterwards,
    arriving::{self, Content},
    context::{Context, PyContext},
    driver::{self, Kind, Then, Visit, Watch, is_awaitable},
    errors, fields, json,
    onward::Onward,
    plan::{self, Described, Plan, Unfit},
    request::{PyRequest, split},
    response::{self, Background},
    threads::Pool,
};

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

/// An answer in place of the function's that passes through an application's middleware and error handlers.
pub(crate) struct Refused {
    status: StatusCode,
    detail: String,
    headers: HeaderMap,
}

impl Refused {
    /// The router's answer.
    pub(crate) fn by_router(no: &Response) -> Self {
        let detail = no.status().canonical_reason().unwrap_or("Error").to_owned();
        let mut headers = HeaderMap::new();
        for name in [header::ALLOW, header::LOCATION] {
            if let Some(value) = no.headers().get(&name) {
                headers.insert(name, value.clone());
            }
        }
        Self { status: no.status(), detail, headers }
    }
}

/// A request on its way through the door: as it came, until somebody asks for the object.
#[derive(Default)]
struct Asked {
    raw: Option<Request>,
    content: Option<Content>,
    object: Option<Py<PyRequest>>,
}

/// Handler as the router holds it.
pub(crate) struct Routed(pub(crate) Arc<Callable>);

impl Handler for Routed {
    fn call(&self, mut request: Request) -> Reply {
        let callable = &self.0;
        if callable.stream {
            return arriving::answer(request, callable.max_body_bytes, |request, content| {
                callable.run(request, content)
            });
        }
        let content = match &mut request.body {
            Body::Empty => Bytes::new(),
            Body::Full(content) if content.len() as u64 <= callable.max_body_bytes => std::mem::take(content),
            _ => {
                let callable = callable.clone();
                return Reply::later(async move {
                    let body = std::mem::take(&mut request.body);
                    match body.collect(callable.max_body_bytes).await {
                        Ok((content, _trailers)) => callable.run(request, Content::Whole(content)).await,
                        Err(error) => callable.refuse(request, &error).await,
                    }
                });
            }
        };
        callable.run(request, Content::Whole(content))
    }
}

impl Callable {
    /// The content did not come: too large, or cut off.
    fn refuse(&self, request: Request, error: &httpy::Error) -> Reply {
        let status = match error.kind() {
            Fault::Limit => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        let no = Refused { status, detail: error.to_string(), headers: HeaderMap::new() };
        if self.stages.is_empty() && !self.context.answers(status.as_u16()) {
            return plain_detail(status, &no.detail).into();
        }
        Python::attach(|py| Self::refusing(py, &self.context, &self.stages, no)).answer_refused(request)
    }

    fn run(self: &Arc<Self>, request: Request, content: Content) -> Reply {
        // Middleware is asynchronous, whatever it leads to.
        let kind = if self.stages.is_empty() { self.kind } else { Kind::Async };
        let asked = Asked { raw: Some(request), content: Some(content), object: None };
        driver::run(kind, Through { callable: self.clone(), asked, may_handle: true })
    }

    /// What answers a request that reaches no function, for an application with middleware or error handlers of its own.
    pub(crate) fn refusing(
        py: Python<'_>,
        context: &Arc<Context>,
        stages: &Arc<[Py<PyAny>]>,
        refused: Refused,
    ) -> Arc<Self> {
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
            refused: Some(refused),
        })
    }

    /// Answers a request that was refused. Its content is not read.
    pub(crate) fn answer_refused(self: &Arc<Self>, mut request: Request) -> Reply {
        request.body = Body::Empty;
        self.run(request, Content::Whole(Bytes::new()))
    }

    /// Calls the function with what it takes of a request object.
    pub(crate) fn call_function<'py>(&self, request: &Bound<'py, PyRequest>) -> PyResult<Bound<'py, PyAny>> {
        let py = request.py();
        let Some(refused) = &self.refused else { return fit(py, self.plan.call(request)) };
        if !refused.status.is_client_error() {
            // OPTIONS and redirects are answers, not errors.
            let mut response = Response::new(Body::Empty);
            *response.status_mut() = refused.status;
            *response.headers_mut() = refused.headers.clone();
            return Ok(response::object_of(py, response)?.into_any());
        }
        let error = errors::http(py, refused.status.as_u16(), &refused.detail);
        if !refused.headers.is_empty() {
            let headers = PyDict::new(py);
            for (name, value) in &refused.headers {
                headers.set_item(name.as_str(), fields::value_text(value))?;
            }
            error.value(py).setattr("headers", headers)?;
        }
        Err(error)
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
        outcome: PyResult<Bound<'py, PyAny>>,
        may_handle: bool,
    ) -> PyResult<Inside<'py>> {
        let py = request.py();
        let error = match outcome {
            Ok(value) => return Ok(Inside::Response(response::to_object(py, &value, self.status)?)),
            Err(error) => error,
        };
        if may_handle && let Some(on_error) = self.context.on_error() {
            let value = on_error.bind(py).call1((request, errors::raised(py, &error)))?;
            if is_awaitable(&value) {
                return Ok(Inside::Await(value));
            }
            return Ok(Inside::Response(response::to_object(py, &value, self.status)?));
        }
        if errors::is_http(py, &error) {
            return Ok(Inside::Response(response::object_of(py, http_error(py, &error)?)?));
        }
        Err(error)
    }

    /// Calls the function with what it takes, or the first stage around it.
    fn invoke<'py>(
        self: &Arc<Self>,
        py: Python<'py>,
        pool: &Arc<Pool>,
        asked: &mut Asked,
    ) -> PyResult<Bound<'py, PyAny>> {
        if let Some(request) = asked.raw.as_ref().filter(|_| !self.needs_request) {
            return fit(py, self.plan.call_without_request(py, request));
        }
        let request = self.object(py, asked)?;
        match self.stages.first() {
            Some(first) => Onward::enter(self, pool, first, &request),
            None => self.call_function(&request),
        }
    }

    /// Decides what becomes of an outcome: a response, or the application's own answer to an error.
    fn settle(&self, py: Python<'_>, asked: &mut Asked, outcome: PyResult<Py<PyAny>>, may_handle: bool) -> Then {
        let responded = outcome.and_then(|value| response::from_value(py, value.bind(py), self.status));
        let error = match responded {
            Ok(response) => return Then::Answer(hand_over(py, response)),
            Err(error) => error,
        };
        if !error.is_instance_of::<PyException>(py) {
            // Cancelled: by the client, who is gone, or by a server that stops. Nobody's failure.
            let mut response = httpy::route::refusal(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable");
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return Then::Answer(response);
        }
        let answered = match self.context.on_error().filter(|_| may_handle) {
            Some(on_error) => self.answered(py, on_error, asked, error),
            None => Err(error),
        };
        answered.unwrap_or_else(|error| Then::Answer(self.failed(py, asked, &error)))
    }

    /// The application's own answer to an error.
    fn answered(&self, py: Python<'_>, on_error: &Py<PyAny>, asked: &mut Asked, error: PyErr) -> PyResult<Then> {
        let request = self.object(py, asked)?;
        let value = on_error.bind(py).call1((request, errors::raised(py, &error)))?;
        if is_awaitable(&value) {
            return Ok(Then::Await(value.unbind()));
        }
        let response = response::from_value(py, &value, self.status)?;
        Ok(Then::Answer(hand_over(py, response)))
    }

    /// The request object, made now if nobody asked for it before.
    fn object<'py>(&self, py: Python<'py>, asked: &mut Asked) -> PyResult<Bound<'py, PyRequest>> {
        if let Some(raw) = asked.raw.take() {
            let (head, params, _body) = split(raw);
            let content = asked.content.take().unwrap_or(Content::Whole(Bytes::new()));
            let request = PyRequest::new(head, content, self.context.clone());
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
            if errors::is_client_disconnected(py, &error) {
                tracing::debug!(%target, "the client went away before its request was answered");
            } else {
                log_failure(py, &self.label, &target, &error);
            }
            internal_error()
        })
    }
}

/// What middleware gets from `next`.
pub(crate) enum Inside<'py> {
    Response(Bound<'py, response::PyResponse>),
    Await(Bound<'py, PyAny>),
}

/// One request's way to a function and back.
struct Through {
    callable: Arc<Callable>,
    asked: Asked,
    /// Whether the application may still answer an error: its own answer's error is not handled again.
    may_handle: bool,
}

impl Visit for Through {
    fn call(&mut self, py: Python<'_>, pool: &Arc<Pool>) -> PyResult<Py<PyAny>> {
        self.callable.invoke(py, pool, &mut self.asked).map(Bound::unbind)
    }

    fn respond(&mut self, py: Python<'_>, ended: PyResult<Py<PyAny>>) -> Then {
        let may_handle = std::mem::take(&mut self.may_handle);
        self.callable.settle(py, &mut self.asked, ended, may_handle)
    }

    fn will_wait(&mut self, watch: Watch) {
        if let Some(request) = &self.asked.object {
            request.get().set_watch(watch);
        }
    }
}

/// What does not fit the function is an `HTTPError` 422.
fn fit<'py>(py: Python<'py>, called: Result<Bound<'py, PyAny>, Unfit>) -> PyResult<Bound<'py, PyAny>> {
    called.map_err(|unfit| match unfit {
        Unfit::Error(error) => error,
        Unfit::Request(misfits) => match plan::detail(py, misfits) {
            Ok(detail) => errors::http_with(py, 422, detail.as_any()),
            Err(error) => error,
        },
    })
}

/// A response leaves Python: what is to run after it is arranged.
fn hand_over(py: Python<'_>, mut response: Response) -> Response {
    match response.extensions_mut().remove::<Background>() {
        Some(background) => afterwards::with_background(py, response, background),
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
        let kwargs = PyDict::new(py);
        kwargs.set_item("exc_info", errors::raised(py, error))?;
        logger.call_method("error", ("%s failed: %s", label, target), Some(&kwargs))?;
        Ok(())
    };
    if let Err(error) = log() {
        error.write_unraisable(py, None);
    }
}
