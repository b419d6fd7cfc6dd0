//! The first step of an `async def` handler, without a task of its own until it needs one.
//!
//! `loop.create_task` costs half of a whole request, and most handlers never suspend. So real `asyncio.Task`s wait
//! beside the loop (`spare.rs`), their step callable and context captured when they were made. For each request the
//! identity of one is entered, the coroutine is sent into, and the identity is left. A coroutine that ends has cost no
//! task. One that suspends keeps the task: its [`Trampoline`] is handed the coroutine and what it yielded, the task is
//! stepped once, and from then on asyncio runs it like any other; so `current_task`, context variables, cancellation,
//! timeouts and task groups are what they always are. When the coroutine ends, the task is parked (`parked.rs`), to
//! wait for the next handler.
//!
//! Where this does not work (uvloop, another task is current), the handler gets a task the ordinary way.

use std::rc::Rc;

use pyo3::{intern, prelude::*};

use super::{
    EventLoop, Then, Trampoline,
    context::Entered,
    parts::Parts,
    spare::Spare,
    trampoline::{Sent, send},
};

/// What came of a first step.
pub(crate) enum Stepped {
    /// The coroutine ended, and this is what comes of it.
    Ended(Then),
    /// It waits; what it runs in, and the task that drives it now.
    Suspended(Py<Trampoline>, Py<PyAny>),
}

impl EventLoop {
    /// Runs a coroutine up to its end or its first suspension, in a task and a context of its own. If that is its end,
    /// `settle` says what comes of it, in that context too: a generator it returned is to see what it set.
    ///
    /// # Errors
    /// If no task can be made. What the handler raises goes to `settle`.
    pub(crate) fn step(
        self: &Rc<Self>,
        py: Python<'_>,
        coroutine: Bound<'_, PyAny>,
        settle: impl FnOnce(PyResult<Py<PyAny>>) -> Then,
    ) -> PyResult<Stepped> {
        let Some(parts) = self.parts() else { return self.make_task(py, coroutine) };
        let mut spare = self.take_spare(py, parts)?;
        let Ok(identity) = Identity::assume(self.object(py), parts, &spare) else {
            spare.hide(py, parts)?;
            self.keep_spare(spare);
            return self.make_task(py, coroutine);
        };
        self.set_stepping(true);
        let sent = send(&coroutine);
        self.set_stepping(false);
        let ended = match sent {
            Sent::Returned(value) => Ok(value.unbind()),
            Sent::Raised(error) => Err(error),
            Sent::Yielded(waits_for) => {
                identity.give_up();
                return spare.go_on(py, self, parts, &coroutine, waits_for);
            }
        };
        let then = settle(ended);
        let is_whole = identity.give_up();
        // Its frame may hold the last reference to something of the request's.
        drop(coroutine);
        if is_whole && spare.is_untouched(py, parts)? {
            spare.hide(py, parts)?;
            self.keep_spare(spare);
        } else {
            spare.end(py);
        }
        Ok(Stepped::Ended(then))
    }

    /// Gives a coroutine a task the ordinary way.
    fn make_task(&self, py: Python<'_>, coroutine: Bound<'_, PyAny>) -> PyResult<Stepped> {
        let trampoline = Py::new(py, Trampoline::default())?;
        trampoline.get().adopt(&coroutine, None);
        let create_task = self.object(py).getattr(intern!(py, "create_task"))?;
        let task = self.home().context.bind(py).call_method1(intern!(py, "run"), (create_task, &trampoline))?;
        Ok(Stepped::Suspended(trampoline, task.unbind()))
    }
}

/// A task is current and its context entered; undone when dropped, in the reverse order.
struct Identity<'a, 'py> {
    context: Option<Entered<'py>>,
    parts: &'a Parts,
    event_loop: &'a Bound<'py, PyAny>,
    task: &'a Bound<'py, PyAny>,
    is_assumed: bool,
}

impl<'a, 'py> Identity<'a, 'py> {
    /// # Errors
    /// If another task is current, or the context can't be entered. Then nothing has changed.
    fn assume(event_loop: &'a Bound<'py, PyAny>, parts: &'a Parts, spare: &'a Spare) -> PyResult<Self> {
        let py = event_loop.py();
        let task = spare.task().bind(py);
        parts.enter(event_loop, task)?;
        let mut identity = Self { context: None, parts, event_loop, task, is_assumed: true };
        identity.context = Some(Entered::new(spare.context().bind(py).clone())?);
        Ok(identity)
    }

    /// Undoes it, and returns whether nobody had meddled: whether the task was still the current one.
    fn give_up(mut self) -> bool {
        self.undo()
    }

    fn undo(&mut self) -> bool {
        drop(self.context.take());
        if !std::mem::take(&mut self.is_assumed) {
            return true;
        }
        match self.parts.leave(self.event_loop, self.task) {
            Ok(()) => true,
            Err(error) => {
                error.write_unraisable(self.task.py(), Some(self.task));
                false
            }
        }
    }
}

impl Drop for Identity<'_, '_> {
    fn drop(&mut self) {
        self.undo();
    }
}
