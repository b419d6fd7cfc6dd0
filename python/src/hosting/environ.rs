//! What a WSGI app is told of a request (PEP 3333).
//!
//! Rules:
//! 1. Text is bytes read as ISO-8859-1, which is what PEP 3333 calls a native string.
//! 2. A field whose name has an underscore is left out: `X-Forwarded_For` would become the same key as `X-Forwarded-For`, and
//!    a proxy that takes away the one lets the other pass. So is `Proxy`, which looks like a setting in the environment
//!    (CVE-2016-1000110).

use std::{borrow::Cow, net::SocketAddr};

use http::{HeaderMap, HeaderName, header};
use httpy::message::{self, Feature, Peer};
use percent_encoding::percent_decode_str;
use pyo3::{
    exceptions::PyTypeError,
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyString},
};

use super::{
    Hosted, Seen,
    repeats::{Connections, Fields, Keys},
    scope,
    wsgi::Input,
};
use crate::{arriving::Content, fields};

/// What is the same in each environ of an app.
pub(super) struct Template {
    environ: Py<PyDict>,
    connections: Connections,
    keys: Keys,
    fields: Fields<PyString>,
}

impl Template {
    pub(super) fn new(py: Python<'_>) -> PyResult<Self> {
        let environ = PyDict::new(py);
        for key in ["REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "SERVER_NAME", "SERVER_PORT"] {
            environ.set_item(PyString::intern(py, key), "")?;
        }
        environ.set_item(intern!(py, "SERVER_PROTOCOL"), intern!(py, "HTTP/1.1"))?;
        environ.set_item("SERVER_SOFTWARE", concat!("httpy/", env!("CARGO_PKG_VERSION")))?;
        environ.set_item("wsgi.version", (1, 0))?;
        environ.set_item(intern!(py, "wsgi.url_scheme"), intern!(py, "http"))?;
        environ.set_item("wsgi.errors", py.import("sys")?.getattr("stderr")?)?;
        environ.set_item("wsgi.multithread", true)?;
        // Nothing a server knows: what it says is true of this process.
        environ.set_item("wsgi.multiprocess", false)?;
        environ.set_item("wsgi.run_once", false)?;
        environ.set_item("wsgi.file_wrapper", py.get_type::<super::wsgi::FileWrapper>())?;
        // Content ends by itself, whatever its length was said to be, or not.
        environ.set_item("wsgi.input_terminated", true)?;
        let environ = environ.unbind();
        Ok(Self { environ, connections: Connections::new(), keys: Keys::new(), fields: Fields::new() })
    }

    /// What is the same in each environ of a connection.
    fn of_connection<'py>(&self, py: Python<'py>, peer: &Peer) -> PyResult<Bound<'py, PyDict>> {
        self.connections.dict(py, peer, || {
            let environ = self.environ.bind(py).copy()?;
            let host = |address: SocketAddr| address.ip().to_canonical().to_string();
            let default = if peer.is_tls { 443 } else { 80 };
            let (name, port) =
                peer.server.map_or_else(|| ("localhost".to_owned(), default), |server| (host(server), server.port()));
            environ.set_item(intern!(py, "SERVER_NAME"), name)?;
            environ.set_item(intern!(py, "SERVER_PORT"), port.to_string())?;
            if let Some(client) = peer.client {
                environ.set_item(intern!(py, "REMOTE_ADDR"), host(client))?;
                environ.set_item(intern!(py, "REMOTE_PORT"), client.port().to_string())?;
            }
            if peer.is_tls {
                environ.set_item(intern!(py, "wsgi.url_scheme"), intern!(py, "https"))?;
                environ.set_item("HTTPS", "on")?;
            }
            Ok(environ)
        })
    }
}

impl Hosted {
    /// The environ of a request, but for `wsgi.input`.
    pub(super) fn environ<'py>(&self, py: Python<'py>, seen: &Seen<'_>) -> PyResult<Bound<'py, PyDict>> {
        let environ = self.environ.of_connection(py, seen.peer)?.copy()?;
        fill(&self.environ, &environ, seen, self.context.root_path())?;
        Ok(environ)
    }
}

/// The environ of a request to a handler, for what is made for WSGI: WebOb's requests, Werkzeug's.
pub(crate) fn environ_of(py: Python<'_>, seen: &Seen<'_>, before: &str, content: Content) -> PyResult<Py<PyAny>> {
    static TEMPLATE: PyOnceLock<Template> = PyOnceLock::new();
    let template = TEMPLATE.get_or_try_init(py, || Template::new(py))?;
    let environ = template.of_connection(py, seen.peer)?.copy()?;
    fill(template, &environ, seen, before)?;
    environ.set_item(intern!(py, "wsgi.input"), Bound::new(py, Input::new(content, None))?)?;
    Ok(environ.into_any().unbind())
}

