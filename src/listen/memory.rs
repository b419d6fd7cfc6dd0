//! Connections inside the process: the real server without sockets, for tests.

use std::{cell::RefCell, io, time::Duration};

use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
};

use crate::{
    conn::{Connection, Incoming, Listener, LocalFuture},
    message::{Peer, Stream},
};

/// 64 KiB each way, about what a socket buffer holds, so that backpressure behaves as it does on a network.
const BUFFER_BYTES: usize = 64 * 1024;

/// Makes a listener and the connector that reaches it.
pub fn memory() -> (MemoryConnector, impl Listener) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (MemoryConnector { sender }, Memory { receiver: RefCell::new(receiver) })
}

/// Opens connections to a memory listener.
#[derive(Clone)]
pub struct MemoryConnector {
    sender: mpsc::UnboundedSender<(DuplexStream, Peer)>,
}

impl MemoryConnector {
    /// Opens a connection.
    ///
    /// # Errors
    /// `ConnectionRefused` if the listener is gone.
    pub fn connect(&self) -> io::Result<DuplexStream> {
        self.connect_as(Peer::default())
    }

    /// Opens a connection that the server takes to be between these ends.
    ///
    /// # Errors
    /// `ConnectionRefused` if the listener is gone.
    pub fn connect_as(&self, peer: Peer) -> io::Result<DuplexStream> {
        let (client, server) = duplex(BUFFER_BYTES);
        let refused = |_| io::Error::from(io::ErrorKind::ConnectionRefused);
        self.sender.send((server, peer)).map_err(refused)?;
        Ok(client)
    }
}

fn incoming((io, peer): (DuplexStream, Peer)) -> Incoming {
    let ready = Connection { io: Stream::new(io), peer: peer.clone(), alpn: None };
    Incoming { peer, handshake: Box::pin(async { Ok(ready) }) }
}

struct Memory {
    receiver: RefCell<mpsc::UnboundedReceiver<(DuplexStream, Peer)>>,
}

impl Listener for Memory {
    fn accept(&self) -> LocalFuture<'_, io::Result<Incoming>> {
        Box::pin(async {
            let next = std::future::poll_fn(|cx| self.receiver.borrow_mut().poll_recv(cx)).await;
            let Some(connected) = next else {
                // Every connector is gone: nobody will ever connect.
                return std::future::pending().await;
            };
            Ok(incoming(connected))
        })
    }

    fn address(&self) -> String {
        "memory:".to_owned()
    }

    fn refuse(&self) -> Duration {
        self.receiver.borrow_mut().close();
        Duration::ZERO
    }

    fn accept_queued(&self) -> io::Result<Option<Incoming>> {
        Ok(self.receiver.borrow_mut().try_recv().ok().map(incoming))
    }
}
