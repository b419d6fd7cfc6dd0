//! How Rust and an asyncio loop share the work.
//!
//! Two drivers, one surface. With `selector` the loop's selector *is* tokio, so requests are answered on the loop's own
//! thread without any hand-over. With `thread` tokio has a thread of its own and hands batches to a loop it does not
//! control (uvloop, Windows, somebody else's loop). What is above asks [`run()`] and does not know which it is.

mod bell;
mod context;
mod event_loop;
mod fork;
mod parked;
mod parts;
mod pinned;
mod run;
#[cfg(unix)]
mod selector;
mod slot;
mod spare;
mod step;
mod thread;
mod trampoline;
mod turns;

use std::{cell::RefCell, rc::Rc, sync::Arc};

use pyo3::{intern, prelude::*};

pub(crate) use bell::Bell;
pub(crate) use context::{Entered, run_in_copy};
pub(crate) use event_loop::{EventLoop, Home, ends_loop, pass_on};
pub(crate) use fork::generation;
pub(crate) use parked::Parked;
pub(crate) use pinned::Pinned;
pub(crate) use run::{Kind, Runtime, Then, Visit, is_awaitable, run, tell};
#[cfg(unix)]
pub(crate) use selector::{Selector, pause};
pub(crate) use slot::{Follower, Slot, Watch};
pub(crate) use step::Stepped;
pub(crate) use thread::{Job, RuntimeThread, There};
pub(crate) use trampoline::{Sent, Trampoline, send, went};

/// Where a runtime thread stands towards its asyncio loop.
#[derive(Clone)]
pub(crate) enum Seat {
    /// The loop runs on this very thread, and it is attached to the interpreter.
    #[cfg_attr(not(unix), expect(dead_code, reason = "the selector driver is Unix's"))]
    Here(Rc<EventLoop>),
    /// The loop runs on another thread, and this one never attaches.
    There(Arc<There>),
}

thread_local! {
    static SEAT: RefCell<Option<Seat>> = const { RefCell::new(None) };
}

/// The seat of this thread: none on a thread that no driver has set up.
pub(crate) fn seat() -> Option<Seat> {
    SEAT.with_borrow(Clone::clone)
}

/// The seat of this thread, if it is one at that loop. A thread may have had another's, and keeps that until it runs a loop of
/// ours again.
pub(crate) fn seat_at(home: &Home) -> Option<Seat> {
    let is_there = |seat: &Seat| match seat {
        Seat::Here(event_loop) => event_loop.is(&home.event_loop),
        Seat::There(there) => there.home().event_loop.is(&home.event_loop),
    };
    seat().filter(is_there)
}

/// The loop behind this runtime thread; none on others.
pub(crate) fn home() -> Option<Arc<Home>> {
    SEAT.with_borrow(|seat| match seat {
        Some(Seat::Here(event_loop)) => Some(event_loop.home()),
        Some(Seat::There(there)) => Some(there.home()),
        None => None,
    })
}

/// Gives this thread a seat, or takes it away.
pub(crate) fn sit(seat: Option<Seat>) {
    let last = SEAT.replace(seat);
    drop(last);
}

/// Sends off what was handed to other threads and not told to them yet: the runtime thread is about to wait.
fn flush() {
    SEAT.with_borrow(|seat| match seat {
        Some(Seat::Here(event_loop)) => event_loop.pool().flush(),
        Some(Seat::There(there)) => there.flush(),
        None => {}
    });
}

/// Nothing holds the interpreter on a runtime thread here.
#[cfg(not(unix))]
pub(crate) fn pause() {}

/// The client went away: cancels the handler's task, on the loop's thread.
fn cancel(task: Py<PyAny>) {
    match seat() {
        Some(Seat::Here(event_loop)) if event_loop.is_closed() => drop(task),
        Some(Seat::Here(event_loop)) => Python::attach(|py| {
            cancel_here(py, task);
            event_loop.after_python();
        }),
        Some(Seat::There(there)) => there.tell(Box::new(|py, _| cancel_here(py, task))),
        // The runtime is gone, and with it the loop.
        None => drop(task),
    }
}

fn cancel_here(py: Python<'_>, task: Py<PyAny>) {
    let task = task.into_bound(py);
    if let Err(error) = task.call_method0(intern!(py, "cancel")) {
        error.write_unraisable(py, Some(&task));
    }
}
