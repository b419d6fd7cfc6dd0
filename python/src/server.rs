//! The server as Python holds it.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use httpy::{App, Config, Handler, Reply, Request, conn::Listener, listen};
use pyo3::{
    exceptions::PyRuntimeError,
    prelude::*,
    types::{PyDict, PyString},
};
use tokio::sync::oneshot;

#[cfg(unix)]
use crate::driver::Selector;
use crate::{
    chain::Chain,
    driver::{self, Home, Runtime, RuntimeThread},
    errors,
    routes::Routes,
    site::Site,
    threads,
};

/// A bound server, run by one loop.
#[pyclass(frozen, module = "httpy._httpy")]
pub(crate) struct Core {
    handler: Arc<dyn Handler>,
    config: Config,
    listeners: Mutex<Vec<TcpListener>>,
    /// The thread driver's; the selector's belongs to the selector.
    thread: Mutex<Option<RuntimeThread>>,
    stop: Mutex<Option<oneshot::Sender<Stop>>>,
}

/// How a server is to stop.
struct Stop {
    grace: Duration,
    done: Py<PyAny>,
}

#[pymethods]
impl Core {
    #[new]
    #[pyo3(signature = (routes, config=None, /))]
    fn new(py: Python<'_>, routes: &Routes, config: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let config = read_config(py, config)?;
        let handler = Paced(routes.build(py, "", config.max_body_bytes, &Chain::new())?);
        Ok(Self {
            handler: Arc::new(handler),
            config,
            listeners: Mutex::default(),
            thread: Mutex::default(),
            stop: Mutex::default(),
        })
    }

    /// Binds a TCP address and returns its port.
    ///
    /// Raises `ConfigError` if the host is not an address or the port can't be had.
    #[pyo3(signature = (host, port, /))]
    fn bind(&self, py: Python<'_>, host: &str, port: u16) -> PyResult<u16> {
        let host = if host == "localhost" { "127.0.0.1" } else { host };
        let address = host.trim_matches(['[', ']']).parse().map_err(|_| {
            errors::config(py, format!("host {host:?} is not an IP address; use 127.0.0.1, 0.0.0.0 or ::"))
        })?;
        let listener = listen::bind(SocketAddr::new(address, port), self.config.backlog)
            .map_err(|error| errors::from_core(py, &error))?;
        let port = listener.local_addr()?.port();
        lock(&self.listeners).push(listener);
        Ok(port)
    }

    /// Starts serving: on the loop's own selector, or (None) beside a loop that runs or is about to.
    #[cfg(unix)]
    #[pyo3(signature = (selector, event_loop, /))]
    fn start(&self, py: Python<'_>, selector: Option<&Selector>, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
        let runtime = match selector {
            Some(selector) => {
                selector.attach(event_loop)?;
                Runtime::Here(selector.runtime()?)
            }
            None => Runtime::There(RuntimeThread::start(py, Home::new(event_loop)?, threads::default_threads())?),
        };
        self.serve(runtime)
    }

    /// Starts serving beside a loop that runs or is about to; `selector` is None.
    #[cfg(not(unix))]
    #[pyo3(signature = (selector, event_loop, /))]
    fn start(&self, py: Python<'_>, selector: Option<Py<PyAny>>, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
        if selector.is_some() {
            return Err(PyRuntimeError::new_err("the selector driver needs epoll or kqueue; pass None"));
        }
        self.serve(Runtime::There(RuntimeThread::start(py, Home::new(event_loop)?, threads::default_threads())?))
    }

    /// Stops accepting, finishes what runs, and calls `done` on the loop's thread.
    ///
    /// At most `grace` seconds; None is the configured time. `done` gets the number of connections that were cut off.
    #[pyo3(signature = (grace, done, /))]
    fn stop(&self, py: Python<'_>, grace: Option<f64>, done: Py<PyAny>) -> PyResult<()> {
        let not_running = || PyRuntimeError::new_err("the server does not run");
        let grace = match grace {
            None => self.config.grace,
            Some(seconds) => Duration::try_from_secs_f64(seconds)
                .map_err(|_| errors::config(py, format!("grace is a number of seconds, not {seconds}")))?,
        };
        let stop = lock(&self.stop).take().ok_or_else(not_running)?;
        stop.send(Stop { grace, done }).map_err(|_| not_running())
    }

    /// Ends the thread driver's runtime; the selector's ends with its loop.
    fn close(&self, py: Python<'_>) {
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            thread.close(py);
        }
    }
}

impl Core {
    fn serve(&self, runtime: Runtime) -> PyResult<()> {
        let (handler, config) = (self.handler.clone(), self.config.clone());
        let sockets: Vec<TcpListener> = lock(&self.listeners).drain(..).collect();
        let (stop, stopped) = oneshot::channel();
        runtime.spawn(move || async move {
            let listener =
                |socket: TcpListener| -> std::io::Result<Box<dyn Listener>> { Ok(Box::new(listen::Tcp::new(socket)?)) };
            let listeners = match sockets.into_iter().map(listener).collect() {
                Ok(listeners) => listeners,
                Err(error) => {
                    tracing::error!(%error, "a listening socket can't be used");
                    return;
                }
            };
            let server = App::new(handler).config(config).start(listeners);
            let Ok(Stop { grace, done }) = stopped.await else {
                // Started and forgotten: it serves as long as its runtime.
                return std::future::pending().await;
            };
            let deadline = tokio::time::Instant::now() + grace;
            let cut_off = server.stop(grace).await;
            if let Some(site) = Site::here() {
                // What still runs behind responses then is left to the loop, which cancels it when it ends.
                let _ = tokio::time::timeout_at(deadline, site.rested()).await;
            }
            driver::tell(Box::new(move |py, _| {
                if let Err(error) = done.call1(py, (cut_off,)) {
                    error.write_unraisable(py, Some(done.bind(py)));
                }
            }));
        })?;
        if let Runtime::There(thread) = runtime {
            *lock(&self.thread) = Some(thread);
        }
        *lock(&self.stop) = Some(stop);
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets other threads have the interpreter now and then, however busy the server is and whoever answers.
struct Paced(Arc<dyn Handler>);

impl Handler for Paced {
    fn call(&self, request: Request) -> Reply {
        driver::pause();
        self.0.call(request)
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
