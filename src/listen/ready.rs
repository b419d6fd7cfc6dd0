//! A listening socket on the runtime, which can be waited for without accepting. Unix.

use std::{cell::Cell, io, os::fd::AsRawFd};

use tokio::io::{Interest, unix::AsyncFd};

/// A listening socket.
pub(super) struct Ready<L: AsRawFd> {
    listener: AsyncFd<L>,
    /// Whether nothing was queued when the system was asked last.
    was_empty: Cell<bool>,
}

impl<L: AsRawFd> Ready<L> {
    /// Takes over a socket that is non-blocking. `L` has to own its descriptor.
    ///
    /// # Errors
    /// If the runtime can't watch it.
    pub(super) fn new(listener: L) -> io::Result<Self> {
        // SAFETY: the listener owns its descriptor, which stays open, and the same, until both are dropped.
        let listener = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) }?;
        Ok(Self { listener, was_empty: Cell::new(false) })
    }

    /// The socket.
    pub(super) fn get_ref(&self) -> &L {
        self.listener.get_ref()
    }

    /// Waits until there may be a connection.
    pub(super) async fn wait(&self) -> io::Result<()> {
        let mut readable = self.listener.readable().await?;
        if self.was_empty.get() && readable.ready().is_read_closed() {
            // A unix socket that another process of this server has had refuse connections. It counts as readable from
            // then on, which can't be cleared: it would be tried for ever.
            return std::future::pending().await;
        }
        readable.retain_ready();
        Ok(())
    }

    /// Waits for a connection.
    pub(super) async fn accept<T>(&self, accept: impl Fn(&L) -> io::Result<T>) -> io::Result<T> {
        loop {
            self.wait().await?;
            // Not the guard of `poll_read_ready`: that says "not ready" when a task has had its share of the runtime.
            if let Some(accepted) = self.note(self.listener.try_io(Interest::READABLE, &accept))? {
                return Ok(accepted);
            }
        }
    }

    /// Accepts what is queued; none if nothing is. The system is asked, not the runtime, which knows only what it saw when
    /// it looked last.
    pub(super) fn accept_queued<T>(&self, accept: impl Fn(&L) -> io::Result<T>) -> io::Result<Option<T>> {
        match self.note(self.listener.try_io(Interest::READABLE, &accept))? {
            None => self.note(accept(self.get_ref())),
            accepted => Ok(accepted),
        }
    }

    fn note<T>(&self, accepted: io::Result<T>) -> io::Result<Option<T>> {
        let is_empty = matches!(&accepted, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.was_empty.set(is_empty);
        if is_empty { Ok(None) } else { accepted.map(Some) }
    }
}
