//! Unix domain sockets.

use std::io;

use tokio::net::UnixListener;

use crate::{
    conn::{Connection, Incoming, Listener, LocalFuture},
    message::{Peer, Stream},
};

/// A unix socket listener on the current runtime.
pub struct Unix {
    listener: UnixListener,
}

impl Unix {
    /// Takes over a bound socket.
    ///
    /// # Errors
    /// If the socket can't be made non-blocking or registered with the runtime.
    pub fn new(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener: UnixListener::from_std(listener)? })
    }
}

impl Listener for Unix {
    fn accept(&self) -> LocalFuture<'_, io::Result<Incoming>> {
        Box::pin(async {
            let (io, _) = self.listener.accept().await?;
            let ready = Connection { io: Stream::new(io), peer: Peer::default(), alpn: None };
            Ok(Incoming { peer: Peer::default(), handshake: Box::pin(async { Ok(ready) }) })
        })
    }

    fn address(&self) -> String {
        let path = self.listener.local_addr().ok().and_then(|a| a.as_pathname().map(|p| p.display().to_string()));
        format!("unix:{}", path.unwrap_or_default())
    }
}
