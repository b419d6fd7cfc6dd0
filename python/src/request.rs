//! The request as handlers see it: a view of Rust data that builds nothing nobody asked for.

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, Version, header};
use httpy::{
    Body, Request,
    message::{Exchange, Feature, Params, Parts, Peer, accepts_trailers},
};
use percent_encoding::percent_decode_str;
use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::{PyRuntimeError, PyValueError},
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyBytes, PyDict, PyString, PyTuple},
};

use crate::{
    ahead::{self, Sent},
    arriving::{Arriving, Chunks, Content},
    context::Context,
    driver::Watch,
    errors, fields,
    fields::Headers,
    hosting::environ_of,
    json,
    plan::Plan,
    query::{self, QueryParams},
    site::Site,
    tls::PyTlsSession,
};

/// Everything of a request but its content.
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) peer: Arc<Peer>,
    pub(crate) exchange: Exchange,
    pub(crate) root_len: usize,
}

/// What routing found.
pub(crate) struct Matched {
    pub(crate) plan: Arc<Plan>,
    pub(crate) params: Params,
}

/// Takes a request apart.
pub(crate) fn split(request: Request) -> (Head, Params, Body) {
    let Parts { method, uri, version, headers, body, peer, exchange, params, root_len } = request.into_parts();
    (Head { method, uri, version, headers, peer, exchange, root_len }, params, body)
}

/// A request (read-only, filled lazily).
#[pyclass(frozen, name = "Request", module = "httpy", weakref)]
pub(crate) struct PyRequest {
    head: Head,
    body: Bytes,
    /// Content that has not arrived yet, of handlers that asked for that.
    arriving: Option<Arriving>,
    context: Arc<Context>,
    matched: OnceLock<Matched>,
    watch: OnceLock<Watch>,
    json: OnceLock<Py<PyAny>>,
    state: OnceLock<Py<PyAny>>,
    id: PyOnceLock<Py<PyString>>,
    /// Where it is, for an app of another interface behind middleware.
    site: OnceLock<Arc<Site>>,
    environ: OnceLock<Py<PyAny>>,
}

impl PyRequest {
    pub(crate) fn new(head: Head, content: Content, context: Arc<Context>) -> Self {
        let (body, arriving) = match content {
            Content::Whole(body) => (body, None),
            Content::Arriving(arriving) => (Bytes::new(), Some(arriving)),
        };
        Self {
            head,
            body,
            arriving,
            context,
            matched: OnceLock::new(),
            watch: OnceLock::new(),
            json: OnceLock::new(),
            state: OnceLock::new(),
            id: PyOnceLock::new(),
            site: OnceLock::new(),
            environ: OnceLock::new(),
        }
    }

    /// Says where it is.
    pub(crate) fn set_site(&self, site: Arc<Site>) {
        let _ = self.site.set(site);
    }

    /// The content, for an app of another interface: what has arrived, or is to, unless somebody else reads that already. And
    /// where that app is to run.
    pub(crate) fn take_content(&self) -> (Content, Option<Arc<Site>>) {
        let content = match &self.arriving {
            None => Content::Whole(self.body.clone()),
            Some(arriving) => Content::Arriving(arriving.share()),
        };
        (content, self.site.get().cloned())
    }

    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// The content, for the attribute that asks for it.
    ///
    /// # Errors
    /// `RuntimeError` if it arrives while the handler runs: to be empty then would be a silent lie.
    pub(crate) fn content(&self, attribute: &str) -> PyResult<&Bytes> {
        match self.arriving {
            None => Ok(&self.body),
            Some(_) => Err(PyRuntimeError::new_err(format!(
                "request.{attribute} is not there in a handler with stream=True, which starts before the content has \
                 arrived: read request.stream(), or register the handler without stream=True"
            ))),
        }
    }

    pub(crate) fn query_text(&self) -> &str {
        self.head.uri.query().unwrap_or("")
    }

    /// Says which route answers. The first one wins: a request is routed once.
    pub(crate) fn set_matched(&self, plan: Arc<Plan>, params: Params) {
        let _ = self.matched.set(Matched { plan, params });
    }

