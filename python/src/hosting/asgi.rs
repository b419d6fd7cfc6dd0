//! ASGI: `receive` and `send` of one request, as what a loop can await, without a loop where nothing has to wait.
//!
//! Rules:
//! 1. `send` does its work when it is called; awaiting it waits for room. `receive` does its work when it is awaited, so that
//!    nothing is lost if that is cancelled.
//! 2. Messages come in the order of the specification, and name bytes bytes: what does not is raised to the app, with what
//!    was expected.
//! 3. When the client has left, `receive` says `http.disconnect`, and `send` raises an `OSError`. The app is not cancelled.
//! 4. What a protocol can't carry is no error: a push is dropped there, and so are hints and trailers.
//!
//! One file, because `receive` and `send` are the two ends of one exchange, and are objects that Python awaits, which takes
//! a page each: PyO3 lets no class have the methods of a coroutine from another.

use std::{
    ffi::CStr,
    fs::File,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, uri::PathAndQuery};
use httpy::{
    Response,
    message::{Exchange as Carrier, Promise},
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use pyo3::{
    exceptions::{PyRuntimeError, PyStopIteration, PyTypeError, PyValueError},
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyBool, PyByteArray, PyBytes, PyDict, PyList, PyMemoryView, PyString, PyTuple},
};

use super::{
    Ended, Hosted, Incoming, Outlet, Seen,
    bound::{Function, bind},
    flow::{Piece, Pushed, Room, Slice},
    message::{Item, Message},
    outlet::{Head, Phase, nobody_reads, too_large},
    repeats,
};
use crate::{
    arriving::{Content, End, Found},
    errors,
    failures::{internal_error, log_failure},
    fields,
    json::{Layout, TupleItems},
    plan::vectorcall,
    ready::ready,
};

/// Calls an app, which then is to be awaited.
pub(super) fn call<'py>(
    py: Python<'py>,
    hosted: &Hosted,
    seen: &Seen<'_>,
    content: Content,
    outlet: &Arc<Outlet>,
) -> PyResult<Bound<'py, PyAny>> {
    let [scope, receive, send] = arguments(py, hosted, seen, content, outlet)?;
    vectorcall(py, &hosted.app, &[scope, receive, send], None)
}

/// Starts an app in a task of its own, in a copy of the context that middleware has.
pub(super) fn start(
    py: Python<'_>,
    hosted: &Hosted,
    seen: &Seen<'_>,
    content: Content,
    outlet: &Arc<Outlet>,
) -> PyResult<()> {
    let [scope, receive, send] = arguments(py, hosted, seen, content, outlet)?;
    let ended = EndInside { outlet: outlet.clone(), target: format!("{} {}", seen.method, seen.uri.path()) };
    let streams = py.import(intern!(py, "httpy._streams"))?;
    streams.call_method1(intern!(py, "start_hosted"), (&hosted.app, scope, receive, send, ended)).map(drop)
}

fn arguments<'py>(
    py: Python<'py>,
    hosted: &Hosted,
    seen: &Seen<'_>,
    content: Content,
    outlet: &Arc<Outlet>,
) -> PyResult<[Bound<'py, PyAny>; 3]> {
    let (scope, takes_trailers) = hosted.http_scope(py, seen)?;
    let exchange = Exchange {
        outlet: outlet.clone(),
        incoming: Mutex::new(content.into()),
        carrier: seen.exchange.clone(),
        takes_trailers,
    };
    let exchange = Arc::new(exchange);
    Ok([scope.into_any(), bind::<Receive>(py, exchange.clone())?, bind::<Send>(py, exchange)?])
}

/// One request, between the app and the carrier. Python sees its `receive` and its `send`.
struct Exchange {
    outlet: Arc<Outlet>,
    incoming: Mutex<Incoming>,
    carrier: Carrier,
    takes_trailers: bool,
}

// -- receive ---------------------------------------------------------------------------------------------------------

struct Receive;

impl Function for Receive {
    type Data = Exchange;

