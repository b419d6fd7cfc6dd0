//! The first step of an `async def` handler, without a task of its own until it needs one.
//!
//! `loop.create_task` costs half of a whole request, and most handlers never suspend. So one real `asyncio.Task` waits
//! beside the loop, its step callable and context captured when it was made. For each request its identity is entered,
//! the coroutine is sent into, and the identity is left. A coroutine that ends has cost no task. One that suspends
//! keeps the task: its [`Trampoline`] is handed the coroutine and what it yielded, the task is stepped once, and from
//! then on asyncio runs it like any other; so `current_task`, context variables, cancellation, timeouts and task
//! groups are what they always are.
//!
//! A task is used again only if nothing of the last request can be seen through it: nobody holds a reference, its
//! context holds what it held, and it was not cancelled, named or given a callback.

use std::{rc::Rc, sync::Mutex};

use httpy::Response;
use pyo3::{
    exceptions::{PyRuntimeError, PyStopIteration},
    ffi, intern,
    prelude::*,
};

use super::{EventLoop, Slot};
use crate::symbols::symbols;

/// A task that waits for a handler.
pub(crate) struct Spare {
    task: Py<PyAny>,
    /// The task's own step callable, as `call_soon` got it.
    step: Py<PyAny>,
    context: Py<PyAny>,
    trampoline: Py<Trampoline>,
    /// References to the task while nobody else has one.
    references: isize,
}

/// What came of a first step.
pub(crate) enum Stepped {
    /// The coroutine ended: with a value, or with an exception.
    Ended(PyResult<Py<PyAny>>),
    /// It waits; the task that drives it now.
    Suspended(Py<Trampoline>, Py<PyAny>),
}

