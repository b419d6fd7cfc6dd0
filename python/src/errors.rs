//! Errors across the door: the only place that translates.
//!
//! The exceptions themselves are Python classes in `httpy/errors.py`.

use pyo3::{exceptions::PyBaseException, prelude::*, sync::PyOnceLock, types::PyType};

static CLASSES: PyOnceLock<Classes> = PyOnceLock::new();

struct Classes {
    http_error: Py<PyType>,
    config_error: Py<PyType>,
    route_error: Py<PyType>,
    client_disconnected: Py<PyType>,
    websocket_disconnect: Py<PyType>,
}

fn classes(py: Python<'_>) -> PyResult<&Classes> {
    CLASSES.get_or_try_init(py, || {
        let module = py.import("httpy.errors")?;
        let class = |name: &str| -> PyResult<Py<PyType>> { Ok(module.getattr(name)?.cast_into::<PyType>()?.unbind()) };
        Ok(Classes {
            http_error: class("HTTPError")?,
            config_error: class("ConfigError")?,
            route_error: class("RouteError")?,
            client_disconnected: class("ClientDisconnected")?,
            websocket_disconnect: class("WebSocketDisconnect")?,
        })
    })
}

fn raise(py: Python<'_>, choose: fn(&Classes) -> &Py<PyType>, message: String) -> PyErr {
    match classes(py) {
        Ok(classes) => match choose(classes).bind(py).call1((message,)) {
            Ok(error) => PyErr::from_value(error),
            Err(error) => error,
        },
        Err(error) => error,
    }
}

/// A `ConfigError`.
pub(crate) fn config(py: Python<'_>, message: impl Into<String>) -> PyErr {
    raise(py, |classes| &classes.config_error, message.into())
}

/// A `RouteError`.
pub(crate) fn route(py: Python<'_>, message: impl Into<String>) -> PyErr {
    raise(py, |classes| &classes.route_error, message.into())
}

/// A `ClientDisconnected`.
pub(crate) fn client_disconnected(py: Python<'_>, message: impl Into<String>) -> PyErr {
    raise(py, |classes| &classes.client_disconnected, message.into())
}

/// A `WebSocketDisconnect`.
pub(crate) fn websocket_disconnect(py: Python<'_>, code: u16, reason: &str) -> PyErr {
    match classes(py).and_then(|classes| classes.websocket_disconnect.bind(py).call1((code, reason))) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// Whether an exception is a `WebSocketDisconnect`.
pub(crate) fn is_websocket_disconnect(py: Python<'_>, error: &PyErr) -> bool {
    classes(py).is_ok_and(|classes| error.is_instance(py, classes.websocket_disconnect.bind(py)))
}

/// An `HTTPError` with a status and a detail.
pub(crate) fn http(py: Python<'_>, status: u16, detail: &str) -> PyErr {
    let made = classes(py).and_then(|classes| classes.http_error.bind(py).call1((status, detail)));
    match made {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// An `HTTPError` whose detail is an object.
pub(crate) fn http_with(py: Python<'_>, status: u16, detail: &Bound<'_, PyAny>) -> PyErr {
    match classes(py).and_then(|classes| classes.http_error.bind(py).call1((status, detail))) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// Whether an exception is an `HTTPError`.
pub(crate) fn is_http(py: Python<'_>, error: &PyErr) -> bool {
    classes(py).is_ok_and(|classes| error.is_instance(py, classes.http_error.bind(py)))
}

/// The exception with its traceback, as `except` would have it: until 3.12, Python keeps the two apart until then.
pub(crate) fn raised<'py>(py: Python<'py>, error: &PyErr) -> Bound<'py, PyBaseException> {
    error.clone_ref(py).into_value(py).into_bound(py)
}

/// Whether an exception is a `ClientDisconnected`.
pub(crate) fn is_client_disconnected(py: Python<'_>, error: &PyErr) -> bool {
    classes(py).is_ok_and(|classes| error.is_instance(py, classes.client_disconnected.bind(py)))
}

/// Whether an exception is a `ClientDisconnected`, or was raised because of one. Sixteen steps back at most: chains can be
/// circles.
pub(crate) fn follows_client_disconnected(py: Python<'_>, error: &PyErr) -> bool {
    let mut next = Some(error.clone_ref(py));
    for _ in 0..16 {
        let Some(error) = next else { return false };
        if is_client_disconnected(py, &error) {
            return true;
        }
        let value = error.value(py);
        let before = ["__cause__", "__context__"].iter().find_map(|name| {
            let before = value.getattr(*name).ok()?;
            (!before.is_none()).then_some(before)
        });
        next = before.map(PyErr::from_value);
    }
    false
}

/// An error of the core, as Python raises it.
pub(crate) fn from_core(py: Python<'_>, error: &httpy::Error) -> PyErr {
    config(py, error.to_string())
}
