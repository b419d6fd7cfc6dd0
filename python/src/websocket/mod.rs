//! A WebSocket as handlers have it. The protocol is the core's (`httpy::ws`).
//!
//! `endpoint.rs` calls the handler and looks after what becomes of it, `waiting.rs` is what it awaits.

mod endpoint;
mod waiting;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use http::{HeaderMap, StatusCode, header};
use httpy::{
    Config, Response,
    message::refusal,
    ws::{Close, Kind, Message, Opening, Policy, Prepared, Receiver, Refused, Sender},
};
use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::{PyRuntimeError, PyTypeError, PyValueError},
    prelude::*,
    types::{PyByteArray, PyBytes, PyDict, PyMemoryView, PyString},
};
use tokio::sync::oneshot;

pub(crate) use endpoint::SocketEndpoint;

use self::waiting::{Done, Wait, Waiter, What};
use crate::{
    driver::Home, errors, fields, fields::Headers, json, query::QueryParams, request::PyRequest, response,
    symbols::symbols,
};

/// What a message is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `str` or `bytes`, as it came.
    Any,
    Text,
    Bytes,
    Json,
    /// As [`Form::Any`], and the end is the end of an iteration.
    Next,
}

/// What the object, what is awaited of it, and what looks after its handler share.
struct Inner {
    home: Arc<Home>,
    config: Arc<Config>,
    policy: Policy,
    offered: Vec<String>,
    /// Until the handshake is answered: what accepts it, and where the answer goes.
    opening: Mutex<Option<(Opening, oneshot::Sender<Response>)>>,
    open: OnceLock<Open>,
    chosen: OnceLock<String>,
    /// What steps the task that waits for messages; none before one had to wait.
    waiter: OnceLock<Arc<Waiter>>,
}

/// Both ends of one that was accepted.
struct Open {
    sender: Sender,
    receiver: Receiver,
}

impl Inner {
    fn opening(&self) -> MutexGuard<'_, Option<(Opening, oneshot::Sender<Response>)>> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// `RuntimeError` before `accept` and after `reject`.
    fn open(&self) -> PyResult<&Open> {
        self.open.get().ok_or_else(|| {
            PyRuntimeError::new_err(if self.opening().is_some() {
                "the WebSocket is not open yet: await websocket.accept() first"
            } else {
                "the WebSocket was rejected"
            })
        })
    }

    fn accept(&self, subprotocol: Option<&str>, headers: HeaderMap) -> PyResult<()> {
        let Some((opening, answer)) = self.opening().take() else {
            return Err(PyRuntimeError::new_err("the WebSocket was accepted or rejected already"));
        };
        let accepted = opening.accept(subprotocol, headers, self.policy, &self.config);
        // The handshake is answered either way: one that can't be opened is the handler's failure.
        let (response, sender, receiver) = accepted.map_err(|error| PyValueError::new_err(error.to_string()))?;
        if let Some(chosen) = subprotocol {
            let _ = self.chosen.set(chosen.to_owned());
        }
        let _ = self.open.set(Open { sender, receiver });
        // If nobody waits for it the client has gone, and the receiver will say so.
        let _ = answer.send(response);
        Ok(())
    }

    fn reject(&self, response: Response) -> PyResult<()> {
        let Some((_, answer)) = self.opening().take() else {
            return Err(PyRuntimeError::new_err("the WebSocket was accepted or rejected already"));
        };
        let _ = answer.send(response);
        Ok(())
    }

