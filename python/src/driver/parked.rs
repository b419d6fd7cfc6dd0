//! What a task waits for between two handlers.
//!
//! A handler that suspended has a task of the loop's own (`step.rs`). Making one costs a third of such a request, so when
//! the handler has ended, its task is not let end too: it is told to wait for this object, which looks like a future and
//! is never done. What wakes the task is kept beside the loop, and the next handler that suspends steps it.
//!
//! Whoever kept the task meanwhile, or waits for it, must find it done. That can't be told before the loop's callbacks have
//! let go of it, so it is looked at when the loop enters `select`, and a task that anybody else knows is ended there.

use std::{
    rc::{Rc, Weak},
    sync::atomic::{AtomicBool, Ordering},
};

use pyo3::prelude::*;

use super::{EventLoop, Pinned};

/// See the module. Every task that is parked has its own.
#[pyclass(frozen, module = "httpy._httpy", name = "_Parked")]
pub(crate) struct Parked {
    event_loop: Pinned<Weak<EventLoop>>,
    /// Whether the loop is about to wake the task.
    is_due: AtomicBool,
}

impl Parked {
    pub(crate) fn new(event_loop: &Rc<EventLoop>) -> Self {
        Self { event_loop: Pinned::new(Rc::downgrade(event_loop)), is_due: AtomicBool::new(false) }
    }

    /// The task has a handler that waits for nothing but its turn, and the loop will wake it.
    pub(crate) fn set_due(&self) {
        self.is_due.store(true, Ordering::Relaxed);
    }

    fn event_loop(&self) -> Option<Rc<EventLoop>> {
        self.event_loop.get().ok().and_then(Weak::upgrade)
    }
}

/// The part of a future that `Task.__step` and `Task.__wakeup` use.
#[pymethods]
impl Parked {
    #[getter(_asyncio_future_blocking)]
    fn is_blocking(&self) -> bool {
        true
    }

    #[setter(_asyncio_future_blocking)]
    fn set_blocking(&self, _value: bool) {}

    fn get_loop<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.event_loop().map(|event_loop| event_loop.object(py).clone())
    }

    #[pyo3(signature = (callback, *, context))]
    fn add_done_callback(slf: Py<Self>, py: Python<'_>, callback: Py<PyAny>, context: Py<PyAny>) {
        if let Some(event_loop) = slf.get().event_loop() {
            event_loop.parked(py, (callback, context), slf);
        }
    }

    fn result(&self) {
        self.is_due.store(false, Ordering::Relaxed);
    }

    /// A handler that cancels its own task in its first step is cancelled where it begins to wait, and one that only waits
    /// for its turn is cancelled when that comes, as in any task: then there is nothing here to cancel. At any other time
    /// the handler of the task has ended, and so nothing is cancelled.
    #[pyo3(signature = (_msg=None))]
    fn cancel(&self, _msg: Option<&Bound<'_, PyAny>>) -> bool {
        let is_stepping = self.event_loop().is_some_and(|event_loop| event_loop.is_stepping());
        !is_stepping && !self.is_due.load(Ordering::Relaxed)
    }
}
