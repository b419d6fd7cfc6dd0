//! What an ASGI app is told of a request (ASGI 3.0, HTTP specification 2.5).

use std::{borrow::Cow, net::SocketAddr, sync::OnceLock};

use http::{HeaderValue, Method, Version, header};
use httpy::message::{Feature, Peer, TlsSession};
use percent_encoding::percent_decode_str;
use pyo3::{
    ffi, intern,
    prelude::*,
    types::{PyBytes, PyDict, PyList, PyString, PyTuple},
};

use super::{
    Hosted, Seen,
    repeats::{Connections, Fields},
};

/// The version of the HTTP specification that is kept.
const SPEC_VERSION: &str = "2.5";

/// What is the same in each scope of an app.
pub(super) struct Template {
    /// Every key, so that a copy has room for all of them, with what most requests have: setting an item costs more than
    /// seeing that it need not be.
    scope: Py<PyDict>,
    asgi: Py<PyDict>,
    is_debug: bool,
    /// The extensions that [`EXTENSIONS`] has, by which of them there are.
    extensions: [OnceLock<Py<PyDict>>; 8],
    connections: Connections,
    fields: Fields<PyTuple>,
}

/// What depends on the request.
const EXTENSIONS: [(&str, Feature); 3] = [
    ("http.response.push", Feature::Push),
    ("http.response.early_hint", Feature::EarlyHints),
    ("http.response.trailers", Feature::Trailers),
];

impl Template {
    pub(super) fn new(py: Python<'_>, is_debug: bool) -> PyResult<Self> {
        let asgi = PyDict::new(py);
        asgi.set_item("version", "3.0")?;
        asgi.set_item("spec_version", SPEC_VERSION)?;
        let scope = PyDict::new(py);
        scope.set_item(intern!(py, "type"), intern!(py, "http"))?;
        scope.set_item(intern!(py, "asgi"), py.None())?;
        scope.set_item(intern!(py, "http_version"), intern!(py, "1.1"))?;
        scope.set_item(intern!(py, "server"), py.None())?;
        scope.set_item(intern!(py, "client"), py.None())?;
        scope.set_item(intern!(py, "scheme"), intern!(py, "http"))?;
        scope.set_item(intern!(py, "method"), intern!(py, "GET"))?;
        scope.set_item(intern!(py, "root_path"), "")?;
        scope.set_item(intern!(py, "path"), py.None())?;
        scope.set_item(intern!(py, "raw_path"), py.None())?;
        scope.set_item(intern!(py, "query_string"), PyBytes::new(py, b""))?;
        scope.set_item(intern!(py, "headers"), py.None())?;
        scope.set_item(intern!(py, "state"), py.None())?;
        scope.set_item(intern!(py, "extensions"), py.None())?;
        let extensions = [const { OnceLock::new() }; 8];
        let (scope, asgi) = (scope.unbind(), asgi.unbind());
        Ok(Self { scope, asgi, is_debug, extensions, connections: Connections::new(), fields: Fields::new() })
    }

    /// What is the same in each scope of a connection.
    fn of_connection<'py>(&self, py: Python<'py>, peer: &Peer) -> PyResult<Bound<'py, PyDict>> {
        self.connections.dict(py, peer, || {
            let scope = self.scope.bind(py).copy()?;
            if let Some(server) = peer.server {
                scope.set_item(intern!(py, "server"), pair(py, server)?)?;
            }
            if let Some(client) = peer.client {
                scope.set_item(intern!(py, "client"), pair(py, client)?)?;
            }
            if peer.is_tls {
                scope.set_item(intern!(py, "scheme"), intern!(py, "https"))?;
            }
            Ok(scope)
        })
    }

    fn extensions<'py>(&self, py: Python<'py>, seen: &Seen<'_>, takes_trailers: bool) -> PyResult<Bound<'py, PyDict>> {
        let mut which = 0;
        for (bit, (_, feature)) in EXTENSIONS.iter().enumerate() {
            let has = if *feature == Feature::Trailers { takes_trailers } else { seen.supports(*feature) };
            which |= usize::from(has) << bit;
        }
        let place = &self.extensions[which];
        let known = match place.get() {
            Some(known) => known,
            None => {
                let made = PyDict::new(py);
                made.set_item("http.response.pathsend", PyDict::new(py))?;
                made.set_item("http.response.zerocopysend", PyDict::new(py))?;
                for (bit, (name, _)) in EXTENSIONS.iter().enumerate() {
                    if which >> bit & 1 == 1 {
                        made.set_item(name, PyDict::new(py))?;
                    }
                }
                if self.is_debug {
                    made.set_item("http.response.debug", PyDict::new(py))?;
                }
                place.get_or_init(|| made.unbind())
            }
        };
        let extensions = known.bind(py).copy()?;
        if seen.peer.is_tls {
            extensions.set_item(intern!(py, "tls"), tls(py, seen.peer.tls.as_deref())?)?;
        }
        Ok(extensions)
    }
}

