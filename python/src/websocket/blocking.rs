//! A WebSocket for `def` handlers: as that for `async def` ones (`object.rs`), but what has to wait blocks its thread.

use std::sync::Arc;

use httpy::ws::Prepared;
use pyo3::{PyTraverseError, PyVisit, exceptions::PyStopAsyncIteration, prelude::*, types::PyString};

use super::{
    Form, Inner, prepare_any, prepare_bytes, prepare_json, prepare_text, read_close, read_headers, read_ping,
    rejection,
    waiting::{Wait, What},
};
use crate::request::PyRequest;

/// A WebSocket, for `def` handlers, which run on a thread that may block.
#[pyclass(frozen, name = "BlockingWebSocket", module = "httpy", weakref)]
pub(crate) struct PyBlockingWebSocket {
    pub(super) inner: Arc<Inner>,
    pub(super) request: Py<PyRequest>,
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

    /// Makes it a member of a room, until it leaves or ends.
    #[pyo3(signature = (room, /))]
    fn join(&self, py: Python<'_>, room: &str) -> PyResult<()> {
        self.inner.join(py, room)
    }

    /// Takes it out of a room.
    #[pyo3(signature = (room, /))]
    fn leave(&self, room: &str) -> PyResult<()> {
        self.inner.leave(room)
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.wait(py, Form::Next) {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.is_instance_of::<PyStopAsyncIteration>(py) => Ok(None),
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

    /// The rooms that it is in, sorted.
    #[getter]
    fn rooms(&self) -> Vec<String> {
        self.inner.room_names()
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
        Wait::new(What::Message(self.inner.clone(), form)).block(py)
    }

    fn finish(&self, py: Python<'_>, message: Prepared) -> PyResult<()> {
        match self.inner.send(py, message)? {
            None => Ok(()),
            Some(wait) => wait.get().block(py).map(drop),
        }
    }
}