    /// Makes of a message what was asked for. One that can't become that is the client's mistake, who is told by a close.
    fn shape<'py>(&self, py: Python<'py>, message: &Message, form: Form) -> PyResult<Bound<'py, PyAny>> {
        let data = &message.data[..];
        match (form, message.kind) {
            (Form::Text | Form::Any | Form::Next, Kind::Text) => Ok(text(py, data).into_any()),
            (Form::Bytes | Form::Any | Form::Next, Kind::Binary) => Ok(PyBytes::new(py, data).into_any()),
            (Form::Json, _) => json::read(py, data).map_err(|error| {
                if !error.is_instance_of::<PyValueError>(py) {
                    return error;
                }
                let refused = self.refuse(py, Close::INVALID_DATA, "expected a message in JSON");
                refused.set_cause(py, Some(error));
                refused
            }),
            (_, Kind::Binary) => {
                Err(self.refuse(py, UNSUPPORTED_DATA, "expected a text message, received a binary one"))
            }
            (_, Kind::Text) => Err(self.refuse(py, UNSUPPORTED_DATA, "expected a binary message, received a text one")),
        }
    }

    /// Closes on a client that has sent what the handler can't take.
    fn refuse(&self, py: Python<'_>, code: u16, says: &'static str) -> PyErr {
        if let Some(open) = self.open.get() {
            open.sender.close(Close::new(code, says));
        }
        errors::websocket_disconnect(py, code, says)
    }

    fn disconnected(&self, py: Python<'_>, close: &Close) -> PyErr {
        errors::websocket_disconnect(py, close.code, &close.reason)
    }

    /// What sending to a closed one raises.
    fn closed(&self, py: Python<'_>) -> PyErr {
        match self.open.get().and_then(|open| open.sender.ended()) {
            Some(close) => self.disconnected(py, &close),
            None => errors::websocket_disconnect(py, Close::ABNORMAL, "the WebSocket is closing"),
        }
    }

    /// Sends, if there is room. The awaitable for the rest.
    fn send<'py>(self: &Arc<Self>, py: Python<'py>, message: Prepared) -> PyResult<Option<Bound<'py, Wait>>> {
        match self.open()?.sender.try_send(&message) {
            Ok(()) => Ok(None),
            Err(Refused::Full) if self.policy == Policy::Drop => Ok(None),
            Err(Refused::Full) if self.policy == Policy::Wait => {
                Bound::new(py, Wait::new(self.clone(), What::Room(message))).map(Some)
            }
            Err(_) => Err(self.closed(py)),
        }
    }

    fn state(&self) -> &'static str {
        match self.open.get() {
            None if self.opening().is_some() => "connecting",
            Some(open) if !open.sender.is_closed() => "open",
            _ => "closed",
        }
    }

    fn ended(&self) -> Option<Close> {
        self.open.get()?.sender.ended()
    }
}

/// RFC 6455 §7.4.1: data of a kind that can't be accepted.
const UNSUPPORTED_DATA: u16 = 1003;

/// Text that the core has checked.
fn text<'py>(py: Python<'py>, data: &[u8]) -> Bound<'py, PyString> {
    // SAFETY: `httpy::ws` delivers text messages only if they are UTF-8 (RFC 6455 §8.1).
    PyString::new(py, unsafe { std::str::from_utf8_unchecked(data) })
}

/// Makes the frame of a text, of which no copy is made before.
///
/// # Errors
/// `UnicodeEncodeError` for lone surrogates, which have no UTF-8.
fn prepare_text(text: &Bound<'_, PyString>) -> PyResult<Prepared> {
    let Some(as_utf8_and_size) = symbols().as_utf8_and_size else {
        return Ok(Prepared::text(&text.to_cow()?));
    };
    let mut size = 0;
    // SAFETY: `text` is a live str, and we are attached.
    let data = unsafe { as_utf8_and_size(text.as_ptr(), &raw mut size) };
    if data.is_null() {
        return Err(PyErr::fetch(text.py()));
    }
    // SAFETY: CPython lends `size` bytes of UTF-8 for as long as the str lives, and they are copied at once.
    Ok(Prepared::text(unsafe {
        std::str::from_utf8_unchecked(std::slice::from_raw_parts(data.cast(), size.unsigned_abs()))
    }))
}

