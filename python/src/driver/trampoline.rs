//! The coroutine of a handler's task: stands in for the handler's own, and sends the response when that ends.

use std::{
    rc::{Rc, Weak},
    sync::{Mutex, MutexGuard, PoisonError},
};

use pyo3::{
    exceptions::{PyAttributeError, PyException, PyStopIteration},
    ffi, intern,
    prelude::*,
};

use super::{EventLoop, Parked, Pinned, Slot, Then, Visit, ends_loop, fork};
use crate::symbols::symbols;

/// What sending into a coroutine gave.
pub(crate) enum Sent<'py> {
    Yielded(Bound<'py, PyAny>),
    Returned(Bound<'py, PyAny>),
    Raised(PyErr),
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
    went(py, coroutine.call_method1(intern!(py, "send"), (py.None(),)))
}

fn throw<'py>(coroutine: &Bound<'py, PyAny>, error: &Py<PyAny>) -> Sent<'py> {
    let py = coroutine.py();
    went(py, coroutine.call_method1(intern!(py, "throw"), (error,)))
}

/// Tells the end of a coroutine from its failure, where both are exceptions.
pub(crate) fn went<'py>(py: Python<'py>, outcome: PyResult<Bound<'py, PyAny>>) -> Sent<'py> {
    match outcome {
        Ok(yielded) => Sent::Yielded(yielded),
        Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
            match error.value(py).getattr(intern!(py, "value")) {
                Ok(value) => Sent::Returned(value),
                Err(error) => Sent::Raised(error),
            }
        }
        Err(error) => Sent::Raised(error),
    }
}

/// See the module.
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
    /// What is to be thrown into the coroutine in its next step.
    thrown: Option<Py<PyAny>>,
    finish: Option<(Slot, Box<dyn Visit>)>,
    /// How the coroutine ended, if that was before anybody said where the response goes.
    ended: Option<PyResult<Py<PyAny>>>,
    /// The loop that parks the task when its handler has ended.
    event_loop: Option<Pinned<Weak<EventLoop>>>,
    /// What the task is parked at, since it was for the first time.
    parked: Option<Py<Parked>>,
}

/// What comes after the end of a coroutine.
enum Next {
    /// Another one.
    Await(Py<PyAny>),
    /// The response is given; the task, if it is known, may be parked.
    Answered(Option<Py<PyAny>>),
}

#[pymethods]
impl Trampoline {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = slf.py();
        let (coroutine, thrown) = {
            let mut state = slf.get().lock();
            if let Some(yielded) = state.yielded.take() {
                return Ok(Some(yielded.into_bound(py)));
            }
            (state.coroutine.as_ref().map(|coroutine| coroutine.clone_ref(py)), state.thrown.take())
        };
        match (coroutine, thrown) {
            (None, _) => Ok(None),
            (Some(coroutine), None) => Self::advanced(slf, send(coroutine.bind(py))),
            (Some(coroutine), Some(thrown)) => Self::advanced(slf, throw(coroutine.bind(py), &thrown)),
        }
    }

    fn send<'py>(slf: &Bound<'py, Self>, _value: Py<PyAny>) -> PyResult<Bound<'py, PyAny>> {
        Self::__next__(slf)?.ok_or_else(|| PyStopIteration::new_err(slf.py().None()))
    }

    /// Throws into the handler's coroutine. The older form with a type, a value and a traceback is not needed: no
    /// asyncio of the supported versions uses it.
    #[pyo3(signature = (error, _value=None, _traceback=None))]
    fn throw<'py>(
        slf: &Bound<'py, Self>,
        error: Py<PyAny>,
        _value: Option<Py<PyAny>>,
        _traceback: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        let (coroutine, yielded) = {
            let mut state = this.lock();
            (state.coroutine.as_ref().map(|coroutine| coroutine.clone_ref(py)), state.yielded.take())
        };
        let Some(coroutine) = coroutine else {
            // A spare task that is cancelled ends like a coroutine that never started.
            return Err(PyErr::from_value(error.into_bound(py)));
        };
        if let Some(yielded) = yielded {
            // The handler cancelled its own task in its first step, and then began to wait. A task that learns of its
            // cancellation as late as that cancels what it waits for; failing that, it throws in its next step.
            let yielded = yielded.into_bound(py);
            let waits_no_more = !yielded.is_none() && yielded.call_method0(intern!(py, "cancel"))?.is_truthy()?;
            if !waits_no_more {
                this.lock().thrown = Some(error);
            }
            return Ok(yielded);
        }
        let sent = throw(coroutine.bind(py), &error);
        Self::advanced(slf, sent)?.ok_or_else(|| PyStopIteration::new_err(py.None()))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let driving = std::mem::take(&mut *self.lock());
        if let Some(coroutine) = driving.coroutine {
            coroutine.bind(py).call_method0(intern!(py, "close"))?;
        }
        Ok(())
    }

    #[getter]
    fn __name__<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.name(py, "__name__")
    }

    #[getter]
    fn __qualname__<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.name(py, "__qualname__")
    }

    /// `cr_code`, `cr_frame` and the like are those of the handler's coroutine: they are what a task's `repr` and
    /// `get_stack` show.
    fn __getattr__<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        match self.coroutine(py) {
            Some(coroutine) if name.starts_with("cr_") => coroutine.getattr(name),
            _ => Err(PyAttributeError::new_err(name.to_owned())),
        }
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("<httpy {}>", self.name(py, "__qualname__"))
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        if let Ok(state) = self.state.try_lock() {
            visit.call(&state.coroutine)?;
            visit.call(&state.yielded)?;
            visit.call(&state.thrown)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        let driving = std::mem::take(&mut *self.lock());
        drop(driving);
    }
}

