//! The end of a connection whose client may still be sending.

use std::{
    future::poll_fn,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    time::timeout,
};

use crate::message::Stream;

/// How long a client's bytes are still read after everything was said, so that it gets to see it. 5 s, as nginx's
/// `lingering_timeout`.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// RFC 9112 §9.6: closing with bytes unread makes TCP reset the connection, and a reset may take from the client what it has
/// not read yet. So the rest is read, for a while.
pub(super) async fn linger(io: &mut Stream) {
    let _ = timeout(LINGER, poll_fn(|cx| poll_linger(io, cx))).await;
}

fn poll_linger(io: &mut Stream, cx: &mut Context<'_>) -> Poll<()> {
    let mut rest = [MaybeUninit::uninit(); 8 * 1024];
    loop {
        let mut rest = ReadBuf::uninit(&mut rest);
        if ready!(Pin::new(&mut *io).poll_read(cx, &mut rest)).is_err() || rest.filled().is_empty() {
            return Poll::Ready(());
        }
    }
}