/// # Errors
/// `TypeError` if it is nothing like bytes.
fn prepare_bytes(data: &Bound<'_, PyAny>) -> PyResult<Prepared> {
    if let Ok(bytes) = data.cast::<PyBytes>() {
        return Ok(Prepared::binary(bytes.as_bytes()));
    }
    if data.is_instance_of::<PyByteArray>() || data.is_instance_of::<PyMemoryView>() {
        let bytes = data.py().get_type::<PyBytes>().call1((data,))?.cast_into::<PyBytes>()?;
        return Ok(Prepared::binary(bytes.as_bytes()));
    }
    let found = data.get_type().name()?;
    Err(PyTypeError::new_err(format!("a binary message is bytes, bytearray or memoryview, not {found}")))
}

fn prepare_any(data: &Bound<'_, PyAny>) -> PyResult<Prepared> {
    match data.cast::<PyString>() {
        Ok(text) => prepare_text(text),
        Err(_) => prepare_bytes(data).map_err(|_| {
            let found = data.get_type().name().map(|name| name.to_string()).unwrap_or_default();
            PyTypeError::new_err(format!("a message is str or bytes, not {found}; see send_json"))
        }),
    }
}

fn prepare_json(data: &Bound<'_, PyAny>) -> PyResult<Prepared> {
    let bytes = json::to_bytes(data.py(), data)?;
    let text = std::str::from_utf8(&bytes).map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(Prepared::text(text))
}

fn read_close(code: u16, reason: &str) -> PyResult<Close> {
    if !Close::is_sendable(code) {
        return Err(PyValueError::new_err(format!(
            "a close code is 1000 to 1003, 1007 to 1014 or 3000 to 4999 (RFC 6455 section 7.4), not {code}"
        )));
    }
    if reason.len() > Close::MAX_REASON_BYTES {
        let says = format!("a close reason has at most 123 bytes (RFC 6455 section 5.5), found {}", reason.len());
        return Err(PyValueError::new_err(says));
    }
    Ok(Close::new(code, reason.to_owned()))
}

fn read_ping(data: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let data = match data.cast::<PyString>() {
        Ok(text) => text.to_cow()?.into_owned().into_bytes(),
        Err(_) => prepare_bytes(data)?.data().to_vec(),
    };
    if data.len() > 125 {
        let says = format!("a ping has at most 125 bytes (RFC 6455 section 5.5), found {}", data.len());
        return Err(PyValueError::new_err(says));
    }
    Ok(data)
}

/// The response that rejects a handshake.
fn rejection(
    py: Python<'_>,
    content: Option<&Bound<'_, PyAny>>,
    status: u16,
    headers: Option<&Bound<'_, PyAny>>,
) -> PyResult<Response> {
    let status = response::status(status)?;
    if status.is_success() || status.is_informational() {
        let says = format!("a WebSocket is rejected with a status from 300 on, not {}", status.as_u16());
        return Err(PyValueError::new_err(says));
    }
    let mut rejection = match content.filter(|content| !content.is_none()) {
        Some(content) => response::from_value(py, content, status)?,
        None if status == StatusCode::FORBIDDEN => refusal(status, "Forbidden"),
        None => {
            let mut response = Response::default();
            *response.status_mut() = status;
            response
        }
    };
    if let Some(headers) = headers {
        let mut more = HeaderMap::new();
        fields::extend(&mut more, headers)?;
        for (name, value) in &more {
            rejection.headers_mut().append(name, value.clone());
        }
    }
    if rejection.status().is_success() {
        *rejection.status_mut() = status;
    }
    Ok(rejection)
}

fn read_headers(headers: Option<&Bound<'_, PyAny>>) -> PyResult<HeaderMap> {
    let mut map = HeaderMap::new();
    if let Some(headers) = headers {
        fields::extend(&mut map, headers)?;
    }
    Ok(map)
}

/// A WebSocket, for `async def` handlers.
#[pyclass(frozen, name = "WebSocket", module = "httpy", weakref)]
pub(crate) struct PyWebSocket {
    inner: Arc<Inner>,
    request: Py<PyRequest>,
}

