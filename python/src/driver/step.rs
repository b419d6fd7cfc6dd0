//! The first step of an `async def` handler, without a task of its own until it needs one.
//!
//! `loop.create_task` costs half of a whole request, and most handlers never suspend. So one real `asyncio.Task` waits
//! beside the loop, its step callable and context captured when it was made. For each request its identity is entered,
//! the coroutine is sent into, and the identity is left. A coroutine that ends has cost no task. One that suspends
//! keeps the task: its [`Trampoline`] is handed the coroutine and what it yielded, the task is stepped once, and from
//! then on asyncio runs it like any other; so `current_task`, context variables, cancellation, timeouts and task
//! groups are what they always are.
//!
//! Rules:
//! 1. A task is used again only if nothing of the last request can be seen through it: nobody holds a reference, its
//!    context holds what it held, and it was not cancelled, renamed or given a callback. (It takes no attributes.)
//!    Otherwise it ends, for whoever waits for it.
//! 2. A waiting task is not in `asyncio.all_tasks()`: what cancels all tasks and waits for them (`asyncio.run`) would
//!    wait for ever for one that nobody steps.
//! 3. Where this does not work (uvloop, another task is current), the handler gets a task the ordinary way.

use std::rc::Rc;

use pyo3::{exceptions::PyRuntimeError, ffi, intern, prelude::*, types::PyDict};

use super::{
    EventLoop, Then, Trampoline,
    context::Entered,
    event_loop::Parts,
    trampoline::{Sent, send},
};
use crate::plan::vectorcall;

/// A task that waits for a handler.
pub(crate) struct Spare {
    task: Py<PyAny>,
    /// The task's own step callable, as `call_soon` got it.
    step: Py<PyAny>,
    context: Py<PyAny>,
    trampoline: Py<Trampoline>,
    get_name: Py<PyAny>,
    /// References to the task while nobody else has one.
    references: isize,
    /// Whether `asyncio.all_tasks()` has it.
    is_shown: bool,
}

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
        let ended = match send(&coroutine) {
            Sent::Returned(value) => Ok(value.unbind()),
            Sent::Raised(error) => Err(error),
            Sent::Yielded(waits_for) => {
                identity.give_up();
                spare.trampoline.get().adopt(&coroutine, Some(waits_for));
                spare.show(py, parts)?;
                // The task asks its coroutine, gets what was yielded just now, and waits for it.
                spare.step.bind(py).call0()?;
                return Ok(Stepped::Suspended(spare.trampoline, spare.task));
            }
        };
        let then = settle(ended);
        let is_whole = identity.give_up();
        // Its frame may hold the last reference to something of the request's.
        drop(coroutine);
        if is_whole && self.with_home(|home| spare.is_untouched(py, &home.context))? {
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

    /// Makes a task and takes its first step away from the loop.
    pub(crate) fn make_spare(&self, py: Python<'_>, parts: &Parts) -> PyResult<Spare> {
        let trampoline = Py::new(py, Trampoline::default())?;
        let kwargs = PyDict::new(py);
        kwargs.set_item(intern!(py, "loop"), self.object(py))?;
        kwargs.set_item(intern!(py, "name"), intern!(py, NAME))?;
        // Making a task copies the current context, on every version: so make it inside the one to copy.
        let task = self.home().context.bind(py).call_method(
            intern!(py, "run"),
            (&parts.task_type, &trampoline),
            Some(&kwargs),
        )?;
        let (handle, step) = take_first_step(parts.ready.bind(py), &task)?;
        let mut spare = Spare {
            step: step.unbind(),
            context: handle.getattr(intern!(py, "_context"))?.unbind(),
            get_name: task.getattr(intern!(py, "get_name"))?.unbind(),
            task: task.unbind(),
            trampoline,
            references: 0,
            is_shown: true,
        };
        drop(handle);
        // SAFETY: the task is alive: `spare` owns a reference.
        spare.references = unsafe { ffi::Py_REFCNT(spare.task.as_ptr()) };
        if !spare.is_untouched(py, &self.home().context)? {
            return Err(PyRuntimeError::new_err("asyncio.Task is not as it was"));
        }
        Ok(spare)
    }
}

