//! Walk 1/10. Before: the client. After: server.rs.
//!
//! TCP listeners.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream},
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpStream;

#[cfg(unix)]
use super::ready::Ready;
use crate::{
    conn::{Connection, Incoming, Listener, LocalFuture},
    error::{Error, Kind},
    message::{Peer, Stream},
};

/// How long a client may take to complete a handshake that has begun: a round trip. 250 ms, about the farthest on Earth.
const ROUND_TRIP: Duration = Duration::from_millis(250);

/// Binds a TCP socket.
///
/// `SO_REUSEADDR` is set on Unix (a restart does not wait for TIME_WAIT) and not on Windows, where it means that
/// two servers may share a port. An IPv6 wildcard takes IPv4 as well.
///
/// # Errors
/// `Kind::Start`, naming the address and what can be done.
pub(super) fn bind(address: SocketAddr, backlog: u32) -> Result<StdListener, Error> {
    let attempt = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        if address.is_ipv6() && address.ip().is_unspecified() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    attempt().map(Into::into).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => "the port is taken: stop the other program or choose another port",
            io::ErrorKind::PermissionDenied => "no permission: ports below 1024 need privileges",
            io::ErrorKind::AddrNotAvailable => "this machine has no such address",
            _ => "the system refused",
        };
        Error::new(Kind::Start, format!("can't listen on {address}: {advice}")).because(error)
    })
}

#[cfg(unix)]
type Waiting = Ready<StdListener>;
#[cfg(not(unix))]
type Waiting = tokio::net::TcpListener;

/// A TCP listener on the current runtime.
pub struct Tcp {
    listener: Waiting,
    local: SocketAddr,
    is_shared: bool,
}

impl Tcp {
    /// Takes over a bound socket. `is_shared`: see [`super::Listening::adopt`].
    ///
    /// # Errors
    /// If the socket can't be made non-blocking or registered with the runtime.
    pub fn new(listener: StdListener, is_shared: bool) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let local = listener.local_addr()?;
        #[cfg(unix)]
        let listener = Ready::new(listener)?;
        #[cfg(not(unix))]
        let listener = Waiting::from_std(listener)?;
        Ok(Self { listener, local, is_shared })
    }

    #[cfg(unix)]
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (io, client) = self.listener.accept(StdListener::accept).await?;
        Ok((on_runtime(io)?, client))
    }

    #[cfg(not(unix))]
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.listener.accept().await
    }

    #[cfg(unix)]
    fn socket(&self) -> SockRef<'_> {
        SockRef::from(self.listener.get_ref())
    }

    #[cfg(not(unix))]
    fn socket(&self) -> SockRef<'_> {
        SockRef::from(&self.listener)
    }

    fn incoming(&self, io: TcpStream, client: Option<SocketAddr>) -> Incoming {
        // Responses are written whole, so waiting to fill a segment (Nagle) can only delay them. This fails when the
        // client is gone already, which reading will tell; as an error here it would look like the listener's.
        let _ = io.set_nodelay(true);
        // A wildcard listener learns which address was reached from the connection.
        let reached = if self.local.ip().is_unspecified() { io.local_addr().ok() } else { None };
        let server = reached.unwrap_or(self.local);
        let peer = Peer { client, server: Some(server), ..Peer::default() };
        let ready = Connection { io: Stream::new(io), peer: peer.clone(), alpn: None };
        Incoming { peer, handshake: Box::pin(async { Ok(ready) }) }
    }
}

