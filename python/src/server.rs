//! The server as Python holds it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::StatusCode;
use httpy::{App, Handler, Reply, Request, message::text};
use pyo3::{exceptions::PyRuntimeError, prelude::*};
use tokio::sync::oneshot;

use crate::{
    call::Endpoint,
    driver::{self, Home, Runtime, RuntimeThread, Selector},
    threads,
};

/// A bound server.
#[pyclass(frozen, module = "httpy._httpy")]
#[derive(Default)]
pub(crate) struct Core {
    listeners: Mutex<Vec<std::net::TcpListener>>,
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
    fn new() -> Self {
        Self::default()
    }

    fn bind(&self, host: &str, port: u16) -> PyResult<u16> {
        let ip: std::net::IpAddr = host.parse().map_err(|_| PyRuntimeError::new_err("host"))?;
        let socket = httpy::listen::bind(SocketAddr::new(ip, port), 2048)
            .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        let port = socket.local_addr()?.port();
        lock(&self.listeners).push(socket);
        Ok(port)
    }

    /// Starts serving: on the loop's own selector, or (None) beside a loop that runs or is about to.
    fn start(
        &self,
        py: Python<'_>,
        selector: Option<&Selector>,
        event_loop: &Bound<'_, PyAny>,
        routes: Vec<(String, String, Py<Endpoint>)>,
    ) -> PyResult<()> {
        let runtime = match selector {
            Some(selector) => {
                selector.attach(event_loop)?;
                Runtime::Here(selector.runtime()?)
            }
            None => Runtime::There(RuntimeThread::start(py, Home::new(event_loop)?, threads::default_threads())?),
        };
        let table: std::collections::HashMap<String, Arc<dyn Handler>> =
            routes.into_iter().map(|(_, path, endpoint)| (path, endpoint.get().handler())).collect();
        let handler = move |request: Request| -> Reply {
            driver::pause();
            match table.get(request.uri.path()) {
                Some(handler) => handler.call(request),
                None => text(StatusCode::NOT_FOUND, "Not Found").into(),
            }
        };
        let listeners: Vec<std::net::TcpListener> = lock(&self.listeners).drain(..).collect();
        let (stop, stopped) = oneshot::channel();
        runtime.spawn(move || async move {
            let listeners = listeners
                .into_iter()
                .map(|l| Box::new(httpy::listen::Tcp::new(l).expect("tcp")) as Box<dyn httpy::conn::Listener>)
                .collect();
            let server = App::new(Arc::new(handler)).start(listeners);
            let Ok(Stop { grace, done }) = stopped.await else {
                // Started and forgotten: it serves as long as its runtime.
                return std::future::pending().await;
            };
            let cut_off = server.stop(grace).await;
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

    /// Stops accepting and lets connections finish; calls `done(connections cut off)` on the loop's thread when they
    /// have, or after `grace` seconds.
    fn stop(&self, grace: f64, done: Py<PyAny>) -> PyResult<()> {
        let not_running = || PyRuntimeError::new_err("the server does not run");
        let grace = Duration::try_from_secs_f64(grace).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
