//! A stream of bytes both ways: what a listener accepts, what an upgrade hands over.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::TcpStream,
};

/// Anything that reads and writes bytes without blocking.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {
    /// Has the system hold no more than about so many bytes that were written and that it has not sent, where it can be told.
    fn limit_unsent(&self, _bytes: u32) {}
}

impl ByteStream for DuplexStream {}

#[cfg(unix)]
impl ByteStream for UnixStream {}

impl ByteStream for TcpStream {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn limit_unsent(&self, bytes: u32) {
        // It fails when the client is gone, which writing will tell.
        let _ = socket2::SockRef::from(self).set_tcp_notsent_lowat(bytes);
    }
}

/// One concrete stream type for every carrier, so that the serve path exists once.
///
/// Bytes that were read ahead (to recognise a protocol) are given back first.
pub struct Stream {
    io: Box<dyn ByteStream>,
    ahead: Bytes,
}

impl Stream {
    /// Wraps a byte stream.
    pub fn new(io: impl ByteStream + 'static) -> Self {
        Self { io: Box::new(io), ahead: Bytes::new() }
    }

    /// See [`ByteStream::limit_unsent`].
    pub fn limit_unsent(&self, bytes: u32) {
        self.io.limit_unsent(bytes);
    }

    /// Gives bytes back: the next read returns them before anything new.
    pub fn unread(&mut self, bytes: Bytes) {
        debug_assert!(self.ahead.is_empty(), "bytes were already given back");
        self.ahead = bytes;
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let n = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..n]);
            self.ahead.advance(n);
            if self.ahead.is_empty() {
                // Empty, it would still hold its memory.
                self.ahead = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut *self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut *self.io).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
