//! The response object, and what else handlers return, turned into responses.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use httpy::{Body, Response};
use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::{PyTypeError, PyValueError},
    ffi, intern,
    prelude::*,
    types::{PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyMemoryView, PyString, PyTuple},
};

use crate::{
    cookies::{self, Attributes},
    fields::{self, MutableHeaders},
    json, outgoing,
    symbols::symbols,
};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// What a response object holds.
pub(crate) struct Contents {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    body: Content,
    background: Option<Py<PyAny>>,
}

enum Content {
    Whole(Bytes),
    /// An iterable or async iterable of chunks.
    Chunks(Py<PyAny>),
    /// A stream that is already one of the server's; taken when the response is sent.
    Stream(Option<Body>),
}

/// A response. Subclasses add ways to make one.
#[pyclass(frozen, subclass, name = "Response", module = "httpy", weakref)]
pub(crate) struct PyResponse(Mutex<Contents>);

impl PyResponse {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks a status: three digits that end an exchange. 101 belongs to the upgrade, other 1xx are no answers.
///
/// # Errors
/// `ValueError` otherwise.
pub(crate) fn status(code: u16) -> PyResult<StatusCode> {
    match StatusCode::from_u16(code) {
        Ok(status) if (200..=999).contains(&code) => Ok(status),
        _ => Err(PyValueError::new_err(format!("status is 200 to 999, not {code}"))),
    }
}

#[pymethods]
impl PyResponse {
    #[new]
    #[pyo3(signature = (body=None, status=200, headers=None, *, media_type=None, background=None))]
    fn new(
        py: Python<'_>,
        body: Option<&Bound<'_, PyAny>>,
        status: u16,
        headers: Option<&Bound<'_, PyAny>>,
        media_type: Option<&str>,
        background: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        self::status(status)?;
        let mut fields = HeaderMap::new();
        let (body, kind) = match body {
            Some(body) => content(py, body)?,
            None => (Content::Whole(Bytes::new()), None),
        };
        if let Some(headers) = headers.filter(|headers| !headers.is_none()) {
            fields::extend(&mut fields, headers)?;
        }
        if let Some(media_type) = media_type {
            let text = media_type.starts_with("text/") && !media_type.contains("charset=");
            let media_type = if text { format!("{media_type}; charset=utf-8") } else { media_type.to_owned() };
            fields.insert(header::CONTENT_TYPE, fields::value("content-type", &media_type)?);
        } else if let Some(kind) = kind {
            fields.entry(header::CONTENT_TYPE).or_insert(kind);
        }
        let background = background.filter(|background| !background.is_none(py));
        Ok(Self(Mutex::new(Contents { status, headers: fields, body, background })))
    }

    /// The status code.
    #[getter]
    fn status(&self) -> u16 {
        self.lock().status
    }

    #[setter]
    fn set_status(&self, status: u16) -> PyResult<()> {
        self::status(status)?;
        self.lock().status = status;
        Ok(())
    }

    /// The same as `status`, under Starlette's name.
    #[getter]
    fn status_code(&self) -> u16 {
        self.lock().status
    }

    #[setter]
    fn set_status_code(&self, status: u16) -> PyResult<()> {
        self.set_status(status)
    }

    /// The header fields.
    #[getter]
    fn headers(slf: Py<Self>) -> MutableHeaders {
        MutableHeaders(slf)
    }

