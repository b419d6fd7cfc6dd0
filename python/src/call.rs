//! Walk 9/10, THE DOOR. Before: src/route. After: proto/h1.rs.
//!
//! A Python function as a handler of the server: the content is awaited, the function is called where its kind says,
//! and what it returns or raises becomes a response.
//!
//! One file, because it is the door: whoever looks for what happens between the waist and Python finds all of it here.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body::Body as _;
use httpy::{
    Body, Config, Handler, Reply, Request, Response,
    error::{Error, Kind as Fault},
    message::TooLarge,
    middleware::{InFlight, within},
    route::Pattern,
    ws::Rooms,
};
use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::PyException,
    prelude::*,
    types::{PyDict, PyType},
};

use crate::{
    afterwards,
    arriving::{self, Content},
    chain::Chain,
    context::{Context, PyContext},
    driver::{self, Kind, Then, Visit, Watch, is_awaitable},
    errors,
    failures::{http_error, internal_error, log_failure, log_late, plain_detail, unavailable},
    fields,
    hosting::{self, Hosted, Interface, Outlet},
    onward::Onward,
    plan::{self, Described, Plan, Unfit},
    request::{PyRequest, split},
    response::{self, Background},
    site::Site,
    threads::Pool,
    websocket::{Common, HostedSockets},
};

/// A Python function and how to call it.
#[pyclass(frozen, module = "httpy._httpy")]
pub(crate) struct Endpoint {
    plan: Plan,
    kind: Kind,
    status: StatusCode,
    stream: bool,
    max_body_bytes: Option<u64>,
    /// Takes the place of the server's; zero is none.
    timeout: Option<Duration>,
    label: String,
    context: Arc<Context>,
    /// Python middleware of this route alone, outermost first; it comes inside the application's.
    middleware: Vec<Py<PyAny>>,
    /// No function, but an app of another interface.
    hosted: Option<Arc<Hosted>>,
}

