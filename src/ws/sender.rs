//! The way into a WebSocket from anywhere: what handlers and rooms send with.
//!
//! Rules:
//! 1. Sending never blocks and never waits: a frame is put into a queue, and the connection's task is woken.
//! 2. The queue is bounded, in bytes. What happens to a message that finds no room is the socket's [`Policy`], so that one slow
//!    reader slows nobody else.
//! 3. A frame is made once ([`Prepared`]) and shared by everybody it is sent to.

use std::{
    fmt,
    sync::{Arc, MutexGuard},
    task::{Context, Poll},
};

use super::{
    message::{Close, Prepared},
    rooms::Joined,
    shared::Shared,
};

/// What happens to a message for a peer that reads too slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Who sends waits. Who can't wait, as [`Sender::try_send`], is told.
    #[default]
    Wait,
    /// The message is dropped.
    Drop,
    /// The socket is closed, with 1008.
    Close,
}

/// Why a message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The queue is full. What the socket's policy says of that has been done.
    Full,
    /// The socket is closed, or about to be.
    Closed,
}

/// Sends to one WebSocket. Clones are the same socket, and a clone costs what an `Arc` does. Any thread.
#[derive(Clone)]
pub struct Sender(Arc<Shared>);

impl Sender {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Sends a message if there is room for it. Never waits.
    ///
    /// # Errors
    /// [`Refused::Full`] if there is no room. With [`Policy::Close`] the socket is being closed then.
    pub fn try_send(&self, message: &Prepared) -> Result<(), Refused> {
        self.0.try_send(message)
    }

    /// Sends a message, as the socket's policy says: with [`Policy::Wait`] once there is room, which this waits for. Ready with
    /// false: it was dropped.
    ///
    /// # Errors
    /// [`Refused::Closed`].
    pub fn poll_send(&self, message: &Prepared, cx: &mut Context<'_>) -> Poll<Result<bool, Refused>> {
        self.0.poll_send(message, cx)
    }

    /// Sends a ping, ahead of what waits (RFC 6455 §5.5.2). At most one waits: a second one takes the first one's place.
    ///
    /// # Errors
    /// [`Refused::Closed`].
    ///
    /// # Panics
    /// If `data` is longer than 125 bytes; callers check.
    pub fn ping(&self, data: &[u8]) -> Result<(), Refused> {
        self.0.ping(data)
    }

    /// Closes the socket behind what waits to be sent. The first close counts; returns whether this is it.
    pub fn close(&self, close: Close) -> bool {
        self.0.close(close)
    }

    /// How it ended, if it has; 1006 if it broke.
    pub fn ended(&self) -> Option<Close> {
        self.0.ended()
    }

    /// Waits for the end. One waits at a time.
    pub fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_ended(cx)
    }

    /// Whether nothing more can be sent.
    pub fn is_closed(&self) -> bool {
        self.0.is_closing()
    }

    /// The rooms that it is in, as [`Rooms::join`](super::Rooms::join) has put it there.
    pub fn rooms(&self) -> Vec<Arc<str>> {
        if self.is_closed() { Vec::new() } else { self.joined().names().to_vec() }
    }

    pub(super) fn joined(&self) -> MutexGuard<'_, Joined> {
        self.0.joined()
    }

    /// Sends a message to a member of a room.
    pub(super) fn send_or_close(&self, message: &Prepared) -> Result<(), Refused> {
        self.0.send_or_close(message)
    }

    /// How many bytes wait to be sent.
    pub fn queued_bytes(&self) -> usize {
        self.0.queued_bytes()
    }

    /// A number that no other socket of this process has while this one exists.
    pub fn id(&self) -> usize {
        self.0.id()
    }
}

impl PartialEq for Sender {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Sender {}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&self.id()).finish()
    }
}
