//! Walk 9/10, THE DOOR, for the WebSockets of ASGI apps (ASGI 3.0, WebSocket specification 2.5).
//!
//! The session, its limits and the waiting are those of our own handlers. What is here is how an app talks:
//!
//! ```text
//! Connecting --accept--> Open --close------------------------> Over
//!     |--close: 403 ---------------------------------------------^
//!     '--http.response.start--> Denying --the last content-------'
//! ```
//!
//! Rules:
//! 1. `send` does its work when it is called; awaiting it waits for room. `receive` does its work when it is awaited, so that
//!    nothing is lost if that is cancelled.
//! 2. Messages come in the order of the specification: what does not is raised to the app, with what was expected.
//! 3. An app is not cancelled because its client has gone: `receive` says `websocket.disconnect`, and `send` raises an `OSError`.
//! 4. The end of the app is the end of its WebSocket: 1000, or 1011 if it has failed; 500 if that was not open yet.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{StatusCode, Version};
use httpy::{
    Reply, Request, Response,
    message::refusal,
    ws::{Close, Kind, Message, Policy, Prepared, Refused},
};
use pyo3::{
    exceptions::{PyException, PyRuntimeError, PyTypeError},
    intern,
    prelude::*,
    types::{PyBytes, PyDict, PyString},
};

use super::{
    Common, Inner, Whose, endpoint, prepare_bytes, prepare_text, read_close, text,
    waiting::{Wait, What},
};
use crate::{
    afterwards::followed,
    driver::{self, Follower, Then, Visit, Watch},
    errors,
    failures::{internal_error, log_failure, unavailable},
    fields,
    hosting::{Denial, Hosted, Said, read_headers},
    plan::vectorcall,
    ready::ready,
    site::{Afterwards, Site},
    threads::Pool,
};

/// An ASGI app, as what answers handshakes.
pub(crate) struct HostedSockets(Arc<Endpoint>);

struct Endpoint {
    hosted: Arc<Hosted>,
    label: String,
    common: Arc<Common>,
}

impl HostedSockets {
    pub(crate) fn new(hosted: Arc<Hosted>, label: String, common: Arc<Common>) -> Self {
        Self(Arc::new(Endpoint { hosted, label, common }))
    }

    /// Answers a request that asks for a WebSocket.
    pub(crate) fn answer(&self, request: Request) -> Reply {
        let endpoint = &self.0;
        let begun = Inner::begin(&request, &endpoint.common, Policy::Wait, Whose::Hosted);
        let (inner, answered) = match begun {
            Ok(begun) => begun,
            Err(no) => return (*no).into(),
        };
        let conversation = Arc::new(Conversation {
            inner,
            site: Site::here(),
            is_success_open: request.version >= Version::HTTP_2,
            state: Mutex::default(),
        });
        let target = format!("WebSocket {}", request.uri.path());
        let visit =
            Through { endpoint: endpoint.clone(), conversation, request: Some(request), target, is_over: false };
        // Rule 3: whoever lets go of it leaves the app running.
        endpoint::answer(driver::run(driver::Kind::Async, visit), answered, drop)
    }
}

/// One WebSocket's way to an app, and the app's end.
struct Through {
    endpoint: Arc<Endpoint>,
    conversation: Arc<Conversation>,
    request: Option<Request>,
    target: String,
    is_over: bool,
}

impl Visit for Through {
    fn call(&mut self, py: Python<'_>, _pool: &Arc<Pool>) -> PyResult<Py<PyAny>> {
        let Some(request) = self.request.take() else {
            return Err(PyRuntimeError::new_err("an app is called once for a WebSocket"));
        };
        let conversation = &self.conversation;
        let hosted = &self.endpoint.hosted;
        let scope = hosted.socket_scope(py, &(&request).into(), &conversation.inner.offered)?;
        let receive = Bound::new(py, Receive(conversation.clone()))?;
        let send = Bound::new(py, Send(conversation.clone()))?;
        let arguments = [scope.into_any(), receive.into_any(), send.into_any()];
        vectorcall(py, &hosted.app, &arguments, None).map(Bound::unbind)
    }

