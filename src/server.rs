//! Walk 2/10. Before: listen/tcp.rs. After: listen/tls.rs.
//!
//! Connection management: accepts, gives every connection a task, drains, and cuts off. Names no protocol.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    task::{AbortHandle, JoinSet, spawn_local},
    time::{sleep, timeout},
};

use crate::{
    config::Config,
    conn::{Cx, Drain, Incoming, Listener, Protocol},
    handler::Stack,
    message::Stream,
};

/// How long accepting rests after the system refused for want of something (file descriptors, memory), so that a
/// server at its limit waits for connections to end instead of spinning. 50 ms.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// How long cutting off may take. Aborted tasks are dropped as soon as the runtime gets to them; 1 s is for a bug.
const CUT_OFF: Duration = Duration::from_secs(1);

/// A running server on the current thread's runtime. Dropping it cuts every connection off.
pub struct Server {
    drain: Drain,
    accepting: JoinSet<()>,
    open: Rc<Open>,
}

impl Server {
    /// Starts accepting on every listener. Must be called inside a local runtime.
    pub fn start(
        listeners: Vec<Box<dyn Listener>>,
        protocol: Rc<dyn Protocol<Stream>>,
        stack: Stack,
        config: Arc<Config>,
    ) -> Self {
        let drain = Drain::default();
        let open = Rc::new(Open::default());
        let mut accepting = JoinSet::new();
        for listener in listeners {
            let connections = Connections {
                protocol: protocol.clone(),
                stack: stack.clone(),
                config: config.clone(),
                drain: drain.clone(),
                open: open.clone(),
            };
            accepting.spawn_local(accept(listener, connections));
        }
        Self { drain, accepting, open }
    }

    /// A handle that can start the drain from elsewhere.
    pub fn drain(&self) -> Drain {
        self.drain.clone()
    }

    /// Stops accepting, tells connections to finish, and waits for them, at most `grace`. Connections that are still
    /// open then are cut off: their tasks are dropped, and with them their handlers. Returns how many these were.
    pub async fn stop(mut self, grace: Duration) -> usize {
        self.accepting.shutdown().await;
        self.drain.start();
        if timeout(grace, self.drain.finished()).await.is_ok() {
            return 0;
        }
        let cut_off = self.drain.open();
        self.open.abort();
        if timeout(CUT_OFF, self.drain.finished()).await.is_err() {
            tracing::error!(kind = "bug", left = self.drain.open(), "connections outlived their tasks");
        }
        cut_off
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.open.abort();
    }
}

async fn accept(listener: Box<dyn Listener>, connections: Connections) {
    loop {
        match listener.accept().await {
            Ok(incoming) => connections.serve(incoming),
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, address = listener.address(), "accept failed");
                sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// Errors of the connection that was about to be accepted, not of the listener.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// What makes an accepted connection a served one.
struct Connections {
    protocol: Rc<dyn Protocol<Stream>>,
    stack: Stack,
    config: Arc<Config>,
    drain: Drain,
    open: Rc<Open>,
}

impl Connections {
    fn serve(&self, incoming: Incoming) {
        let cx = Cx { stack: self.stack.clone(), config: self.config.clone(), signal: self.drain.signal() };
        let protocol = self.protocol.clone();
        let place = Place { open: self.open.clone(), number: self.open.next.get() };
        self.open.next.set(place.number + 1);
        let number = place.number;
        let task = spawn_local(async move {
            let _place = place;
            // A client that does not finish its handshake (TLS, PROXY) is as slow as one that does not finish its head.
            if let Ok(Ok(connection)) = timeout(cx.config.head_timeout, incoming.handshake).await {
                protocol.serve(connection, cx).await;
            }
        });
        self.open.tasks.borrow_mut().insert(number, task.abort_handle());
    }
}

/// The tasks of open connections, so that they can be cut off.
#[derive(Default)]
struct Open {
    next: Cell<u64>,
    tasks: RefCell<HashMap<u64, AbortHandle>>,
}

impl Open {
    fn abort(&self) {
        for task in self.tasks.take().into_values() {
            task.abort();
        }
    }
}

/// A connection's place among the open ones; given up when its task ends, however it ends.
struct Place {
    open: Rc<Open>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.tasks.borrow_mut().remove(&self.number);
    }
}