#[pymethods]
impl PyWebSocket {
    /// Opens the WebSocket.
    #[pyo3(signature = (subprotocol=None, headers=None))]
    fn accept<'py>(
        &self,
        py: Python<'py>,
        subprotocol: Option<&str>,
        headers: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.inner.accept(subprotocol, read_headers(headers)?)?;
        Done::get(py)
    }

    /// Answers the handshake with an HTTP response instead of opening the WebSocket.
    #[pyo3(signature = (content=None, status=403, headers=None))]
    fn reject<'py>(
        &self,
        py: Python<'py>,
        content: Option<&Bound<'py, PyAny>>,
        status: u16,
        headers: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.inner.reject(rejection(py, content, status, headers)?)?;
        Done::get(py)
    }

    /// Waits for the next message: a `str` or `bytes`, as the client sent it.
    fn receive(&self) -> Wait {
        self.wait(Form::Any)
    }

    /// Waits for the next message, which has to be text.
    fn receive_text(&self) -> Wait {
        self.wait(Form::Text)
    }

    /// Waits for the next message, which has to be binary.
    fn receive_bytes(&self) -> Wait {
        self.wait(Form::Bytes)
    }

    /// Waits for the next message, which has to be JSON, and returns what it says.
    fn receive_json(&self) -> Wait {
        self.wait(Form::Json)
    }

    /// Sends a message: text if it is a `str`, else binary.
    #[pyo3(signature = (data, /))]
    fn send<'py>(&self, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.begin(data.py(), prepare_any(data)?)
    }

    /// Sends a text message.
    #[pyo3(signature = (data, /))]
    fn send_text<'py>(&self, data: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        self.begin(data.py(), prepare_text(data)?)
    }

    /// Sends a binary message.
    #[pyo3(signature = (data, /))]
    fn send_bytes<'py>(&self, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.begin(data.py(), prepare_bytes(data)?)
    }

    /// Sends a value as JSON, in a text message.
    #[pyo3(signature = (data, /))]
    fn send_json<'py>(&self, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.begin(data.py(), prepare_json(data)?)
    }

    /// Sends a ping (RFC 6455 §5.5.2). Clients answer by themselves; nobody waits for that.
    #[pyo3(signature = (data=None, /))]
    fn ping<'py>(&self, py: Python<'py>, data: Option<&Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        let data = data.map(read_ping).transpose()?.unwrap_or_default();
        self.inner.open()?.sender.ping(&data).map_err(|_| self.inner.closed(py))?;
        Done::get(py)
    }

    /// Closes the WebSocket, behind what was sent before.
    #[pyo3(signature = (code=1000, reason=""))]
    fn close<'py>(&self, py: Python<'py>, code: u16, reason: &str) -> PyResult<Bound<'py, PyAny>> {
        self.inner.open()?.sender.close(read_close(code, reason)?);
        Done::get(py)
    }

    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__(&self) -> Wait {
        self.wait(Form::Next)
    }

    /// `connecting` until the handshake is answered, then `open`, and `closed` at the end.
    #[getter]
    fn connection_state(&self) -> &'static str {
        self.inner.state()
    }

    /// How it ended: the code of the close, 1006 if there was none; None before.
    #[getter]
    fn close_code(&self) -> Option<u16> {
        self.inner.ended().map(|close| close.code)
    }

    /// What was said about the close; None before.
    #[getter]
    fn close_reason(&self) -> Option<String> {
        self.inner.ended().map(|close| close.reason.into_owned())
    }

    /// The subprotocols that the client offers, the preferred first.
    #[getter]
    fn subprotocols(&self) -> Vec<String> {
        self.inner.offered.clone()
    }

    /// The subprotocol that was accepted, if one was.
    #[getter]
    fn subprotocol(&self) -> Option<&str> {
        self.inner.chosen.get().map(String::as_str)
    }

    /// The request that asked for the WebSocket.
    #[getter]
    fn request(&self, py: Python<'_>) -> Py<PyRequest> {
        self.request.clone_ref(py)
    }

    /// The application.
    #[getter]
    fn app<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.of_request(py, "app")
    }

    /// Host and port of the client; None where there are none.
    #[getter]
    fn client<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.of_request(py, "client")
    }

    /// The cookies of the handshake.
    #[getter]
    fn cookies<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.of_request(py, "cookies")
    }

    /// The header fields of the handshake.
    #[getter]
    fn headers(&self, py: Python<'_>) -> Headers {
        Headers(self.request.clone_ref(py))
    }

    /// The path, percent-decoded, without the query.
    #[getter]
    fn path<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.of_request(py, "path")
    }

    /// The path parameters, converted.
    #[getter]
    fn path_params<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        Ok(self.of_request(py, "path_params")?.cast_into::<PyDict>()?)
    }

    /// The query parameters.
    #[getter]
    fn query(&self, py: Python<'_>) -> QueryParams {
        QueryParams(self.request.bind(py).get().query_text().into())
    }

    /// The same as `query`, under Starlette's name.
    #[getter]
    fn query_params(&self, py: Python<'_>) -> QueryParams {
        self.query(py)
    }

    /// A place for the application's own values, with those `lifespan` yielded.
    #[getter]
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.of_request(py, "state")
    }

    /// The target of the handshake as an absolute URL, `ws:` or `wss:`.
    #[getter]
    fn url<'py>(&self, py: Python<'py>) -> PyResult<String> {
        let url = self.of_request(py, "url")?.to_string();
        Ok(url.strip_prefix("http").map(|rest| format!("ws{rest}")).unwrap_or(url))
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let path = self.of_request(py, "path").map(|path| path.to_string()).unwrap_or_default();
        format!("<WebSocket {path} {}>", self.inner.state())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.request)
    }
}