    fn respond(&mut self, py: Python<'_>, ended: PyResult<Py<PyAny>>) -> Then {
        self.is_over = true;
        let (stage, afterwards) = {
            let mut state = self.conversation.lock();
            (state.stage.clone(), state.afterwards.take())
        };
        let inner = &self.conversation.inner;
        let error = ended.err().filter(|error| self.is_failure(py, error));
        let is_cancelled = error.as_ref().is_some_and(|error| !error.is_instance_of::<PyException>(py));
        if let Some(error) = error.as_ref().filter(|_| !is_cancelled) {
            log_failure(py, &self.endpoint.label, &self.target, error);
        }
        if let Some(open) = inner.open.get() {
            open.sender.close(match &error {
                _ if is_cancelled => Close::new(Close::GOING_AWAY, "the server stops"),
                Some(_) => Close::new(Close::INTERNAL_ERROR, ""),
                None => Close::new(Close::NORMAL, ""),
            });
        }
        let is_cut = matches!(&stage, Stage::Denying(denial) if denial.end());
        // The answer is this one, if nobody has given one.
        let is_unanswered = inner.opening().take().is_some() || stage == Stage::Failed;
        let says = match (&error, is_unanswered, is_cut) {
            (None, true, _) => "a hosted app ended without an answer to the handshake of a WebSocket",
            (None, false, true) => "a hosted app ended before its response: the connection is cut",
            _ => "",
        };
        if !says.is_empty() {
            tracing::error!(kind = "handler", target = self.target, "{says}");
        }
        drop(afterwards);
        let response = match is_unanswered {
            _ if is_cancelled => unavailable(),
            true => internal_error(),
            false => Response::default(),
        };
        Then::Answer(response.into())
    }

    fn will_wait(&mut self, watch: Watch) {
        let conversation = &self.conversation;
        let afterwards = conversation.site.as_ref().map(Site::begin_afterwards);
        conversation.lock().afterwards = afterwards;
        watch.follow(conversation.clone());
    }
}

impl Through {
    /// Whether what was raised says more than that the client has gone.
    fn is_failure(&self, py: Python<'_>, error: &PyErr) -> bool {
        let is_failure = !self.conversation.has_ended() || !errors::follows_client_disconnected(py, error);
        if !is_failure {
            tracing::debug!(target = self.target, "the client of a hosted app's WebSocket has gone");
        }
        is_failure
    }
}

impl Drop for Through {
    /// Dropped before its end, by a loop that is closed or a task that nobody runs: there will be no other.
    fn drop(&mut self) {
        if !self.is_over
            && let Some(open) = self.conversation.inner.open.get()
        {
            open.sender.close(Close::new(Close::GOING_AWAY, "the server stops"));
        }
    }
}

/// One WebSocket, between an app and its session.
pub(super) struct Conversation {
    pub(super) inner: Arc<Inner>,
    site: Option<Arc<Site>>,
    /// Whether a success opens a WebSocket, whoever says it (RFC 8441 §5).
    is_success_open: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stage: Stage,
    /// Whether the app was told that somebody connects.
    is_told: bool,
    /// Whether the client has gone before its handshake was answered, or all of that answer sent.
    is_gone: bool,
    /// Keeps a server that stops waiting for the app.
    afterwards: Option<Afterwards>,
}

/// See the module.
#[derive(Clone, Default)]
enum Stage {
    #[default]
    Connecting,
    /// It was accepted in a way that is none: the answer is 500.
    Failed,
    Open,
    Denying(Denial),
    /// And what the app is told of that.
    Over(Close),
}

impl PartialEq for Stage {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl Conversation {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the client has gone, or is being told to.
    fn has_ended(&self) -> bool {
        self.inner.open.get().map_or_else(|| self.lock().is_gone, |open| open.sender.is_closed())
    }

    /// Has who waits for a message look again. The loop's thread.
    fn wake(&self, py: Python<'_>) {
        if let Some(waiter) = self.inner.waiter.get() {
            waiter.step_soon(py);
        }
    }

    /// The client has gone before it had an answer. The runtime's thread.
    fn leave(&self) {
        {
            let mut state = self.lock();
            if matches!(state.stage, Stage::Over(_)) {
                return;
            }
            state.is_gone = true;
        }
        if let Some(waiter) = self.inner.waiter.get().cloned() {
            driver::tell(Box::new(move |py, _| waiter.step_soon(py)));
        }
    }

    // -- receive -----------------------------------------------------------------------------------------------------------

