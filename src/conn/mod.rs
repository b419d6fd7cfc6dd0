//! The seams below the waist: what accepts connections, what speaks on them.

mod drain;
mod network;
mod open;
mod siblings;

use std::{future::Future, io, pin::Pin, rc::Rc, sync::Arc, time::Duration};

pub use drain::{Drain, Signal};
pub use network::Network;
pub(crate) use open::Open;
pub use open::{Place, Standing};
pub use siblings::{Board, Siblings, Told};

use crate::{
    config::Config,
    handler::Stack,
    message::{Peer, Stream},
    metrics::Metrics,
};

/// A future that stays on its thread.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Accepts connections.
pub trait Listener {
    /// Waits for the next connection. Handshakes don't happen here: they run in the connection's own task, when it
    /// awaits [`Incoming::handshake`].
    ///
    /// # Cancel safety
    /// Cancel safe: a connection is either returned or still queued.
    fn accept(&self) -> LocalFuture<'_, io::Result<Incoming>>;

    /// Waits until there may be a connection, without accepting it; none if that can't be told.
    fn readable(&self) -> Option<LocalFuture<'_, io::Result<()>>> {
        None
    }

    /// Where it listens, as people write it (`http://127.0.0.1:8000`).
    fn address(&self) -> String;

    /// Has the system queue no further connections here, if it can be told and nobody else listens on the same socket.
    /// Returns how long connections that are being opened just now may still take to be queued.
    fn refuse(&self) -> Duration {
        Duration::ZERO
    }

    /// Takes a connection that the system has queued; none if it has none. Does not wait.
    ///
    /// # Errors
    /// As [`Listener::accept`].
    fn accept_queued(&self) -> io::Result<Option<Incoming>> {
        Ok(None)
    }
}

/// A connection that was accepted and has yet to be set up.
pub struct Incoming {
    /// Who is connected.
    pub peer: Peer,
    /// Completes when the connection is ready to carry a protocol.
    pub handshake: LocalFuture<'static, io::Result<Connection<Stream>>>,
}

/// A connection ready to carry a protocol.
pub struct Connection<C> {
    /// What the protocol speaks over.
    pub io: C,
    /// Who is connected.
    pub peer: Peer,
    /// The protocol both sides agreed on by ALPN (RFC 7301), if they did.
    pub alpn: Option<Vec<u8>>,
}

/// Speaks one protocol over connections of type `C`.
pub trait Protocol<C> {
    /// Serves a connection to its end: turns what arrives into requests, has `cx.stack` answer them, and sends the
    /// responses. When `cx.signal` says so, finishes what runs and closes. Says by `cx.place` what it is doing: a connection
    /// that never does counts as resting, and is closed when a newcomer needs room.
    fn serve(&self, connection: Connection<C>, cx: Cx) -> LocalFuture<'static, ()>;
}

/// What a connection needs from its server. `cx`, for short.
#[derive(Clone)]
pub struct Cx {
    /// Answers requests.
    pub stack: Stack,
    /// The limits.
    pub config: Arc<Config>,
    /// Says when to finish.
    pub signal: Signal,
    /// Where to say what the connection is doing.
    pub place: Rc<Place>,
    /// Where to count what clients make the server do.
    pub metrics: Arc<Metrics>,
}