    /// Says how to tell whether anybody waits for the response.
    pub(crate) fn set_watch(&self, watch: Watch) {
        let _ = self.watch.set(watch);
    }

    /// The text of path parameter `index`.
    pub(crate) fn path_param(&self, index: usize) -> Option<&str> {
        self.matched.get()?.params.get(&self.head.uri.path()[self.head.root_len..], index)
    }

    /// The content as JSON, read once.
    ///
    /// # Errors
    /// `ValueError` if it is not JSON, `RuntimeError` as [`PyRequest::content`].
    pub(crate) fn read_json<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        once(py, &self.json, || Ok(json::read(py, self.content("json")?)?.unbind()))
    }

    /// The host the client meant: the target's, else the `Host` field's (RFC 9110 §7.1).
    fn authority(&self) -> Cow<'_, str> {
        if let Some(authority) = self.head.uri.authority() {
            return Cow::Borrowed(authority.as_str());
        }
        match self.head.headers.get(header::HOST) {
            Some(host) => fields::value_text(host),
            None => Cow::Borrowed(""),
        }
    }
}

/// Makes a value the first time it is wanted. Two threads may both make it, and both get the first one.
fn once<'a, 'py>(
    py: Python<'py>,
    place: &'a OnceLock<Py<PyAny>>,
    make: impl FnOnce() -> PyResult<Py<PyAny>>,
) -> PyResult<&'a Bound<'py, PyAny>> {
    if place.get().is_none() {
        let _ = place.set(make()?);
    }
    place.get().map(|value| value.bind(py)).ok_or_else(|| PyRuntimeError::new_err("a value that was set is gone"))
}

fn address<'py>(py: Python<'py>, address: Option<std::net::SocketAddr>) -> PyResult<Option<Bound<'py, PyTuple>>> {
    address.map(|address| (address.ip().to_string(), address.port()).into_pyobject(py)).transpose()
}

