//! An asyncio loop as the drivers see it: the few parts of it they touch, looked up once.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Waker,
};

use pyo3::{intern, prelude::*};

use super::{Seat, seat, step::Spare};

/// A loop that runs on this thread.
pub(crate) struct EventLoop {
    /// The loop itself.
    pub(crate) object: Py<PyAny>,
    /// `loop._ready`, a deque of handles to run.
    pub(crate) ready: Py<PyAny>,
    /// `loop._scheduled`, a heap of timers.
    scheduled: Py<PyAny>,
    /// The first timer when `select` was entered; only its identity matters.
    first_timer: Cell<usize>,
    /// Whether `select` is to return, and whom to wake so that it does.
    leave: Cell<bool>,
    root: RefCell<Option<Waker>>,
    /// Who is to be woken at the start of the next `select`: waking from outside the runtime costs a system call each.
    woken_later: RefCell<Vec<Waker>>,
    /// Whether the runtime runs right now, below `select`.
    running: Cell<bool>,
    /// A task ready for the next `async def` handler.
    pub(crate) spare: RefCell<Option<Spare>>,
    /// `asyncio.tasks._enter_task` and `_leave_task`.
    pub(crate) enter_task: Py<PyAny>,
    pub(crate) leave_task: Py<PyAny>,
    /// What handlers' contexts are copies of.
    pub(crate) context: Py<PyAny>,
    pub(crate) task_type: Py<PyAny>,
}

impl EventLoop {
    /// Looks up what is needed of `object`, a running or runnable `asyncio.SelectorEventLoop`.
    ///
    /// # Errors
    /// `AttributeError` if this Python's asyncio has other private parts than those the tests guard.
    pub(crate) fn new(py: Python<'_>, object: &Bound<'_, PyAny>) -> PyResult<Rc<Self>> {
        let tasks = py.import("asyncio.tasks")?;
        let context = py.import("contextvars")?.call_method0("copy_context")?;
        Ok(Rc::new(Self {
            object: object.clone().unbind(),
            ready: object.getattr("_ready")?.unbind(),
            scheduled: object.getattr("_scheduled")?.unbind(),
            first_timer: Cell::new(0),
            leave: Cell::new(false),
            root: RefCell::new(None),
            woken_later: RefCell::new(Vec::new()),
            running: Cell::new(false),
            spare: RefCell::new(None),
            enter_task: tasks.getattr("_enter_task")?.unbind(),
            leave_task: tasks.getattr("_leave_task")?.unbind(),
            context: context.unbind(),
            task_type: tasks.getattr("Task")?.unbind(),
        }))
    }

    /// `select` is entered: remembers the first timer, which the loop has seen.
    pub(crate) fn entered(&self, py: Python<'_>) {
        self.first_timer.set(self.find_first_timer(py));
        self.leave.set(false);
        self.running.set(true);
    }

    /// `select` is left.
    pub(crate) fn left(&self) {
        self.running.set(false);
    }

    /// Wakes what became ready while the loop ran. To be called inside the runtime, where waking is cheap.
    pub(crate) fn wake_ready(&self) {
        // One at a time: a waker may run code that adds another.
        while let Some(waker) = { self.woken_later.borrow_mut().pop() } {
            waker.wake();
        }
    }

    /// Wakes now if the runtime runs, else at the start of the next `select`.
    pub(crate) fn wake(&self, waker: Waker) {
        if self.running.get() {
            waker.wake();
        } else {
            self.woken_later.borrow_mut().push(waker);
        }
    }

    /// Keeps the waker of the future that `select` waits for.
    pub(crate) fn set_root(&self, waker: &Waker) {
        let mut root = self.root.borrow_mut();
        match &mut *root {
            Some(known) if known.will_wake(waker) => {}
            other => *other = Some(waker.clone()),
        }
    }

    /// Whether `select` is to return.
    pub(crate) fn is_to_leave(&self) -> bool {
        self.leave.get()
    }

    /// Makes `select` return as soon as the tasks that are ready have run.
    pub(crate) fn leave(&self) {
        if !self.leave.replace(true)
            && let Some(root) = &*self.root.borrow()
        {
            root.wake_by_ref();
        }
    }

    /// Python code ran below `select`: returns to the loop if that left work for it.
    ///
    /// Only two things can: a handle that is ready, or a timer earlier than the one `select` waits for. (Anything
    /// from another thread arrives through the loop's own wake-up descriptor.)
    pub(crate) fn after_python(&self, py: Python<'_>) {
        if self.leave.get() {
            return;
        }
        let ready = self.ready.bind(py).len().unwrap_or(1);
        if ready > 0 || self.find_first_timer(py) != self.first_timer.get() {
            self.leave();
        }
    }

    fn find_first_timer(&self, py: Python<'_>) -> usize {
        let scheduled = self.scheduled.bind(py);
        match scheduled.len() {
            Ok(0) | Err(_) => 0,
            Ok(_) => scheduled.get_item(0).map_or(0, |timer| timer.as_ptr() as usize),
        }
    }
}

/// Cancels a task, from whichever thread the carrier runs on.
pub(crate) fn cancel(task: Py<PyAny>) {
    Python::attach(|py| {
        let cancelled = task.bind(py).call_method0(intern!(py, "cancel"));
        if let Err(error) = cancelled {
            error.write_unraisable(py, Some(task.bind(py)));
        }
        if let Some(Seat::Here(event_loop)) = seat() {
            event_loop.after_python(py);
        }
        drop(task);
    });
}