/// Fills in what a request says.
fn fill(template: &Template, environ: &Bound<'_, PyDict>, seen: &Seen<'_>, before: &str) -> PyResult<()> {
    let py = environ.py();
    let (root, path) = seen.uri.path().split_at(seen.root_len);
    environ.set_item(intern!(py, "REQUEST_METHOD"), scope::method(py, seen.method))?;
    if !before.is_empty() || !root.is_empty() {
        environ.set_item(intern!(py, "SCRIPT_NAME"), [before, root].map(|part| native(part)).concat())?;
    }
    environ.set_item(intern!(py, "PATH_INFO"), native(path))?;
    environ.set_item(intern!(py, "QUERY_STRING"), seen.uri.query().unwrap_or(""))?;
    environ.set_item(intern!(py, "REQUEST_URI"), seen.uri.path_and_query().map_or("", |target| target.as_str()))?;
    match seen.http_version() {
        "1.1" => {}
        "1.0" => environ.set_item(intern!(py, "SERVER_PROTOCOL"), intern!(py, "HTTP/1.0"))?,
        version => environ.set_item(intern!(py, "SERVER_PROTOCOL"), format!("HTTP/{version}"))?,
    }
    if let Some(host) = scope::missing_host(seen) {
        environ.set_item("HTTP_HOST", fields::value_text(&host))?;
    }
    for name in seen.headers.keys() {
        let Some(key) = template.keys.find_object(py, name, || Some(PyString::new(py, &key_of(name)?))) else {
            continue;
        };
        let mut lines = seen.headers.get_all(name).iter();
        match (lines.next(), lines.next()) {
            (Some(line), None) => {
                let make = || Ok(PyString::new(py, &fields::value_text(line)));
                environ.set_item(key, template.fields.object(py, name, line, make)?)?;
            }
            _ => environ.set_item(key, joined(seen.headers, name))?,
        }
    }
    if seen.supports(Feature::EarlyHints) {
        environ.set_item("wsgi.early_hints", EarlyHints(seen.exchange.clone()))?;
    }
    Ok(())
}

/// A part of a path as a native string. Rule 1.
fn native(path: &str) -> Cow<'_, str> {
    let bytes: Cow<'_, [u8]> = percent_decode_str(path).into();
    match bytes {
        Cow::Borrowed(_) if path.is_ascii() => Cow::Borrowed(path),
        bytes => Cow::Owned(bytes.iter().map(|&byte| char::from(byte)).collect()),
    }
}

/// Where a field is found. Rule 2.
fn key_of(name: &HeaderName) -> Option<String> {
    match *name {
        header::CONTENT_TYPE => return Some("CONTENT_TYPE".to_owned()),
        header::CONTENT_LENGTH => return Some("CONTENT_LENGTH".to_owned()),
        _ if name == "proxy" || name.as_str().contains('_') => return None,
        _ => {}
    }
    let mut key = String::with_capacity(5 + name.as_str().len());
    key.push_str("HTTP_");
    key.extend(name.as_str().chars().map(|c| if c == '-' { '_' } else { c.to_ascii_uppercase() }));
    Some(key)
}

/// All lines of a field in one. RFC 9110 §5.3; cookies have a separator of their own (RFC 6265 §5.4, RFC 9113 §8.2.3).
fn joined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Cow<'a, str> {
    let mut lines = headers.get_all(name).iter().map(fields::value_text);
    let first = lines.next().unwrap_or_default();
    let separator = if *name == header::COOKIE { "; " } else { ", " };
    lines.fold(first, |all, line| Cow::Owned([&*all, separator, &*line].concat()))
}

/// `wsgi.early_hints`, as gunicorn has it: sends fields ahead of the response (RFC 8297).
#[pyclass(frozen, module = "httpy._httpy", name = "_EarlyHints")]
struct EarlyHints(message::Exchange);

#[pymethods]
impl EarlyHints {
    /// Takes pairs of a name and a value.
    #[pyo3(signature = (headers, /))]
    fn __call__(&self, headers: &Bound<'_, PyAny>) -> PyResult<()> {
        if headers.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err("early hints are pairs of a name and a value, found one str"));
        }
        let mut lines = HeaderMap::new();
        fields::extend(&mut lines, headers)?;
        if !lines.is_empty() {
            self.0.early_hints(lines);
        }
        Ok(())
    }
}
