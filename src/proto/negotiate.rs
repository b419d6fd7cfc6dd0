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
    time::timeout,
};

use super::{Looks, Row};
use crate::{
    conn::{Connection, Cx, LocalFuture, Protocol},
    message::Stream,
};

/// 64 bytes are enough to tell: HTTP/2's preface is 24 (RFC 9113 §3.4).
const MOST_BYTES: usize = 64;

/// 1 KiB. As much is read at a time: most heads are smaller, and need not be read twice.
const READ_BYTES: usize = 1024;

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
        Box::pin(async move {
            let chosen =
                timeout(cx.config.head_timeout.max(Duration::from_millis(1)), choose(&rows, &mut connection.io));
            let row = tokio::select! {
                chosen = chosen => match chosen { Ok(Some(row)) => row, _ => return },
                // Nothing was received yet, so nothing is lost by closing.
                () = cx.signal.started() => return,
            };
            row.protocol.serve(connection, cx).await;
        })
    }
}

/// Reads until a row recognises the bytes, and gives the bytes back to the stream. None: the client closed, or nobody knows
/// what it speaks.
async fn choose<'r>(rows: &'r [Row], io: &mut Stream) -> Option<&'r Row> {
    let mut ahead = BytesMut::new();
    loop {
        let before = ahead.len();
        poll_fn(|cx| read(io, &mut ahead, cx)).await.ok()?;
        if ahead.len() == before {
            return None;
        }
        match recognise(rows, &ahead, ahead.len() >= MOST_BYTES) {
            Recognised::Row(row) => {
                io.unread(ahead.freeze());
                return Some(row);
            }
            Recognised::Unsure => {}
            Recognised::Foreign => return None,
        }
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

enum Recognised<'r> {
    Row(&'r Row),
    /// More bytes are needed.
    Unsure,
    Foreign,
}

/// The first row that says "like", provided every row before it said "unlike".
fn recognise<'r>(rows: &'r [Row], bytes: &[u8], full: bool) -> Recognised<'r> {
    let mut unsure = None;
    for row in rows {
        match (row.looks)(bytes) {
            Looks::Like => return Recognised::Row(row),
            Looks::Unlike => {}
            Looks::Unsure if full => unsure = Some(row),
            Looks::Unsure => return Recognised::Unsure,
        }
    }
    // Who is not sure by now gets it.
    unsure.map_or(Recognised::Foreign, Recognised::Row)
}
