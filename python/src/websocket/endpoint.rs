//! Walk 9/10, THE DOOR, for WebSockets. Before: src/route. After: the carrier, which runs the session.
//!
//! A Python function as the handler of a WebSocket: it is called when the handshake has come, and runs on after that was
//! answered, for as long as it likes.
//!
//! ```text
//! handshake ─► handler runs ─► accept ─► 101 ─► handler runs on ──────────────────────► its end closes the WebSocket
//!                   ├─► reject, or an exception ─► any other response        └─ the client goes ─► told, and later cancelled
//!                   └─ the client goes ─► cancelled
//! ```

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
};

use bytes::Bytes;
use http::{StatusCode, Uri};
use httpy::{
    Handler, Reply, Request, Response,
    message::refusal,
    route::Pattern,
    ws::{Close, Policy, is_origin_allowed},
};
use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::{PyException, PyRuntimeError, PyValueError},
    prelude::*,
};
use tokio::{
    sync::oneshot,
    task::spawn_local,
    time::{Sleep, sleep},
};

use super::{Common, Inner, PyBlockingWebSocket, PyWebSocket, Whose, compact, response};
use crate::{
    arriving::Content,
    call::{Limits, fit},
    context::{Context, PyContext},
    driver::{self, Kind, Then, Visit, Watch},
    errors,
    failures::{http_error, internal_error, log_failure, unavailable},
    plan::{Described, Plan},
    request::{PyRequest, split},
    site::{Afterwards, Site},
    threads::Pool,
};

/// A Python function for WebSockets, and how to call it.
#[pyclass(frozen, module = "httpy._httpy")]
pub(crate) struct SocketEndpoint {
    plan: Plan,
    kind: Kind,
    terms: Terms,
    label: String,
    context: Arc<Context>,
}

/// What a route lets its clients do.
#[derive(Clone)]
struct Terms {
    policy: Policy,
    /// Where handshakes may come from; anywhere if None.
    origins: Option<Vec<String>>,
    is_same_origin_allowed: bool,
}

#[pymethods]
impl SocketEndpoint {
    #[new]
    #[pyo3(signature = (function, *, kind, context, parameters=Vec::new(), keywords=0, origins=None, when_full="wait", label=String::new()))]
    #[allow(clippy::too_many_arguments)] // Keywords of a constructor.
    fn new(
        py: Python<'_>,
        function: Py<PyAny>,
        kind: &str,
        context: &PyContext,
        parameters: Vec<Described<'_>>,
        keywords: usize,
        origins: Option<Vec<String>>,
        when_full: &str,
        label: String,
    ) -> PyResult<Self> {
        let kind = match kind {
            "async" => Kind::Async,
            "pooled" => Kind::Pooled,
            other => return Err(PyValueError::new_err(format!("no kind {other:?}"))),
        };
        let policy = match when_full {
            "wait" => Policy::Wait,
            "drop" => Policy::Drop,
            "close" => Policy::Close,
            other => return Err(PyValueError::new_err(format!("when_full is wait, drop or close, not {other:?}"))),
        };
        let is_same_origin_allowed = origins.iter().flatten().any(|origin| origin == "same");
        let required = crate::required(py)?;
        Ok(Self {
            plan: Plan::new(py, function, parameters, keywords, required.bind(py))?,
            kind,
            terms: Terms { policy, origins, is_same_origin_allowed },
            label,
            context: context.0.clone(),
        })
    }

    fn __repr__(&self) -> String {
        format!("<SocketEndpoint {} {:?}>", self.label, self.kind)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.plan.function)
    }
}

impl SocketEndpoint {
    /// Says at registration what the function takes and the pattern lacks.
    ///
    /// # Errors
    /// `ValueError` if there is something.
    pub(crate) fn check(&self, py: Python<'_>, pattern: &Pattern) -> PyResult<()> {
        self.plan.on_route(py, pattern, "").map(drop)
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
    ) -> PyResult<SocketRoute> {
        Ok(SocketRoute(Arc::new(Route {
            plan: Arc::new(self.plan.on_route(py, pattern, prefix)?),
            kind: self.kind,
            terms: self.terms.clone(),
            label: self.label.clone(),
            common: Common::new(&self.context, limits),
        })))
    }
}

