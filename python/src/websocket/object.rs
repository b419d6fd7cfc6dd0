//! A WebSocket for `async def` handlers: its methods give what is to be awaited.

use std::sync::Arc;

use httpy::ws::Prepared;
use pyo3::{
    PyTraverseError, PyVisit,
    prelude::*,
    types::{PyDict, PyString},
};

use super::{
    Form, Inner, prepare_any, prepare_bytes, prepare_json, prepare_text, read_close, read_headers, read_ping,
    rejection,
    waiting::{Wait, What},
};
use crate::{fields::Headers, query::QueryParams, ready::ready, request::PyRequest};

/// A WebSocket, for `async def` handlers.
#[pyclass(frozen, name = "WebSocket", module = "httpy", weakref)]
pub(crate) struct PyWebSocket {
    pub(super) inner: Arc<Inner>,
    pub(super) request: Py<PyRequest>,
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
        ready(py)
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
        ready(py)
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
        ready(py)
    }

    /// Closes the WebSocket, behind what was sent before.
    #[pyo3(signature = (code=1000, reason=""))]
    fn close<'py>(&self, py: Python<'py>, code: u16, reason: &str) -> PyResult<Bound<'py, PyAny>> {
        self.inner.open()?.sender.close(read_close(code, reason)?);
        ready(py)
    }

    /// Makes it a member of a room, until it leaves or ends.
    #[pyo3(signature = (room, /))]
    fn join<'py>(&self, py: Python<'py>, room: &str) -> PyResult<Bound<'py, PyAny>> {
        self.inner.join(py, room)?;
        ready(py)
    }

    /// Takes it out of a room.
    #[pyo3(signature = (room, /))]
    fn leave<'py>(&self, py: Python<'py>, room: &str) -> PyResult<Bound<'py, PyAny>> {
        self.inner.leave(room)?;
        ready(py)
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
        Wait::new(What::Message(self.inner.clone(), form))
    }

    fn begin<'py>(&self, py: Python<'py>, message: Prepared) -> PyResult<Bound<'py, PyAny>> {
        match self.inner.send(py, message)? {
            None => ready(py),
            Some(wait) => Ok(wait.into_any()),
        }
    }

    fn of_request<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        self.request.bind(py).getattr(name)
    }
}