    /// Looks for the next message. None: it is not there yet, and the waker, or [`Self::wake`], says when it is.
    pub(super) fn poll_receive<'py>(
        &self,
        py: Python<'py>,
        cx: &mut std::task::Context<'_>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let over = {
            let mut state = self.lock();
            if !std::mem::replace(&mut state.is_told, true) {
                let message = PyDict::new(py);
                message.set_item(intern!(py, "type"), intern!(py, "websocket.connect"))?;
                return Ok(Some(message.into_any()));
            }
            match &state.stage {
                Stage::Over(close) => Some(close.clone()),
                Stage::Open => None,
                _ if state.is_gone => Some(Close::new(Close::ABNORMAL, "")),
                Stage::Failed => Some(Close::new(Close::ABNORMAL, "")),
                Stage::Connecting | Stage::Denying(_) => return Ok(None),
            }
        };
        let receiver = self.inner.open.get().map(|open| &open.receiver);
        let received = match (over, receiver) {
            (Some(close), None) => Err(close),
            // What had come before the app closed comes first.
            (Some(close), Some(receiver)) => receiver.try_receive().and_then(Result::ok).ok_or(close),
            (None, Some(receiver)) => match receiver.poll_receive(cx) {
                std::task::Poll::Ready(received) => received,
                std::task::Poll::Pending => return Ok(None),
            },
            (None, None) => return Ok(None),
        };
        match received {
            Ok(message) => received_message(py, &message),
            Err(close) => disconnect_message(py, &close),
        }
        .map(|message| Some(message.into_any()))
    }

    // -- send --------------------------------------------------------------------------------------------------------------

    /// Takes a message from the app. What is returned has to be awaited.
    fn send<'py>(self: &Arc<Self>, py: Python<'py>, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let Ok(message) = message.cast::<PyDict>() else {
            let found = message.get_type().fully_qualified_name()?;
            return Err(PyTypeError::new_err(format!("an ASGI message is a dict, found {found}")));
        };
        let kind = message.get_item(intern!(py, "type"))?;
        let Some(kind) = kind.as_ref().and_then(|kind| kind.cast::<PyString>().ok()) else {
            return Err(PyTypeError::new_err("an ASGI message has a str as its type"));
        };
        let kind = fields::lent(kind)?;
        let (stage, is_gone) = {
            let state = self.lock();
            (state.stage.clone(), state.is_gone)
        };
        match (&*kind, stage) {
            ("websocket.send", Stage::Open) => self.send_message(py, message),
            ("websocket.close", Stage::Open) => self.close(py, message),
            // Who closes what has ended has nothing to learn, and apps do it on their way out.
            ("websocket.close", Stage::Connecting | Stage::Denying(_)) if is_gone => ready(py),
            (_, Stage::Connecting | Stage::Denying(_)) if is_gone => Err(nobody_reads(py)),
            ("websocket.accept", Stage::Connecting) => self.accept(py, message),
            ("websocket.close", Stage::Connecting) => {
                self.over(py, Close::new(Close::ABNORMAL, ""));
                self.reject(py, refusal(StatusCode::FORBIDDEN, "Forbidden"))?;
                ready(py)
            }
            ("websocket.http.response.start", Stage::Connecting) => {
                let denial = Denial::start(py, message, self.site.clone(), self.is_success_open)?;
                self.lock().stage = Stage::Denying(denial);
                ready(py)
            }
            ("websocket.http.response.body", Stage::Denying(denial)) => self.deny(py, message, &denial),
            (kind, stage) => {
                let (is, expected) = match stage {
                    Stage::Connecting => (
                        "before the handshake was answered",
                        "websocket.accept, websocket.close or websocket.http.response.start",
                    ),
                    Stage::Open => ("while the WebSocket is open", "websocket.send or websocket.close"),
                    Stage::Denying(_) => ("within the response", "websocket.http.response.body"),
                    Stage::Failed => ("after the WebSocket could not be opened", "nothing"),
                    Stage::Over(_) => ("after the WebSocket was closed or the response complete", "nothing"),
                };
                Err(PyRuntimeError::new_err(format!("the app sends {kind:?} {is}; expected is {expected}")))
            }
        }
    }

    fn over(&self, py: Python<'_>, close: Close) {
        self.lock().stage = Stage::Over(close);
        self.wake(py);
    }

    /// Answers the handshake with a response that does not open the WebSocket.
    fn reject(&self, py: Python<'_>, response: Response) -> PyResult<()> {
        self.inner.reject(response).map_err(|_| nobody_reads(py))
    }

    fn accept<'py>(&self, py: Python<'py>, message: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyAny>> {
        let subprotocol = message.get_item(intern!(py, "subprotocol"))?.filter(|chosen| !chosen.is_none());
        let Ok(subprotocol) = subprotocol.map(|chosen| chosen.extract::<String>()).transpose() else {
            return Err(PyTypeError::new_err("websocket.accept has a str as its subprotocol, or None"));
        };
        let headers = message.get_item(intern!(py, "headers"))?.filter(|headers| !headers.is_none());
        let headers = read_headers(headers)?;
        // Chosen none: so some frameworks say it.
        let subprotocol = subprotocol.filter(|chosen| !chosen.is_empty());
        let accepted = self.inner.accept(subprotocol.as_deref(), headers);
        self.lock().stage = if accepted.is_ok() { Stage::Open } else { Stage::Failed };
        self.wake(py);
        accepted.and_then(|()| ready(py))
    }

    fn send_message<'py>(
        self: &Arc<Self>,
        py: Python<'py>,
        message: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let prepared = read_message(py, message)?;
        match self.inner.open()?.sender.try_send(&prepared) {
            Ok(()) => ready(py),
            Err(Refused::Full) => {
                Bound::new(py, Wait::new(What::Room(self.inner.clone(), prepared))).map(Bound::into_any)
            }
            Err(Refused::Closed) => Err(nobody_reads(py)),
        }
    }

    fn close<'py>(&self, py: Python<'py>, message: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyAny>> {
        let code = message.get_item(intern!(py, "code"))?.filter(|code| !code.is_none());
        let Ok(code) = code.map_or(Ok(Close::NORMAL), |code| code.extract::<u16>()) else {
            return Err(PyTypeError::new_err("websocket.close has an int as its code, of 16 bits"));
        };
        let reason = message.get_item(intern!(py, "reason"))?.filter(|reason| !reason.is_none());
        let Ok(reason) = reason.map_or(Ok(String::new()), |reason| reason.extract::<String>()) else {
            return Err(PyTypeError::new_err("websocket.close has a str as its reason, or None"));
        };
        let close = read_close(code, &reason)?;
        // If it has ended before, the app is told of that end.
        if self.inner.open()?.sender.close(close.clone()) {
            self.over(py, close);
        }
        ready(py)
    }

    fn deny<'py>(
        self: &Arc<Self>,
        py: Python<'py>,
        message: &Bound<'py, PyDict>,
        denial: &Denial,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (said, more) = denial.body(py, message)?;
        if let Some(response) = denial.take_response() {
            let conversation = self.clone();
            self.reject(py, response.map(|body| followed(body, move || conversation.leave())))?;
        }
        if !more {
            self.over(py, Close::new(Close::ABNORMAL, ""));
        }
        match said {
            Said::Done => ready(py),
            Said::Full(room) => Ok(room.into_bound(py)),
            Said::Gone => Err(nobody_reads(py)),
        }
    }
}

