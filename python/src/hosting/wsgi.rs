//! WSGI: an app's call and its iterable, on one pool thread from beginning to end (PEP 3333).
//!
//! Rules:
//! 1. Everything of a request happens on one thread, `close` included: frameworks keep database connections by thread.
//! 2. A chunk is on its way before the next one is asked for. While the client is slow, the thread waits.
//! 3. A response is whole, and needs no framing of its own, when the iterable is one chunk or `Content-Length` is reached.
//! 4. `close` is always called: at the end, when the app fails, and when the client leaves.
//! 5. Fields that speak of the connection are the server's (PEP 3333, "Other HTTP Features") and dropped.
//!
//! One file, because `start_response`, `write` and the iterable may say the same things in any order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, StatusCode};
use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::{PyAssertionError, PyRuntimeError, PyStopIteration, PyTypeError, PyValueError},
    intern,
    prelude::*,
    types::{PyBytes, PyDict, PyList, PyString, PyTuple},
};

use super::{
    Hosted, Incoming, Outlet, Seen, asgi,
    flow::{Piece, Pushed, Slice},
    outlet::{Head, Phase, nobody_reads, too_large},
    repeats,
};
use crate::{
    arriving::{Content, End, Found},
    errors,
    failures::log_failure,
    fields,
};

/// Calls an app and sends what it gives. To be called on a pool thread.
pub(super) fn call(
    py: Python<'_>,
    hosted: &Hosted,
    seen: &Seen<'_>,
    content: Content,
    outlet: &Arc<Outlet>,
) -> PyResult<()> {
    let environ = environ(py, hosted, seen, content, outlet)?;
    run(py, &hosted.app, &environ, outlet)
}

/// Starts an app on a pool thread of its own.
pub(super) fn start(
    py: Python<'_>,
    hosted: &Arc<Hosted>,
    seen: &Seen<'_>,
    content: Content,
    outlet: &Arc<Outlet>,
) -> PyResult<()> {
    let environ = environ(py, hosted, seen, content, outlet)?.unbind();
    let target = format!("{} {}", seen.method, seen.uri.path());
    let Some(site) = outlet.site.clone() else { return Err(PyRuntimeError::new_err("there is no server here")) };
    let context = crate::outgoing::copy_context(py)?.unbind();
    let (hosted, outlet) = (hosted.clone(), Unended(outlet.clone()));
    site.on_pool(Box::new(move |py| {
        let outlet = &outlet.0;
        let outcome = crate::driver::run_in_copy(context.bind(py), |py| run(py, &hosted.app, environ.bind(py), outlet));
        let had_begun = outlet.has_begun();
        let (logged, failure) = match outcome {
            Err(error) if had_begun => (Some(error), None),
            Err(error) => (None, Some(error)),
            Ok(()) => (None, None),
        };
        outlet.end_inside(py, failure);
        if let Some(error) = logged {
            asgi::log_end(py, outlet, "the hosted app", &target, &error);
        }
    }));
    Ok(())
}

/// Tells middleware that there is no response, should the job never run.
struct Unended(Arc<Outlet>);

impl Drop for Unended {
    fn drop(&mut self) {
        // None if the interpreter ends.
        let _ = Python::try_attach(|py| drop(self.0.end_inside(py, None)));
    }
}

fn environ<'py>(
    py: Python<'py>,
    hosted: &Hosted,
    seen: &Seen<'_>,
    content: Content,
    outlet: &Arc<Outlet>,
) -> PyResult<Bound<'py, PyDict>> {
    let environ = hosted.environ(py, seen)?;
    let input = Input::new(content, Some(outlet.clone()));
    environ.set_item(intern!(py, "wsgi.input"), Bound::new(py, input)?)?;
    Ok(environ)
}

fn run(py: Python<'_>, app: &Py<PyAny>, environ: &Bound<'_, PyDict>, outlet: &Arc<Outlet>) -> PyResult<()> {
    let start_response = Bound::new(py, StartResponse(outlet.clone()))?;
    let result = app.bind(py).call1((environ, start_response))?;
    let sent = send_all(py, &result, outlet);
    // The most common one has none, and an attribute that is not there is an exception made and dropped.
    let close =
        if result.is_exact_instance_of::<PyList>() { None } else { result.getattr_opt(intern!(py, "close"))? };
    let closed = match close {
        // Nobody waits for what is done at the end.
        Some(close) => {
            outlet.give_from_thread();
            close.call0().map(drop)
        }
        None => Ok(()),
    };
    match (sent, closed) {
        (Err(error), Err(second)) => {
            log_failure(py, "the close of a hosted app", "", &second);
            Err(error)
        }
        (sent, closed) => sent.and(closed),
    }
}

