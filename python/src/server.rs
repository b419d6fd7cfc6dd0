//! The server as Python holds it.

use std::{cell::RefCell, net::SocketAddr, sync::Arc};

use http::StatusCode;
use httpy::{App, Handler, Reply, Request, message::text};
use pyo3::{exceptions::PyRuntimeError, prelude::*};

use crate::{call::Endpoint, driver::Selector};

/// A bound server.
#[pyclass(unsendable, module = "httpy._httpy")]
pub(crate) struct Core {
    listeners: RefCell<Vec<std::net::TcpListener>>,
    server: RefCell<Option<httpy::server::Server>>,
}

#[pymethods]
impl Core {
    #[new]
    fn new() -> Self {
        Self { listeners: RefCell::new(vec![]), server: RefCell::new(None) }
    }
    fn bind(&self, host: &str, port: u16) -> PyResult<u16> {
        let ip: std::net::IpAddr = host.parse().map_err(|_| PyRuntimeError::new_err("host"))?;
        let socket = httpy::listen::bind(SocketAddr::new(ip, port), 2048)
            .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        let port = socket.local_addr()?.port();
        self.listeners.borrow_mut().push(socket);
        Ok(port)
    }
    fn start(&self, selector: &Selector, routes: Vec<(String, String, Py<Endpoint>)>) -> PyResult<()> {
        let runtime = selector.runtime()?;
        let table: std::collections::HashMap<String, Arc<dyn Handler>> =
            routes.into_iter().map(|(_, path, endpoint)| (path, endpoint.get().handler())).collect();
        let handler = move |request: Request| -> Reply {
            match table.get(request.uri.path()) {
                Some(handler) => handler.call(request),
                None => text(StatusCode::NOT_FOUND, "Not Found").into(),
            }
        };
        let listeners: Vec<std::net::TcpListener> = self.listeners.borrow_mut().drain(..).collect();
        runtime.spawn_local(async move {
            let listeners = listeners
                .into_iter()
                .map(|l| Box::new(httpy::listen::Tcp::new(l).expect("tcp")) as Box<dyn httpy::conn::Listener>)
                .collect();
            let _server = App::new(Arc::new(handler)).start(listeners);
            std::future::pending::<()>().await
        });
        Ok(())
    }
}