impl Follower for Conversation {
    /// The carrier has let go: of an app that runs on behind its answer, or of one that has not answered, as its client has gone.
    fn given_up(&self) {
        let unanswered = self.inner.opening().take();
        if unanswered.is_some() {
            self.leave();
        }
    }
}

/// What an app is raised that sends to nobody.
pub(super) fn nobody_reads(py: Python<'_>) -> PyErr {
    errors::client_disconnected(py, "the WebSocket has ended: receive says how")
}

/// `websocket.receive`.
fn received_message<'py>(py: Python<'py>, received: &Message) -> PyResult<Bound<'py, PyDict>> {
    let message = PyDict::new(py);
    message.set_item(intern!(py, "type"), intern!(py, "websocket.receive"))?;
    match received.kind {
        Kind::Text => message.set_item(intern!(py, "text"), text(py, &received.data))?,
        Kind::Binary => message.set_item(intern!(py, "bytes"), PyBytes::new(py, &received.data))?,
    }
    Ok(message)
}

/// `websocket.disconnect`.
fn disconnect_message<'py>(py: Python<'py>, close: &Close) -> PyResult<Bound<'py, PyDict>> {
    let message = PyDict::new(py);
    message.set_item(intern!(py, "type"), intern!(py, "websocket.disconnect"))?;
    message.set_item(intern!(py, "code"), close.code)?;
    message.set_item(intern!(py, "reason"), &*close.reason)?;
    Ok(message)
}

/// The content of `websocket.send`: one of `bytes` and `text` is there, and is not None.
fn read_message(py: Python<'_>, message: &Bound<'_, PyDict>) -> PyResult<Prepared> {
    let content = |name| message.get_item(name).map(|content| content.filter(|content| !content.is_none()));
    match (content(intern!(py, "text"))?, content(intern!(py, "bytes"))?) {
        (Some(text), None) => match text.cast::<PyString>() {
            Ok(text) => prepare_text(text),
            Err(_) => {
                let found = text.get_type().fully_qualified_name()?;
                Err(PyTypeError::new_err(format!("the text of websocket.send is a str, found {found}")))
            }
        },
        (None, Some(bytes)) => prepare_bytes(&bytes),
        (None, None) => Err(PyTypeError::new_err("websocket.send has text or bytes, found neither")),
        (Some(_), Some(_)) => Err(PyTypeError::new_err("websocket.send has text or bytes, found both")),
    }
}

/// `receive`.
#[pyclass(frozen, module = "httpy._httpy", name = "_SocketReceive")]
struct Receive(Arc<Conversation>);

#[pymethods]
impl Receive {
    fn __call__(&self) -> Wait {
        Wait::new(What::Event(self.0.clone()))
    }
}

/// `send`.
#[pyclass(frozen, module = "httpy._httpy", name = "_SocketSend")]
struct Send(Arc<Conversation>);

#[pymethods]
impl Send {
    #[pyo3(signature = (message, /))]
    fn __call__<'py>(&self, py: Python<'py>, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.0.send(py, message)
    }
}
