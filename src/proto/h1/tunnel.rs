//! A connection that is not HTTP any more: bytes both ways, for as long as they go.

use std::{
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::timeout;

use super::wire::Wire;
use crate::{
    conn::{Place, Signal, Standing},
    message::{Stream, Tunnel},
};

/// Runs a tunnel on what is left of a connection, once the response that opens it has been written. Returns the stream, to be
/// closed; none if the client did not take that response.
pub(super) async fn run(
    tunnel: Box<dyn Tunnel>,
    wire: Wire,
    write_timeout: Duration,
    signal: &Signal,
    place: Rc<Place>,
) -> Option<Stream> {
    timeout(write_timeout, poll_fn(|cx| wire.poll_send(cx))).await.ok()?.ok()?;
    let tunnelling = Tunnelling { io: wire.into_stream(), tunnel: Some(tunnel), place, progress: 0 };
    signal.watch(tunnelling, Tunnelling::poll, Tunnelling::finish).await
}

struct Tunnelling {
    /// None once it has ended.
    tunnel: Option<Box<dyn Tunnel>>,
    io: Option<Stream>,
    place: Rc<Place>,
    /// What the place was last told of.
    progress: u64,
}

impl Tunnelling {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Stream>> {
        let (Some(tunnel), Some(io)) = (&mut self.tunnel, &mut self.io) else { return Poll::Ready(None) };
        let polled = tunnel.poll(io, cx);
        // One that is idle may be closed for a newcomer, after every connection that is between requests.
        let progress = tunnel.progress();
        if std::mem::replace(&mut self.progress, progress) == progress {
            self.place.set(Standing::Waiting);
        } else {
            self.place.renew(Standing::Waiting);
        }
        polled.map(|()| {
            self.tunnel = None;
            self.io.take()
        })
    }

    fn finish(&mut self) {
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.stop();
        }
    }
}