impl Hosted {
    /// The scope of a request, and whether trailers can be sent for it.
    pub(super) fn http_scope<'py>(&self, py: Python<'py>, seen: &Seen<'_>) -> PyResult<(Bound<'py, PyDict>, bool)> {
        let template = &self.scope;
        let scope = template.of_connection(py, seen.peer)?.copy()?;
        let (before, path) = (self.context.root_path(), seen.uri.path());
        scope.set_item(intern!(py, "asgi"), template.asgi.bind(py).copy()?)?;
        match seen.http_version() {
            "1.1" => {}
            version => scope.set_item(intern!(py, "http_version"), version)?,
        }
        if *seen.method != Method::GET {
            scope.set_item(intern!(py, "method"), method(py, seen.method))?;
        }
        // The whole path, mounts included: so the specification has it, and Starlette and Django take `root_path` off it.
        let root = &path[..seen.root_len];
        if !before.is_empty() || !root.is_empty() {
            scope.set_item(intern!(py, "root_path"), decoded(&[before, root]))?;
        }
        scope.set_item(intern!(py, "path"), decoded(&[before, path]))?;
        let raw_path = match before {
            "" => PyBytes::new(py, path.as_bytes()),
            before => PyBytes::new(py, [before, path].concat().as_bytes()),
        };
        scope.set_item(intern!(py, "raw_path"), raw_path)?;
        if let Some(query) = seen.uri.query() {
            scope.set_item(intern!(py, "query_string"), PyBytes::new(py, query.as_bytes()))?;
        }
        let (headers, has_te) = headers(py, &template.fields, seen)?;
        scope.set_item(intern!(py, "headers"), headers)?;
        scope.set_item(intern!(py, "state"), self.context.copy_state(py)?)?;
        let takes_trailers = has_te && seen.supports(Feature::Trailers);
        scope.set_item(intern!(py, "extensions"), template.extensions(py, seen, takes_trailers)?)?;
        Ok((scope, takes_trailers))
    }

    /// The scope of a WebSocket (WebSocket specification 2.5): that of its handshake, but for what is different.
    pub(crate) fn socket_scope<'py>(
        &self,
        py: Python<'py>,
        seen: &Seen<'_>,
        subprotocols: &[String],
    ) -> PyResult<Bound<'py, PyDict>> {
        let (scope, _) = self.http_scope(py, seen)?;
        scope.set_item(intern!(py, "type"), intern!(py, "websocket"))?;
        scope.set_item(intern!(py, "scheme"), if seen.peer.is_tls { "wss" } else { "ws" })?;
        scope.set_item("subprotocols", PyList::new(py, subprotocols)?)?;
        scope.del_item(intern!(py, "method"))?;
        let extensions = PyDict::new(py);
        extensions.set_item("websocket.http.response", PyDict::new(py))?;
        if seen.peer.is_tls {
            extensions.set_item(intern!(py, "tls"), tls(py, seen.peer.tls.as_deref())?)?;
        }
        scope.set_item(intern!(py, "extensions"), extensions)?;
        Ok(scope)
    }
}

/// Text of percent-encoded parts. What is no UTF-8 then is replaced: a router has refused it where there is one.
pub(super) fn decoded<'a>(parts: &[&'a str; 2]) -> Cow<'a, str> {
    match parts {
        ["", only] if !only.contains('%') => Cow::Borrowed(only),
        ["", only] => percent_decode_str(only).decode_utf8_lossy(),
        parts => Cow::Owned(parts.map(|part| percent_decode_str(part).decode_utf8_lossy()).concat()),
    }
}