/// What sending into a coroutine gave.
pub(crate) enum Sent<'py> {
    Yielded(Bound<'py, PyAny>),
    Returned(Bound<'py, PyAny>),
    Raised(PyErr),
}

impl EventLoop {
    /// Runs a coroutine up to its end or its first suspension, in a task and a context of its own.
    ///
    /// # Errors
    /// If no task can be made. What the handler raises is in [`Stepped::Ended`].
    pub(crate) fn step(self: &Rc<Self>, py: Python<'_>, coroutine: Bound<'_, PyAny>) -> PyResult<Stepped> {
        let spare = match self.spare.borrow_mut().take() {
            Some(spare) => spare,
            None => self.make_spare(py)?,
        };
        let event_loop = self.object.bind(py);
        self.enter_task.bind(py).call1((event_loop, &spare.task))?;
        let context = ContextGuard::enter(spare.context.bind(py))?;
        let sent = send(&coroutine);
        drop(context);
        self.leave_task.bind(py).call1((event_loop, &spare.task))?;
        let ended = match sent {
            Sent::Returned(value) => Ok(value.unbind()),
            Sent::Raised(error) => Err(error),
            Sent::Yielded(waits_for) => {
                spare.trampoline.get().adopt(coroutine, waits_for);
                // The task asks its coroutine, gets what was yielded just now, and waits for it.
                spare.step.bind(py).call0()?;
                return Ok(Stepped::Suspended(spare.trampoline, spare.task));
            }
        };
        drop(coroutine);
        if spare.is_untouched(py, &self.context)? {
            *self.spare.borrow_mut() = Some(spare);
        }
        Ok(Stepped::Ended(ended))
    }

    /// Makes a task and takes its first step away from the loop.
    fn make_spare(&self, py: Python<'_>) -> PyResult<Spare> {
        let trampoline = Py::new(py, Trampoline::default())?;
        let kwargs = pyo3::types::PyDict::new(py);
        kwargs.set_item(intern!(py, "loop"), &self.object)?;
        // Making a task copies the current context, on every version: so make it inside the one to copy.
        let task =
            self.context.bind(py).call_method(intern!(py, "run"), (&self.task_type, &trampoline), Some(&kwargs))?;
        task.setattr(intern!(py, "_log_destroy_pending"), false)?;
        let handle = self.ready.bind(py).call_method0(intern!(py, "pop"))?;
        let mut spare = Spare {
            step: handle.getattr(intern!(py, "_callback"))?.unbind(),
            context: handle.getattr(intern!(py, "_context"))?.unbind(),
            task: task.unbind(),
            trampoline,
            references: 0,
        };
        drop(handle);
        // SAFETY: the task is alive: `spare` owns a reference.
        spare.references = unsafe { ffi::Py_REFCNT(spare.task.as_ptr()) };
        Ok(spare)
    }
}

impl Spare {
    fn is_untouched(&self, py: Python<'_>, base: &Py<PyAny>) -> PyResult<bool> {
        // SAFETY: the task is alive: `self` owns a reference.
        if unsafe { ffi::Py_REFCNT(self.task.as_ptr()) } != self.references {
            return Ok(false);
        }
        let task = self.task.bind(py);
        if task.getattr(intern!(py, "_must_cancel"))?.is_truthy()?
            || !task.getattr(intern!(py, "_callbacks"))?.is_none()
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

/// Sends None into a coroutine (or any generator-like object).
pub(crate) fn send<'py>(coroutine: &Bound<'py, PyAny>) -> Sent<'py> {
    let py = coroutine.py();
    if let Some(iter_send) = symbols().iter_send {
        let mut result = std::ptr::null_mut();
        // SAFETY: `coroutine` and None are live objects, and `result` is a place for one owned reference, which is
        // set exactly when the status is not negative.
        return unsafe {
            match iter_send(coroutine.as_ptr(), ffi::Py_None(), &raw mut result) {
                1 => Sent::Yielded(Bound::from_owned_ptr(py, result)),
                0 => Sent::Returned(Bound::from_owned_ptr(py, result)),
                _ => Sent::Raised(PyErr::fetch(py)),
            }
        };
    }
    match coroutine.call_method1(intern!(py, "send"), (py.None(),)) {
        Ok(yielded) => Sent::Yielded(yielded),
        Err(error) => stopped(py, error),
    }
}

/// Tells the end of a coroutine from its failure (Python 3.9, and `throw`).
pub(crate) fn stopped(py: Python<'_>, error: PyErr) -> Sent<'_> {
    if error.is_instance_of::<PyStopIteration>(py) {
        match error.value(py).getattr(intern!(py, "value")) {
            Ok(value) => Sent::Returned(value),
            Err(error) => Sent::Raised(error),
        }
    } else {
        Sent::Raised(error)
    }
}

/// Holds a context entered.
struct ContextGuard<'py>(Option<Bound<'py, PyAny>>);

impl<'py> ContextGuard<'py> {
    fn enter(context: &Bound<'py, PyAny>) -> PyResult<Self> {
        match symbols().context_enter {
            // SAFETY: `context` is the context of a task, so a `contextvars.Context`.
            Some(enter) => match unsafe { enter(context.as_ptr()) } {
                0 => Ok(Self(Some(context.clone()))),
                _ => Err(PyErr::fetch(context.py())),
            },
            None => Err(PyRuntimeError::new_err("this Python has no PyContext_Enter")),
        }
    }
}

impl Drop for ContextGuard<'_> {
    fn drop(&mut self) {
        if let (Some(context), Some(exit)) = (self.0.take(), symbols().context_exit) {
            // SAFETY: entered in `enter`, on this thread.
            if unsafe { exit(context.as_ptr()) } != 0 {
                PyErr::fetch(context.py()).write_unraisable(context.py(), Some(&context));
            }
        }
    }
}

/// What becomes of a coroutine's end.
pub(crate) enum Finished {
    /// This is the response.
    Answer(Response),
    /// The same task goes on with this coroutine.
    Continue(Py<PyAny>),
}

