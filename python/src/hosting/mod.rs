//! Hosting ASGI and WSGI apps: each is a handler like any other, behind the same routing, limits and middleware.
//!
//! ```text
//! call.rs -- alone: the app runs where the driver says, and answers through its outlet before it ends
//!    '------ inside of Python middleware: in a task (or on a pool thread) of its own, and middleware awaits the response
//! ```
//!
//! `scope.rs` and `environ.rs` say what an app is told, `asgi.rs` and `wsgi.rs` how it says its response, `outlet.rs` what
//! becomes of that, `flow.rs` how it gets to the carrier. `repeats.rs` has what most requests have in common. What ASGI apps
//! say to WebSockets is in `websocket/hosted.rs`, and in `denial.rs` where they answer in HTTP.

mod asgi;
mod bound;
mod denial;
mod environ;
mod flow;
mod message;
mod outlet;
mod repeats;
mod scope;
mod wsgi;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, Version};
use httpy::{
    Request,
    message::{Exchange, Feature, Peer, accepts_trailers},
};
use pyo3::{
    exceptions::{PyStopIteration, PyValueError},
    intern,
    prelude::*,
};

pub(crate) use self::{
    asgi::{conclude, fail, log_end, read_headers},
    denial::{Denial, Said},
    environ::environ_of,
    outlet::{Ended, Outlet},
};
use crate::{
    arriving::{Arriving, Content},
    context::Context,
    request::Head,
    site::Site,
};

/// What kind of app it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interface {
    Asgi,
    Wsgi,
}

impl Interface {
    /// # Errors
    /// `ValueError` for any other name.
    pub(crate) fn parse(name: &str) -> PyResult<Self> {
        match name {
            "asgi" => Ok(Self::Asgi),
            "wsgi" => Ok(Self::Wsgi),
            other => Err(PyValueError::new_err(format!("no interface {other:?}"))),
        }
    }
}

/// An ASGI or WSGI app, and what is the same for all of its requests.
pub(crate) struct Hosted {
    pub(crate) interface: Interface,
    pub(crate) app: Py<PyAny>,
    context: Arc<Context>,
    scope: scope::Template,
    environ: environ::Template,
}

impl Hosted {
    pub(crate) fn new(
        py: Python<'_>,
        app: Py<PyAny>,
        interface: Interface,
        context: Arc<Context>,
        is_debug: bool,
    ) -> PyResult<Self> {
        Ok(Self {
            interface,
            app,
            context,
            scope: scope::Template::new(py, is_debug)?,
            environ: environ::Template::new(py)?,
        })
    }

    /// Calls an app that nothing in Python stands around. An ASGI app gives something to await; a WSGI app is done when this
    /// returns, and must be called on a pool thread.
    ///
    /// # Errors
    /// What the app raises.
    pub(crate) fn call(
        &self,
        py: Python<'_>,
        seen: &Seen<'_>,
        content: Content,
        outlet: &Arc<Outlet>,
    ) -> PyResult<Py<PyAny>> {
        match self.interface {
            Interface::Asgi => asgi::call(py, self, seen, content, outlet).map(Bound::unbind),
            Interface::Wsgi => wsgi::call(py, self, seen, content, outlet).map(|()| py.None()),
        }
    }

    /// Starts an app for middleware, which gets the response by awaiting what is returned.
    ///
    /// # Errors
    /// If it can't be started.
    pub(crate) fn start<'py>(
        self: &Arc<Self>,
        py: Python<'py>,
        seen: &Seen<'_>,
        content: Content,
        site: Option<Arc<Site>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let outlet = Outlet::new(*seen.method == Method::HEAD, site);
        outlet.begin_afterwards();
        match self.interface {
            Interface::Asgi => asgi::start(py, self, seen, content, &outlet)?,
            Interface::Wsgi => wsgi::start(py, self, seen, content, &outlet)?,
        }
        Ok(Bound::new(py, outlet::Begun(outlet))?.into_any())
    }
}

/// A request as an app is told of it.
pub(crate) struct Seen<'a> {
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) version: Version,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) peer: &'a Peer,
    pub(crate) exchange: &'a Exchange,
    pub(crate) root_len: usize,
}

impl Seen<'_> {
    fn http_version(&self) -> &'static str {
        match self.version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            Version::HTTP_3 => "3",
            _ => "1.1",
        }
    }

    fn supports(&self, feature: Feature) -> bool {
        self.exchange.supports(feature) && (feature != Feature::Trailers || accepts_trailers(self.headers))
    }
}

impl<'a> From<&'a Request> for Seen<'a> {
    fn from(request: &'a Request) -> Self {
        Self {
            method: &request.method,
            uri: &request.uri,
            version: request.version,
            headers: &request.headers,
            peer: &request.peer,
            exchange: &request.exchange,
            root_len: request.root_len,
        }
    }
}

impl<'a> From<&'a Head> for Seen<'a> {
    fn from(head: &'a Head) -> Self {
        Self {
            method: &head.method,
            uri: &head.uri,
            version: head.version,
            headers: &head.headers,
            peer: &head.peer,
            exchange: &head.exchange,
            root_len: head.root_len,
        }
    }
}

/// What was not taken of a request's content yet.
enum Incoming {
    Whole(Bytes),
    Arriving(Arc<crate::arriving::Inbox>),
    Over,
}

impl From<Content> for Incoming {
    fn from(content: Content) -> Self {
        match content {
            Content::Whole(bytes) => Self::Whole(bytes),
            Content::Arriving(arriving) => Self::Arriving(Arriving::into_inbox(arriving)),
        }
    }
}

/// A future of the running loop.
fn new_future(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let event_loop = py.import(intern!(py, "asyncio"))?.call_method0(intern!(py, "get_running_loop"))?;
    event_loop.call_method0(intern!(py, "create_future"))
}

/// The first step of awaiting a future: its own iterator marks it as awaited, which the task checks.
fn first_step<'py>(future: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = future.py();
    future.call_method0(intern!(py, "__await__"))?.call_method0(intern!(py, "__next__"))
}

/// The end of something to await that has no value.
fn finished(py: Python<'_>) -> PyErr {
    PyStopIteration::new_err((py.None(),))
}
