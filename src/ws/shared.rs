//! What a WebSocket's connection and its application share: what came and waits for the application, what is to go and
//! waits for the connection, and how it ends.
//!
//! Rules:
//! 1. The application is only ever woken by the connection's task, and never while the state is locked: whoever is woken may
//!    run at once, and use the socket.
//! 2. The connection's task is woken once for all that comes until it looks; while it runs it is not woken at all.
//! 3. Both ways are bounded: the connection reads no further while [`FULL`] waits for the application.

use std::{
    collections::VecDeque,
    mem::take,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

use super::{
    frame::MAX_CONTROL_BYTES,
    message::{Close, Message, Prepared},
    rooms::Joined,
    sender::{Policy, Refused},
};

/// How much waits for the application before reading stops. 64 KiB, a socket buffer's worth; one message more may wait.
const FULL: usize = 64 * 1024;
/// How much may be left when reading goes on.
const LOW: usize = FULL / 2;
/// What a message counts besides its length, so that many tiny ones don't take much more memory than they count. 64 bytes.
const EACH: usize = 64;

/// See the module.
pub(super) struct Shared {
    state: Mutex<State>,
    /// How much may wait to be sent, and what happens to more.
    max_queued: usize,
    policy: Policy,
    /// The rooms that it is in.
    joined: Mutex<Joined>,
}

#[derive(Default)]
struct State {
    /// What came.
    incoming: VecDeque<Message>,
    incoming_size: usize,
    /// The application waits for a message.
    reader: Option<Waker>,
    /// What is to go.
    outgoing: VecDeque<Prepared>,
    outgoing_size: usize,
    ping: Option<Bytes>,
    /// Those who wait for room to send.
    writers: Vec<Waker>,
    /// The close that the application asks for.
    close: Option<Close>,
    /// Whether nothing more may be sent: the application or the peer has closed, or the connection has ended.
    is_closing: bool,
    /// How it ended, and who waits for that.
    end: Option<Close>,
    mourner: Option<Waker>,
    /// Whether the application takes no more messages.
    is_deaf: bool,
    /// The connection's task, and whether it need not be woken: it runs, or was woken and has not looked since.
    task: Option<Waker>,
    is_attended: bool,
    /// Whether the connection reads no further because the application has enough.
    is_full: bool,
}

/// What the connection is to do next for the application.
pub(super) enum Asked {
    Send(Prepared),
    Ping(Bytes),
    Close(Close),
}

impl Shared {
    pub(super) fn new(max_queued: usize, policy: Policy) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), max_queued, policy, joined: Mutex::default() })
    }

    /// A number that no other has while this exists.
    pub(super) fn id(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // -- the application's side ------------------------------------------------------------------------------------------

    pub(super) fn try_send(&self, message: &Prepared) -> Result<(), Refused> {
        self.put(message, self.policy == Policy::Close)
    }

    /// Sends a message that nobody waits to send. What was promised not to be lost can't be kept then: the socket is closed.
    pub(super) fn send_or_close(&self, message: &Prepared) -> Result<(), Refused> {
        self.put(message, self.policy != Policy::Drop)
    }

    fn put(&self, message: &Prepared, closes: bool) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.is_closing {
            return Err(Refused::Closed);
        }
        // One that is larger than all the room is sent when nothing else waits.
        if state.outgoing_size > 0 && state.outgoing_size + message.len() > self.max_queued {
            if closes {
                state.outgoing.clear();
                state.outgoing_size = 0;
                state.ask_to_close(Close::new(Close::POLICY, "messages are read too slowly"));
                wake_task(state);
            }
            return Err(Refused::Full);
        }
        state.outgoing_size += message.len() + EACH;
        state.outgoing.push_back(message.clone());
        wake_task(state);
        Ok(())
    }

    pub(super) fn poll_send(&self, message: &Prepared, cx: &mut Context<'_>) -> Poll<Result<bool, Refused>> {
        match self.try_send(message) {
            Ok(()) => Poll::Ready(Ok(true)),
            Err(Refused::Full) if self.policy == Policy::Wait => {
                self.lock().writers.push(cx.waker().clone());
                // Room may have come in between.
                match self.try_send(message) {
                    Ok(()) => Poll::Ready(Ok(true)),
                    Err(Refused::Full) => Poll::Pending,
                    Err(Refused::Closed) => Poll::Ready(Err(Refused::Closed)),
                }
            }
            Err(Refused::Full) if self.policy == Policy::Drop => Poll::Ready(Ok(false)),
            Err(_) => Poll::Ready(Err(Refused::Closed)),
        }
    }

    pub(super) fn ping(&self, data: &[u8]) -> Result<(), Refused> {
        assert!(data.len() as u64 <= MAX_CONTROL_BYTES, "a ping has at most 125 bytes");
        let mut state = self.lock();
        if state.is_closing {
            return Err(Refused::Closed);
        }
        state.ping = Some(Bytes::copy_from_slice(data));
        wake_task(state);
        Ok(())
    }

    pub(super) fn close(&self, close: Close) -> bool {
        let mut state = self.lock();
        if state.is_closing {
            return false;
        }
        state.ask_to_close(close);
        wake_task(state);
        true
    }

    pub(super) fn ended(&self) -> Option<Close> {
        self.lock().end.clone()
    }

    pub(super) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.end.is_some() {
            return Poll::Ready(());
        }
        match &mut state.mourner {
            Some(known) => known.clone_from(cx.waker()),
            None => state.mourner = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// The rooms that it is in. Whoever holds this may lock the rooms, and then the socket; never the other way round.
    pub(super) fn joined(&self) -> MutexGuard<'_, Joined> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.lock().is_closing
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.lock().outgoing_size
    }

    /// Takes what has come, without waiting.
    pub(super) fn try_receive(&self) -> Option<Result<Message, Close>> {
        let mut state = self.lock();
        match state.incoming.pop_front() {
            Some(message) => {
                state.incoming_size -= message.data.len() + EACH;
                if state.is_full && state.incoming_size <= LOW {
                    state.is_full = false;
                    // Whether or not it looks at what is to be sent: this is about reading.
                    let task = state.task.clone();
                    drop(state);
                    wake_all(task);
                }
                Some(Ok(message))
            }
            None => state.end.clone().map(Err),
        }
    }

    pub(super) fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<Result<Message, Close>> {
        let mut state = self.lock();
        if state.incoming.is_empty() && state.end.is_none() {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        drop(state);
        match self.try_receive() {
            Some(received) => Poll::Ready(received),
            // Another has taken it.
            None => self.poll_receive(cx),
        }
    }

    /// The application is gone: what comes is thrown away, and what waits is too.
    pub(super) fn turn_deaf(&self) {
        let mut state = self.lock();
        state.is_deaf = true;
        let left = (take(&mut state.incoming), state.reader.take());
        state.incoming_size = 0;
        state.is_full = false;
        let task = state.task.clone();
        drop(state);
        drop(left);
        wake_all(task);
    }

    // -- the connection's side -------------------------------------------------------------------------------------------

    /// The connection's task runs, and looks at everything.
    pub(super) fn attend(&self, cx: &Context<'_>) {
        let mut state = self.lock();
        state.is_attended = true;
        match &mut state.task {
            Some(known) => known.clone_from(cx.waker()),
            None => state.task = Some(cx.waker().clone()),
        }
    }

    /// The connection's task has sent everything and is about to wait. False: it is to look again.
    pub(super) fn leave(&self) -> bool {
        let mut state = self.lock();
        state.is_attended = !state.outgoing.is_empty() || state.ping.is_some() || state.has_close_to_send();
        !state.is_attended
    }

    /// What to do next, and whether there is more after it. None: nothing.
    pub(super) fn take_asked(&self) -> Option<(Asked, bool)> {
        let mut state = self.lock();
        if let Some(ping) = state.ping.take() {
            return Some((Asked::Ping(ping), true));
        }
        let Some(message) = state.outgoing.pop_front() else {
            return if state.end.is_some() {
                None
            } else {
                state.close.take().map(|close| (Asked::Close(close), false))
            };
        };
        state.outgoing_size -= message.len() + EACH;
        let has_more = !state.outgoing.is_empty() || state.close.is_some();
        if !state.writers.is_empty() && state.outgoing_size <= self.max_queued / 2 {
            let writers = take(&mut state.writers);
            drop(state);
            wake_all(writers);
        }
        Some((Asked::Send(message), has_more))
    }

    /// Whether the application has enough to do.
    pub(super) fn is_full(&self) -> bool {
        let mut state = self.lock();
        state.is_full = state.incoming_size >= FULL;
        state.is_full
    }

    /// A message came.
    pub(super) fn deliver(&self, message: Message) {
        let mut state = self.lock();
        if state.is_deaf {
            return;
        }
        state.incoming_size += message.data.len() + EACH;
        state.incoming.push_back(message);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Nothing more is to be sent than what waits, which is returned.
    pub(super) fn take_rest(&self) -> VecDeque<Prepared> {
        let mut state = self.lock();
        state.is_closing = true;
        state.outgoing_size = 0;
        take(&mut state.outgoing)
    }

    /// Nothing is sent any more: the peer has closed, or the connection is about to.
    pub(super) fn stop_sending(&self) {
        let mut state = self.lock();
        state.is_closing = true;
        let outgoing = take(&mut state.outgoing);
        state.outgoing_size = 0;
        state.ping = None;
        let writers = take(&mut state.writers);
        drop(state);
        drop(outgoing);
        wake_all(writers);
        self.joined().leave_all(self.id());
    }

    /// It has ended, behind what has come. The first end counts.
    pub(super) fn end(&self, close: Close) {
        self.stop_sending();
        let mut state = self.lock();
        state.end.get_or_insert(close);
        let waiting = [state.reader.take(), state.mourner.take()];
        state.task = None;
        drop(state);
        wake_all(waiting.into_iter().flatten());
    }
}

impl State {
    fn ask_to_close(&mut self, close: Close) {
        self.is_closing = true;
        self.close = Some(close);
    }

    fn has_close_to_send(&self) -> bool {
        self.close.is_some() && self.end.is_none()
    }
}

/// Wakes the connection's task, unless it looks anyway.
fn wake_task(mut state: MutexGuard<'_, State>) {
    if !std::mem::replace(&mut state.is_attended, true) {
        let task = state.task.clone();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }
}

fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}
