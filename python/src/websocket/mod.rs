//! A WebSocket as handlers have it. The protocol is the core's (`httpy::ws`).
//!
//! `endpoint.rs` calls the handler and looks after what becomes of it. What that gets is in `object.rs`, or `blocking.rs`, both
//! of which are a face of what is here; `waiting.rs` is what it awaits, and `rooms.rs` what sends to many. `hosted.rs` is all
//! of that for ASGI apps. `line.rs` is the carrier's side where we are a guest.

mod blocking;
mod endpoint;
mod hosted;
mod line;
mod object;
mod rooms;
mod waiting;

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use http::{HeaderMap, StatusCode, header};
use httpy::{
    Config, Request, Response,
    message::refusal,
    ws::{Close, Kind, Message, Opening, Policy, Prepared, Receiver, Refused, Rooms, Sender},
};
use pyo3::{
    exceptions::{PyRuntimeError, PyTypeError, PyValueError},
    prelude::*,
    types::{PyByteArray, PyBytes, PyMemoryView, PyString},
};
use tokio::sync::oneshot;

pub(crate) use self::{
    blocking::PyBlockingWebSocket,
    endpoint::SocketEndpoint,
    hosted::HostedSockets,
    line::PyLine,
    object::PyWebSocket,
    rooms::{PyHub, PyRooms},
};

use self::waiting::{Wait, Waiter, What};
use crate::{
    call::Limits,
    context::Context,
    driver::{self, Home},
    errors,
    failures::unavailable,
    fields, json, response,
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

/// Whose code has a WebSocket: that decides what it is raised when its client has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// A handler of ours.
    Ours,
    /// An ASGI app.
    Hosted,
}

/// What all WebSockets of an endpoint have in common.
pub(crate) struct Common {
    context: Arc<Context>,
    config: Arc<Config>,
    /// Those of the server.
    rooms: Rooms,
}

impl Common {
    pub(crate) fn new(context: &Arc<Context>, limits: &Limits) -> Arc<Self> {
        Arc::new(Self { context: context.clone(), config: limits.config.clone(), rooms: limits.rooms.clone() })
    }
}

/// What the object, what is awaited of it, and what looks after its handler share.
struct Inner {
    home: Arc<Home>,
    common: Arc<Common>,
    whose: Whose,
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
    /// Begins with a request that asks for a WebSocket. Where the answer comes from is returned with it. The runtime's thread.
    ///
    /// # Errors
    /// The response that says what is wrong with the request.
    fn begin(
        request: &Request,
        common: &Arc<Common>,
        policy: Policy,
        whose: Whose,
    ) -> Result<(Arc<Self>, oneshot::Receiver<Response>), Box<Response>> {
        let opening = Opening::read(request, &common.config)?;
        let home = driver::home().ok_or_else(|| Box::new(unavailable()))?;
        let (answer, answered) = oneshot::channel();
        let inner = Self {
            home,
            common: common.clone(),
            whose,
            policy,
            offered: opening.subprotocols().to_vec(),
            opening: Mutex::new(Some((opening, answer))),
            open: OnceLock::new(),
            chosen: OnceLock::new(),
            waiter: OnceLock::new(),
        };
        Ok((Arc::new(inner), answered))
    }

    /// How long a handler may go on after the end of its WebSocket: not as long if the server stops, and waits for it.
    fn grace(&self) -> Duration {
        let Config { ws_handler_grace, idle_grace, .. } = *self.common.config;
        if self.common.context.is_stopping() { ws_handler_grace.min(idle_grace) } else { ws_handler_grace }
    }

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
        let accepted = opening.accept(subprotocol, headers, self.policy, &self.common.config);
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
        if self.whose == Whose::Hosted {
            return hosted::nobody_reads(py);
        }
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
                Bound::new(py, Wait::new(What::Room(self.clone(), message))).map(Some)
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