/// Decides what becomes of a coroutine's end.
pub(crate) type Finish = Box<dyn FnMut(Python<'_>, PyResult<Py<PyAny>>) -> Finished + Send>;

/// The coroutine of a spare task: stands in for the handler's coroutine once there is one.
#[pyclass(frozen, module = "httpy._httpy", name = "_Handler")]
#[derive(Default)]
pub(crate) struct Trampoline {
    state: Mutex<Driving>,
}

#[derive(Default)]
struct Driving {
    coroutine: Option<Py<PyAny>>,
    /// What the coroutine yielded in its first step, before the task knew it.
    yielded: Option<Py<PyAny>>,
    finish: Option<(Slot, Finish)>,
}

#[pymethods]
impl Trampoline {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let coroutine = {
            let mut state = self.lock();
            if let Some(yielded) = state.yielded.take() {
                return Ok(Some(yielded.into_bound(py)));
            }
            state.coroutine.as_ref().map(|coroutine| coroutine.clone_ref(py))
        };
        match coroutine {
            Some(coroutine) => self.advanced(py, send(coroutine.bind(py))),
            None => Ok(None),
        }
    }

    fn send<'py>(&self, py: Python<'py>, _value: Py<PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.__next__(py)?.ok_or_else(|| PyStopIteration::new_err(py.None()))
    }

    #[pyo3(signature = (error, value=None, traceback=None))]
    fn throw<'py>(
        &self,
        py: Python<'py>,
        error: Py<PyAny>,
        value: Option<Py<PyAny>>,
        traceback: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let coroutine = {
            let mut state = self.lock();
            state.yielded = None;
            state.coroutine.as_ref().map(|coroutine| coroutine.clone_ref(py))
        };
        let Some(coroutine) = coroutine else {
            // A spare task that is cancelled ends like a coroutine that never started.
            return Err(PyErr::from_value(error.into_bound(py)));
        };
        let thrown = match (value, traceback) {
            (None, None) => coroutine.bind(py).call_method1(intern!(py, "throw"), (error,)),
            (value, traceback) => coroutine.bind(py).call_method1(intern!(py, "throw"), (error, value, traceback)),
        };
        let sent = match thrown {
            Ok(yielded) => Sent::Yielded(yielded),
            Err(error) => stopped(py, error),
        };
        self.advanced(py, sent)?.ok_or_else(|| PyStopIteration::new_err(py.None()))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let driving = std::mem::take(&mut *self.lock());
        if let Some(coroutine) = driving.coroutine {
            coroutine.bind(py).call_method0(intern!(py, "close"))?;
        }
        Ok(())
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        if let Ok(state) = self.state.try_lock() {
            visit.call(&state.coroutine)?;
            visit.call(&state.yielded)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        let driving = std::mem::take(&mut *self.lock());
        drop(driving);
    }
}

impl Trampoline {
    fn lock(&self) -> std::sync::MutexGuard<'_, Driving> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes over a coroutine that has yielded once.
    fn adopt(&self, coroutine: Bound<'_, PyAny>, yielded: Bound<'_, PyAny>) {
        let mut state = self.lock();
        state.coroutine = Some(coroutine.unbind());
        state.yielded = Some(yielded.unbind());
    }

    /// Says where the response goes when the coroutine ends.
    pub(crate) fn finish_into(&self, slot: Slot, finish: Finish) {
        self.lock().finish = Some((slot, finish));
    }

    /// The coroutine went on: hands what it yielded to the task, or its end to the response.
    fn advanced<'py>(&self, py: Python<'py>, mut sent: Sent<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        loop {
            let ended = match sent {
                Sent::Yielded(yielded) => return Ok(Some(yielded)),
                Sent::Returned(value) => Ok(value.unbind()),
                Sent::Raised(error) => Err(error),
            };
            let Driving { coroutine, finish, .. } = std::mem::take(&mut *self.lock());
            drop(coroutine);
            // What asyncio itself must see goes on to the task: cancellation, and what ends the loop.
            let passed_on = match &ended {
                Err(error) if !error.is_instance_of::<pyo3::exceptions::PyException>(py) => Some(error.clone_ref(py)),
                _ => None,
            };
            if let Some((slot, mut finish)) = finish {
                match finish(py, ended) {
                    Finished::Answer(response) => {
                        if let Some(waker) = slot.fill(response) {
                            super::wake(waker);
                        }
                    }
                    Finished::Continue(coroutine) => {
                        let next = coroutine.clone_ref(py);
                        *self.lock() =
                            Driving { coroutine: Some(coroutine), yielded: None, finish: Some((slot, finish)) };
                        sent = send(next.bind(py));
                        continue;
                    }
                }
            }
            return match passed_on {
                Some(error) => Err(error),
                None => Ok(None),
            };
        }
    }
}
