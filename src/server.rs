//! Walk 2/10. Before: listen/tcp.rs. After: listen/tls.rs.
//!
//! Connection management: accepts, makes room, gives every connection a task, drains, and cuts off. Names no protocol.

use std::{convert::Infallible, io, panic::AssertUnwindSafe, pin::pin, rc::Rc, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{
    sync::{Notify, watch},
    task::{JoinSet, spawn_local},
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    config::Config,
    conn::{Cx, Drain, Incoming, Listener, Network, Open, Place, Protocol, Siblings},
    error::panic_message,
    handler::Stack,
    message::Stream,
    metrics::{Counted, Metrics},
    platform::{allow_descriptors, give_back_code, give_back_memory},
};

/// Descriptors that are not for connections: the application's files and its own connections. 256, or a quarter where the
/// system allows so few that this would leave little.
const OTHER_DESCRIPTORS: u64 = 256;

/// How long accepting rests after the system refused for want of something (file descriptors, memory), so that a
/// server at its limit waits for connections to end instead of spinning. 50 ms.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// How long cutting off may take. Aborted tasks are dropped as soon as the runtime gets to them; 1 s is for a bug.
const CUT_OFF: Duration = Duration::from_secs(1);

/// How long nobody has to be connected before the code that connections use is given back. 250 ms: long enough for giving it
/// back, and having it again, to be nothing beside what else one connection a time takes.
const RESTED: Duration = Duration::from_millis(250);

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
    metrics: Arc<Metrics>,
}

/// What a server is made of besides its listeners.
pub struct Parts {
    /// What every connection speaks.
    pub protocol: Rc<dyn Protocol<Stream>>,
    /// What answers.
    pub stack: Stack,
    /// The limits.
    pub config: Arc<Config>,
    /// Other processes that accept from the same sockets, if there are any.
    pub siblings: Option<Siblings>,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
}

impl Server {
    /// Starts accepting on every listener. Must be called inside a local runtime.
    pub fn start(listeners: Vec<Box<dyn Listener>>, parts: Parts) -> Self {
        let Parts { protocol, stack, config, siblings, metrics } = parts;
        // Half a MiB, of what loading an app has taken and left.
        give_back_memory();
        // Most of what starting has used, for who asks at once; the rest of it is given back with the first rest.
        give_back_code();
        let drain = Drain::default();
        let used = Rc::new(Notify::new());
        let open = Rc::new(Open::new(max_connections(&config), config.max_connections_per_address, siblings));
        let mut accepting = JoinSet::new();
        let stopping = watch::Sender::new(None);
        spawn_local(give_back_at_rest(drain.clone(), used.clone(), stopping.subscribe()));
        for listener in listeners {
            let connections = Connections {
                protocol: protocol.clone(),
                stack: stack.clone(),
                config: config.clone(),
                drain: drain.clone(),
                open: open.clone(),
                used: used.clone(),
                metrics: metrics.clone(),
            };
            accepting.spawn_local(accept(listener, connections, stopping.subscribe()));
        }
        Self { drain, accepting, stopping, open, metrics }
    }

    /// A handle that can start the drain from elsewhere.
    pub fn drain(&self) -> Drain {
        self.drain.clone()
    }

