//! A WebSocket inside of another server, seen from that server: its messages come and go as those of ASGI (`httpy/guest.py`).

use std::{
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use bytes::Bytes;
use httpy::ws::{Close, Kind, Message, Outgoing, Relay};
use pyo3::{
    exceptions::PyTypeError,
    intern,
    prelude::*,
    types::{PyBytes, PyDict},
};

use super::{
    text,
    waiting::{Wait, Waiter, What},
};
use crate::{driver::Home, ready::ready};

/// What its methods, and what is awaited of them, share.
pub(super) struct Line {
    relay: Relay,
    pub(super) home: Arc<Home>,
    /// What steps the task that takes what goes out.
    pub(super) waiter: OnceLock<Arc<Waiter>>,
    /// How the handler has closed it, once that was taken.
    closed: OnceLock<Close>,
}

impl Line {
    /// Looks for what is to be sent next, as a message of ASGI's; None in Python at the end. None: nothing yet.
    pub(super) fn poll_outgoing<'py>(
        &self,
        py: Python<'py>,
        cx: &mut Context<'_>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        if let Some(close) = self.closed.get() {
            // The server sees to the rest, and may never say how that went.
            self.relay.end(close.clone());
        }
        let outgoing = match self.relay.poll_outgoing(cx) {
            Poll::Ready(Some(outgoing)) => outgoing,
            Poll::Ready(None) => return Ok(Some(py.None().into_bound(py))),
            Poll::Pending => return Ok(None),
        };
        let message = PyDict::new(py);
        match outgoing {
            Outgoing::Message(prepared) => {
                message.set_item(intern!(py, "type"), intern!(py, "websocket.send"))?;
                match prepared.kind() {
                    Kind::Text => message.set_item(intern!(py, "text"), text(py, prepared.data()))?,
                    Kind::Binary => message.set_item(intern!(py, "bytes"), PyBytes::new(py, prepared.data()))?,
                }
            }
            Outgoing::Close(close) => {
                message.set_item(intern!(py, "type"), intern!(py, "websocket.close"))?;
                message.set_item(intern!(py, "code"), close.code)?;
                message.set_item(intern!(py, "reason"), &*close.reason)?;
                let _ = self.closed.set(close);
            }
        }
        Ok(Some(message.into_any()))
    }

    /// Whether there is room for what comes in; the waker says when there is.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> bool {
        self.relay.poll_room(cx).is_ready()
    }
}

/// A WebSocket, as the server has it whose guest we are.
#[pyclass(frozen, module = "httpy._httpy", name = "_Line")]
pub(crate) struct PyLine(Arc<Line>);

impl PyLine {
    pub(crate) fn new(relay: Relay, home: Arc<Home>) -> Self {
        Self(Arc::new(Line { relay, home, waiter: OnceLock::new(), closed: OnceLock::new() }))
    }
}

#[pymethods]
impl PyLine {
    /// The next message to send, to be awaited: `websocket.send` or `websocket.close`. None follows at the end.
    fn next(&self) -> Wait {
        Wait::new(What::Outgoing(self.0.clone()))
    }

    /// Gives the handler what the client has sent: text, or else bytes. What is returned is to be awaited before there is more.
    #[pyo3(signature = (text, data, /))]
    fn deliver<'py>(
        &self,
        py: Python<'py>,
        text: Option<&str>,
        data: Option<&Bound<'py, PyBytes>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (kind, data) = match (text, data) {
            (Some(text), _) => (Kind::Text, Bytes::copy_from_slice(text.as_bytes())),
            (None, Some(data)) => (Kind::Binary, Bytes::copy_from_slice(data.as_bytes())),
            (None, None) => return Err(PyTypeError::new_err("the container gives a message without content")),
        };
        self.0.relay.deliver(Message { kind, data });
        if self.0.poll_room(&mut Context::from_waker(std::task::Waker::noop())) {
            return ready(py);
        }
        Bound::new(py, Wait::new(What::Incoming(self.0.clone()))).map(Bound::into_any)
    }

    /// It has ended so, for a handler that has not closed it. The first end counts.
    #[pyo3(signature = (code, reason, /))]
    fn end(&self, code: u16, reason: String) {
        self.0.relay.end(self.0.closed.get().cloned().unwrap_or_else(|| Close::new(code, reason)));
    }
}