/// Sends what an iterable has.
fn send_all(py: Python<'_>, result: &Bound<'_, PyAny>, outlet: &Arc<Outlet>) -> PyResult<()> {
    if let Ok(list) = result.cast_exact::<PyList>()
        && list.len() == 1
        && outlet.phase() == Phase::Started
    {
        return push(py, outlet, Piece::Data(chunk(&list.get_item(0)?)?), Some(false));
    }
    if let Ok(wrapper) = result.cast::<FileWrapper>()
        && outlet.phase() == Phase::Started
        && let Some(slice) = wrapper.get().slice(py, outlet.left())
    {
        return push(py, outlet, Piece::File(slice), Some(false));
    }
    for item in result.try_iter()? {
        let data = chunk(&item?)?;
        if data.is_empty() {
            continue;
        }
        push(py, outlet, Piece::Data(data), None)?;
        // Rule 2.
        outlet.give_from_thread();
    }
    match outlet.phase() {
        Phase::Silent => Err(PyRuntimeError::new_err("the app ended without a call of start_response")),
        Phase::Complete => Ok(()),
        _ => push(py, outlet, Piece::Data(Bytes::new()), Some(false)),
    }
}

/// Sends a piece, and waits for room behind it. `more` is found out by `Content-Length` if it is not said.
fn push(py: Python<'_>, outlet: &Arc<Outlet>, piece: Piece, more: Option<bool>) -> PyResult<()> {
    if outlet.phase() == Phase::Silent {
        return Err(PyRuntimeError::new_err("the app gives content before it has called start_response"));
    }
    let more = more.unwrap_or_else(|| outlet.left().is_none_or(|left| piece.size() != Some(left)));
    match outlet.push(piece, more)? {
        Pushed::Room => Ok(()),
        Pushed::Full if !more => Ok(()),
        Pushed::Full => {
            outlet.give_from_thread();
            if let Some(flow) = outlet.flow() {
                py.detach(|| flow.wait());
            }
            Ok(())
        }
        Pushed::Gone => {
            outlet.leave();
            Err(nobody_reads(py))
        }
    }
}

fn chunk(item: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    match item.cast::<PyBytes>() {
        Ok(bytes) => Ok(Bytes::copy_from_slice(bytes.as_bytes())),
        Err(_) => {
            let found = item.get_type().fully_qualified_name()?;
            Err(PyTypeError::new_err(format!("a WSGI app gives bytes, found {found} (PEP 3333)")))
        }
    }
}

// -- start_response --------------------------------------------------------------------------------------------------

/// `start_response`.
#[pyclass(frozen, module = "httpy._httpy", name = "_StartResponse")]
struct StartResponse(Arc<Outlet>);

#[pymethods]
impl StartResponse {
    #[pyo3(signature = (status, headers, exc_info=None, /))]
    fn __call__(
        &self,
        py: Python<'_>,
        status: &Bound<'_, PyAny>,
        headers: &Bound<'_, PyAny>,
        exc_info: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Write> {
        match (exc_info.filter(|info| !info.is_none()), self.0.phase()) {
            (None, Phase::Silent) => {}
            (None, _) => {
                return Err(PyAssertionError::new_err(
                    "start_response was called already; to replace the response it takes exc_info (PEP 3333)",
                ));
            }
            (Some(_), Phase::Silent | Phase::Started) => {}
            // Too late to say anything else: the app's own error it is.
            (Some(info), _) => return Err(raised(py, info)?),
        }
        let head = Head { status: read_status(status)?, headers: read_headers(headers)?, has_trailers: false };
        self.0.start(head)?;
        Ok(Write(self.0.clone()))
    }
}

/// The error that `sys.exc_info()` told of.
fn raised(py: Python<'_>, info: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let (_, value, traceback): (Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>) = info.extract()?;
    let value = value.call_method1(intern!(py, "with_traceback"), (traceback,))?;
    Ok(PyErr::from_value(value))
}

fn read_status(status: &Bound<'_, PyAny>) -> PyResult<StatusCode> {
    let wrong = || -> PyResult<StatusCode> {
        let found = status.repr()?;
        Err(PyValueError::new_err(format!("a WSGI status is a str like '200 OK', from 200 to 999, found {found}")))
    };
    let Ok(text) = status.cast::<PyString>() else {
        let found = status.get_type().fully_qualified_name()?;
        return Err(PyTypeError::new_err(format!("a WSGI status is a str, found {found}")));
    };
    let text = fields::lent(text)?;
    let number =
        text.split(' ').next().filter(|number| number.len() == 3).and_then(|number| number.parse::<u16>().ok());
    match number.and_then(|number| StatusCode::from_u16(number).ok()) {
        Some(status) if !status.is_informational() => Ok(status),
        _ => wrong(),
    }
}

/// Rule 5. In lower case.
const OF_THE_CONNECTION: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
];

