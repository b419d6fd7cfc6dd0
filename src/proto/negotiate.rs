//! Walk 4/10. Before: listen/tls.rs. After: proto/h1.rs.
//!
//! Chooses the protocol of a connection: by ALPN where TLS agreed on one, else by its first bytes.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{Instant, sleep_until, timeout},
};

use super::{Looks, Row};
use crate::{
    config::Config,
    conn::{Connection, Cx, LocalFuture, Protocol},
    message::Stream,
};

/// 64 bytes are enough to tell: HTTP/2's preface is 24 (RFC 9113 §3.4).
const MOST_BYTES: usize = 64;

/// 1 KiB. As much is read at a time: most heads are smaller, and need not be read twice.
const READ_BYTES: usize = 1024;

/// How TLS begins: with a record of the handshake (RFC 8446 §5.1). Nothing that a row recognises begins with a control character.
const TLS_HANDSHAKE: u8 = 0x16;

/// The protocol that finds out which protocol.
pub struct Negotiate {
    rows: Rc<[Row]>,
}

impl Negotiate {
    /// Negotiates among `rows`, in their order.
    ///
    /// # Panics
    /// If `rows` is empty.
    pub fn new(rows: Vec<Row>) -> Self {
        assert!(!rows.is_empty(), "a server needs a protocol");
        Self { rows: rows.into() }
    }
}

impl Protocol<Stream> for Negotiate {
    fn serve(&self, mut connection: Connection<Stream>, cx: Cx) -> LocalFuture<'static, ()> {
        if let Some(row) = connection.alpn.as_deref().and_then(|id| self.rows.iter().find(|row| row.alpn == id)) {
            return row.protocol.serve(connection, cx);
        }
        // With one row left there is nothing to find out.
        if let [only] = &*self.rows {
            return only.protocol.serve(connection, cx);
        }
        let rows = self.rows.clone();
        // What waiting takes is given back when it is over: connections are many, and live for long. So it is a box in
        // a box that holds nothing else.
        let choosing = Box::pin(async move {
            let idle_until = Instant::now() + cx.config.idle_grace;
            let chosen = tokio::select! {
                // What has come before the stop is answered.
                biased;
                chosen = choose(&rows, &mut connection.io, &cx.config) => chosen?,
                // Nothing was received yet: as an idle connection of any protocol.
                _ = async { (cx.signal.started().await, sleep_until(idle_until).await) } => return None,
            };
            Some(chosen.protocol.serve(connection, cx))
        });
        Box::pin(async move {
            let serving = choosing.await;
            if let Some(serving) = serving {
                serving.await;
            }
        })
    }
}

/// Reads until a row recognises the bytes, and gives the bytes back to the stream. None: the client closed, is late, or
/// speaks TLS where there is none (any more), and could not read an answer.
async fn choose<'r>(rows: &'r [Row], io: &mut Stream, config: &Config) -> Option<&'r Row> {
    let mut ahead = BytesMut::new();
    // As long as the first request may take to begin, and the rest of a head.
    let mut limit = config.keep_alive_timeout.max(config.head_timeout);
    loop {
        let before = ahead.len();
        timeout(limit.max(Duration::from_millis(1)), poll_fn(|cx| read(io, &mut ahead, cx))).await.ok()?.ok()?;
        if ahead.len() == before {
            return None;
        }
        if ahead.first() == Some(&TLS_HANDSHAKE) {
            tracing::debug!(kind = "peer", "a client speaks TLS to a port without it");
            return None;
        }
        if let Some(row) = recognise(rows, &ahead, ahead.len() >= MOST_BYTES) {
            io.unread(ahead.freeze());
            return Some(row);
        }
        limit = config.head_timeout;
    }
}

/// Reads some bytes. They pass the stack, so that waiting for them takes no memory.
fn read(io: &mut Stream, ahead: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    let mut chunk = [MaybeUninit::uninit(); READ_BYTES];
    let mut buffer = ReadBuf::uninit(&mut chunk);
    ready!(Pin::new(io).poll_read(cx, &mut buffer))?;
    ahead.extend_from_slice(buffer.filled());
    Poll::Ready(Ok(()))
}

/// The first row that says "like", provided every row before it said "unlike".
fn recognise<'r>(rows: &'r [Row], bytes: &[u8], full: bool) -> Option<&'r Row> {
    for row in rows {
        match (row.looks)(bytes) {
            Looks::Like => return Some(row),
            Looks::Unlike => {}
            Looks::Unsure if full => {}
            Looks::Unsure => return None,
        }
    }
    rows.last()
}