    /// What it counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
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

/// Gives code back whenever nobody has been connected for a while, until the server stops or is dropped. An idle server has no
/// timer: it waits to be used.
async fn give_back_at_rest(drain: Drain, used: Rc<Notify>, mut stopping: watch::Receiver<Option<Queued>>) {
    let rests = async {
        loop {
            sleep(RESTED).await;
            if drain.open() == 0 {
                give_back_code();
                used.notified().await;
            }
            drain.finished().await;
        }
    };
    tokio::select! {
        () = rests => {}
        _ = stopping.changed() => {}
    }
}

/// Accepts until the server stops, and then what is queued, so that closing the socket loses no connection.
async fn accept(listener: Box<dyn Listener>, connections: Connections, mut stopping: watch::Receiver<Option<Queued>>) {
    let asked = {
        let mut asked = pin!(stopping.wait_for(Option::is_some));
        loop {
            let accepted = tokio::select! {
                biased;
                asked = &mut asked => break asked.map_or(None, |asked| *asked),
                accepted = accept_one(&*listener, &connections.open) => accepted,
            };
            // Not given up when the server stops: who was accepted may be waiting for room.
            connections.take(accepted, &*listener).await;
        }
    };
    if asked != Some(Queued::Served) {
        return;
    }
    let _ = timeout(listener.refuse(), accept_all(&*listener, &connections)).await;
    // A shared socket's queue may be refilled for ever.
    for _ in 0..=connections.config.backlog {
        match listener.accept_queued() {
            Ok(Some(incoming)) => connections.admit(incoming).await,
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
        let accepted = accept_one(listener, &connections.open).await;
        connections.take(accepted, listener).await;
    }
}

/// Accepts a connection; none if another process has taken it.
async fn accept_one(listener: &dyn Listener, open: &Open) -> io::Result<Option<Incoming>> {
    if let Some(siblings) = open.siblings()
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
    /// Told of every connection.
    used: Rc<Notify>,
    metrics: Arc<Metrics>,
}

impl Connections {
    /// Serves who was accepted, or gets over it that nobody could be.
    async fn take(&self, accepted: io::Result<Option<Incoming>>, listener: &dyn Listener) {
        match accepted {
            Ok(Some(incoming)) => self.admit(incoming).await,
            Ok(None) => {}
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, address = listener.address(), "accept failed");
                // Whatever the system lacks, a connection less gives some of it back.
                self.open.close_one();
                sleep(ACCEPT_REST).await;
            }
        }
    }

    /// Serves a newcomer, once there is room for it. One that is not let in is closed without a word: only a protocol could
    /// say something, after a handshake that costs more than the connection.
    async fn admit(&self, incoming: Incoming) {
        let network = incoming.peer.client.and_then(|client| Network::of(client.ip()));
        if let Some(place) = self.open.admit(network).await {
            self.serve(incoming, &place);
        }
    }

    fn serve(&self, incoming: Incoming, place: &Rc<Place>) {
        self.used.notify_one();
        let cx = Cx {
            stack: self.stack.clone(),
            config: self.config.clone(),
            signal: self.drain.signal(),
            place: place.clone(),
            metrics: self.metrics.clone(),
        };
        let (protocol, held) = (self.protocol.clone(), place.clone());
        let connection = async move {
            // For as long as the task lives, whatever the protocol does with its own.
            let _held = held;
            match timeout(cx.config.handshake_timeout, incoming.handshake).await {
                Ok(Ok(connection)) => protocol.serve(connection, cx).await,
                Ok(Err(error)) => {
                    cx.metrics.count(Counted::HandshakesFailed);
                    tracing::debug!(%error, "handshake failed");
                }
                Err(_) => {
                    cx.metrics.count(Counted::HandshakesLate);
                    tracing::debug!(kind = "limit", "handshake took too long (handshake_timeout)");
                }
            }
        };
        // A bug in one connection ends that connection, and nothing else.
        let contained = AssertUnwindSafe(connection).catch_unwind().map(|ended| {
            if let Err(panic) = ended {
                tracing::error!(kind = "bug", panic = panic_message(&*panic), "a panic ended its connection");
            }
        });
        place.set_task(spawn_local(contained).abort_handle());
    }
}

/// The limit of connections that the system can keep: as configured, if it grants the descriptors.
fn max_connections(config: &Config) -> usize {
    if config.max_connections == 0 {
        return 0;
    }
    let wanted = (config.max_connections as u64).saturating_add(OTHER_DESCRIPTORS);
    let allowed = allow_descriptors(wanted);
    if allowed >= wanted {
        return config.max_connections;
    }
    let max = usize::try_from(allowed - OTHER_DESCRIPTORS.min(allowed / 4)).unwrap_or(usize::MAX).max(1);
    tracing::warn!(
        kind = "start",
        max_connections = max,
        configured = config.max_connections,
        "fewer connections than configured: the system allows {allowed} descriptors (ulimit -n)"
    );
    max
}
