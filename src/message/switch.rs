//! What an exchange becomes when its answer says so: bytes both ways (RFC 9110 §7.8, RFC 8441, RFC 9220).
//!
//! Whoever answers puts a [`Switch`] into the response; the carrier sends its head, and then runs the [`Tunnel`] on the bytes
//! that are left of the connection or stream. So what goes through a tunnel is the same by every version.

use std::{
    any::Any,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite};

use super::Response;

/// What a carrier has left of an exchange. As [`ByteStream`](super::ByteStream), but it stays on the carrier's thread.
pub trait BothWays: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> BothWays for T {}

/// Speaks over a byte stream to its end. [`Any`], for a carrier that has none, and can do without one that it knows.
pub trait Tunnel: Any + Send {
    /// Runs. Ready: it has ended, everything is flushed, and the carrier closes the stream.
    fn poll(&mut self, io: &mut dyn BothWays, cx: &mut Context<'_>) -> Poll<()>;

    /// The server stops: come to an end soon. A poll follows.
    fn stop(&mut self);

    /// A number that changes when something has gone through.
    fn progress(&self) -> u64;
}

/// A response with this among its extensions turns its exchange into a tunnel.
#[derive(Clone)]
pub struct Switch(Arc<Mutex<Option<Box<dyn Tunnel>>>>);

impl Switch {
    /// Wraps a tunnel.
    pub fn new(tunnel: impl Tunnel + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(tunnel)))))
    }

    /// Whether this response is to switch.
    pub fn is_in(response: &Response) -> bool {
        response.extensions().get::<Self>().is_some()
    }

    /// Takes the tunnel out of a response that has one.
    pub fn take(response: &mut Response) -> Option<Box<dyn Tunnel>> {
        if response.extensions().is_empty() {
            return None;
        }
        let switch = response.extensions_mut().remove::<Self>()?;
        switch.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