    const NAMES: [&'static CStr; 2] = [c"receive", c"httpy._httpy._Receive"];
    const TAKES_ONE: bool = false;

    fn class() -> &'static PyOnceLock<Py<PyAny>> {
        static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        &CLASS
    }

    fn call<'py>(
        py: Python<'py>,
        exchange: &Arc<Exchange>,
        _: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Bound::new(py, Receiving(exchange.clone())).map(Bound::into_any)
    }
}

/// The next message from the client, to be awaited.
#[pyclass(frozen, module = "httpy._httpy", name = "_Receiving")]
struct Receiving(Arc<Exchange>);

#[pymethods]
impl Receiving {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.receive_step(py)
    }

    fn send<'py>(&self, py: Python<'py>, _value: Py<PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.0.receive_step(py)
    }

    #[pyo3(signature = (error, _value=None, _traceback=None))]
    fn throw(
        &self,
        py: Python<'_>,
        error: Py<PyAny>,
        _value: Option<Py<PyAny>>,
        _traceback: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        Err(PyErr::from_value(error.into_bound(py)))
    }

    #[expect(clippy::unused_self, reason = "a coroutine has it")]
    fn close(&self) {}

    #[getter]
    fn __name__<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        intern!(py, "receive").clone()
    }

    #[getter]
    fn __qualname__<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        intern!(py, "receive").clone()
    }
}

/// What there is to receive.
enum Next {
    Chunk(Bytes, bool),
    Disconnect,
    /// Nothing yet; of the content, or but for the client's leaving.
    Content(Arc<crate::arriving::Inbox>),
    Leaving,
}

impl Exchange {
    fn incoming(&self) -> MutexGuard<'_, Incoming> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One step of awaiting `receive`: yields futures until there is a message, then ends with it.
    fn receive_step<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        loop {
            let future = match self.next(py) {
                Next::Chunk(chunk, more) => return Err(request_message(py, &chunk, more)?),
                Next::Disconnect => {
                    self.outlet.note_told(py);
                    return Err(disconnect_message(py)?);
                }
                Next::Content(inbox) => inbox.wait_with_future(py)?,
                Next::Leaving => self.outlet.wait_to_leave(py)?,
            };
            if let Some(future) = future {
                return super::first_step(&future);
            }
        }
    }

    fn next(&self, py: Python<'_>) -> Next {
        let (phase, is_gone) = self.outlet.phase_and_gone();
        if is_gone || phase == Phase::Complete {
            return Next::Disconnect;
        }
        let mut incoming = self.incoming();
        let found = match &mut *incoming {
            Incoming::Over => return Next::Leaving,
            Incoming::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *incoming = Incoming::Over;
                return Next::Chunk(bytes, false);
            }
            Incoming::Arriving(inbox) => {
                let found = inbox.take();
                if matches!(found, Found::Nothing) {
                    return Next::Content(inbox.clone());
                }
                let is_over = inbox.is_over();
                if is_over || matches!(found, Found::End(_)) {
                    *incoming = Incoming::Over;
                }
                (found, is_over)
            }
        };
        drop(incoming);
        match found {
            (Found::Chunk(chunk), is_over) => Next::Chunk(chunk, !is_over),
            (Found::End(End::Whole), _) => Next::Chunk(Bytes::new(), false),
            (Found::End(End::TooLarge(message)), _) => {
                // The app need know no more than that there is nobody to answer.
                self.outlet.refuse(py, too_large(&message));
                Next::Disconnect
            }
            (Found::End(End::Gone | End::Answered) | Found::Nothing, _) => {
                self.outlet.leave();
                Next::Disconnect
            }
        }
    }
}

/// `http.request`, as the value of what was awaited.
fn request_message(py: Python<'_>, chunk: &Bytes, more: bool) -> PyResult<PyErr> {
    let message = PyDict::new(py);
    message.set_item(intern!(py, "type"), intern!(py, "http.request"))?;
    message.set_item(intern!(py, "body"), PyBytes::new(py, chunk))?;
    message.set_item(intern!(py, "more_body"), PyBool::new(py, more))?;
    Ok(PyStopIteration::new_err((message.unbind(),)))
}

