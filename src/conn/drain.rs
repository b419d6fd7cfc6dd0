//! Draining: telling every connection to finish, and waiting until all have.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tokio::sync::Notify;

#[derive(Default)]
struct Shared {
    draining: AtomicBool,
    started: Notify,
    open: AtomicUsize,
    closed: Notify,
}

/// The server's side: starts the drain and waits for its end.
#[derive(Clone, Default)]
pub struct Drain {
    shared: Arc<Shared>,
}

impl Drain {
    /// Makes a signal for one connection; the drain ends when all signals are dropped.
    pub fn signal(&self) -> Signal {
        self.shared.open.fetch_add(1, Ordering::AcqRel);
        Signal { shared: self.shared.clone() }
    }

    /// Tells every connection to finish. Idempotent.
    pub fn start(&self) {
        self.shared.draining.store(true, Ordering::Release);
        self.shared.started.notify_waiters();
    }

    /// Whether the drain has started.
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Acquire)
    }

    /// Waits until no connection is open.
    pub async fn finished(&self) {
        let mut closed = pin!(self.shared.closed.notified());
        loop {
            closed.as_mut().enable();
            if self.open() == 0 {
                return;
            }
            closed.as_mut().await;
            closed.set(self.shared.closed.notified());
        }
    }

    /// Waits until the drain starts.
    pub async fn started(&self) {
        started(&self.shared).await;
    }
}

async fn started(shared: &Shared) {
    let mut started = pin!(shared.started.notified());
    started.as_mut().enable();
    if !shared.draining.load(Ordering::Acquire) {
        started.await;
    }
}

/// A connection's side: says when to finish, and by being dropped that it has.
pub struct Signal {
    shared: Arc<Shared>,
}

impl Signal {
    /// Whether the drain has started: one atomic load.
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    /// Waits until the drain starts.
    pub async fn started(&self) {
        started(&self.shared).await;
    }

    /// Polls `connection` to its end, and calls `finish` on it once when the drain starts.
    ///
    /// The wait for the signal is polled only when it may have news: on the first poll, to leave a waker, and after
    /// the flag is up. A connection is polled for every request, and this must not cost one anything.
    pub async fn watch<C, P, F, T>(&self, mut connection: C, mut poll: P, mut finish: F) -> T
    where
        C: Unpin,
        P: FnMut(&mut C, &mut Context<'_>) -> Poll<T>,
        F: FnMut(&mut C),
    {
        let mut started = pin!(self.started());
        let (mut registered, mut finished) = (false, false);
        poll_fn(move |cx| {
            if !finished && (!registered || self.is_draining()) {
                registered = true;
                if started.as_mut().poll(cx).is_ready() {
                    finished = true;
                    finish(&mut connection);
                }
            }
            poll(&mut connection, cx)
        })
        .await
    }
}

impl Clone for Signal {
    fn clone(&self) -> Self {
        self.shared.open.fetch_add(1, Ordering::AcqRel);
        Self { shared: self.shared.clone() }
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        if self.shared.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.closed.notify_waiters();
        }
    }
}