fn read_headers(headers: &Bound<'_, PyAny>) -> PyResult<HeaderMap> {
    let Ok(list) = headers.cast::<PyList>() else {
        let found = headers.get_type().fully_qualified_name()?;
        return Err(PyTypeError::new_err(format!("WSGI headers are a list of pairs, found {found}")));
    };
    let mut read = HeaderMap::with_capacity(list.len() + 2);
    for pair in list.iter() {
        let pair = pair.cast::<PyTuple>().ok().filter(|pair| pair.len() == 2);
        let Some(pair) = pair else {
            return Err(PyTypeError::new_err("WSGI headers are a list of tuples of a name and a value"));
        };
        let (name, value) = (pair.get_item(0)?, pair.get_item(1)?);
        let (Ok(name), Ok(value)) = (name.cast::<PyString>(), value.cast::<PyString>()) else {
            let found = if name.is_instance_of::<PyString>() { value.get_type() } else { name.get_type() };
            let found = found.fully_qualified_name()?;
            return Err(PyTypeError::new_err(format!("names and values of WSGI headers are str, found {found}")));
        };
        let (said_name, said_value) = (fields::lent(name)?, fields::lent(value)?);
        let said = (said_name.as_bytes(), said_value.as_bytes());
        // None of those that are known is the connection's.
        if let Some((name, value)) = repeats::find_field(said.0, said.1) {
            read.append(name, value);
            continue;
        }
        let name: HeaderName = fields::name(&said_name)?;
        if !OF_THE_CONNECTION.contains(&name.as_str()) {
            let value = fields::value(name.as_str(), &said_value)?;
            repeats::keep_field(said, &name, &value);
            read.append(name, value);
        }
    }
    Ok(read)
}

/// What `start_response` returns: sends content at once.
#[pyclass(frozen, module = "httpy._httpy", name = "_Write")]
struct Write(Arc<Outlet>);

#[pymethods]
impl Write {
    #[pyo3(signature = (data, /))]
    fn __call__(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let data = chunk(data)?;
        if !data.is_empty() {
            push(py, &self.0, Piece::Data(data), None)?;
            self.0.give_from_thread();
        }
        Ok(())
    }
}

// -- wsgi.input ------------------------------------------------------------------------------------------------------

/// `wsgi.input`: the content while it arrives, on a thread that may block.
#[pyclass(frozen, module = "httpy._httpy", name = "_Input")]
pub(crate) struct Input {
    /// Whose response says that the content is too large.
    outlet: Option<Arc<Outlet>>,
    state: Mutex<Reading>,
}

struct Reading {
    incoming: Incoming,
    /// Taken, and not read.
    buffer: Bytes,
}

impl Input {
    pub(super) fn new(content: Content, outlet: Option<Arc<Outlet>>) -> Self {
        Self { outlet, state: Mutex::new(Reading { incoming: content.into(), buffer: Bytes::new() }) }
    }

    fn lock(&self) -> MutexGuard<'_, Reading> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that something is in the buffer. False at the end.
    fn fill(&self, py: Python<'_>) -> PyResult<bool> {
        loop {
            let mut state = self.lock();
            if !state.buffer.is_empty() {
                return Ok(true);
            }
            let inbox = match &mut state.incoming {
                Incoming::Over => return Ok(false),
                Incoming::Whole(bytes) => {
                    state.buffer = std::mem::take(bytes);
                    state.incoming = Incoming::Over;
                    continue;
                }
                Incoming::Arriving(inbox) => inbox.clone(),
            };
            let found = inbox.take();
            match found {
                Found::Chunk(chunk) => state.buffer = chunk,
                Found::End(end) => {
                    state.incoming = Incoming::Over;
                    drop(state);
                    return self.ended(py, &end).map(|()| false);
                }
                Found::Nothing => {
                    drop(state);
                    py.detach(|| inbox.wait());
                }
            }
        }
    }

