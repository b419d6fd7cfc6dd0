//! `next` in Python middleware: the rest of the chain, as something to await.
//!
//! Middleware and the function it leads to run in one task, one inside the other, like any coroutines that await each
//! other: a chain of Python stages is one crossing, however long it is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::{PyRuntimeError, PyStopIteration},
    intern,
    prelude::*,
};

use crate::{
    call::{Callable, Inside},
    driver::{Sent, is_awaitable, run_in_copy, send, went},
    request::PyRequest,
    response::{self, PyResponse},
    threads::Pool,
};

/// What middleware calls to go on.
#[pyclass(frozen, module = "httpy._httpy")]
pub(crate) struct Next {
    callable: Arc<Callable>,
    pool: Arc<Pool>,
    /// Which stage is next; one past the last is the function.
    index: usize,
}

#[pymethods]
impl Next {
    /// Goes on with the request; awaiting what is returned gives the response.
    fn __call__(&self, request: Py<PyRequest>) -> Onward {
        Onward {
            callable: self.callable.clone(),
            pool: self.pool.clone(),
            index: self.index,
            request,
            state: Mutex::new(State::Fresh),
        }
    }
}

/// The rest of a chain, under way.
#[pyclass(frozen, module = "httpy._httpy")]
pub(crate) struct Onward {
    callable: Arc<Callable>,
    pool: Arc<Pool>,
    index: usize,
    request: Py<PyRequest>,
    state: Mutex<State>,
}

enum State {
    Fresh,
    /// Awaiting this coroutine; whether its error may still be handled by the application.
    Awaiting(Py<PyAny>, bool),
    Done,
}

#[pymethods]
impl Onward {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let state = std::mem::replace(&mut *self.lock(), State::Done);
        match state {
            // An iterator of a future, which is no coroutine by itself.
            State::Fresh if self.is_innermost() && self.callable.is_pooled() => {
                let outcome = self.start_pooled(py)?;
                self.advance(py, outcome, true)
            }
            State::Fresh => match self.start(py) {
                Ok(value) if is_awaitable(&value) => self.advance(py, value, true),
                ended => self.ended(py, ended, true),
            },
            State::Awaiting(coroutine, may_handle) => self.advance(py, coroutine.into_bound(py), may_handle),
            State::Done => Err(PyRuntimeError::new_err("next(request) was awaited already")),
        }
    }

    /// Goes on with the chain, as coroutines do.
    fn send<'py>(&self, py: Python<'py>, _value: Py<PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.__next__(py)
    }

    /// Raises an exception where the chain waits.
    #[pyo3(signature = (error, value=None, traceback=None))]
    fn throw<'py>(
        &self,
        py: Python<'py>,
        error: Bound<'py, PyAny>,
        value: Option<Py<PyAny>>,
        traceback: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let state = std::mem::replace(&mut *self.lock(), State::Done);
        let State::Awaiting(coroutine, may_handle) = state else { return Err(PyErr::from_value(error)) };
        let coroutine = coroutine.into_bound(py);
        let thrown = match (value, traceback) {
            (None, None) => coroutine.call_method1(intern!(py, "throw"), (error,)),
            (value, traceback) => coroutine.call_method1(intern!(py, "throw"), (error, value, traceback)),
        };
        self.advanced(py, went(py, thrown), coroutine, may_handle)
    }

    /// Ends the chain where it waits.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let state = std::mem::replace(&mut *self.lock(), State::Done);
        match state {
            State::Awaiting(coroutine, _) => coroutine.bind(py).call_method0(intern!(py, "close")).map(drop),
            State::Fresh | State::Done => Ok(()),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.request)?;
        match self.state.try_lock().as_deref() {
            Ok(State::Awaiting(coroutine, _)) => visit.call(coroutine),
            _ => Ok(()),
        }
    }
}

