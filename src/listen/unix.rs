//! Unix domain sockets.

use std::{
    io,
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream as StdStream},
    time::Duration,
};

use socket2::SockRef;
use tokio::net::UnixStream;

use super::ready::Ready;
use crate::{
    conn::{Connection, Incoming, Listener, LocalFuture},
    message::{Peer, Stream},
};

/// A unix socket listener on the current runtime.
pub struct Unix {
    listener: Ready<UnixListener>,
    is_shared: bool,
}

impl Unix {
    /// Takes over a bound socket. `is_shared`: see [`super::Listening::adopt`].
    ///
    /// # Errors
    /// If the socket can't be made non-blocking or registered with the runtime.
    pub fn new(listener: UnixListener, is_shared: bool) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener: Ready::new(listener)?, is_shared })
    }
}

fn incoming(io: StdStream) -> io::Result<Incoming> {
    io.set_nonblocking(true)?;
    let io = UnixStream::from_std(io)?;
    let ready = Connection { io: Stream::new(io), peer: Peer::default(), alpn: None };
    Ok(Incoming { peer: Peer::default(), handshake: Box::pin(async { Ok(ready) }) })
}

impl Listener for Unix {
    fn accept(&self) -> LocalFuture<'_, io::Result<Incoming>> {
        Box::pin(async { incoming(self.listener.accept(UnixListener::accept).await?.0) })
    }

    fn readable(&self) -> Option<LocalFuture<'_, io::Result<()>>> {
        Some(Box::pin(self.listener.wait()))
    }

    fn address(&self) -> String {
        let path =
            self.listener.get_ref().local_addr().ok().and_then(|a| a.as_pathname().map(|p| p.display().to_string()));
        format!("unix:{}", path.unwrap_or_default())
    }

    fn refuse(&self) -> Duration {
        if !self.is_shared {
            // On Linux whoever connects from now on is refused, and what is queued stays. Elsewhere it is an error.
            let _ = SockRef::from(self.listener.get_ref()).shutdown(Shutdown::Read);
        }
        Duration::ZERO
    }

    fn accept_queued(&self) -> io::Result<Option<Incoming>> {
        match self.listener.accept_queued(UnixListener::accept) {
            // What some systems say of a queue that is refused and empty.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
            accepted => accepted?.map(|(io, _)| incoming(io)).transpose(),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};

    use tokio::time::timeout;

    use super::*;

    fn run(test: impl AsyncFnOnce()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test());
    }

    /// A name without a file, which nobody has to remove.
    fn address(name: &str) -> SocketAddr {
        SocketAddr::from_abstract_name(format!("httpy-{}-{name}", std::process::id())).expect("a name")
    }

    #[test]
    fn refusing_keeps_what_is_queued_and_lets_nothing_follow() {
        run(async || {
            let address = address("refusing");
            let listener = Unix::new(UnixListener::bind_addr(&address).expect("bound"), false).expect("a listener");
            let _queued = StdStream::connect_addr(&address).expect("connected");

            listener.refuse();

            let later = StdStream::connect_addr(&address);
            assert_eq!(later.expect_err("not connected").kind(), io::ErrorKind::ConnectionRefused);
            assert!(listener.accept_queued().expect("no error").is_some());
            assert!(listener.accept_queued().expect("no error").is_none());
        });
    }

    #[test]
    fn another_process_that_refuses_does_not_keep_this_one_busy() {
        run(async || {
            let socket = UnixListener::bind_addr(&address("another")).expect("bound");
            let ours = Unix::new(socket.try_clone().expect("a copy"), false).expect("a listener");
            let theirs = Unix::new(socket, false).expect("a listener");
            let mut accepting = ours.accept();
            assert!(timeout(Duration::from_millis(1), &mut accepting).await.is_err());

            theirs.refuse();

            let again = timeout(Duration::from_millis(10), &mut accepting).await;
            assert!(again.is_err(), "it comes back to the runtime, and has nothing");
        });
    }
}
