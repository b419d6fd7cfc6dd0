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
    /// Awaiting this coroutine; how many apps have been asked to answer an error.
    Awaiting(Py<PyAny>, usize),
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
                self.advance(py, outcome, 0)
            }
            State::Fresh => match self.start(py) {
                Ok(value) if is_awaitable(&value) => self.advance(py, value, 0),
                ended => self.ended(py, ended, 0),
            },
            State::Awaiting(coroutine, tried) => self.advance(py, coroutine.into_bound(py), tried),
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
        let State::Awaiting(coroutine, tried) = state else { return Err(PyErr::from_value(error)) };
        let coroutine = coroutine.into_bound(py);
        let thrown = match (value, traceback) {
            (None, None) => coroutine.call_method1(intern!(py, "throw"), (error,)),
            (value, traceback) => coroutine.call_method1(intern!(py, "throw"), (error, value, traceback)),
        };
        self.advanced(py, went(py, thrown), coroutine, tried)
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
        self.callable.chain.stage(self.index).is_none()
    }

    /// Calls the next stage, or the function.
    fn start<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let request = self.request.bind(py);
        if let Some(stage) = self.callable.chain.stage(self.index) {
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

    fn advance<'py>(&self, py: Python<'py>, coroutine: Bound<'py, PyAny>, tried: usize) -> PyResult<Bound<'py, PyAny>> {
        let sent = send(&coroutine);
        self.advanced(py, sent, coroutine, tried)
    }

    fn advanced<'py>(
        &self,
        py: Python<'py>,
        sent: Sent<'py>,
        coroutine: Bound<'py, PyAny>,
        tried: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let ended = match sent {
            Sent::Yielded(yielded) => {
                *self.lock() = State::Awaiting(coroutine.unbind(), tried);
                return Ok(yielded);
            }
            Sent::Returned(value) => Ok(value),
            Sent::Raised(error) => Err(error),
        };
        self.ended(py, ended, tried)
    }

    fn ended<'py>(
        &self,
        py: Python<'py>,
        ended: PyResult<Bound<'py, PyAny>>,
        tried: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let ended = match ended {
            // A `def` on a pool thread that returns a coroutine has it awaited here.
            Ok(value) if self.is_innermost() && is_awaitable(&value) => return self.advance(py, value, tried),
            ended => ended,
        };
        match self.callable.settle_inside(self.request.bind(py), self.index, ended, tried)? {
            Inside::Response(response) => Err(PyStopIteration::new_err((response.unbind(),))),
            Inside::Await(coroutine, tried) => self.advance(py, coroutine, tried),
        }
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
