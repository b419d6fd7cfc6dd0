//! Walk 2/10. Before: listen/tcp.rs. After: listen/tls.rs.
//!
//! Connection management: accepts, gives every connection a task, drains, and cuts off. Names no protocol.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    convert::Infallible,
    io,
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet, spawn_local},
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    config::Config,
    conn::{Cx, Drain, Incoming, Listener, Protocol, Siblings},
    handler::Stack,
    message::Stream,
};

/// How long accepting rests after the system refused for want of something (file descriptors, memory), so that a
/// server at its limit waits for connections to end instead of spinning. 50 ms.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// How long cutting off may take. Aborted tasks are dropped as soon as the runtime gets to them; 1 s is for a bug.
const CUT_OFF: Duration = Duration::from_secs(1);

/// What becomes of the connections that the system has queued when a server stops, and that nobody has accepted yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// They are accepted and served.
    Served,
    /// They are left to others, who go on accepting from the same sockets.
    Left,
}

/// A running server on the current thread's runtime. Dropping it cuts every connection off.
pub struct Server {
    drain: Drain,
    accepting: JoinSet<()>,
    /// None while it accepts.
    stopping: watch::Sender<Option<Queued>>,
    open: Rc<Open>,
}

impl Server {
    /// Starts accepting on every listener. Must be called inside a local runtime.
    pub fn start(
        listeners: Vec<Box<dyn Listener>>,
        protocol: Rc<dyn Protocol<Stream>>,
        stack: Stack,
        config: Arc<Config>,
        siblings: Option<Siblings>,
    ) -> Self {
        let drain = Drain::default();
        let open = Rc::new(Open { siblings, ..Open::default() });
        let mut accepting = JoinSet::new();
        let stopping = watch::Sender::new(None);
        for listener in listeners {
            let connections = Connections {
                protocol: protocol.clone(),
                stack: stack.clone(),
                config: config.clone(),
                drain: drain.clone(),
                open: open.clone(),
            };
            accepting.spawn_local(accept(listener, connections, stopping.subscribe()));
        }
        Self { drain, accepting, stopping, open }
    }

    /// A handle that can start the drain from elsewhere.
    pub fn drain(&self) -> Drain {
        self.drain.clone()
    }

    /// Stops accepting, tells connections to finish, and waits for them, at most `grace`. Connections that are still
    /// open then are cut off: their tasks are dropped, and with them their handlers. Returns how many these were.
    pub async fn stop(mut self, grace: Duration, queued: Queued) -> usize {
        let deadline = deadline(grace);
        self.drain.start();
        self.open.leave();
        self.stopping.send_replace(Some(queued));
        let accepted = timeout_at(deadline, async { while self.accepting.join_next().await.is_some() {} }).await;
        if accepted.is_err() {
            self.accepting.shutdown().await;
        }
        if timeout_at(deadline, self.drain.finished()).await.is_ok() {
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
        self.open.leave();
        self.open.abort();
    }
}

/// When a time from now on is over.
pub fn deadline(after: Duration) -> Instant {
    // A time that no clock can tell is as good as a year.
    let now = Instant::now();
    now.checked_add(after).unwrap_or_else(|| now + Duration::from_secs(365 * 24 * 3600))
}

/// Accepts until the server stops, and then what is queued, so that closing the socket loses no connection.
async fn accept(listener: Box<dyn Listener>, connections: Connections, mut stopping: watch::Receiver<Option<Queued>>) {
    let asked = {
        let mut asked = pin!(stopping.wait_for(Option::is_some));
        tokio::select! {
            biased;
            asked = &mut asked => asked.map_or(None, |asked| *asked),
            never = accept_all(&*listener, &connections) => match never {},
        }
    };
    if asked != Some(Queued::Served) {
        return;
    }
    let _ = timeout(listener.refuse(), accept_all(&*listener, &connections)).await;
    // A shared socket's queue may be refilled for ever.
    for _ in 0..=connections.config.backlog {
        match listener.accept_queued() {
            Ok(Some(incoming)) => connections.serve(incoming),
            Ok(None) => return,
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, address = listener.address(), "what was queued is lost: accept failed");
                return;
            }
        }
    }
}

async fn accept_all(listener: &dyn Listener, connections: &Connections) -> Infallible {
    loop {
        match accept_one(listener, &connections.open).await {
            Ok(Some(incoming)) => connections.serve(incoming),
            Ok(None) => {}
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, address = listener.address(), "accept failed");
                sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// Accepts a connection; none if another process has taken it.
async fn accept_one(listener: &dyn Listener, open: &Open) -> io::Result<Option<Incoming>> {
    if let Some(siblings) = &open.siblings
        && siblings.is_to_wait(open.count())
        && let Some(readable) = listener.readable()
    {
        readable.await?;
        siblings.give_way(open.count()).await;
        return listener.accept_queued();
    }
    listener.accept().await.map(Some)
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
        self.open.tell();
    }
}

/// The tasks of open connections, so that they can be cut off.
#[derive(Default)]
struct Open {
    next: Cell<u64>,
    tasks: RefCell<HashMap<u64, AbortHandle>>,
    siblings: Option<Siblings>,
}

impl Open {
    fn count(&self) -> usize {
        self.tasks.borrow().len()
    }

    /// Has the siblings know how many these are.
    fn tell(&self) {
        if let Some(siblings) = &self.siblings {
            siblings.tell(self.count());
        }
    }

    fn leave(&self) {
        if let Some(siblings) = &self.siblings {
            siblings.leave();
        }
    }

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
        self.open.tell();
    }
}
