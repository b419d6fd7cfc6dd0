//! How Rust and an asyncio loop share the work.
//!
//! Two drivers, one surface. With `selector` the loop's selector *is* tokio, so requests are answered on the loop's own
//! thread without any hand-over. With `thread` tokio has a thread of its own and hands batches to a loop it does not
//! control (uvloop, Windows, somebody else's loop). Everything above asks [`seat`] which of the two it sits on.

mod event_loop;
#[cfg(unix)]
mod selector;
mod slot;
mod step;

use std::{cell::RefCell, rc::Rc};

pub(crate) use event_loop::EventLoop;
#[cfg(unix)]
pub(crate) use selector::{Selector, pause};
pub(crate) use slot::Slot;
pub(crate) use step::{Finished, Sent, Stepped, send, stopped};

/// Where a runtime thread stands towards its asyncio loop.
#[derive(Clone)]
pub(crate) enum Seat {
    /// The loop runs on this very thread, and it is attached to the interpreter.
    Here(Rc<EventLoop>),
}

thread_local! {
    static SEAT: RefCell<Option<Seat>> = const { RefCell::new(None) };
}

/// The seat of this thread: none on a thread that no driver has set up.
pub(crate) fn seat() -> Option<Seat> {
    SEAT.with(|seat| seat.borrow().clone())
}

/// Gives this thread a seat, or takes it away.
pub(crate) fn sit(seat: Option<Seat>) {
    SEAT.with(|place| *place.borrow_mut() = seat);
}

/// Wakes a carrier's task: at once where that is cheap, else together with others.
pub(crate) fn wake(waker: std::task::Waker) {
    match seat() {
        Some(Seat::Here(event_loop)) => event_loop.wake(waker),
        None => waker.wake(),
    }
}