fn disconnect_message(py: Python<'_>) -> PyResult<PyErr> {
    let message = PyDict::new(py);
    message.set_item(intern!(py, "type"), intern!(py, "http.disconnect"))?;
    Ok(PyStopIteration::new_err((message.unbind(),)))
}

// -- send ------------------------------------------------------------------------------------------------------------

struct Send;

impl Function for Send {
    type Data = Exchange;

    const NAMES: [&'static CStr; 2] = [c"send", c"httpy._httpy._Send"];
    const TAKES_ONE: bool = true;

    fn class() -> &'static PyOnceLock<Py<PyAny>> {
        static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        &CLASS
    }

    fn call<'py>(
        py: Python<'py>,
        exchange: &Arc<Exchange>,
        message: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match message.map_or(Ok(None), |message| exchange.send(py, message)) {
            Ok(Some(room)) => Ok(room.into_bound(py).into_any()),
            Ok(None) => ready(py),
            Err(error) if errors::is_client_disconnected(py, &error) && exchange.outlet.is_sparing(py) => ready(py),
            Err(error) => Err(error),
        }
    }
}

/// What is encoded in a path that a push names: all that is no part of one (RFC 3986 §3.3), but not `%`, which may be there
/// because it is encoded already.
const NOT_IN_PATH: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'`').add(b'{').add(b'}');

impl Exchange {
    /// Takes a message from the app. What is returned has to be awaited.
    fn send(&self, py: Python<'_>, message: &Bound<'_, PyAny>) -> PyResult<Option<Py<Room>>> {
        let Ok(message) = message.cast::<PyDict>() else {
            let found = message.get_type().fully_qualified_name()?;
            return Err(PyTypeError::new_err(format!("an ASGI message is a dict, found {found}")));
        };
        let message = &mut Message::of(message);
        let kind = message.take(Item::Type)?;
        let Some(kind) = kind.as_ref().and_then(|kind| kind.cast::<PyString>().ok()) else {
            return Err(PyTypeError::new_err("an ASGI message has a str as its type"));
        };
        let kind = fields::lent(kind)?;
        let (phase, is_gone) = self.outlet.phase_and_gone();
        match (&*kind, phase) {
            _ if is_gone => Err(nobody_reads(py)),
            ("http.response.body", Phase::Started | Phase::Sending) => self.body(py, message),
            ("http.response.start", Phase::Silent) => self.start(message).map(|()| None),
            ("http.response.debug", Phase::Silent) => Ok(None),
            ("http.response.pathsend", Phase::Started) => self.path(py, message.dict),
            ("http.response.zerocopysend", Phase::Started | Phase::Sending) => self.file(py, message.dict),
            ("http.response.trailers", Phase::Trailing) => {
                let headers = read_headers(message.take(Item::Headers)?)?;
                self.outlet.trail(&headers, truth(message.dict, intern!(py, "more_trailers"))?);
                self.outlet.give(py);
                Ok(None)
            }
            // Trailers that nobody was promised, or wants.
            ("http.response.trailers", Phase::Complete) => Ok(None),
            ("http.response.push", Phase::Started | Phase::Sending) => self.push(py, message.dict).map(|()| None),
            ("http.response.early_hint", Phase::Silent | Phase::Started) => self.hint(py, message.dict).map(|()| None),
            ("http.response.early_hint", Phase::Sending) => Ok(None),
            (kind, phase) => {
                let (is, expected) = match phase {
                    Phase::Silent => ("before the response was started", "http.response.start"),
                    Phase::Started | Phase::Sending => ("within the response", "http.response.body"),
                    Phase::Trailing => ("after the content", "http.response.trailers"),
                    Phase::Complete => ("after the response was complete", "nothing"),
                };
                Err(PyRuntimeError::new_err(format!("the app sends {kind:?} {is}; expected is {expected}")))
            }
        }
    }