    fn ended(&self, py: Python<'_>, end: &End) -> PyResult<()> {
        match end {
            End::Whole => Ok(()),
            End::TooLarge(message) => {
                if let Some(outlet) = &self.outlet {
                    outlet.refuse_from_thread(too_large(message));
                }
                Err(errors::client_disconnected(py, message.clone()))
            }
            End::Gone | End::Answered => {
                let message = "the client went away before the whole request body had arrived";
                Err(errors::client_disconnected(py, message))
            }
        }
    }

    /// Takes so many bytes of the buffer, at most.
    fn take(&self, at_most: usize) -> Bytes {
        let buffer = &mut self.lock().buffer;
        let n = at_most.min(buffer.len());
        buffer.split_to(n)
    }

    /// Takes up to the end of a line. True if the line has ended.
    fn take_line(&self, at_most: usize) -> (Bytes, bool) {
        let buffer = &mut self.lock().buffer;
        let end = buffer.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
        let n = end.unwrap_or(buffer.len()).min(at_most);
        (buffer.split_to(n), end == Some(n))
    }
}

/// A size as `read` takes it: None and negative numbers are everything.
fn limit(size: Option<isize>) -> usize {
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX)
}

#[pymethods]
impl Input {
    /// Reads so many bytes, all by default; fewer only at the end.
    #[pyo3(signature = (size=None, /))]
    fn read<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let wanted = limit(size);
        if wanted == 0 || !self.fill(py)? {
            return Ok(PyBytes::new(py, b""));
        }
        let first = self.take(wanted);
        if first.len() == wanted || !self.fill(py)? {
            return Ok(PyBytes::new(py, &first));
        }
        let mut all = BytesMut::from(first.chunk());
        while all.len() < wanted && self.fill(py)? {
            all.extend_from_slice(&self.take(wanted - all.len()));
        }
        Ok(PyBytes::new(py, &all))
    }

    /// Reads a line, with its end.
    #[pyo3(signature = (size=None, /))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let wanted = limit(size);
        let mut line = BytesMut::new();
        while line.len() < wanted && self.fill(py)? {
            let (part, has_ended) = self.take_line(wanted - line.len());
            line.extend_from_slice(&part);
            if has_ended {
                break;
            }
        }
        Ok(PyBytes::new(py, &line))
    }

    /// Reads lines: all, or as many as make up `hint` bytes.
    #[pyo3(signature = (hint=None, /))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<isize>) -> PyResult<Bound<'py, PyList>> {
        let hint = match limit(hint) {
            0 => usize::MAX,
            hint => hint,
        };
        let lines = PyList::empty(py);
        let mut size = 0;
        while size < hint {
            let line = self.readline(py, None)?;
            if line.as_bytes().is_empty() {
                break;
            }
            size += line.as_bytes().len();
            lines.append(line)?;
        }
        Ok(lines)
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let line = self.readline(py, None)?;
        Ok((!line.as_bytes().is_empty()).then_some(line))
    }

    /// Does nothing: what is left unread is the server's.
    #[expect(clippy::unused_self, reason = "a file has it")]
    fn close(&self) {}
}

// -- wsgi.file_wrapper -----------------------------------------------------------------------------------------------

/// `wsgi.file_wrapper`: a file that Rust reads, if it has a descriptor, and else an iterable of its blocks.
#[pyclass(frozen, module = "httpy._httpy", name = "_FileWrapper")]
pub(crate) struct FileWrapper {
    file: Py<PyAny>,
    block_size: usize,
}

#[pymethods]
impl FileWrapper {
    #[new]
    #[pyo3(signature = (file, block_size=65536, /))]
    fn new(file: Py<PyAny>, block_size: usize) -> Self {
        Self { file, block_size }
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let block = self.file.bind(py).call_method1(intern!(py, "read"), (self.block_size,))?;
        if block.is_truthy()? { Ok(block) } else { Err(PyStopIteration::new_err(())) }
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        match self.file.bind(py).getattr_opt(intern!(py, "close"))? {
            Some(close) => close.call0().map(drop),
            None => Ok(()),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.file)
    }
}

impl FileWrapper {
    /// What is left of the file, at most `declared` bytes, as far as it is one of the system's.
    fn slice(&self, py: Python<'_>, declared: Option<u64>) -> Option<Slice> {
        let file = self.file.bind(py);
        let at: u64 = file.call_method0(intern!(py, "tell")).ok()?.extract().ok()?;
        let copy = asgi::copy_of(file).ok()?;
        let metadata = copy.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let there = metadata.len().checked_sub(at)?;
        Some(Slice::new(copy, Some(at), Some(declared.map_or(there, |declared| declared.min(there)))))
    }
}