    /// The content; of a streamed response the iterable.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        match &self.lock().body {
            Content::Whole(bytes) => PyBytes::new(py, bytes).into_any(),
            Content::Chunks(chunks) => chunks.bind(py).clone(),
            Content::Stream(_) => py.None().into_bound(py),
        }
    }

    #[setter]
    fn set_body(&self, py: Python<'_>, body: &Bound<'_, PyAny>) -> PyResult<()> {
        let (body, kind) = content(py, body)?;
        let mut contents = self.lock();
        // The old length would be wrong now.
        contents.headers.remove(header::CONTENT_LENGTH);
        if let Some(kind) = kind {
            contents.headers.entry(header::CONTENT_TYPE).or_insert(kind);
        }
        let old = std::mem::replace(&mut contents.body, body);
        drop(contents);
        drop(old);
        Ok(())
    }

    /// What is called after the response was sent; None means nothing.
    #[getter]
    fn background(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.lock().background.as_ref().map(|background| background.clone_ref(py))
    }

    #[setter]
    fn set_background(&self, background: Option<Py<PyAny>>) {
        let old = std::mem::replace(&mut self.lock().background, background);
        drop(old);
    }

    /// Adds a `Set-Cookie` field (RFC 6265 §4.1).
    #[pyo3(signature = (name, value="", max_age=None, expires=None, path=Some("/".to_owned()), domain=None, secure=false, httponly=false, samesite=Some("lax".to_owned()), partitioned=false), text_signature = "($self, name, value='', max_age=None, expires=None, path='/', domain=None, secure=False, httponly=False, samesite='lax', partitioned=False)")]
    #[allow(clippy::too_many_arguments)] // The names and their order are the public contract.
    fn set_cookie(
        &self,
        py: Python<'_>,
        name: &str,
        value: &str,
        max_age: Option<i64>,
        expires: Option<Bound<'_, PyAny>>,
        path: Option<String>,
        domain: Option<String>,
        secure: bool,
        httponly: bool,
        samesite: Option<String>,
        partitioned: bool,
    ) -> PyResult<()> {
        let attributes = Attributes { max_age, expires, path, domain, secure, httponly, samesite, partitioned };
        let cookie = cookies::set_cookie(py, name, value, &attributes)?;
        self.lock().headers.append(header::SET_COOKIE, cookie);
        Ok(())
    }

    /// Has the client forget a cookie.
    ///
    /// Path and domain have to be those it was set with.
    #[pyo3(signature = (name, path=Some("/".to_owned()), domain=None, secure=false, httponly=false, samesite=Some("lax".to_owned()), partitioned=false), text_signature = "($self, name, path='/', domain=None, secure=False, httponly=False, samesite='lax', partitioned=False)")]
    #[allow(clippy::too_many_arguments)] // The names and their order are the public contract.
    fn delete_cookie(
        &self,
        py: Python<'_>,
        name: &str,
        path: Option<String>,
        domain: Option<String>,
        secure: bool,
        httponly: bool,
        samesite: Option<String>,
        partitioned: bool,
    ) -> PyResult<()> {
        let epoch = PyString::new(py, "Thu, 01 Jan 1970 00:00:00 GMT").into_any();
        let expires = Some(epoch);
        let attributes =
            Attributes { max_age: Some(0), expires, path, domain, secure, httponly, samesite, partitioned };
        let cookie = cookies::set_cookie(py, name, "", &attributes)?;
        self.lock().headers.append(header::SET_COOKIE, cookie);
        Ok(())
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        Ok(format!("<{} {}>", slf.get_type().name()?, slf.get().lock().status))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(contents) = self.0.try_lock() {
            visit.call(&contents.background)?;
            if let Content::Chunks(chunks) = &contents.body {
                visit.call(chunks)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        let mut contents = self.lock();
        let background = contents.background.take();
        let body = std::mem::replace(&mut contents.body, Content::Whole(Bytes::new()));
        drop(contents);
        drop((background, body));
    }
}

/// Reads what may be given as content, with the content type it has by itself.
fn content(py: Python<'_>, body: &Bound<'_, PyAny>) -> PyResult<(Content, Option<HeaderValue>)> {
    if let Some((bytes, kind)) = whole(py, body)? {
        return Ok((Content::Whole(bytes), kind));
    }
    if body.hasattr(intern!(py, "__aiter__"))? || body.hasattr(intern!(py, "__iter__"))? {
        return Ok((Content::Chunks(body.clone().unbind()), None));
    }
    let found = body.get_type().name()?;
    Err(PyTypeError::new_err(format!("a response body is str, bytes, JSON data or an iterable, not {found}")))
}

/// Content that is there as a whole.
fn whole(py: Python<'_>, body: &Bound<'_, PyAny>) -> PyResult<Option<(Bytes, Option<HeaderValue>)>> {
    if let Ok(text) = body.cast::<PyString>() {
        return Ok(Some((text_bytes(text)?, Some(TEXT))));
    }
    if let Ok(bytes) = body.cast::<PyBytes>() {
        // No content has no type.
        let kind = (!bytes.as_bytes().is_empty()).then_some(BYTES);
        return Ok(Some((Bytes::copy_from_slice(bytes.as_bytes()), kind)));
    }
    if body.is_none() {
        return Ok(Some((Bytes::new(), None)));
    }
    if body.is_instance_of::<PyByteArray>() || body.is_instance_of::<PyMemoryView>() {
        let bytes = py.get_type::<PyBytes>().call1((body,))?.cast_into::<PyBytes>()?;
        return Ok(Some((Bytes::copy_from_slice(bytes.as_bytes()), Some(BYTES))));
    }
    if is_json(py, body)? {
        return Ok(Some((json::to_bytes(py, body)?, Some(JSON))));
    }
    Ok(None)
}

/// Whether a value becomes JSON when it is returned.
fn is_json(py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let is_plain = value.is_instance_of::<PyDict>()
        || value.is_instance_of::<PyList>()
        || value.is_instance_of::<PyInt>()
        || value.is_instance_of::<PyFloat>()
        || value.is_instance_of::<PyBool>();
    Ok(is_plain
        || value.hasattr(intern!(py, "__dataclass_fields__"))?
        || value.hasattr(intern!(py, "model_dump"))?
        || value.hasattr(intern!(py, "__struct_fields__"))?)
}

/// A copy of a text in UTF-8.
///
/// # Errors
/// `UnicodeEncodeError` for lone surrogates, which have no UTF-8.
fn text_bytes(text: &Bound<'_, PyString>) -> PyResult<Bytes> {
    let Some(as_utf8_and_size) = symbols().as_utf8_and_size else {
        return Ok(Bytes::copy_from_slice(text.to_cow()?.as_bytes()));
    };
    let mut size = 0;
    // SAFETY: `text` is a live str, and we are attached.
    let data = unsafe { as_utf8_and_size(text.as_ptr(), &raw mut size) };
    if data.is_null() {
        return Err(PyErr::fetch(text.py()));
    }
    // SAFETY: CPython lends `size` bytes for as long as the str lives, and they are copied at once.
    Ok(Bytes::copy_from_slice(unsafe { std::slice::from_raw_parts(data.cast(), size.unsigned_abs()) }))
}

fn make(status: StatusCode, kind: HeaderValue, content: Bytes, mut fields: HeaderMap) -> Response {
    // Into an empty map this is `insert`, at half the price.
    fields.append(header::CONTENT_TYPE, kind);
    let mut response = Response::new(Body::Full(content));
    *response.status_mut() = status;
    // An empty map has no memory to give back, and finding that out costs 64 instructions.
    std::mem::forget(std::mem::replace(response.headers_mut(), fields));
    response
}

/// Turns what a handler returned into a response; with it comes what is to run after it was sent.
///
/// # Errors
/// `TypeError` if it is nothing a handler may return.
pub(crate) fn from_value(py: Python<'_>, value: &Bound<'_, PyAny>, status: StatusCode) -> PyResult<Response> {
    from_value_into(py, value, status, HeaderMap::new)
}

/// As [`from_value`]. The fields may come into `spare`, an empty map whose memory is free; it is asked for when nothing can
/// fail any more.
///
/// # Errors
/// As [`from_value`].
pub(crate) fn from_value_into(
    py: Python<'_>,
    value: &Bound<'_, PyAny>,
    status: StatusCode,
    spare: impl FnOnce() -> HeaderMap,
) -> PyResult<Response> {
    // SAFETY: `value` is a live object.
    let kind = unsafe { ffi::Py_TYPE(value.as_ptr()) };
    // The common exact types first; subclasses and the rest below.
    if let Ok(text) = value.cast_exact::<PyString>() {
        let content = text_bytes(text)?;
        return Ok(make(status, TEXT, content, spare()));
    }
    if value.is_exact_instance_of::<PyDict>() || value.is_exact_instance_of::<PyList>() {
        let content = json::to_bytes(py, value)?;
        return Ok(make(status, JSON, content, spare()));
    }
    if let Ok(response) = value.cast::<PyResponse>() {
        return from_object(response);
    }
    if value.is_none() {
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = if status == StatusCode::OK { StatusCode::NO_CONTENT } else { status };
        return Ok(response);
    }
    // A named tuple is data; a plain one is an answer with a status.
    if kind == &raw mut ffi::PyTuple_Type {
        return from_tuple(py, value.cast::<PyTuple>()?, status);
    }
    if let Some((content, kind)) = whole(py, value)? {
        let mut response = Response::new(Body::from(content));
        *response.status_mut() = status;
        if let Some(kind) = kind {
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        return Ok(response);
    }
    let asynchronous = value.hasattr(intern!(py, "__aiter__"))?;
    if asynchronous || value.hasattr(intern!(py, "__next__"))? {
        let mut response = Response::new(outgoing::stream(py, value)?);
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, TEXT);
        return Ok(response);
    }
    if value.is_instance_of::<PyTuple>() || value.hasattr(intern!(py, "items"))? {
        return Ok(make(status, JSON, json::to_bytes(py, value)?, HeaderMap::new()));
    }
    let found = value.get_type().fully_qualified_name()?;
    Err(PyTypeError::new_err(format!(
        "a handler returned {found}; it may return str, bytes, dict, list, a dataclass, None, a (body, status) or \
         (body, status, headers) tuple, a Response or a generator"
    )))
}

/// `(body, status)` or `(body, status, headers)`.
fn from_tuple(py: Python<'_>, tuple: &Bound<'_, PyTuple>, default: StatusCode) -> PyResult<Response> {
    if !(2..=3).contains(&tuple.len()) {
        let message =
            format!("a handler returned a tuple of {}; it is (body, status) or (body, status, headers)", tuple.len());
        return Err(PyTypeError::new_err(message));
    }
    let code = tuple.get_item(1)?;
    let code: u16 = code.extract().map_err(|_| {
        PyTypeError::new_err(format!("the second item of a returned tuple is the status, an int, not {code:?}"))
    })?;
    let _ = default;
    let mut response = from_value(py, &tuple.get_item(0)?, status(code)?)?;
    *response.status_mut() = status(code)?;
    if tuple.len() == 3 {
        let fields = tuple.get_item(2)?;
        if !fields.is_none() {
            let mut headers = HeaderMap::new();
            fields::extend(&mut headers, &fields)?;
            for name in headers.keys() {
                response.headers_mut().remove(name);
            }
            for (name, value) in &headers {
                response.headers_mut().append(name, value.clone());
            }
        }
    }
    Ok(response)
}

/// Runs after a response was handed over.
#[derive(Clone)]
pub(crate) struct Background(pub(crate) std::sync::Arc<Py<PyAny>>);

fn from_object(response: &Bound<'_, PyResponse>) -> PyResult<Response> {
    let py = response.py();
    // SAFETY: `response` is a live object.
    let is_ours = unsafe { ffi::Py_REFCNT(response.as_ptr()) } == 1;
    let mut contents = response.get().lock();
    let contents = &mut *contents;
    let code = status(contents.status)?;
    // An application may keep a response and return it again; one that nobody else holds is taken apart.
    let headers = if is_ours { std::mem::take(&mut contents.headers) } else { contents.headers.clone() };
    let background = contents.background.as_ref().map(|background| background.clone_ref(py));
    let body = match &mut contents.body {
        Content::Whole(bytes) => Body::from(bytes.clone()),
        Content::Chunks(chunks) => outgoing::stream(py, chunks.bind(py))?,
        Content::Stream(body) => {
            let sent = || PyTypeError::new_err("a streamed response can be sent only once");
            body.take().ok_or_else(sent)?
        }
    };
    let mut made = Response::new(body);
    *made.status_mut() = code;
    *made.headers_mut() = headers;
    if let Some(background) = background {
        made.extensions_mut().insert(Background(std::sync::Arc::new(background)));
    }
    Ok(made)
}

/// The response object of what a handler returned: itself, or one made of it.
///
/// # Errors
/// `TypeError` if it is nothing a handler may return.
pub(crate) fn to_object<'py>(
    py: Python<'py>,
    value: &Bound<'py, PyAny>,
    status: StatusCode,
) -> PyResult<Bound<'py, PyResponse>> {
    match value.cast::<PyResponse>() {
        Ok(response) => Ok(response.clone()),
        Err(_) => object_of(py, from_value(py, value, status)?),
    }
}

/// The response object of a response made in Rust.
pub(crate) fn object_of(py: Python<'_>, response: Response) -> PyResult<Bound<'_, PyResponse>> {
    let (head, body) = response.into_parts();
    let body = match body {
        Body::Empty => Content::Whole(Bytes::new()),
        Body::Full(bytes) => Content::Whole(bytes),
        body @ Body::Stream(_) => Content::Stream(Some(body)),
    };
    let background = head.extensions.get::<Background>().map(|background| background.0.clone_ref(py));
    let contents = Contents { status: head.status.as_u16(), headers: head.headers, body, background };
    Bound::new(py, PyResponse(Mutex::new(contents)))
}
