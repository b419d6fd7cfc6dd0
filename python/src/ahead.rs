//! What a handler sends beside its response, where the protocol carries it: early hints, and pushes.

use http::{HeaderMap, HeaderName, HeaderValue, header, uri::PathAndQuery};
use httpy::message::{Exchange, Promise};
use pyo3::{
    exceptions::{PyStopIteration, PyTypeError, PyValueError},
    prelude::*,
    types::PyString,
};

use crate::fields;

/// The fields of a request that say in which form its client wants things, and who it is. A promised request has them, too,
/// unless the handler gives others: so the response is the one that the client would get if it asked.
const TAKEN_OVER: [HeaderName; 5] =
    [header::ACCEPT_ENCODING, header::ACCEPT_LANGUAGE, header::AUTHORIZATION, header::COOKIE, header::USER_AGENT];

/// Sends links ahead of the response (RFC 8297).
pub(crate) fn early_hints(exchange: &Exchange, links: &Bound<'_, PyAny>) -> PyResult<Sent> {
    if links.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err("early_hints takes a list of links, not one str"));
    }
    let mut lines = HeaderMap::new();
    for link in links.try_iter()? {
        let link = link?.extract::<String>()?;
        lines.append(header::LINK, fields::value("link", &link)?);
    }
    Ok(Sent(!lines.is_empty() && exchange.early_hints(lines)))
}

/// Promises the client a response (RFC 9113 §8.4).
pub(crate) fn push(
    exchange: &Exchange,
    request: &HeaderMap,
    path: &str,
    headers: Option<&Bound<'_, PyAny>>,
) -> PyResult<bool> {
    let target = Some(path).filter(|path| path.starts_with('/')).and_then(|path| path.parse::<PathAndQuery>().ok());
    let Some(target) = target else {
        let message =
            format!("push takes a path that starts with /, percent-encoded, with a query or not; not {path:?}");
        return Err(PyValueError::new_err(message));
    };
    let mut promised = HeaderMap::new();
    match headers {
        Some(headers) => fields::extend(&mut promised, headers)?,
        None => {
            let lines = |name: &HeaderName| request.get_all(name).iter().map(HeaderValue::clone).collect::<Vec<_>>();
            for name in TAKEN_OVER {
                for line in lines(&name) {
                    promised.append(name.clone(), line);
                }
            }
        }
    }
    Ok(exchange.push(Promise { target, headers: promised, is_head: false }))
}

/// Whether something was sent: by its truth, and by awaiting it, which does not wait.
#[pyclass(frozen, module = "httpy._httpy", name = "_Sent")]
pub(crate) struct Sent(bool);

#[pymethods]
impl Sent {
    fn __bool__(&self) -> bool {
        self.0
    }

    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self) -> PyResult<()> {
        Err(PyStopIteration::new_err((self.0,)))
    }
}