impl Trampoline {
    fn lock(&self) -> MutexGuard<'_, Driving> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn coroutine<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.lock().coroutine.as_ref().map(|coroutine| coroutine.bind(py).clone())
    }

    fn name<'py>(&self, py: Python<'py>, attribute: &str) -> Bound<'py, PyAny> {
        let known = self.coroutine(py).and_then(|coroutine| coroutine.getattr(attribute).ok());
        known.unwrap_or_else(|| intern!(py, "handler").clone().into_any())
    }

    /// Takes over a coroutine, and what it yielded if it has begun.
    pub(crate) fn adopt(&self, coroutine: &Bound<'_, PyAny>, yielded: Option<Bound<'_, PyAny>>) {
        let mut state = self.lock();
        state.coroutine = Some(coroutine.clone().unbind());
        state.yielded = yielded.map(Bound::unbind);
    }

    /// The task is to be parked by `event_loop` when its handler has ended.
    pub(crate) fn will_park(&self, event_loop: &Rc<EventLoop>) {
        let mut state = self.lock();
        if state.event_loop.is_none() {
            state.event_loop = Some(Pinned::new(Rc::downgrade(event_loop)));
        }
    }

    /// What the task is to be parked at.
    pub(crate) fn place(&self, py: Python<'_>, event_loop: &Rc<EventLoop>) -> Option<Py<Parked>> {
        let mut state = self.lock();
        if state.parked.is_none() {
            state.parked = Py::new(py, Parked::new(event_loop)).ok();
        }
        state.parked.as_ref().map(|parked| parked.clone_ref(py))
    }

    /// Says where the response goes when the coroutine ends.
    pub(crate) fn finish_into(&self, py: Python<'_>, slot: Slot, visit: Box<dyn Visit>) {
        let ended = {
            let mut state = self.lock();
            state.finish = Some((slot, visit));
            state.ended.take()
        };
        // A loop with eager tasks may have run it to its end before.
        if let Some(ended) = ended {
            self.finish(py, ended);
        }
    }

    /// Names the task to cancel if the carrier gives up. Returns it if the carrier already has.
    pub(crate) fn set_task(&self, py: Python<'_>, task: &Py<PyAny>) -> Option<Py<PyAny>> {
        self.lock().finish.as_ref().and_then(|(slot, _)| slot.set_task(py, task))
    }

    /// The coroutine ended: answers, unless the visit goes on with another one, which is returned.
    fn finish(&self, py: Python<'_>, ended: PyResult<Py<PyAny>>) -> Next {
        let finish = self.lock().finish.take();
        let Some((slot, mut visit)) = finish else {
            self.lock().ended = Some(ended);
            return Next::Answered(None);
        };
        match visit.respond(py, ended) {
            Then::Answer(response) => {
                let task = slot.task(py);
                slot.fill_soon(py, *response);
                Next::Answered(task)
            }
            Then::Await(coroutine) => {
                let mut state = self.lock();
                state.coroutine = Some(coroutine.clone_ref(py));
                state.finish = Some((slot, visit));
                Next::Await(coroutine)
            }
        }
    }

    /// The coroutine went on: hands what it yielded to the task, or its end to the response.
    fn advanced<'py>(slf: &Bound<'py, Self>, mut sent: Sent<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (py, this) = (slf.py(), slf.get());
        loop {
            let ended = match sent {
                Sent::Yielded(yielded) => return Ok(Some(yielded)),
                Sent::Returned(value) => Ok(value.unbind()),
                Sent::Raised(error) => Err(error),
            };
            fork::end_child();
            let last = this.lock().coroutine.take();
            drop(last);
            // What asyncio itself must see goes on to the task: cancellation, and what ends the loop.
            let passed_on = match &ended {
                Err(error) if !error.is_instance_of::<PyException>(py) => Some(error.clone_ref(py)),
                _ => None,
            };
            if let Some(error) = passed_on {
                if ends_loop(py, &error) {
                    // Its slot answers when it is dropped.
                    let finish = this.lock().finish.take();
                    drop(finish);
                } else {
                    this.finish(py, ended);
                }
                return Err(error);
            }
            match this.finish(py, ended) {
                Next::Await(coroutine) => sent = send(coroutine.bind(py)),
                Next::Answered(task) => return Ok(task.and_then(|task| Self::park(slf, task))),
            }
        }
    }

    /// What the task is to wait for now that its handler has ended; none if it ends too.
    fn park<'py>(slf: &Bound<'py, Self>, task: Py<PyAny>) -> Option<Bound<'py, PyAny>> {
        let event_loop = {
            let state = slf.get().lock();
            state.event_loop.as_ref()?.get().ok()?.upgrade()?
        };
        let parked = event_loop.park(slf.py(), task, slf.clone().unbind())?;
        Some(parked.into_bound(slf.py()).into_any())
    }
}
