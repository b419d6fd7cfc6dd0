//! Unix domain sockets.

use std::{io, net::Shutdown, os::unix::net::UnixListener as StdListener, time::Duration};

use socket2::SockRef;
use tokio::net::{UnixListener, UnixStream};

use crate::{
    conn::{Connection, Incoming, Listener, LocalFuture},
    message::{Peer, Stream},
};

/// A unix socket listener on the current runtime.
pub struct Unix {
    listener: UnixListener,
    is_shared: bool,
}

impl Unix {
    /// Takes over a bound socket. `is_shared`: see [`super::Listening::adopt`].
    ///
    /// # Errors
    /// If the socket can't be made non-blocking or registered with the runtime.
    pub fn new(listener: StdListener, is_shared: bool) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener: UnixListener::from_std(listener)?, is_shared })
    }
}

fn incoming(io: UnixStream) -> Incoming {
    let ready = Connection { io: Stream::new(io), peer: Peer::default(), alpn: None };
    Incoming { peer: Peer::default(), handshake: Box::pin(async { Ok(ready) }) }
}

impl Listener for Unix {
    fn accept(&self) -> LocalFuture<'_, io::Result<Incoming>> {
        Box::pin(async {
            let (io, _) = self.listener.accept().await?;
            Ok(incoming(io))
        })
    }

    fn address(&self) -> String {
        let path = self.listener.local_addr().ok().and_then(|a| a.as_pathname().map(|p| p.display().to_string()));
        format!("unix:{}", path.unwrap_or_default())
    }

    fn refuse(&self) -> Duration {
        if !self.is_shared {
            // On Linux whoever connects from now on is refused, and what is queued stays. Elsewhere it is an error.
            let _ = SockRef::from(&self.listener).shutdown(Shutdown::Read);
        }
        Duration::ZERO
    }

    fn accept_queued(&self) -> io::Result<Option<Incoming>> {
        match SockRef::from(&self.listener).accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(true)?;
                Ok(Some(incoming(UnixStream::from_std(socket.into())?)))
            }
            // The second is what a queue that is refused and empty says.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::InvalidInput) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
