//! Walk 2/10. Before: listen/tcp.rs. After: listen/tls.rs.
//!
//! Connection management: accepts, gives every connection a task, and drains. Names no protocol.

use std::{rc::Rc, sync::Arc, time::Duration};

use tokio::{
    task::{JoinSet, spawn_local},
    time::{sleep, timeout},
};

use crate::{
    config::Config,
    conn::{Cx, Drain, Listener, Protocol},
    handler::Stack,
    message::Stream,
};

/// How long accepting rests after the system refused for want of something (file descriptors, memory), so that a
/// server at its limit waits for connections to end instead of spinning. 50 ms.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// A running server on the current thread's runtime.
pub struct Server {
    drain: Drain,
    accepting: JoinSet<()>,
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
        let mut accepting = JoinSet::new();
        for listener in listeners {
            let (protocol, stack, config) = (protocol.clone(), stack.clone(), config.clone());
            accepting.spawn_local(accept(listener, protocol, stack, config, drain.clone()));
        }
        Self { drain, accepting }
    }

    /// A handle that can start the drain from elsewhere.
    pub fn drain(&self) -> Drain {
        self.drain.clone()
    }

    /// Stops accepting, tells connections to finish, and waits for them, at most `grace`. Returns how many
    /// connections were still open and were cut off.
    pub async fn stop(mut self, grace: Duration) -> usize {
        self.accepting.abort_all();
        while self.accepting.join_next().await.is_some() {}
        self.drain.start();
        match timeout(grace, self.drain.finished()).await {
            Ok(()) => 0,
            Err(_) => self.drain.open(),
        }
    }
}

async fn accept(
    listener: Box<dyn Listener>,
    protocol: Rc<dyn Protocol<Stream>>,
    stack: Stack,
    config: Arc<Config>,
    drain: Drain,
) {
    loop {
        let incoming = match listener.accept().await {
            Ok(incoming) => incoming,
            Err(error) if is_about_one_connection(&error) => continue,
            Err(error) => {
                tracing::error!(%error, address = listener.address(), "accept failed");
                sleep(ACCEPT_REST).await;
                continue;
            }
        };
        let cx = Cx { stack: stack.clone(), config: config.clone(), signal: drain.signal() };
        let protocol = protocol.clone();
        spawn_local(async move {
            if let Ok(connection) = incoming.handshake.await {
                protocol.serve(connection, cx).await;
            }
        });
    }
}

/// Errors of the connection that was about to be accepted, not of the listener.
fn is_about_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
