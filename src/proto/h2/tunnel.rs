//! A stream that is not HTTP any more: bytes both ways, in DATA frames (RFC 8441 §5, RFC 9113 §8.5).

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::turns::Ticket;
use crate::{error::panic_message, message::Tunnel};

/// A tunnel and the stream that carries it.
pub(super) struct Tunnelling {
    tunnel: Box<dyn Tunnel>,
    sending: SendStream<Bytes>,
    incoming: Option<RecvStream>,
    /// What has come and was not read yet.
    ahead: Bytes,
    /// Whether the client takes no more on this stream, and h2 is to say when it does.
    is_blocked: bool,
    waker: Option<Waker>,
}

impl Tunnelling {
    pub(super) fn new(tunnel: Box<dyn Tunnel>, sending: SendStream<Bytes>, incoming: RecvStream) -> Self {
        Self { tunnel, sending, incoming: Some(incoming), ahead: Bytes::new(), is_blocked: false, waker: None }
    }

    /// The server stops.
    pub(super) fn stop(&mut self) {
        self.tunnel.stop();
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Runs. Ready: it has ended, and what may still come is to be thrown away.
    pub(super) fn poll(&mut self, ticket: &mut Ticket, cx: &mut Context<'_>) -> Poll<RecvStream> {
        match &mut self.waker {
            Some(known) => known.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
        let Some(incoming) = &mut self.incoming else { return Poll::Pending };
        let (sending, ahead, is_blocked) = (&mut self.sending, &mut self.ahead, &mut self.is_blocked);
        let mut io = Io { sending, incoming, ahead, is_blocked, ticket };
        let tunnel = &mut self.tunnel;
        // A panic in it is the end of this stream, and not of the others.
        match catch_unwind(AssertUnwindSafe(|| tunnel.poll(&mut io, cx))) {
            Ok(polled) => ready!(polled),
            Err(panic) => {
                let panic = panic_message(&*panic);
                tracing::error!(kind = "bug", panic, "a panic in a tunnel was contained, and its stream is closed");
            }
        }
        if let Err(error) = self.sending.send_data(Bytes::new(), true) {
            tracing::debug!(%error, "the end of a tunnel was not sent");
        }
        self.incoming.take().map_or(Poll::Pending, Poll::Ready)
    }
}

/// The stream as bytes.
struct Io<'a> {
    sending: &'a mut SendStream<Bytes>,
    incoming: &'a mut RecvStream,
    ahead: &'a mut Bytes,
    is_blocked: &'a mut bool,
    ticket: &'a mut Ticket,
}

fn broken(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

impl AsyncRead for Io<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.ahead.is_empty() {
            match ready!(this.incoming.poll_data(cx)) {
                Some(Ok(data)) => *this.ahead = data,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = this.ahead.len().min(buf.remaining());
        buf.put_slice(&this.ahead[..n]);
        this.ahead.advance(n);
        // It can't be more than was received: so much may come again.
        let _ = this.incoming.flow_control().release_capacity(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io<'_> {
    /// Hands bytes to h2 when it is this stream's turn, as many as the client takes on it.
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        loop {
            if let Poll::Ready(reset) = this.sending.poll_reset(cx) {
                let error = reset.map_or_else(broken, |reason| broken(reason.into()));
                return Poll::Ready(Err(error));
            }
            if *this.is_blocked {
                match ready!(this.sending.poll_capacity(cx)) {
                    Some(Ok(_)) => *this.is_blocked = false,
                    Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                    None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                }
            }
            let is_at_once = this.ticket.take_at_once(bytes.len());
            let turn = if is_at_once { bytes.len() } else { ready!(this.ticket.poll_turn(cx)) };
            let wanted = turn.min(bytes.len());
            this.sending.reserve_capacity(wanted);
            let n = this.sending.capacity().min(wanted);
            if !is_at_once {
                this.ticket.spend(n);
            }
            if n > 0 {
                let sent = this.sending.send_data(Bytes::copy_from_slice(&bytes[..n]), false);
                return Poll::Ready(sent.map(|()| n).map_err(broken));
            }
            // A byte, so that h2 tells when the window opens and withholds nothing from the other streams.
            this.sending.reserve_capacity(1);
            *this.is_blocked = true;
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