impl Onward {
    /// Enters a chain: calls its first stage.
    pub(crate) fn enter<'py>(
        callable: &Arc<Callable>,
        pool: &Arc<Pool>,
        first: &Py<PyAny>,
        request: &Bound<'py, PyRequest>,
    ) -> PyResult<Bound<'py, PyAny>> {
        first.bind(request.py()).call1((request, Next { callable: callable.clone(), pool: pool.clone(), index: 1 }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_innermost(&self) -> bool {
        self.index >= self.callable.stages.len()
    }

    /// Calls the next stage, or the function.
    fn start<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let request = self.request.bind(py);
        if let Some(stage) = self.callable.stages.get(self.index) {
            let next = Next { callable: self.callable.clone(), pool: self.pool.clone(), index: self.index + 1 };
            return stage.bind(py).call1((request, next));
        }
        self.callable.call_function(request)
    }

    /// Calls the function on a pool thread; what is returned is awaited for its outcome.
    fn start_pooled<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let event_loop = py.import("asyncio")?.call_method0("get_running_loop")?;
        let future = event_loop.call_method0(intern!(py, "create_future"))?;
        let (callable, request) = (self.callable.clone(), self.request.clone_ref(py));
        let (event_loop, outcome) = (event_loop.unbind(), future.clone().unbind());
        // Context variables that middleware has set are seen by the function, as with `asyncio.to_thread`.
        let context = py.import("contextvars")?.call_method0("copy_context")?.unbind();
        self.pool.submit(Box::new(move |py| {
            let request = request.into_bound(py);
            let called = run_in_copy(context.bind(py), |_| callable.call_function(&request));
            let (word, value) = match called {
                Ok(value) => ("set_result", value.unbind()),
                Err(error) => ("set_exception", error.into_value(py).into_any()),
            };
            let resolve = Resolve { future: outcome, word, value };
            let called = Py::new(py, resolve)
                .and_then(|resolve| event_loop.bind(py).call_method1(intern!(py, "call_soon_threadsafe"), (resolve,)));
            // An error means that the loop is closed: nobody waits any more.
            drop(called);
        }));
        // The runtime does this before it waits; but it may be on another thread, and waiting already.
        self.pool.flush();
        future.call_method0(intern!(py, "__await__"))
    }

    fn advance<'py>(
        &self,
        py: Python<'py>,
        coroutine: Bound<'py, PyAny>,
        may_handle: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let sent = send(&coroutine);
        self.advanced(py, sent, coroutine, may_handle)
    }

    fn advanced<'py>(
        &self,
        py: Python<'py>,
        sent: Sent<'py>,
        coroutine: Bound<'py, PyAny>,
        may_handle: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let ended = match sent {
            Sent::Yielded(yielded) => {
                *self.lock() = State::Awaiting(coroutine.unbind(), may_handle);
                return Ok(yielded);
            }
            Sent::Returned(value) => Ok(value),
            Sent::Raised(error) => Err(error),
        };
        self.ended(py, ended, may_handle)
    }

    fn ended<'py>(
        &self,
        py: Python<'py>,
        ended: PyResult<Bound<'py, PyAny>>,
        may_handle: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let ended = match ended {
            // A `def` on a pool thread that returns a coroutine has it awaited here.
            Ok(value) if self.is_innermost() && is_awaitable(&value) => return self.advance(py, value, may_handle),
            ended => ended,
        };
        let response: Bound<'py, PyResponse> = if self.is_innermost() {
            match self.callable.settle_inside(self.request.bind(py), ended, may_handle)? {
                Inside::Response(response) => response,
                Inside::Await(coroutine) => return self.advance(py, coroutine, false),
            }
        } else {
            match ended {
                Ok(value) => response::to_object(py, &value, http::StatusCode::OK)?,
                Err(error) => return Err(error),
            }
        };
        Err(PyStopIteration::new_err((response.unbind(),)))
    }
}

/// Gives a future its outcome, on the loop's thread, unless it was cancelled meanwhile.
#[pyclass(frozen)]
struct Resolve {
    future: Py<PyAny>,
    word: &'static str,
    value: Py<PyAny>,
}

#[pymethods]
impl Resolve {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let future = self.future.bind(py);
        if !future.call_method0(intern!(py, "done"))?.is_truthy()? {
            future.call_method1(self.word, (&self.value,))?;
        }
        Ok(())
    }
}
