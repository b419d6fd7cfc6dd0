//! The server as Python holds it.

use std::{
    cell::RefCell,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use httpy::{App, Config, Handler, conn::Listener, listen, server::Server};
use pyo3::{
    exceptions::PyRuntimeError,
    prelude::*,
    types::{PyDict, PyString},
};

use crate::{driver::Selector, errors, routes::Routes};

/// A bound server, run by one loop.
#[pyclass(unsendable, module = "httpy._httpy")]
pub(crate) struct Core {
    handler: Arc<dyn Handler>,
    config: Config,
    listeners: RefCell<Vec<TcpListener>>,
    server: Rc<RefCell<Option<Server>>>,
    runtime: RefCell<Option<Rc<tokio::runtime::LocalRuntime>>>,
}

#[pymethods]
impl Core {
    #[new]
    #[pyo3(signature = (routes, config=None, /))]
    fn new(py: Python<'_>, routes: &Routes, config: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let config = read_config(py, config)?;
        let handler = routes.build(py, "", config.max_body_bytes, &[])?;
        Ok(Self { handler, config, listeners: RefCell::default(), server: Rc::default(), runtime: RefCell::default() })
    }

    /// Binds a TCP address and returns its port.
    ///
    /// Raises `ConfigError` if the host is not an address or the port can't be had.
    fn bind(&self, py: Python<'_>, host: &str, port: u16) -> PyResult<u16> {
        let host = if host == "localhost" { "127.0.0.1" } else { host };
        let address = host.trim_matches(['[', ']']).parse().map_err(|_| {
            errors::config(py, format!("host {host:?} is not an IP address; use 127.0.0.1, 0.0.0.0 or ::"))
        })?;
        let listener = listen::bind(SocketAddr::new(address, port), self.config.backlog)
            .map_err(|error| errors::from_core(py, &error))?;
        let port = listener.local_addr()?.port();
        self.listeners.borrow_mut().push(listener);
        Ok(port)
    }

    /// Starts serving on the loop's thread.
    fn start(&self, selector: Option<&Selector>, event_loop: Py<PyAny>) -> PyResult<()> {
        let _ = event_loop;
        let selector = selector.ok_or_else(|| PyRuntimeError::new_err("the thread driver is not there yet"))?;
        let runtime = selector.runtime()?;
        let app = App::new(self.handler.clone()).config(self.config.clone());
        let sockets: Vec<TcpListener> = self.listeners.borrow_mut().drain(..).collect();
        let started = {
            let _guard = runtime.enter();
            let listeners = sockets
                .into_iter()
                .map(|socket| listen::Tcp::new(socket).map(|listener| Box::new(listener) as Box<dyn Listener>));
            listeners.collect::<std::io::Result<Vec<_>>>()?
        };
        let server = self.server.clone();
        drop(runtime.spawn_local(async move {
            *server.borrow_mut() = Some(app.start(started));
        }));
        *self.runtime.borrow_mut() = Some(runtime);
        Ok(())
    }

    /// Stops accepting, finishes what runs, at most `grace` seconds (None: the configured time), and calls `done`
    /// with the number of connections that were cut off.
    fn stop(&self, grace: Option<f64>, done: Py<PyAny>) -> PyResult<()> {
        let not_started = || PyRuntimeError::new_err("the server was not started");
        let runtime = self.runtime.borrow().clone().ok_or_else(not_started)?;
        let grace = grace.map_or(self.config.grace, |grace| Duration::try_from_secs_f64(grace).unwrap_or_default());
        let server = self.server.clone();
        drop(runtime.spawn_local(async move {
            let server = server.borrow_mut().take();
            let cut = match server {
                Some(server) => server.stop(grace).await,
                None => 0,
            };
            Python::attach(|py| {
                // It counts among `asyncio.all_tasks()` and never ends: who cancels and awaits those would hang.
                if let Some(crate::driver::Seat::Here(event_loop)) = crate::driver::seat() {
                    let spare = event_loop.spare.borrow_mut().take();
                    drop(spare);
                }
                if let Err(error) = done.bind(py).call1((cut,)) {
                    error.write_unraisable(py, Some(done.bind(py)));
                }
                if let Some(crate::driver::Seat::Here(event_loop)) = crate::driver::seat() {
                    event_loop.after_python(py);
                }
            });
        }));
        Ok(())
    }
}

/// Reads a configuration: what is not named keeps its default.
fn read_config(py: Python<'_>, values: Option<&Bound<'_, PyDict>>) -> PyResult<Config> {
    let mut config = Config::default();
    let Some(values) = values else { return Ok(config) };
    for (name, value) in values.iter() {
        let name = name.cast::<PyString>()?.to_cow()?;
        let wrong = |expected: &str| {
            let found = value.repr().map(|text| text.to_string()).unwrap_or_default();
            errors::config(py, format!("{name} is {expected}, not {found}"))
        };
        let size = || value.extract::<u64>().map_err(|_| wrong("a whole number that is not negative"));
        let seconds = || {
            let seconds = value.extract::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            seconds.ok_or_else(|| wrong("a number of seconds that is not negative"))
        };
        let narrow = |size: u64| usize::try_from(size).map_err(|_| wrong("smaller"));
        match &*name {
            "max_target_bytes" => config.max_target_bytes = narrow(size()?)?,
            "max_head_bytes" => config.max_head_bytes = narrow(size()?)?,
            "max_fields" => config.max_fields = narrow(size()?)?,
            "max_body_bytes" => config.max_body_bytes = size()?,
            "head_timeout" => config.head_timeout = seconds()?,
            "grace" => config.grace = seconds()?,
            "backlog" => config.backlog = u32::try_from(size()?).map_err(|_| wrong("smaller"))?,
            _ => return Err(errors::config(py, format!("no configuration value {name:?}"))),
        }
    }
    Ok(config)
}

/// Every configuration value with its default.
#[pyfunction]
pub(crate) fn defaults(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let config = Config::default();
    let values = PyDict::new(py);
    values.set_item("max_target_bytes", config.max_target_bytes)?;
    values.set_item("max_head_bytes", config.max_head_bytes)?;
    values.set_item("max_fields", config.max_fields)?;
    values.set_item("max_body_bytes", config.max_body_bytes)?;
    values.set_item("head_timeout", config.head_timeout.as_secs_f64())?;
    values.set_item("grace", config.grace.as_secs_f64())?;
    values.set_item("backlog", config.backlog)?;
    Ok(values)
}