#[pymethods]
impl PyRequest {
    /// The method, such as "GET" (RFC 9110 §9).
    #[getter]
    fn method<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        match self.head.method {
            Method::GET => intern!(py, "GET").clone(),
            Method::POST => intern!(py, "POST").clone(),
            ref other => PyString::new(py, other.as_str()),
        }
    }

    /// The path, percent-decoded, without the query.
    #[getter]
    fn path(&self) -> Cow<'_, str> {
        percent_decode_str(self.head.uri.path()).decode_utf8_lossy()
    }

    /// The path as it was sent.
    #[getter]
    fn raw_path<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.head.uri.path().as_bytes())
    }

    /// The request as WSGI has it (PEP 3333): a dict of its own, made once.
    #[getter]
    fn environ<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let make = || {
            let (content, _) = self.take_content();
            environ_of(py, &(&self.head).into(), self.context.root_path(), content)
        };
        once(py, &self.environ, make).cloned()
    }

    /// The path that a proxy and the mounts on the way have taken.
    #[getter]
    fn root_path(&self) -> String {
        let (before, mounts) = (self.context.root_path(), &self.head.uri.path()[..self.head.root_len]);
        [before, mounts].map(|part| percent_decode_str(part).decode_utf8_lossy()).concat()
    }

    /// The query as it was sent, without the `?`.
    #[getter]
    fn query_string<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.query_text().as_bytes())
    }

    /// The scheme: `https` on a TLS connection, else `http`.
    #[getter]
    fn scheme(&self) -> &'static str {
        if self.head.peer.is_tls { "https" } else { "http" }
    }

    /// The version of HTTP: `1.0`, `1.1`, `2` or `3`.
    #[getter]
    fn http_version(&self) -> &'static str {
        match self.head.version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            Version::HTTP_3 => "3",
            _ => "1.1",
        }
    }

    /// The protocol as HTTP/1 writes it, `HTTP/1.1`.
    #[getter]
    fn version(&self) -> String {
        format!("HTTP/{}", self.http_version())
    }

    /// The target as an absolute URL.
    #[getter]
    fn url(&self) -> String {
        let target = self.head.uri.path_and_query().map_or("", |target| target.as_str());
        let before = if target.starts_with('/') { self.context.root_path() } else { "" };
        format!("{}://{}{before}{target}", self.scheme(), self.authority())
    }

    /// The header fields.
    #[getter]
    fn headers(slf: Py<Self>) -> Headers {
        Headers(slf)
    }

    /// The query parameters.
    #[getter(query)]
    fn query_view(&self) -> QueryParams {
        QueryParams(self.query_text().into())
    }

    /// The same as `query`, under Starlette's name.
    #[getter]
    fn query_params(&self) -> QueryParams {
        self.query_view()
    }

    /// The cookies the client sent (RFC 6265 §5.4).
    ///
    /// Of two with one name the first wins, as the more specific path is sent first.
    #[getter]
    fn cookies<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let cookies = PyDict::new(py);
        for line in self.head.headers.get_all(header::COOKIE) {
            for pair in fields::value_text(line).split(';') {
                let Some((name, value)) = pair.split_once('=') else { continue };
                let (name, value) = (name.trim(), crate::cookies::unquote(value.trim()));
                if !cookies.contains(name)? {
                    cookies.set_item(name, value)?;
                }
            }
        }
        Ok(cookies)
    }

    /// The path parameters, converted.
    #[getter]
    fn path_params<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let params = PyDict::new(py);
        if let Some(matched) = self.matched.get() {
            for (index, (name, converter)) in matched.plan.path_names().enumerate() {
                if let Some(text) = self.path_param(index) {
                    params.set_item(name, crate::plan::path_value(py, converter, text)?)?;
                }
            }
        }
        Ok(params)
    }

    /// Host and port of the client; None where there are none.
    #[getter]
    fn client<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        address(py, self.head.peer.client)
    }

    /// The address of the client; empty where there is none.
    #[getter]
    fn client_address(&self) -> String {
        self.head.peer.client.map(|client| client.ip().to_string()).unwrap_or_default()
    }

    /// Host and port the client has connected to; None where there are none.
    #[getter]
    fn server<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        address(py, self.head.peer.server)
    }

    /// The content.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, self.content("body")?))
    }

    /// The content as text.
    ///
    /// By the charset of `Content-Type`, else UTF-8. What does not decode is a 400.
    #[getter]
    fn text<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let body = self.content("text")?;
        let charset = self.head.headers.get(header::CONTENT_TYPE).and_then(|kind| {
            let kind = kind.to_str().ok()?.to_ascii_lowercase();
            let charset = kind.split(';').find_map(|part| part.trim().strip_prefix("charset=").map(str::to_owned))?;
            Some(charset.trim_matches('"').to_owned())
        });
        let charset = charset.as_deref().unwrap_or("utf-8");
        if charset == "utf-8" {
            return match std::str::from_utf8(body) {
                Ok(text) => Ok(PyString::new(py, text).into_any()),
                Err(_) => Err(errors::http(py, 400, "request body is not valid UTF-8")),
            };
        }
        let decoded = PyBytes::new(py, body).call_method1(intern!(py, "decode"), (charset,));
        decoded.map_err(|_| errors::http(py, 400, &format!("request body is not valid {charset}")))
    }

    /// The content as JSON.
    ///
    /// Read once. What is not JSON is a 400.
    #[getter]
    fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.read_json(py).cloned().map_err(|error| {
            if error.is_instance_of::<PyValueError>(py) {
                let answer = errors::http(py, 400, &error.value(py).to_string());
                answer.set_cause(py, Some(error));
                answer
            } else {
                error
            }
        })
    }

    /// The fields of an urlencoded form.
    ///
    /// Another content type is a 415.
    #[getter]
    fn form(&self, py: Python<'_>) -> PyResult<QueryParams> {
        let body = self.content("form")?;
        let kind = self.head.headers.get(header::CONTENT_TYPE).map(fields::value_text).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or("").trim();
        if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            let detail = format!("expected application/x-www-form-urlencoded, found {essence:?}");
            return Err(errors::http(py, 415, &detail));
        }
        match std::str::from_utf8(body) {
            Ok(text) => Ok(QueryParams(text.into())),
            Err(_) => Err(errors::http(py, 400, "form is not valid UTF-8")),
        }
    }

    /// A place for the application's own values, with those `lifespan` yielded.
    #[getter]
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        once(py, &self.state, || self.context.new_state(py)).cloned()
    }

    /// The application that answers.
    #[getter]
    fn app<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.context.app(py)
    }

    /// A random id of this request, 32 hexadecimal digits.
    #[getter]
    fn id<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        let make = || -> PyResult<Py<PyString>> {
            let id = py.import("uuid")?.call_method0("uuid4")?.getattr("hex")?;
            Ok(id.cast_into::<PyString>()?.unbind())
        };
        self.id.get_or_try_init(py, make).map(|id| id.bind(py).clone())
    }

    /// Whether the client wants the connection kept (RFC 9112 §9.3).
    #[getter]
    fn is_keep_alive(&self) -> bool {
        let has = |option: &str| {
            let mut lines = self.head.headers.get_all(header::CONNECTION).iter();
            lines.any(|line| fields::value_text(line).split(',').any(|word| word.trim().eq_ignore_ascii_case(option)))
        };
        match self.head.version {
            Version::HTTP_09 | Version::HTTP_10 => has("keep-alive"),
            Version::HTTP_11 => !has("close"),
            _ => true,
        }
    }

    /// Whether the client went away before it was answered.
    #[getter]
    fn is_disconnected(&self) -> bool {
        self.watch.get().is_some_and(Watch::is_given_up)
    }

    /// Whether the server stops: a stream that would go on for long should come to its end.
    #[getter]
    fn is_stopping(&self) -> bool {
        self.context.is_stopping()
    }

    /// The pattern of the route that answers.
    #[getter]
    fn route(&self) -> Option<&str> {
        self.matched.get().map(|matched| matched.plan.pattern())
    }

    /// Details of the TLS session; None on a plain connection.
    #[getter]
    fn tls(&self) -> Option<PyTlsSession> {
        self.head.peer.tls.clone().map(PyTlsSession)
    }

    /// Returns a field's value, its lines joined with `, `; the default if it is not there.
    #[pyo3(signature = (name, default=None))]
    fn get_header(&self, name: &str, default: Option<String>) -> Option<String> {
        fields::joined(&self.head.headers, name).or(default)
    }

    /// Returns the last value of a query parameter; the default if it is not there.
    #[pyo3(signature = (name, default=None))]
    fn get_query(&self, name: &str, default: Option<String>) -> Option<String> {
        query::last(self.query_text(), name).map(Cow::into_owned).or(default)
    }

    /// Whether the protocol this request came by can do something.
    #[pyo3(signature = (feature, /))]
    fn supports(&self, feature: &str) -> PyResult<bool> {
        match Feature::find(feature) {
            Some(Feature::Trailers) => {
                let carried = self.head.exchange.supports(Feature::Trailers);
                Ok(carried && accepts_trailers(&self.head.headers))
            }
            Some(feature) => Ok(self.head.exchange.supports(feature)),
            None => {
                let known: Vec<_> = Feature::NAMES.iter().map(|(name, _)| *name).collect();
                Err(PyValueError::new_err(format!("no feature {feature:?}; there are {}", known.join(", "))))
            }
        }
    }

    /// Sends links ahead of the response, as 103 Early Hints.
    #[pyo3(signature = (links, /))]
    fn early_hints(&self, links: &Bound<'_, PyAny>) -> PyResult<Sent> {
        ahead::early_hints(&self.head.exchange, links)
    }

    /// Pushes: promises the client a response that it did not ask for yet.
    #[pyo3(signature = (path, headers=None))]
    fn push(&self, path: &str, headers: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        ahead::push(&self.head.exchange, &self.head.headers, path, headers)
    }

    /// The content as it arrives, for handlers registered with `stream=True`.
    fn stream(&self) -> PyResult<Chunks> {
        match &self.arriving {
            Some(arriving) => arriving.chunks(),
            None => Ok(Chunks::whole(self.body.clone())),
        }
    }

    fn __repr__(&self) -> String {
        format!("<Request {} {}>", self.head.method, self.head.uri)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // No clear is needed: whatever closes a cycle from here is a dict or an object that can be cleared.
        visit.call(self.json.get())?;
        visit.call(self.environ.get())?;
        visit.call(self.state.get())
    }
}