#[pymethods]
impl Endpoint {
    #[new]
    #[pyo3(signature = (function, *, kind, context, parameters=Vec::new(), keywords=0, status=200, stream=false, max_body_bytes=None, timeout=None, label=String::new(), middleware=Vec::new()))]
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
        timeout: Option<f64>,
        label: String,
        middleware: Vec<Py<PyAny>>,
    ) -> PyResult<Self> {
        let kind = match kind {
            "inline" => Kind::Inline,
            "async" => Kind::Async,
            "pooled" => Kind::Pooled,
            other => return Err(pyo3::exceptions::PyValueError::new_err(format!("no kind {other:?}"))),
        };
        let seconds = |seconds| {
            let message = format!("timeout is a number of seconds that is not negative, not {seconds}");
            Duration::try_from_secs_f64(seconds).map_err(|_| pyo3::exceptions::PyValueError::new_err(message))
        };
        let required = crate::required(py)?;
        Ok(Self {
            plan: Plan::new(py, function, parameters, keywords, required.bind(py))?,
            kind,
            status: response::status(status)?,
            stream,
            max_body_bytes,
            timeout: timeout.map(seconds).transpose()?,
            label,
            context: context.0.clone(),
            middleware,
            hosted: None,
        })
    }

    /// An ASGI or WSGI app as an endpoint: it answers everything at or below a route by itself.
    #[classmethod]
    #[pyo3(signature = (app, interface, *, context, label=String::new(), debug=false))]
    fn hosting(
        class: &Bound<'_, PyType>,
        app: Py<PyAny>,
        interface: &str,
        context: &PyContext,
        label: String,
        debug: bool,
    ) -> PyResult<Self> {
        let py = class.py();
        let interface = Interface::parse(interface)?;
        Ok(Self {
            plan: Plan::new(py, app.clone_ref(py), Vec::new(), 0, crate::required(py)?.bind(py))?,
            kind: match interface {
                Interface::Asgi => Kind::Async,
                Interface::Wsgi => Kind::Pooled,
            },
            status: StatusCode::OK,
            stream: true,
            max_body_bytes: None,
            timeout: None,
            label,
            context: context.0.clone(),
            middleware: Vec::new(),
            hosted: Some(Arc::new(Hosted::new(py, app, interface, context.0.clone(), debug)?)),
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

/// The limits of one server on what its handlers do.
#[derive(Clone)]
pub(crate) struct Limits {
    pub(crate) config: Arc<Config>,
    pub(crate) rooms: Rooms,
    max_body_bytes: u64,
    timeout: Option<Duration>,
    in_flight: InFlight,
}

impl Limits {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            config: Arc::new(config.clone()),
            rooms: Rooms::new(config),
            max_body_bytes: config.max_body_bytes,
            timeout: config.handler_timeout,
            in_flight: InFlight::new(config),
        }
    }
}

impl Endpoint {
    /// Says at registration what the function takes and the pattern lacks.
    ///
    /// # Errors
    /// `ValueError` if there is something.
    pub(crate) fn check(&self, py: Python<'_>, pattern: &Pattern) -> PyResult<()> {
        self.plan.on_route(py, pattern, "").map(drop)
    }

    /// What answers the handshakes of WebSockets, of an app that has such: an ASGI app may.
    pub(crate) fn sockets(&self, limits: &Limits) -> Option<HostedSockets> {
        let hosted = self.hosted.as_ref().filter(|hosted| hosted.interface == Interface::Asgi)?;
        Some(HostedSockets::new(hosted.clone(), self.label.clone(), Common::new(&self.context, limits)))
    }

    /// The handler for one route.
    ///
    /// # Errors
    /// `ValueError` if the pattern lacks a parameter the function takes from the path.
    pub(crate) fn on_route(
        &self,
        py: Python<'_>,
        pattern: &Pattern,
        prefix: &str,
        limits: &Limits,
        chain: &Arc<Chain>,
    ) -> PyResult<Arc<Callable>> {
        let plan = self.plan.on_route(py, pattern, prefix)?;
        let chain = match &*self.middleware {
            [] => chain.clone(),
            own => Arc::new(chain.with_stages(py, own)),
        };
        Ok(Arc::new(Callable {
            needs_request: plan.needs_request() || (self.stream && self.hosted.is_none()) || !chain.is_empty(),
            plan: Arc::new(plan),
            kind: self.kind,
            status: self.status,
            stream: self.stream,
            limits: Limits {
                config: limits.config.clone(),
                rooms: limits.rooms.clone(),
                max_body_bytes: self.max_body_bytes.unwrap_or(limits.max_body_bytes),
                timeout: self.timeout.or(limits.timeout).filter(|timeout| !timeout.is_zero()),
                in_flight: limits.in_flight.clone(),
            },
            label: self.label.clone(),
            context: self.context.clone(),
            chain,
            refused: None,
            hosted: self.hosted.clone(),
        }))
    }
}

/// A Python function on a route.
pub(crate) struct Callable {
    plan: Arc<Plan>,
    kind: Kind,
    status: StatusCode,
    stream: bool,
    limits: Limits,
    label: String,
    context: Arc<Context>,
    needs_request: bool,
    /// What stands around the function.
    pub(crate) chain: Arc<Chain>,
    /// No function: routing said no, and the application wants to see that.
    refused: Option<Refused>,
    /// No function: an app of another interface.
    hosted: Option<Arc<Hosted>>,
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
    /// Where it is, for an app of another interface behind middleware.
    site: Option<Arc<Site>>,
}

impl Asked {
    /// The request's field section, emptied for a response's. hyper parses the connection's next request into the same memory
    /// again. Measured: two allocations of four are saved, 110 of 9,000 instructions a request.
    fn spare_fields(&mut self) -> HeaderMap {
        let mut fields = self.raw.as_mut().map(|request| std::mem::take(&mut request.headers)).unwrap_or_default();
        fields.clear();
        fields
    }
}

/// Handler as the router holds it.
pub(crate) struct Routed(pub(crate) Arc<Callable>);

impl Handler for Routed {
    fn call(&self, mut request: Request) -> Reply {
        let callable = &self.0;
        let max_body_bytes = callable.limits.max_body_bytes;
        // A hosted app reads its content by itself, too; what is there already need not arrive.
        let is_there = callable.hosted.is_some()
            && match &request.body {
                Body::Empty => true,
                Body::Full(content) => content.len() as u64 <= max_body_bytes,
                Body::Stream(_) => false,
            };
        if callable.stream && !is_there {
            if callable.hosted.is_some() && request.body.size_hint().lower() > max_body_bytes {
                // No app of another interface knows what to do about it.
                return callable
                    .refuse(request, &Error::new(Fault::Limit, TooLarge { limit: max_body_bytes }.to_string()));
            }
            return arriving::answer(request, max_body_bytes, |request, content| callable.run(request, content));
        }
        let content = match &mut request.body {
            Body::Empty => Bytes::new(),
            Body::Full(content) if content.len() as u64 <= max_body_bytes => std::mem::take(content),
            _ => {
                if let Some(refused) = callable.limits.in_flight.refuse_early() {
                    return refused.into();
                }
                let callable = callable.clone();
                return Reply::later(async move {
                    let body = std::mem::take(&mut request.body);
                    match body.collect(max_body_bytes).await {
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
        if self.chain.is_empty() && !self.context.answers(status.as_u16()) {
            return plain_detail(status, &no.detail).into();
        }
        Python::attach(|py| Self::refusing(py, &self.context, &self.chain, &self.limits, no)).answer_refused(request)
    }

    /// Enters Python, when there is a place. All that does comes by here, and nothing waits for its client any more, but for
    /// content that the function itself reads.
    fn run(self: &Arc<Self>, request: Request, content: Content) -> Reply {
        let callable = self.clone();
        self.limits.in_flight.admit(move || {
            // Middleware is asynchronous, whatever it leads to.
            let kind = if callable.chain.is_empty() { callable.kind } else { Kind::Async };
            let is_alone = callable.hosted.is_some() && callable.chain.is_empty();
            let outlet = is_alone.then(|| Outlet::new(request.method == Method::HEAD, Site::here()));
            let site = if callable.hosted.is_some() && !is_alone { Site::here() } else { None };
            let asked = Asked { raw: Some(request), content: Some(content), object: None, site };
            let timeout = callable.limits.timeout.map(|limit| (limit, callable.clone()));
            let reply = driver::run(kind, Through { callable, asked, tried: 0, outlet });
            match timeout {
                None => reply,
                Some((limit, callable)) => within(limit, reply, move || callable.late()),
            }
        })
    }

    /// The answer in place of one that takes too long.
    fn late(self: Arc<Self>) -> Response {
        driver::tell(Box::new(move |py, _| {
            let seconds = self.limits.timeout.unwrap_or_default().as_secs_f64();
            // Where routing said no, there is middleware only.
            let label = if self.refused.is_some() { "middleware" } else { &self.label };
            log_late(py, label, seconds);
        }));
        unavailable()
    }

    /// What answers a request that reaches no function, for an application with middleware or error handlers of its own.
    pub(crate) fn refusing(
        py: Python<'_>,
        context: &Arc<Context>,
        chain: &Arc<Chain>,
        limits: &Limits,
        refused: Refused,
    ) -> Arc<Self> {
        Arc::new(Self {
            plan: Arc::new(Plan::empty(py)),
            kind: Kind::Inline,
            status: StatusCode::OK,
            stream: false,
            limits: limits.clone(),
            label: String::new(),
            context: context.clone(),
            needs_request: true,
            chain: chain.clone(),
            refused: Some(refused),
            hosted: None,
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
        if let Some(hosted) = &self.hosted {
            let (content, site) = request.get().take_content();
            return hosted.start(py, &request.get().head().into(), content, site);
        }
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
        // A WSGI app finds its thread by itself.
        self.kind == Kind::Pooled && self.hosted.is_none()
    }

    /// Turns the outcome of the stage or function at a place into what the stage before it gets from `next`: a response
    /// object, something to await first, or the exception, if nobody has an answer to it there. `tried` is how many
    /// apps have been asked for one.
    pub(crate) fn settle_inside<'py>(
        &self,
        request: &Bound<'py, PyRequest>,
        place: usize,
        outcome: PyResult<Bound<'py, PyAny>>,
        tried: usize,
    ) -> PyResult<Inside<'py>> {
        let py = request.py();
        let made = outcome.and_then(|value| response::to_object(py, &value, self.status_at(place)));
        match made {
            Ok(response) => Ok(Inside::Response(response)),
            Err(error) => match self.answered(py, place, tried, error, || Ok(request.clone()))? {
                Answered::Response(response) => Ok(Inside::Response(response::object_of(py, response)?)),
                Answered::Await(coroutine, tried) => Ok(Inside::Await(coroutine, tried)),
            },
        }
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
        match self.chain.stage(0) {
            Some(first) => Onward::enter(self, pool, first, &request),
            None => self.call_function(&request),
        }
    }

    /// The status of a result that does not say its own: the route's for the function's, 200 for middleware's.
    fn status_at(&self, place: usize) -> StatusCode {
        if self.chain.stage(place).is_some() { StatusCode::OK } else { self.status }
    }

    /// Decides what becomes of the whole chain's outcome: a response, or something to await first and the number of
    /// apps that have been asked for an answer by then.
    fn settle(&self, py: Python<'_>, asked: &mut Asked, outcome: PyResult<Py<PyAny>>, tried: usize) -> (Then, usize) {
        let responded = outcome.and_then(|value| {
            response::from_value_into(py, &value.into_bound(py), self.status_at(0), || asked.spare_fields())
        });
        let error = match responded {
            Ok(response) => return (Then::Answer(hand_over(py, response.into())), tried),
            Err(error) => error,
        };
        if !error.is_instance_of::<PyException>(py) {
            // Cancelled: by the client, who is gone, or by a server that stops. Nobody's failure.
            let mut response = unavailable();
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return (Then::Answer(response.into()), tried);
        }
        match self.answered(py, 0, tried, error, || self.object(py, asked)) {
            Ok(Answered::Response(response)) => (Then::Answer(hand_over(py, response.into())), tried),
            Ok(Answered::Await(coroutine, tried)) => (Then::Await(coroutine.unbind()), tried),
            Err(error) => (Then::Answer(self.failed(py, asked, &error).into()), tried),
        }
    }

    /// The answer to an error at a place of the chain: that of the first app that has one, `tried` of them having been
    /// asked before. An `HTTPError` that the next app has no handler for is what it says, so it leaves no app.
    ///
    /// # Errors
    /// The error, or the last one that an app raised instead, if nobody answers it.
    fn answered<'py>(
        &self,
        py: Python<'py>,
        place: usize,
        tried: usize,
        mut error: PyErr,
        mut request: impl FnMut() -> PyResult<Bound<'py, PyRequest>>,
    ) -> PyResult<Answered<'py>> {
        let is_answer = |error: &PyErr| errors::is_http(py, error);
        // What an app has raised for an answer.
        if tried > 0 && is_answer(&error) {
            return http_error(py, &error).map(Answered::Response);
        }
        for (index, context) in self.chain.answering(place).enumerate().skip(tried) {
            if !error.is_instance_of::<PyException>(py) {
                break;
            }
            if let Some(on_error) = context.on_error() {
                let value =
                    request().and_then(|request| on_error.bind(py).call1((request, errors::raised(py, &error))));
                let made = match value {
                    Ok(value) if is_awaitable(&value) => return Ok(Answered::Await(value, index + 1)),
                    Ok(value) => response::from_value(py, &value, self.status),
                    Err(error) => Err(error),
                };
                match made {
                    Ok(response) => return Ok(Answered::Response(response)),
                    Err(raised) => error = raised,
                }
            }
            if is_answer(&error) {
                return http_error(py, &error).map(Answered::Response);
            }
        }
        Err(error)
    }

    /// The request object, made now if nobody asked for it before.
    fn object<'py>(&self, py: Python<'py>, asked: &mut Asked) -> PyResult<Bound<'py, PyRequest>> {
        if let Some(raw) = asked.raw.take() {
            let (head, params, _body) = split(raw);
            let content = asked.content.take().unwrap_or(Content::Whole(Bytes::new()));
            let request = PyRequest::new(head, content, self.context.clone());
            if let Some(site) = asked.site.take() {
                request.set_site(site);
            }
            request.set_matched(self.plan.clone(), params);
            asked.object = Some(Py::new(py, request)?);
        }
        let gone = || pyo3::exceptions::PyRuntimeError::new_err("the request is gone");
        asked.object.as_ref().map(|request| request.bind(py).clone()).ok_or_else(gone)
    }

    /// HTTPy's own answer to an exception that nobody has one to: 500, and the traceback in the log.
    fn failed(&self, py: Python<'_>, asked: &Asked, error: &PyErr) -> Response {
        let target = match asked {
            Asked { raw: Some(request), .. } => target_of(request),
            Asked { object: Some(request), .. } => {
                let head = request.get().head();
                format!("{} {}", head.method, head.uri.path())
            }
            _ => String::new(),
        };
        if errors::is_client_disconnected(py, error) {
            tracing::debug!(%target, "the client went away before its request was answered");
        } else {
            log_failure(py, &self.label, &target, error);
        }
        internal_error()
    }
}

/// What middleware gets from `next`.
pub(crate) enum Inside<'py> {
    Response(Bound<'py, response::PyResponse>),
    /// And how many apps have been asked by then.
    Await(Bound<'py, PyAny>, usize),
}

/// An app's answer to an error.
enum Answered<'py> {
    Response(Response),
    /// And how many apps have been asked by then.
    Await(Bound<'py, PyAny>, usize),
}

/// One request's way to a function and back.
struct Through {
    callable: Arc<Callable>,
    asked: Asked,
    /// How many apps have been asked to answer an error: none is asked about its own answer's error.
    tried: usize,
    /// Of an app of another interface that stands alone: the way its response goes.
    outlet: Option<Arc<Outlet>>,
}

impl Visit for Through {
    fn call(&mut self, py: Python<'_>, pool: &Arc<Pool>) -> PyResult<Py<PyAny>> {
        if let (Some(hosted), Some(outlet), Some(raw)) = (&self.callable.hosted, &self.outlet, &self.asked.raw) {
            let content = self.asked.content.take().unwrap_or(Content::Whole(Bytes::new()));
            return hosted.call(py, &raw.into(), content, outlet);
        }
        self.callable.invoke(py, pool, &mut self.asked).map(Bound::unbind)
    }

    fn respond(&mut self, py: Python<'_>, ended: PyResult<Py<PyAny>>) -> Then {
        let ended = match self.outlet.take() {
            None => ended,
            Some(outlet) => match (ended, &self.asked.raw) {
                (Ok(_), raw) => {
                    let target = || raw.as_ref().map(target_of).unwrap_or_default();
                    return Then::Answer(hosting::conclude(&outlet, target).into());
                }
                (Err(error), raw) => match hosting::fail(&outlet) {
                    // Nothing was sent: it is answered like any handler's.
                    None => Err(error),
                    Some(response) => {
                        let target = raw.as_ref().map(target_of).unwrap_or_default();
                        hosting::log_end(py, &outlet, &self.callable.label, &target, &error);
                        return Then::Answer(response.into());
                    }
                },
            },
        };
        let (then, tried) = self.callable.settle(py, &mut self.asked, ended, self.tried);
        self.tried = tried;
        then
    }

    fn will_wait(&mut self, watch: Watch) {
        if let Some(outlet) = &self.outlet {
            return outlet.answer_through(watch);
        }
        if let Some(request) = &self.asked.object {
            request.get().set_watch(watch);
        }
    }
}

/// A request as the log names it.
fn target_of(request: &Request) -> String {
    format!("{} {}", request.method, request.uri.path())
}

/// What does not fit the function is an `HTTPError` 422.
pub(crate) fn fit<'py>(py: Python<'py>, called: Result<Bound<'py, PyAny>, Unfit>) -> PyResult<Bound<'py, PyAny>> {
    called.map_err(|unfit| match unfit {
        Unfit::Error(error) => error,
        Unfit::Request(misfits) => match plan::detail(py, misfits) {
            Ok(detail) => errors::http_with(py, 422, detail.as_any()),
            Err(error) => error,
        },
    })
}

/// A response leaves Python: what is to run after it is arranged.
#[inline]
fn hand_over(py: Python<'_>, mut response: Box<Response>) -> Box<Response> {
    // Nearly all have nothing with them.
    if response.extensions().is_empty() {
        return response;
    }
    match response.extensions_mut().remove::<Background>() {
        Some(background) => afterwards::with_background(py, *response, background).into(),
        None => response,
    }
}