impl PyWebSocket {
    fn wait(&self, form: Form) -> Wait {
        Wait::new(self.inner.clone(), What::Message(form))
    }

    fn begin<'py>(&self, py: Python<'py>, message: Prepared) -> PyResult<Bound<'py, PyAny>> {
        match self.inner.send(py, message)? {
            None => Done::get(py),
            Some(wait) => Ok(wait.into_any()),
        }
    }

    fn of_request<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        self.request.bind(py).getattr(name)
    }
}

/// A WebSocket, for `def` handlers, which run on a thread that may block.
#[pyclass(frozen, name = "BlockingWebSocket", module = "httpy", weakref)]
pub(crate) struct PyBlockingWebSocket {
    inner: Arc<Inner>,
    request: Py<PyRequest>,
}

#[pymethods]
impl PyBlockingWebSocket {
    /// Opens the WebSocket.
    #[pyo3(signature = (subprotocol=None, headers=None))]
    fn accept(&self, subprotocol: Option<&str>, headers: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        self.inner.accept(subprotocol, read_headers(headers)?)
    }

    /// Answers the handshake with an HTTP response instead of opening the WebSocket.
    #[pyo3(signature = (content=None, status=403, headers=None))]
    fn reject(
        &self,
        py: Python<'_>,
        content: Option<&Bound<'_, PyAny>>,
        status: u16,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.inner.reject(rejection(py, content, status, headers)?)
    }

