//! Walk 4/10. Before: listen/tls.rs. After: proto/h1.rs.
//!
//! Chooses the protocol of a connection: by ALPN where TLS agreed on one, else by its first bytes.

use std::{future::poll_fn, pin::Pin, rc::Rc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::ReadBuf,
    time::{sleep, timeout},
};

use super::{Looks, Row};
use crate::{
    conn::{Connection, Cx, LocalFuture, Protocol},
    message::Stream,
};

/// 64 bytes are enough to tell: HTTP/2's preface is 24 (RFC 9113 §3.4).
const MOST_BYTES: usize = 64;

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
                // Nothing was received yet: as an idle connection of any protocol.
                () = async { cx.signal.started().await; sleep(cx.config.idle_grace).await } => return,
            };
            row.protocol.serve(connection, cx).await;
        })
    }
}

/// Reads until a row recognises the bytes, and gives the bytes back to the stream. None: the client closed.
async fn choose<'r>(rows: &'r [Row], io: &mut Stream) -> Option<&'r Row> {
    let mut ahead = BytesMut::with_capacity(MOST_BYTES);
    loop {
        let mut chunk = [0; MOST_BYTES];
        let mut buffer = ReadBuf::new(&mut chunk[..MOST_BYTES - ahead.len()]);
        poll_fn(|cx| tokio::io::AsyncRead::poll_read(Pin::new(&mut *io), cx, &mut buffer)).await.ok()?;
        if buffer.filled().is_empty() {
            return None;
        }
        ahead.extend_from_slice(buffer.filled());
        let full = ahead.len() == MOST_BYTES;
        if let Some(row) = recognise(rows, &ahead, full) {
            io.unread(Bytes::from(ahead));
            return Some(row);
        }
    }
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
