//! The door: the extension module `httpy._httpy`, and the only place that knows Python.
//!
//! `plan.rs` is filled once per route, `call.rs` runs once per request, `driver/` says where.

mod access_log;
mod afterwards;
mod ahead;
mod arriving;
#[cfg(unix)]
mod board;
mod call;
mod chain;
mod context;
mod cookies;
mod counts;
mod driver;
mod errors;
mod failures;
mod fields;
mod guest;
#[cfg(unix)]
mod hangup;
mod hosting;
mod interpreter;
mod json;
mod log;
mod memory;
mod onward;
mod outgoing;
mod plan;
mod query;
mod ready;
mod request;
mod response;
mod routes;
mod server;
mod site;
mod symbols;
mod threads;
mod tls;
mod toml;
mod watch;
mod websocket;

use pyo3::{prelude::*, sync::PyOnceLock};

/// Stands for "no default" in a parameter.
pub(crate) fn required(py: Python<'_>) -> PyResult<&'static Py<PyAny>> {
    static REQUIRED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    REQUIRED.get_or_try_init(py, || Ok(py.import("builtins")?.getattr("object")?.call0()?.unbind()))
}

/// Native half of HTTPy.
#[pymodule(gil_used = false)]
pub mod _httpy {
    #[pymodule_export]
    use crate::{
        access_log::AccessLog,
        arriving::Chunks,
        call::Endpoint,
        context::PyContext,
        counts::Counts,
        fields::{Headers, MutableHeaders},
        guest::Guest,
        json::{json_dumps, json_layout, json_loads},
        log::forward_logs,
        memory::{Memory, Pipe},
        onward::{Next, Onward},
        plan::{to_bool, to_float, to_int},
        query::QueryParams,
        request::PyRequest,
        response::PyResponse,
        routes::{Routes, build_path, canonical_pattern, pattern_parameters},
        server::{Core, defaults, supervision_defaults},
        tls::{Certificate, Credentials, PyTlsSession, dev_certificate, ticket_secret, tls_defaults},
        toml::read_toml,
        watch::Watch,
        websocket::{PyBlockingWebSocket, PyHub, PyRooms, PyWebSocket, SocketEndpoint},
    };

    #[cfg(unix)]
    #[pymodule_export]
    use crate::{driver::Selector, hangup::end_after_hangup};

    use pyo3::{prelude::*, types::PyMapping};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::interpreter::require_main()?;
        // What tests for a mapping shall find one.
        PyMapping::register::<Headers>(module.py())?;
        PyMapping::register::<QueryParams>(module.py())?;
        crate::json::test_layout(module.py());
        module.add("REQUIRED", crate::required(module.py())?)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