pub(super) fn method<'py>(py: Python<'py>, method: &Method) -> Bound<'py, PyString> {
    match *method {
        Method::GET => intern!(py, "GET").clone(),
        Method::POST => intern!(py, "POST").clone(),
        ref other => PyString::new(py, other.as_str()),
    }
}

fn pair(py: Python<'_>, address: SocketAddr) -> PyResult<Bound<'_, PyTuple>> {
    (address.ip().to_canonical().to_string(), address.port()).into_pyobject(py)
}

/// The host the client meant where that is not in the field section: a pseudo-field (RFC 9113 §8.3.1).
pub(super) fn missing_host(seen: &Seen<'_>) -> Option<HeaderValue> {
    let authority = seen.uri.authority().filter(|_| !seen.headers.contains_key(header::HOST))?;
    HeaderValue::from_str(authority.as_str()).ok()
}

/// The list of fields, and whether `TE` is one of them: here, all are looked at anyway.
fn headers<'py>(py: Python<'py>, known: &Fields<PyTuple>, seen: &Seen<'_>) -> PyResult<(Bound<'py, PyList>, bool)> {
    // Where the host was a pseudo-field it comes first; it is a field of the request by now.
    let is_pseudo = seen.version >= Version::HTTP_2;
    let missing = missing_host(seen);
    let host = missing.as_ref().or_else(|| if is_pseudo { seen.headers.get(header::HOST) } else { None });
    let others = seen.headers.iter().filter(|(name, _)| !is_pseudo || **name != header::HOST);
    let skipped = if is_pseudo { seen.headers.get_all(header::HOST).iter().count() } else { 0 };
    let length = usize::from(host.is_some()) + seen.headers.len() - skipped;
    let mut has_te = false;
    let fields = host.map(|host| (&header::HOST, host)).into_iter().chain(others);
    let objects = fields.map(|(name, value)| {
        has_te |= *name == header::TE;
        known.object(py, name, value, || {
            let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
            PyTuple::new(py, [PyBytes::new(py, name), PyBytes::new(py, value)])
        })
    });
    let list = list_of(py, length, objects)?;
    Ok((list, has_te))
}

/// A list of `length` items, which there have to be.
fn list_of<'py>(
    py: Python<'py>,
    length: usize,
    mut items: impl Iterator<Item = PyResult<Bound<'py, PyTuple>>>,
) -> PyResult<Bound<'py, PyList>> {
    // SAFETY: a new list, which nobody else has, is filled; an item becomes its own. Should there be an error before it is
    // full, it is only released.
    unsafe {
        let list = Bound::from_owned_ptr_or_err(py, ffi::PyList_New(length.cast_signed()))?;
        for place in 0..length {
            let item = items.next().expect("`length` of them")?;
            ffi::PyList_SetItem(list.as_ptr(), place.cast_signed(), item.into_ptr());
        }
        Ok(list.cast_into_unchecked())
    }
}

/// The cipher suites that rustls has, with their numbers at IANA.
const CIPHER_SUITES: [(&str, u16); 9] = [
    ("TLS_AES_128_GCM_SHA256", 0x1301),
    ("TLS_AES_256_GCM_SHA384", 0x1302),
    ("TLS_CHACHA20_POLY1305_SHA256", 0x1303),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", 0xc02b),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", 0xc02c),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", 0xc02f),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", 0xc030),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", 0xcca8),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", 0xcca9),
];

/// The TLS extension. The client's certificate is left out: with it, its name has to be there too, in the form of RFC 4514.
fn tls<'py>(py: Python<'py>, session: Option<&TlsSession>) -> PyResult<Bound<'py, PyDict>> {
    let version = session.and_then(|session| match session.version {
        "TLSv1.2" => Some(0x0303),
        "TLSv1.3" => Some(0x0304),
        _ => None,
    });
    let cipher = session.and_then(|session| CIPHER_SUITES.iter().find(|(name, _)| *name == session.cipher));
    let tls = PyDict::new(py);
    tls.set_item("server_cert", py.None())?;
    tls.set_item("client_cert_chain", PyTuple::empty(py))?;
    tls.set_item("client_cert_name", py.None())?;
    tls.set_item("client_cert_error", py.None())?;
    tls.set_item("tls_version", version)?;
    tls.set_item("cipher_suite", cipher.map(|(_, number)| number))?;
    Ok(tls)
}
