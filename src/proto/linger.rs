//! The end of a connection whose client may still be sending.

use std::time::Duration;

use tokio::{io::AsyncReadExt, time::timeout};

use crate::message::Stream;

/// How long a client's bytes are still read after everything was said, so that it gets to see it. 5 s, as nginx's
/// `lingering_timeout`.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// RFC 9112 §9.6: closing with bytes unread makes TCP reset the connection, and a reset may take from the client what it has
/// not read yet. So the rest is read, for a while.
pub(super) async fn linger(io: &mut Stream) {
    let mut rest = vec![0; 16 * 1024];
    let _ = timeout(LINGER, async { while matches!(io.read(&mut rest).await, Ok(n) if n > 0) {} }).await;
}
