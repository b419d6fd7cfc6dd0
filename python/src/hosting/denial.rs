//! The HTTP response that an ASGI app gives to a WebSocket's handshake in its place (`websocket.http.response`).
//!
//! What is said of it is held to the rules of any response, and sent as any is, by an [`Outlet`].

use std::sync::Arc;

use bytes::Bytes;
use httpy::Response;
use pyo3::{exceptions::PyValueError, intern, prelude::*, types::PyDict};

use super::{
    Ended, Outlet,
    asgi::{read_bytes, read_headers, read_status, truth},
    flow::{Piece, Pushed, Room},
    outlet::Head,
};
use crate::site::Site;

/// See the module.
#[derive(Clone)]
pub(crate) struct Denial(Arc<Outlet>);

/// What became of some content.
pub(crate) enum Said {
    /// There is room for more, or nothing more to come.
    Done,
    /// There is, once this was awaited.
    Full(Py<PyAny>),
    /// The client has gone.
    Gone,
}

impl Denial {
    /// Takes `websocket.http.response.start`. Where a success would open the WebSocket (RFC 8441 §5), it is no denial.
    ///
    /// # Errors
    /// `ValueError` or `TypeError` for what is no head of a response.
    pub(crate) fn start(
        py: Python<'_>,
        message: &Bound<'_, PyDict>,
        site: Option<Arc<Site>>,
        is_success_open: bool,
    ) -> PyResult<Self> {
        let status = read_status(message.get_item(intern!(py, "status"))?, "websocket.http.response.start")?;
        if is_success_open && status.is_success() {
            let says =
                "websocket.http.response.start has a status from 300 on by HTTP/2, where a success opens the WebSocket";
            return Err(PyValueError::new_err(format!("{says}, found {}", status.as_u16())));
        }
        let outlet = Outlet::new(false, site);
        let headers = read_headers(message.get_item(intern!(py, "headers"))?)?;
        outlet.start(Head { status, headers, has_trailers: false })?;
        Ok(Self(outlet))
    }

    /// Takes `websocket.http.response.body`: what became of it, and whether more is to come.
    ///
    /// # Errors
    /// `TypeError` for what is no content, `RuntimeError` for more or less than was declared.
    pub(crate) fn body(&self, py: Python<'_>, message: &Bound<'_, PyDict>) -> PyResult<(Said, bool)> {
        let data = match message.get_item(intern!(py, "body"))? {
            None => Bytes::new(),
            Some(body) => read_bytes(&body)?,
        };
        let more = truth(message, intern!(py, "more_body"))?;
        let said = match (self.0.push(Piece::Data(data), more)?, self.0.flow()) {
            (Pushed::Full, Some(flow)) => Said::Full(Py::new(py, Room(flow))?.into_any()),
            (Pushed::Gone, _) => Said::Gone,
            (Pushed::Full | Pushed::Room, _) => Said::Done,
        };
        Ok((said, more))
    }

    /// The response, once, when there is one: with the first content.
    pub(crate) fn take_response(&self) -> Option<Response> {
        self.0.take_response()
    }

    /// The app has ended. Returns whether the response was cut off by that.
    pub(crate) fn end(&self) -> bool {
        matches!(self.0.end(), Ended::Cut)
    }
}