    fn start(&self, message: &mut Message<'_, '_>) -> PyResult<()> {
        let status = read_status(message.take(Item::Status)?, "http.response.start")?;
        let has_trailers = message.take_flag(Item::Trailers)?;
        let headers = read_headers(message.take(Item::Headers)?)?;
        self.outlet.start(Head { status, headers, has_trailers: has_trailers && self.takes_trailers })
    }

    fn body(&self, py: Python<'_>, message: &mut Message<'_, '_>) -> PyResult<Option<Py<Room>>> {
        let data = message.take(Item::Body)?.map_or(Ok(Bytes::new()), |body| read_bytes(&body))?;
        let more = message.take_flag(Item::MoreBody)?;
        self.pass(py, Piece::Data(data), more)
    }

    /// Gives a piece to the outlet.
    fn pass(&self, py: Python<'_>, piece: Piece, more: bool) -> PyResult<Option<Py<Room>>> {
        let pushed = self.outlet.push(piece, more)?;
        self.outlet.give(py);
        match pushed {
            Pushed::Room => Ok(None),
            Pushed::Full => match self.outlet.flow() {
                Some(flow) => Py::new(py, Room(flow)).map(Some),
                None => Ok(None),
            },
            Pushed::Gone => {
                self.outlet.leave();
                Err(nobody_reads(py))
            }
        }
    }

    fn path(&self, py: Python<'_>, message: &Bound<'_, PyDict>) -> PyResult<Option<Py<Room>>> {
        let path = message.get_item(intern!(py, "path"))?;
        let Some(path) = path.and_then(|path| path.extract::<std::path::PathBuf>().ok()) else {
            return Err(PyTypeError::new_err("http.response.pathsend has a str as its path"));
        };
        // A relative path would be one of the process's folder, which is nobody's intention.
        if !path.is_absolute() {
            let message = format!("http.response.pathsend has an absolute path, found {}", path.display());
            return Err(PyValueError::new_err(message));
        }
        let (file, size) = open(&path)?;
        self.pass(py, Piece::File(Slice::new(file, Some(0), Some(size))), false)
    }

    fn file(&self, py: Python<'_>, message: &Bound<'_, PyDict>) -> PyResult<Option<Py<Room>>> {
        let Some(file) = message.get_item(intern!(py, "file"))? else {
            return Err(PyTypeError::new_err("http.response.zerocopysend has a file"));
        };
        let number = |name| -> PyResult<Option<u64>> {
            match message.get_item(name)? {
                Some(value) if !value.is_none() => value.extract().map(Some),
                _ => Ok(None),
            }
        };
        let (offset, count) = (number(intern!(py, "offset"))?, number(intern!(py, "count"))?);
        let more = truth(message, intern!(py, "more_body"))?;
        self.pass(py, Piece::File(Slice::new(copy_of(&file)?, offset, count)), more)
    }

    fn push(&self, py: Python<'_>, message: &Bound<'_, PyDict>) -> PyResult<()> {
        let path = message.get_item(intern!(py, "path"))?;
        let path = path.as_ref().and_then(|path| path.cast::<PyString>().ok()).map(|path| path.to_cow()).transpose()?;
        let target = path.as_deref().filter(|path| path.starts_with('/'));
        let target =
            target.and_then(|path| utf8_percent_encode(path, NOT_IN_PATH).to_string().parse::<PathAndQuery>().ok());
        let Some(target) = target else {
            return Err(PyValueError::new_err(format!(
                "http.response.push has a path that starts with /, found {path:?}"
            )));
        };
        let headers = read_headers(message.get_item(intern!(py, "headers"))?)?;
        self.carrier.push(Promise { target, headers, is_head: false });
        Ok(())
    }

    fn hint(&self, py: Python<'_>, message: &Bound<'_, PyDict>) -> PyResult<()> {
        let mut fields = HeaderMap::new();
        if let Some(links) = message.get_item(intern!(py, "links"))? {
            for link in links.try_iter()? {
                fields.append(header::LINK, read_value(&HeaderName::from_static("link"), &link?)?);
            }
        }
        if !fields.is_empty() {
            self.carrier.early_hints(fields);
        }
        Ok(())
    }
}

