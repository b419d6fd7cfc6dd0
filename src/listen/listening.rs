//! Listening sockets that are on no runtime yet: bound here, or opened by somebody else and taken over.

#[cfg(unix)]
use std::os::unix::net::UnixListener;
use std::{io, net::TcpListener};

use socket2::{Domain, Socket, Type};

#[cfg(unix)]
use super::Unix;
use super::{Tcp, tcp};
use crate::{
    conn::Listener,
    error::{Error, Kind},
};

/// A listening socket.
#[derive(Debug)]
pub struct Listening {
    socket: Kept,
    is_shared: bool,
}

#[derive(Debug)]
enum Kept {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

impl Listening {
    /// Binds a TCP address, without a runtime, so that a port that is taken is known before anything starts.
    ///
    /// # Errors
    /// `Kind::Start`, naming the address and what can be done.
    pub fn tcp(address: std::net::SocketAddr, backlog: u32) -> Result<Self, Error> {
        tcp::bind(address, backlog).map(|socket| Self { socket: Kept::Tcp(socket), is_shared: false })
    }

    /// Takes over a socket that listens already.
    ///
    /// `is_shared` says that others may hold it too: a parent, siblings, the service manager. A server that stops then
    /// leaves it as it is; else it has the system refuse connections, which the others would notice.
    ///
    /// # Errors
    /// `Kind::Start` if it is no listening stream socket of a known family.
    pub fn adopt(socket: Socket, is_shared: bool) -> Result<Self, Error> {
        let kept = attempt(socket).map_err(|error| {
            Error::new(Kind::Start, format!("this socket can't be listened on: {error}")).because(error)
        })?;
        Ok(Self { socket: kept, is_shared })
    }

    /// The TCP port; none of a unix socket.
    pub fn port(&self) -> Option<u16> {
        match &self.socket {
            Kept::Tcp(socket) => socket.local_addr().ok().map(|address| address.port()),
            #[cfg(unix)]
            Kept::Unix(_) => None,
        }
    }

    /// Listens on the current runtime.
    ///
    /// # Errors
    /// If the socket can't be registered with the runtime.
    pub fn listen(self) -> io::Result<Box<dyn Listener>> {
        Ok(match self.socket {
            Kept::Tcp(socket) => Box::new(Tcp::new(socket, self.is_shared)?),
            #[cfg(unix)]
            Kept::Unix(socket) => Box::new(Unix::new(socket, self.is_shared)?),
        })
    }
}

impl From<Listening> for Socket {
    fn from(listening: Listening) -> Self {
        match listening.socket {
            Kept::Tcp(socket) => socket.into(),
            #[cfg(unix)]
            Kept::Unix(socket) => socket.into(),
        }
    }
}

fn attempt(socket: Socket) -> io::Result<Kept> {
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
    let address = socket.local_addr()?;
    if socket.r#type()? != Type::STREAM {
        return Err(wrong("it is no stream socket".to_owned()));
    }
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    if !socket.is_listener()? {
        return Err(wrong("it does not listen: call listen() first".to_owned()));
    }
    socket.set_nonblocking(true)?;
    match Domain::from(i32::from(address.family())) {
        Domain::IPV4 | Domain::IPV6 => Ok(Kept::Tcp(socket.into())),
        #[cfg(unix)]
        Domain::UNIX => Ok(Kept::Unix(socket.into())),
        _ => Err(wrong("it is neither of TCP nor a unix socket".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adopts_what_listens_and_knows_its_port() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = socket.local_addr().expect("an address").port();

        let listening = Listening::adopt(socket.into(), true).expect("it listens");

        assert_eq!(listening.port(), Some(port));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn refuses_what_does_not_listen() {
        let stream = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let datagram = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");

        let errors = [stream, datagram].map(|socket| Listening::adopt(socket, false).expect_err("refused").to_string());

        assert_eq!(
            errors,
            [
                "this socket can't be listened on: it does not listen: call listen() first",
                "this socket can't be listened on: it is no stream socket"
            ]
        );
    }
}