    /// Waits for the next message: a `str` or `bytes`, as the client sent it.
    fn receive<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.wait(py, Form::Any)
    }

    /// Waits for the next message, which has to be text.
    fn receive_text<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.wait(py, Form::Text)
    }

    /// Waits for the next message, which has to be binary.
    fn receive_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.wait(py, Form::Bytes)
    }

    /// Waits for the next message, which has to be JSON, and returns what it says.
    fn receive_json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.wait(py, Form::Json)
    }

    /// Sends a message: text if it is a `str`, else binary.
    #[pyo3(signature = (data, /))]
    fn send(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.finish(data.py(), prepare_any(data)?)
    }

    /// Sends a text message.
    #[pyo3(signature = (data, /))]
    fn send_text(&self, data: &Bound<'_, PyString>) -> PyResult<()> {
        self.finish(data.py(), prepare_text(data)?)
    }

    /// Sends a binary message.
    #[pyo3(signature = (data, /))]
    fn send_bytes(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.finish(data.py(), prepare_bytes(data)?)
    }

    /// Sends a value as JSON, in a text message.
    #[pyo3(signature = (data, /))]
    fn send_json(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.finish(data.py(), prepare_json(data)?)
    }

    /// Sends a ping (RFC 6455 §5.5.2). Clients answer by themselves; nobody waits for that.
    #[pyo3(signature = (data=None, /))]
    fn ping(&self, py: Python<'_>, data: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let data = data.map(read_ping).transpose()?.unwrap_or_default();
        self.inner.open()?.sender.ping(&data).map_err(|_| self.inner.closed(py))
    }

    /// Closes the WebSocket, behind what was sent before.
    #[pyo3(signature = (code=1000, reason=""))]
    fn close(&self, code: u16, reason: &str) -> PyResult<()> {
        self.inner.open()?.sender.close(read_close(code, reason)?);
        Ok(())
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.wait(py, Form::Next) {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.is_instance_of::<pyo3::exceptions::PyStopAsyncIteration>(py) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `connecting` until the handshake is answered, then `open`, and `closed` at the end.
    #[getter]
    fn connection_state(&self) -> &'static str {
        self.inner.state()
    }

    /// How it ended: the code of the close, 1006 if there was none; None before.
    #[getter]
    fn close_code(&self) -> Option<u16> {
        self.inner.ended().map(|close| close.code)
    }

    /// What was said about the close; None before.
    #[getter]
    fn close_reason(&self) -> Option<String> {
        self.inner.ended().map(|close| close.reason.into_owned())
    }

    /// The subprotocols that the client offers, the preferred first.
    #[getter]
    fn subprotocols(&self) -> Vec<String> {
        self.inner.offered.clone()
    }

    /// The subprotocol that was accepted, if one was.
    #[getter]
    fn subprotocol(&self) -> Option<&str> {
        self.inner.chosen.get().map(String::as_str)
    }

    /// The request that asked for the WebSocket.
    #[getter]
    fn request(&self, py: Python<'_>) -> Py<PyRequest> {
        self.request.clone_ref(py)
    }

    fn __repr__(&self) -> String {
        format!("<BlockingWebSocket {}>", self.inner.state())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.request)
    }
}

impl PyBlockingWebSocket {
    fn wait<'py>(&self, py: Python<'py>, form: Form) -> PyResult<Bound<'py, PyAny>> {
        Wait::new(self.inner.clone(), What::Message(form)).block(py)
    }

    fn finish(&self, py: Python<'_>, message: Prepared) -> PyResult<()> {
        match self.inner.send(py, message)? {
            None => Ok(()),
            Some(wait) => wait.get().block(py).map(drop),
        }
    }
}

/// The head of a request in as little memory as it takes: a WebSocket is open for long, and what came with its handshake would
/// hold the whole buffer that it came in.
fn compact(headers: &HeaderMap) -> HeaderMap {
    let size = headers.iter().map(|(_, value)| value.len()).sum();
    let mut all = bytes::BytesMut::with_capacity(size);
    let mut compacted = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        // Of the handshake's own fields nothing is to be learned any more.
        if *name == header::SEC_WEBSOCKET_KEY {
            continue;
        }
        all.extend_from_slice(value.as_bytes());
        let mut copy = http::HeaderValue::from_maybe_shared(all.split().freeze()).unwrap_or_else(|_| value.clone());
        copy.set_sensitive(value.is_sensitive());
        compacted.append(name.clone(), copy);
    }
    compacted
}