/// The status of the message that starts a response.
pub(super) fn read_status(status: Option<Bound<'_, PyAny>>, kind: &str) -> PyResult<StatusCode> {
    let number = status.as_ref().and_then(|status| status.extract::<u16>().ok());
    match number.and_then(|number| StatusCode::from_u16(number).ok()) {
        Some(status) if !status.is_informational() => Ok(status),
        _ => {
            let found = status.map_or_else(|| Ok("none".to_owned()), |status| status.repr().map(|s| s.to_string()))?;
            Err(PyValueError::new_err(format!("{kind} has a status from 200 to 999, found {found}")))
        }
    }
}

/// A flag of a message that need not be there.
pub(super) fn truth(message: &Bound<'_, PyDict>, name: &Bound<'_, PyString>) -> PyResult<bool> {
    message.get_item(name)?.map_or(Ok(false), |value| value.is_truthy())
}

pub(super) fn read_bytes(body: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    if let Ok(bytes) = body.cast::<PyBytes>() {
        return Ok(Bytes::copy_from_slice(bytes.as_bytes()));
    }
    if body.is_instance_of::<PyByteArray>() || body.is_instance_of::<PyMemoryView>() {
        return crate::outgoing::chunk(body);
    }
    let found = body.get_type().fully_qualified_name()?;
    Err(PyTypeError::new_err(format!("the body of http.response.body is bytes, found {found}")))
}

/// The fields that a message has, if it has some.
pub(crate) fn read_headers(headers: Option<Bound<'_, PyAny>>) -> PyResult<HeaderMap> {
    let mut fields = HeaderMap::new();
    let Some(headers) = headers else { return Ok(fields) };
    if let Ok(list) = headers.cast::<PyList>() {
        fields.reserve(list.len());
        for pair in list.iter() {
            read_field(&mut fields, &pair)?;
        }
        return Ok(fields);
    }
    for pair in headers.try_iter()? {
        read_field(&mut fields, &pair?)?;
    }
    Ok(fields)
}

fn read_field(fields: &mut HeaderMap, pair: &Bound<'_, PyAny>) -> PyResult<()> {
    // What is in a tuple stays there: it need not be owned.
    if let Ok(pair) = pair.cast::<PyTuple>() {
        let items = TupleItems::of(pair.as_any().as_borrowed(), &Layout::current(pair.py()));
        if let (Some(name), Some(value), None) = (items.at(0), items.at(1), items.at(2)) {
            return add_field(fields, &name, &value);
        }
    }
    let pair = pair.extract::<Vec<Bound<'_, PyAny>>>().ok().and_then(|pair| <[_; 2]>::try_from(pair).ok());
    let [name, value] =
        pair.ok_or_else(|| PyTypeError::new_err("headers are pairs of a name and a value, both bytes"))?;
    add_field(fields, &name, &value)
}

fn add_field(fields: &mut HeaderMap, name: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let Ok(bytes) = name.cast::<PyBytes>() else {
        let found = name.get_type().fully_qualified_name()?;
        return Err(PyTypeError::new_err(format!("header names are bytes, found {found}: {}", name.repr()?)));
    };
    let said = bytes.as_bytes();
    if let Ok(value) = value.cast::<PyBytes>()
        && let Some((name, value)) = repeats::find_field(said, value.as_bytes())
    {
        fields.append(name, value);
        return Ok(());
    }
    let name = HeaderName::from_bytes(said).map_err(|_| {
        let name = String::from_utf8_lossy(said);
        PyValueError::new_err(format!("header name {name:?} is not a token (RFC 9110 §5.6.2)"))
    })?;
    let value = read_value(&name, value)?;
    repeats::keep_field((said, value.as_bytes()), &name, &value);
    fields.append(name, value);
    Ok(())
}