/// Takes the first step of a new task out of the loop's queue: its handle, and the step itself.
///
/// It need not be the last: another thread may add to the queue at any moment (`call_soon_threadsafe`). But nobody except
/// the loop's thread, which this is, takes anything out, so a place counted from the front stays what it is.
fn take_first_step<'py>(
    ready: &Bound<'py, PyAny>,
    task: &Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let py = ready.py();
    for place in (0..ready.len()?).rev() {
        let handle = ready.get_item(place)?;
        let callback = handle.getattr(intern!(py, "_callback"))?;
        if callback.getattr(intern!(py, "__self__")).is_ok_and(|owner| owner.is(task)) {
            ready.del_item(place)?;
            return Ok((handle, callback));
        }
    }
    Err(PyRuntimeError::new_err("the first step of a new task is not in the queue of its loop"))
}

/// What handlers' tasks are called.
const NAME: &str = "httpy-handler";

impl Spare {
    /// It is a handler's task from now on, for everybody to see.
    fn show(&mut self, py: Python<'_>, parts: &Parts) -> PyResult<()> {
        if !std::mem::replace(&mut self.is_shown, true) {
            self.task.bind(py).setattr(intern!(py, "_log_destroy_pending"), true)?;
            vectorcall(py, &parts.register_task, &[self.task.bind(py).clone()], None)?;
        }
        Ok(())
    }

    /// It is nobody's task. Handlers that always suspend use a new one each time, and never come here: registering is
    /// a `WeakSet` in Python code before 3.14, and costs as much as the task itself.
    pub(crate) fn hide(&mut self, py: Python<'_>, parts: &Parts) -> PyResult<()> {
        if std::mem::take(&mut self.is_shown) {
            self.task.bind(py).setattr(intern!(py, "_log_destroy_pending"), false)?;
            vectorcall(py, &parts.unregister_task, &[self.task.bind(py).clone()], None)?;
        }
        Ok(())
    }

    /// Ends it, as its handler has ended: whoever kept it finds it done, and its callbacks are called.
    fn end(&self, py: Python<'_>) {
        if let Err(error) = vectorcall(py, &self.step, &[], None) {
            error.write_unraisable(py, Some(self.task.bind(py)));
        }
    }

    fn is_untouched(&self, py: Python<'_>, base: &Py<PyAny>) -> PyResult<bool> {
        // SAFETY: the task is alive: `self` owns a reference.
        if unsafe { ffi::Py_REFCNT(self.task.as_ptr()) } != self.references {
            return Ok(false);
        }
        let task = self.task.bind(py);
        if task.getattr(intern!(py, "_must_cancel"))?.is_truthy()?
            || !task.getattr(intern!(py, "_callbacks"))?.is_none()
            || !vectorcall(py, &self.get_name, &[], None)?.is(intern!(py, NAME))
        {
            return Ok(false);
        }
        let (context, base) = (self.context.bind(py), base.bind(py));
        let held = base.len()?;
        if context.len()? != held {
            return Ok(false);
        }
        if held > 0 {
            for pair in base.call_method0(intern!(py, "items"))?.try_iter()? {
                let (variable, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair?.extract()?;
                if !context.get_item(variable)?.is(&value) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// A task is current and its context entered; undone when dropped, in the reverse order.
struct Identity<'a, 'py> {
    context: Option<Entered<'py>>,
    leave_task: &'a Py<PyAny>,
    event_loop: &'a Bound<'py, PyAny>,
    task: &'a Bound<'py, PyAny>,
    is_assumed: bool,
}

impl<'a, 'py> Identity<'a, 'py> {
    /// # Errors
    /// If another task is current, or the context can't be entered. Then nothing has changed.
    fn assume(event_loop: &'a Bound<'py, PyAny>, parts: &'a Parts, spare: &'a Spare) -> PyResult<Self> {
        let py = event_loop.py();
        let task = spare.task.bind(py);
        // Twice per request: without the tuple that `call1` makes.
        vectorcall(py, &parts.enter_task, &[event_loop.clone(), task.clone()], None)?;
        let mut identity = Self { context: None, leave_task: &parts.leave_task, event_loop, task, is_assumed: true };
        identity.context = Some(Entered::new(spare.context.bind(py).clone())?);
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
        let (event_loop, task) = (self.event_loop.clone(), self.task.clone());
        match vectorcall(self.task.py(), self.leave_task, &[event_loop, task], None) {
            Ok(_) => true,
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