impl Listener for Tcp {
    fn accept(&self) -> LocalFuture<'_, io::Result<Incoming>> {
        Box::pin(async {
            let (io, client) = self.accept().await?;
            Ok(self.incoming(io, Some(client)))
        })
    }

    #[cfg(unix)]
    fn readable(&self) -> Option<LocalFuture<'_, io::Result<()>>> {
        Some(Box::pin(self.listener.wait()))
    }

    fn address(&self) -> String {
        format!("http://{}", self.local)
    }

    fn refuse(&self) -> Duration {
        if self.is_shared || ignore_openings(&self.socket()).is_err() || self.local.ip().is_loopback() {
            return Duration::ZERO;
        }
        ROUND_TRIP
    }

    #[cfg(unix)]
    fn accept_queued(&self) -> io::Result<Option<Incoming>> {
        let accepted = self.listener.accept_queued(StdListener::accept)?;
        accepted.map(|(io, client)| Ok(self.incoming(on_runtime(io)?, Some(client)))).transpose()
    }

    #[cfg(not(unix))]
    fn accept_queued(&self) -> io::Result<Option<Incoming>> {
        match self.socket().accept() {
            Ok((socket, client)) => Ok(Some(self.incoming(on_runtime(socket.into())?, client.as_socket()))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn on_runtime(io: StdStream) -> io::Result<TcpStream> {
    io.set_nonblocking(true)?;
    TcpStream::from_std(io)
}

/// Has the system ignore segments that open connections (SYN), and no others.
///
/// Closing a listening socket resets the connections it has queued: clients that are connected already, and may have sent
/// a request. Taking them before closing is not enough, since more may come in between. With openings ignored the queue
/// only gets shorter. Such a client tries again a second later (RFC 6298 §2.1), when the port is closed, or somebody
/// else's.
///
/// # Errors
/// If the system refuses.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn ignore_openings(listener: &SockRef<'_>) -> io::Result<()> {
    use socket2::SockFilter;

    // Classic BPF over the TCP header, whose flags are byte 13: SYN 0x02, ACK 0x10 (RFC 9293 §3.1).
    // What a connection inherits of this is of no effect: nothing opens it again.
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const SYN_ACK: u32 = 0x12;
    let filter = [
        SockFilter::new(0x30, 0, 0, FLAGS),    // load the byte
        SockFilter::new(0x54, 0, 0, SYN_ACK),  // and
        SockFilter::new(0x15, 0, 1, SYN),      // jump if equal: the next, else the one after
        SockFilter::new(0x06, 0, 0, 0),        // drop
        SockFilter::new(0x06, 0, 0, u32::MAX), // take all of it
    ];
    listener.attach_filter(&filter)
}

/// Only Linux can be told. Elsewhere what comes between the last accept and the close is lost.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn ignore_openings(_listener: &SockRef<'_>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn run(test: impl AsyncFnOnce()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test());
    }

    fn listen(is_shared: bool) -> Tcp {
        Tcp::new(StdListener::bind("127.0.0.1:0").expect("a port"), is_shared).expect("a listener")
    }

    #[test]
    fn refusing_keeps_what_is_queued_and_lets_nothing_follow() {
        run(async || {
            let listener = listen(false);
            let _queued = StdStream::connect(listener.local).expect("connected");

            assert_eq!(listener.refuse(), Duration::ZERO);

            let later = StdStream::connect_timeout(&listener.local, Duration::from_millis(100));
            assert_eq!(later.expect_err("not connected").kind(), io::ErrorKind::TimedOut);
            assert!(listener.accept_queued().expect("no error").is_some());
            assert!(listener.accept_queued().expect("no error").is_none());
        });
    }

    #[test]
    fn a_shared_socket_goes_on_for_the_others() {
        run(async || {
            let listener = listen(true);

            listener.refuse();

            let _later = StdStream::connect_timeout(&listener.local, Duration::from_secs(10)).expect("connected");
            assert!(listener.accept_queued().expect("no error").is_some());
        });
    }

    #[test]
    fn those_from_afar_are_given_a_round_trip() {
        run(async || {
            let listener = Tcp::new(StdListener::bind("0.0.0.0:0").expect("a port"), false).expect("a listener");

            assert_eq!(listener.refuse(), ROUND_TRIP);
        });
    }
}