fn read_value(name: &HeaderName, value: &Bound<'_, PyAny>) -> PyResult<HeaderValue> {
    let Ok(bytes) = value.cast::<PyBytes>() else {
        let found = value.get_type().fully_qualified_name()?;
        return Err(PyTypeError::new_err(format!("the value of header {name} is bytes, found {found}")));
    };
    HeaderValue::from_bytes(bytes.as_bytes()).map_err(|_| {
        PyValueError::new_err(format!("the value of header {name} has a control character (RFC 9110 §5.5)"))
    })
}

fn open(path: &std::path::Path) -> io::Result<(File, u64)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no file", path.display())));
    }
    Ok((file, metadata.len()))
}

/// A descriptor of our own for a file of the app's, which it may close as soon as it likes.
#[cfg(unix)]
pub(super) fn copy_of(file: &Bound<'_, PyAny>) -> PyResult<File> {
    use std::os::fd::{BorrowedFd, RawFd};

    let py = file.py();
    let descriptor = match file.extract::<RawFd>() {
        Ok(descriptor) => descriptor,
        Err(_) => file.call_method0(intern!(py, "fileno"))?.extract()?,
    };
    if descriptor < 0 {
        return Err(PyValueError::new_err("the file is closed"));
    }
    // SAFETY: not negative; the file object, which is alive, keeps it open for as long as the call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    Ok(File::from(borrowed.try_clone_to_owned()?))
}

/// Descriptors of Windows' C library are no handles of the system's: files are sent by path there.
#[cfg(not(unix))]
pub(super) fn copy_of(_file: &Bound<'_, PyAny>) -> PyResult<File> {
    Err(PyTypeError::new_err("http.response.zerocopysend needs Unix; use http.response.pathsend"))
}

// -- the end, inside of middleware -----------------------------------------------------------------------------------

/// Is told how an app in a task of its own has ended.
#[pyclass(frozen, module = "httpy._httpy", name = "_EndInside")]
struct EndInside {
    outlet: Arc<Outlet>,
    target: String,
}

#[pymethods]
impl EndInside {
    #[pyo3(signature = (error, /))]
    fn __call__(&self, py: Python<'_>, error: Option<Py<PyAny>>) {
        let error = error.map(|error| PyErr::from_value(error.into_bound(py)));
        let had_begun = self.outlet.has_begun();
        let failure = error.as_ref().map(|error| error.clone_ref(py)).filter(|_| !had_begun);
        let ended = self.outlet.end_inside(py, failure);
        match (ended, error) {
            (Ended::Cut | Ended::Given, Some(error)) if had_begun => {
                log_end(py, &self.outlet, "the hosted app", &self.target, &error)
            }
            (Ended::Cut, None) => log_incomplete(&self.target),
            _ => {}
        }
    }
}

/// Logs what an app raised behind its response, unless it only says that the client has left.
pub(crate) fn log_end(py: Python<'_>, outlet: &Outlet, label: &str, target: &str, error: &PyErr) {
    if outlet.is_gone() && errors::follows_client_disconnected(py, error) {
        tracing::debug!(%target, "the client went away before a hosted app had sent everything");
        return;
    }
    log_failure(py, label, target, error);
}

fn log_incomplete(target: &str) {
    tracing::error!(kind = "handler", target, "a hosted app ended before its response: the connection is cut");
}

/// What becomes of a request whose app has ended without an error.
#[inline]
pub(crate) fn conclude(outlet: &Outlet, target: impl Fn() -> String) -> Response {
    match outlet.end() {
        Ended::Response(response, is_whole) => {
            if !is_whole {
                log_incomplete(&target());
            }
            response
        }
        Ended::Given => Response::default(),
        Ended::Cut => {
            log_incomplete(&target());
            Response::default()
        }
        Ended::Missing => {
            tracing::error!(kind = "handler", target = target(), "a hosted app ended without a response");
            internal_error()
        }
    }
}

/// What becomes of a request whose app has raised something. None: nothing was sent, and it can be answered.
pub(crate) fn fail(outlet: &Outlet) -> Option<Response> {
    match outlet.end() {
        Ended::Response(response, _) => Some(response),
        Ended::Given | Ended::Cut => Some(Response::default()),
        // What the client never hears of is only logged.
        Ended::Missing => None,
    }
}
