//! Walk 1/10. Before: the client. After: server.rs.
//!
//! TCP listeners.

use std::{io, net::SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::{
    conn::{Connection, Incoming, Listener, LocalFuture},
    error::{Error, Kind},
    message::{Peer, Stream},
};

/// Binds a TCP socket without a runtime, so that a port that is taken is known before anything starts.
///
/// `SO_REUSEADDR` is set on Unix (a restart does not wait for TIME_WAIT) and not on Windows, where it means that
/// two servers may share a port. An IPv6 wildcard takes IPv4 as well.
///
/// # Errors
/// `Kind::Start`, naming the address and what can be done.
pub fn bind(address: SocketAddr, backlog: u32) -> Result<std::net::TcpListener, Error> {
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

/// A TCP listener on the current runtime.
pub struct Tcp {
    listener: TcpListener,
    local: SocketAddr,
}

impl Tcp {
    /// Takes over a bound socket.
    ///
    /// # Errors
    /// If the socket can't be made non-blocking or registered with the runtime.
    pub fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let local = listener.local_addr()?;
        Ok(Self { listener, local })
    }
}

impl Listener for Tcp {
    fn accept(&self) -> LocalFuture<'_, io::Result<Incoming>> {
        Box::pin(async {
            let (io, client) = self.listener.accept().await?;
            // Responses are written whole, so waiting to fill a segment (Nagle) can only delay them. This fails when the
            // client is gone already, which reading will tell; as an error here it would look like the listener's.
            let _ = io.set_nodelay(true);
            // A wildcard listener learns which address was reached from the connection.
            let reached = if self.local.ip().is_unspecified() { io.local_addr().ok() } else { None };
            let server = reached.unwrap_or(self.local);
            let peer = Peer { client: Some(client), server: Some(server), is_tls: false };
            let ready = Connection { io: Stream::new(io), peer: peer.clone(), alpn: None };
            Ok(Incoming { peer, handshake: Box::pin(async { Ok(ready) }) })
        })
    }

    fn address(&self) -> String {
        format!("http://{}", self.local)
    }
}
