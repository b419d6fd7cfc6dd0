//! A task that waits for a handler.
//!
//! Rules:
//! 1. A task is used again only if nothing of the last request can be seen through it: nobody holds a reference, its
//!    context holds what it held, and it was not cancelled, renamed or given a callback. (It takes no attributes.)
//!    Otherwise it ends, for whoever waits for it.
//! 2. A waiting task is not in `asyncio.all_tasks()`: what cancels all tasks and waits for them (`asyncio.run`) would
//!    wait for ever for one that nobody steps.

use std::rc::Rc;

use pyo3::{exceptions::PyRuntimeError, ffi, intern, prelude::*};

use super::{EventLoop, Parked, Stepped, Trampoline, context::Entered, event_loop::NAME, parts::Parts, turns::Turn};
use crate::plan::{call_none, call_one, vectorcall};

/// See the module.
pub(crate) struct Spare {
    task: Py<PyAny>,
    /// What steps the task: its own step callable, as `call_soon` got it, or what wakes it, if it is parked.
    step: Py<PyAny>,
    /// What it is parked at.
    parked_at: Option<Py<Parked>>,
    context: Py<PyAny>,
    /// How many variables the context holds while nobody set one, and the context it is a copy of.
    base: (usize, Py<PyAny>),
    trampoline: Py<Trampoline>,
    /// References to the task while nobody else has one.
    references: isize,
    /// Whether `asyncio.all_tasks()` has it.
    is_shown: bool,
}

/// References to a task that waits: this module's, and that of what steps it.
const REFERENCES: isize = 2;

impl Spare {
    /// Makes a task, and takes its first step away from the loop.
    ///
    /// # Errors
    /// If there can't be one, or it is not as expected.
    pub(crate) fn new(py: Python<'_>, event_loop: &EventLoop, parts: &Parts) -> PyResult<Self> {
        let trampoline = Py::new(py, Trampoline::default())?;
        let base = event_loop.with_home(|home| home.context.clone_ref(py));
        let task = {
            // Making a task copies the current context, on every version: so make it inside the one to copy.
            let _entered = Entered::new(base.bind(py).clone())?;
            let arguments = [
                trampoline.bind(py).clone().into_any(),
                event_loop.object(py).clone(),
                intern!(py, NAME).clone().into_any(),
            ];
            vectorcall(py, &parts.task_type, &arguments, Some(&parts.task_keywords))?
        };
        let (handle, step) = take_first_step(parts.ready.bind(py), &task)?;
        Ok(Self {
            step: step.unbind(),
            parked_at: None,
            context: handle.getattr(intern!(py, "_context"))?.unbind(),
            base: (base.bind(py).len()?, base),
            task: task.unbind(),
            trampoline,
            references: REFERENCES,
            is_shown: true,
        })
    }

    /// A task whose handler has ended, and which `step` will wake.
    pub(crate) fn parked(
        py: Python<'_>,
        event_loop: &EventLoop,
        task: Py<PyAny>,
        trampoline: Py<Trampoline>,
        (step, context): (Py<PyAny>, Py<PyAny>),
        at: Py<Parked>,
    ) -> PyResult<Self> {
        let base = event_loop.with_home(|home| home.context.clone_ref(py));
        let held = base.bind(py).len()?;
        let parked_at = Some(at);
        let base = (held, base);
        Ok(Self { task, step, parked_at, context, base, trampoline, references: REFERENCES, is_shown: true })
    }

    /// The task.
    pub(crate) fn task(&self) -> &Py<PyAny> {
        &self.task
    }

    /// The context it runs in.
    pub(crate) fn context(&self) -> &Py<PyAny> {
        &self.context
    }

    /// It is the task of a handler that suspended: the loop drives it from now on.
    ///
    /// # Errors
    /// What stepping a task raises, which is nothing a handler does.
    pub(crate) fn go_on(
        mut self,
        py: Python<'_>,
        event_loop: &Rc<EventLoop>,
        parts: &Parts,
        coroutine: &Bound<'_, PyAny>,
        waits_for: Bound<'_, PyAny>,
    ) -> PyResult<Stepped> {
        // `sleep(0)`: it waits for its turn and nothing else, so the task need not be asked before that.
        let is_bare = waits_for.is_none();
        self.trampoline.get().adopt(coroutine, Some(waits_for).filter(|_| !is_bare));
        self.trampoline.get().will_park(event_loop);
        self.show(py, parts)?;
        if is_bare {
            if let Some(at) = &self.parked_at {
                at.get().set_due();
            }
            let (step, at, context) = (self.step, self.parked_at, self.context);
            event_loop.queue(py, parts, Turn { step, at, context })?;
        } else {
            // The task asks its coroutine, gets what was yielded just now, and waits for it.
            self.wake(py)?;
        }
        Ok(Stepped::Suspended(self.trampoline, self.task))
    }

    /// It is a handler's task from now on, for everybody to see.
    fn show(&mut self, py: Python<'_>, parts: &Parts) -> PyResult<()> {
        if !std::mem::replace(&mut self.is_shown, true) {
            self.task.bind(py).setattr(intern!(py, "_log_destroy_pending"), true)?;
            parts.register(self.task.bind(py))?;
        }
        Ok(())
    }

    /// It is nobody's task.
    pub(crate) fn hide(&mut self, py: Python<'_>, parts: &Parts) -> PyResult<()> {
        if std::mem::take(&mut self.is_shown) {
            self.task.bind(py).setattr(intern!(py, "_log_destroy_pending"), false)?;
            parts.unregister(self.task.bind(py))?;
        }
        Ok(())
    }

    /// Ends it, as its handler has ended: whoever kept it finds it done, and its callbacks are called.
    pub(crate) fn end(&self, py: Python<'_>) {
        if let Err(error) = self.wake(py) {
            error.write_unraisable(py, Some(self.task.bind(py)));
        }
    }

    fn wake(&self, py: Python<'_>) -> PyResult<()> {
        match &self.parked_at {
            None => call_none(py, &self.step)?,
            Some(at) => call_one(&self.step, at.bind(py))?,
        };
        Ok(())
    }

    /// Whether the next handler may have it. Rule 1.
    pub(crate) fn is_untouched(&self, py: Python<'_>, parts: &Parts) -> PyResult<bool> {
        // SAFETY: the task is alive: `self` owns a reference.
        if unsafe { ffi::Py_REFCNT(self.task.as_ptr()) } != self.references {
            return Ok(false);
        }
        let task = self.task.bind(py);
        if parts.must_cancel.get(task)?.is_truthy()?
            || !parts.callbacks.get(task)?.is_none()
            || !call_one(&parts.get_name, task)?.is(intern!(py, NAME))
        {
            return Ok(false);
        }
        if self.parked_at.is_some()
            && let Some(cancelling) = &parts.cancelling
            && call_one(cancelling, task)?.is_truthy()?
        {
            return Ok(false);
        }
        let ((held, base), context) = (&self.base, self.context.bind(py));
        if context.len()? != *held {
            return Ok(false);
        }
        if *held > 0 {
            for pair in base.call_method0(py, intern!(py, "items"))?.bind(py).try_iter()? {
                let (variable, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair?.extract()?;
                if !context.get_item(variable)?.is(&value) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
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
