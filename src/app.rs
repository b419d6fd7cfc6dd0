//! Assembly: the only file that names everything.

use std::{rc::Rc, sync::Arc};

use crate::{
    config::Config,
    conn::{Listener, Siblings},
    handler::{Handler, Middleware, Stack},
    metrics::Metrics,
    proto::{self, Negotiate, Row},
    server::{Parts, Server},
};

/// A server about to start: middleware, a handler, protocols and limits.
pub struct App {
    handler: Arc<dyn Handler>,
    middleware: Vec<Arc<dyn Middleware>>,
    rows: Vec<Row>,
    config: Config,
    siblings: Option<Siblings>,
    metrics: Arc<Metrics>,
}

impl App {
    /// Starts from the handler that answers in the end.
    pub fn new(handler: Arc<dyn Handler>) -> Self {
        Self {
            handler,
            middleware: Vec::new(),
            rows: proto::table(),
            config: Config::default(),
            siblings: None,
            metrics: Arc::default(),
        }
    }

    /// Adds a middleware inside those added before.
    #[must_use]
    pub fn middleware(mut self, middleware: Arc<dyn Middleware>) -> Self {
        self.middleware.push(middleware);
        self
    }

    /// Sets the limits.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Shares connections with other processes that accept from the same sockets.
    #[must_use]
    pub fn siblings(mut self, siblings: Siblings) -> Self {
        self.siblings = Some(siblings);
        self
    }

    /// Has it count here; without this in a place of its own.
    #[must_use]
    pub fn metrics(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = metrics;
        self
    }

    /// Adds a protocol, asked before those already in the table.
    #[must_use]
    pub fn protocol(mut self, row: Row) -> Self {
        self.rows.insert(0, row);
        self
    }

    /// The protocols it speaks, by their ALPN ids, the preferred first: what
    /// [`Credentials`](crate::listen::Credentials::offer) are to offer to clients.
    pub fn alpn(&self) -> Vec<Vec<u8>> {
        self.rows.iter().map(|row| row.alpn.to_vec()).collect()
    }

    /// Starts serving on `listeners`. Must be called inside a local runtime.
    pub fn start(self, listeners: Vec<Box<dyn Listener>>) -> Server {
        let parts = Parts {
            protocol: Rc::new(Negotiate::new(self.rows)),
            stack: Stack::new(self.middleware, self.handler),
            config: Arc::new(self.config),
            siblings: self.siblings,
            metrics: self.metrics,
        };
        Server::start(listeners, parts)
    }
}