struct Route {
    plan: Arc<Plan>,
    kind: Kind,
    terms: Terms,
    label: String,
    common: Arc<Common>,
}

/// A Python function on a route for WebSockets.
pub(crate) struct SocketRoute(Arc<Route>);

impl Handler for SocketRoute {
    fn call(&self, request: Request) -> Reply {
        let route = &self.0;
        let terms = &route.terms;
        let (inner, answered) = match Inner::begin(&request, &route.common, terms.policy, Whose::Ours) {
            Ok(begun) => begun,
            Err(no) => return (*no).into(),
        };
        if let Some(origins) = &terms.origins
            && !is_origin_allowed(&request.headers, origins, terms.is_same_origin_allowed)
        {
            tracing::debug!(kind = "peer", "a WebSocket was refused to a page of another origin");
            return refusal(StatusCode::FORBIDDEN, "Forbidden").into();
        }
        let visit = Through { route: route.clone(), inner: inner.clone(), request: Some(request), is_over: false };
        let handler = driver::run(route.kind, visit);
        answer(handler, answered, move |handler| {
            let afterwards = Site::here().map(|site| site.begin_afterwards());
            drop(spawn_local(Life { handler, inner, timer: None, _afterwards: afterwards }));
        })
    }
}

/// Answers a handshake as its handler says: by what it has `answered`, or by its end. One that runs on goes to `live`.
pub(super) fn answer(
    handler: Reply,
    answered: oneshot::Receiver<Response>,
    live: impl FnOnce(Reply) + Unpin + 'static,
) -> Reply {
    let mut opened = Opened { running: Some((handler, live)), answered: Some(answered) };
    match opened.poll_now() {
        Some(response) => response.into(),
        None => Reply::later(opened),
    }
}

/// A handshake on its way to an answer.
struct Opened<L> {
    /// What becomes of the handler, and what looks after it from the answer on. None from then on.
    running: Option<(Reply, L)>,
    /// None once it is known that nothing will come of it.
    answered: Option<oneshot::Receiver<Response>>,
}

impl<L: FnOnce(Reply) + Unpin> Opened<L> {
    /// The answer, if there is one already.
    fn poll_now(&mut self) -> Option<Response> {
        match Pin::new(self).poll(&mut TaskContext::from_waker(std::task::Waker::noop())) {
            Poll::Ready(response) => Some(response),
            Poll::Pending => None,
        }
    }
}

impl<L: FnOnce(Reply) + Unpin> Future for Opened<L> {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Response> {
        let this = &mut *self;
        match this.answered.as_mut().map(|answered| Pin::new(answered).poll(cx)) {
            Some(Poll::Ready(Ok(response))) => {
                if let Some((handler, live)) = this.running.take() {
                    live(handler);
                }
                return Poll::Ready(response);
            }
            // It is not polled again.
            Some(Poll::Ready(Err(_))) => this.answered = None,
            Some(Poll::Pending) | None => {}
        }
        let Some((handler, _)) = &mut this.running else { return Poll::Pending };
        let response = ready!(Pin::new(handler).poll(cx));
        this.running = None;
        // It may have answered and ended at once.
        let answered = this.answered.as_mut().and_then(|answered| answered.try_recv().ok());
        Poll::Ready(answered.unwrap_or(response))
    }
}

/// A handler that runs on behind its answer. Being dropped cancels it.
struct Life {
    handler: Reply,
    inner: Arc<Inner>,
    timer: Option<Pin<Box<Sleep>>>,
    /// A server that stops waits for it.
    _afterwards: Option<Afterwards>,
}

impl Future for Life {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = &mut *self;
        if Pin::new(&mut this.handler).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if let Some(open) = this.inner.open.get() {
            ready!(open.sender.poll_ended(cx));
        }
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(this.inner.grace())));
        ready!(timer.as_mut().poll(cx));
        tracing::debug!("a WebSocket's handler was cancelled, as its client has gone (ws_handler_grace)");
        Poll::Ready(())
    }
}

/// One WebSocket's way to a function, and the function's end.
struct Through {
    route: Arc<Route>,
    inner: Arc<Inner>,
    request: Option<Request>,
    is_over: bool,
}

