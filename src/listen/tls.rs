//! Walk 3/10. Before: server.rs. After: proto/negotiate.rs.
//!
//! TLS (RFC 8446, RFC 5246) around another listener.
//!
//! 1. The handshake runs in the connection's own task, within `handshake_timeout`.
//! 2. Who speaks HTTP without TLS here is told so (400), and anybody else by an alert what was wrong.
//! 3. A client that closes without saying so (close_notify) is taken to have closed. Clients must say it, servers should be
//!    prepared for those that don't (RFC 9112 §9.8); and nobody can gain anything by cutting a request off, because where it
//!    ends is always known by other means. The other way round it matters: a response that ends with its connection is
//!    complete if close_notify follows it. So that is sent at the end of a connection that ended well, and at no other
//!    (see `close` in `proto/h1.rs`).
//! 4. A client may close its side and read on (RFC 8446 §6.1). What that means is for the protocol to decide, as without TLS.
//! 5. What a protocol writes at once is one record, up to 16 KiB of it, and one write to the system.

mod certificate;
mod credentials;
mod dev;
mod names;
mod pem;
mod tickets;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
pub use certificate::Certificate;
pub use credentials::Credentials;
pub use dev::dev_certificate;
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    conn::{Connection, Incoming, Listener, LocalFuture},
    message::{ByteStream, Stream, TlsSession},
};

/// How much of what a client sends first is read to see what it is. 2 KiB: a ClientHello has 250 to 1,800 bytes, the larger
/// ones with post-quantum keys, so that it is read at once.
const FIRST_BYTES: usize = 2048;

/// How long a client that does not speak TLS may take to read that it should, and go away. 1 s: it was about to read.
const LINGER: Duration = Duration::from_secs(1);

/// What it gets to read.
const PLAIN_REFUSED: &str = "a plain HTTP request was sent to an HTTPS port: use https://\n";

/// A listener whose connections are encrypted.
pub struct Tls {
    listener: Box<dyn Listener>,
    credentials: Arc<Credentials>,
}

impl Tls {
    /// Encrypts what comes from `listener`.
    pub fn new(listener: Box<dyn Listener>, credentials: Arc<Credentials>) -> Self {
        Self { listener, credentials }
    }

    fn incoming(&self, plain: Incoming) -> Incoming {
        let credentials = self.credentials.clone();
        let Incoming { peer, handshake } = plain;
        let handshake = async move {
            let connection = handshake.await?;
            shake_hands(connection, credentials.current()).await
        };
        Incoming { peer, handshake: Box::pin(handshake) }
    }
}

impl Listener for Tls {
    fn accept(&self) -> LocalFuture<'_, io::Result<Incoming>> {
        Box::pin(async { Ok(self.incoming(self.listener.accept().await?)) })
    }

    fn readable(&self) -> Option<LocalFuture<'_, io::Result<()>>> {
        self.listener.readable()
    }

    fn address(&self) -> String {
        let address = self.listener.address();
        match address.strip_prefix("http://") {
            Some(rest) => format!("https://{rest}"),
            None => address,
        }
    }

    fn refuse(&self) -> Duration {
        self.listener.refuse()
    }

    fn accept_queued(&self) -> io::Result<Option<Incoming>> {
        Ok(self.listener.accept_queued()?.map(|plain| self.incoming(plain)))
    }
}

async fn shake_hands(plain: Connection<Stream>, config: Arc<ServerConfig>) -> io::Result<Connection<Stream>> {
    let Connection { mut io, mut peer, .. } = plain;
    let mut first = [0; FIRST_BYTES];
    let length = io.read(&mut first).await?;
    let first = &first[..length];
    match first.first() {
        None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the client closed before the handshake")),
        // A method, or HTTP/2's preface. TLS begins with 0x16, a record of the handshake (RFC 8446 §5.1).
        Some(b'A'..=b'Z' | b'a'..=b'z') => {
            // "PRI" begins HTTP/2's preface, and is no method (RFC 9113 §3.4).
            let answer = if first.starts_with(b"PRI") { plain_h2_refused() } else { plain_h1_refused().into() };
            refuse_plain(io, &answer).await;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the client speaks HTTP without TLS"));
        }
        Some(_) => {}
    }
    io.unread(Bytes::copy_from_slice(first));
    let stream = TlsAcceptor::from(config).accept(io).await?;
    let session = session_of(stream.get_ref().1);
    let alpn = session.alpn.clone();
    peer.is_tls = true;
    peer.tls = Some(Arc::new(session));
    Ok(Connection { io: Stream::new(Encrypted(stream)), peer, alpn })
}

/// Tells a client that it should speak TLS, and reads what it sends, so that this reaches it (RFC 9112 §9.6).
async fn refuse_plain(mut io: Stream, answer: &[u8]) {
    let _ = timeout(LINGER, async {
        io.write_all(answer).await?;
        io.shutdown().await?;
        let mut rest = vec![0; 16 * 1024];
        while io.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    })
    .await;
}

fn plain_h1_refused() -> String {
    let date = httpdate::fmt_http_date(SystemTime::now());
    format!(
        "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n\
         content-length: {}\r\ndate: {date}\r\n\r\n{PLAIN_REFUSED}",
        PLAIN_REFUSED.len()
    )
}

/// A response could only be for a stream that the client has opened, and which one that is, it says later. So this is SETTINGS,
/// with which a server begins (RFC 9113 §3.4), and GOAWAY (§6.8) with the text as debug data, which clients show.
fn plain_h2_refused() -> Vec<u8> {
    const GOAWAY: u8 = 0x7;
    const INADEQUATE_SECURITY: u8 = 0xc;
    let text = PLAIN_REFUSED.trim_end();
    // Far less than 256 bytes, so that one byte of the length is enough.
    let length = (8 + text.len()) as u8;
    let mut answer = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    // Of the connection; no stream was looked at.
    answer.extend([0, 0, length, GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, INADEQUATE_SECURITY]);
    answer.extend(text.as_bytes());
    answer
}

fn session_of(connection: &ServerConnection) -> TlsSession {
    TlsSession {
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "unknown",
        },
        cipher: connection.negotiated_cipher_suite().map_or("unknown", |suite| credentials::suite_name(suite.suite())),
        server_name: connection.server_name().map(str::to_owned),
        alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        is_resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        peer_certificate: connection.peer_certificates().and_then(|chain| chain.first()).map(|der| der.to_vec()),
    }
}

/// An encrypted connection.
struct Encrypted(TlsStream<Stream>);

impl ByteStream for Encrypted {
    fn limit_unsent(&self, bytes: u32) {
        self.0.get_ref().0.limit_unsent(bytes);
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.0).poll_read(cx, buffer)) {
            // Rule 3.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