impl Visit for Through {
    fn call(&mut self, py: Python<'_>, _pool: &Arc<Pool>) -> PyResult<Py<PyAny>> {
        let Some(request) = self.request.take() else {
            return Err(PyRuntimeError::new_err("a WebSocket's handler is called once"));
        };
        let (mut head, params, _body) = split(request);
        head.headers = compact(&head.headers);
        head.uri = copy(&head.uri);
        let request = PyRequest::new(head, Content::Whole(Bytes::new()), self.route.common.context.clone());
        request.set_matched(self.route.plan.clone(), params);
        let request = Bound::new(py, request)?;
        let (inner, own) = (self.inner.clone(), request.clone().unbind());
        let socket = match self.route.kind {
            Kind::Pooled => Bound::new(py, PyBlockingWebSocket { inner, request: own })?.into_any(),
            _ => Bound::new(py, PyWebSocket { inner, request: own })?.into_any(),
        };
        fit(py, self.route.plan.call_with_socket(&request, &socket)).map(Bound::unbind)
    }

    fn respond(&mut self, py: Python<'_>, ended: PyResult<Py<PyAny>>) -> Then {
        self.is_over = true;
        let was_answered = self.inner.opening().is_none();
        let response = match (self.inner.open.get(), ended) {
            (Some(open), Ok(_)) => {
                open.sender.close(Close::new(Close::NORMAL, ""));
                Response::default()
            }
            (Some(open), Err(error)) => {
                open.sender.close(self.close_after(py, &error));
                Response::default()
            }
            // It was rejected, or could not be opened.
            (None, Ok(_)) if was_answered => Response::default(),
            (None, Err(error)) if was_answered && !error.is_instance_of::<PyException>(py) => unavailable(),
            (None, Ok(value)) => self.rejection(py, value.bind(py)),
            (None, Err(error)) => self.failed(py, &error),
        };
        Then::Answer(response.into())
    }

    fn will_wait(&mut self, _watch: Watch) {}
}

impl Through {
    /// How a WebSocket is closed whose handler has raised.
    fn close_after(&self, py: Python<'_>, error: &PyErr) -> Close {
        if errors::is_websocket_disconnect(py, error) {
            // It has ended, or is about to.
            return Close::new(Close::NORMAL, "");
        }
        if !error.is_instance_of::<PyException>(py) {
            // Cancelled, by a server that stops.
            return Close::new(Close::GOING_AWAY, "the server stops");
        }
        self.log(py, error);
        Close::new(Close::INTERNAL_ERROR, "")
    }

    /// The answer of a handler that has returned without accepting: what it returned, or 403.
    fn rejection(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> Response {
        if value.is_none() {
            return refusal(StatusCode::FORBIDDEN, "Forbidden");
        }
        match response::from_value(py, value, StatusCode::FORBIDDEN) {
            // RFC 6455 §4.2.2: nothing but an opened one is a success.
            Ok(response) if response.status().is_success() => refusal(StatusCode::FORBIDDEN, "Forbidden"),
            Ok(response) => response,
            Err(error) => self.failed(py, &error),
        }
    }

    fn failed(&self, py: Python<'_>, error: &PyErr) -> Response {
        if errors::is_http(py, error) {
            return http_error(py, error).unwrap_or_else(|error| self.failed(py, &error));
        }
        if errors::is_websocket_disconnect(py, error) {
            return refusal(StatusCode::FORBIDDEN, "Forbidden");
        }
        if !error.is_instance_of::<PyException>(py) {
            return unavailable();
        }
        self.log(py, error);
        internal_error()
    }

    fn log(&self, py: Python<'_>, error: &PyErr) {
        log_failure(py, &self.route.label, &format!("WebSocket {}", self.route.plan.pattern()), error);
    }
}

impl Drop for Through {
    /// Dropped before its end, by a loop that is closed or a task that nobody runs: there will be no other.
    fn drop(&mut self) {
        if !self.is_over
            && let Some(open) = self.inner.open.get()
        {
            open.sender.close(Close::new(Close::GOING_AWAY, "the server stops"));
        }
    }
}

/// A target that holds no more than itself.
fn copy(uri: &Uri) -> Uri {
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    Uri::from_maybe_shared(Bytes::copy_from_slice(target.as_bytes())).unwrap_or_else(|_| uri.clone())
}
