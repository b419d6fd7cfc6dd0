//! Waiting for a WebSocket: what handlers await, or block for.
//!
//! Rules:
//! 1. What a handler awaits looks like a future to its task, and is none: when the connection's task has news, it steps the
//!    handler's task right there, with no callback through the loop. A message costs neither a future nor a turn of the loop.
//! 2. That is right because the core wakes applications only from the connection's task, which runs below `select`, where no
//!    task of the loop's is current. With the thread driver it is a job on the loop's thread, where none is either.
//! 3. News are only told, never handed over: what was waited for stays where it is until the task takes it, so that nothing is
//!    lost if the task is cancelled in between.
//! 4. One waits at a time, for messages; several may wait for room.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use httpy::ws::Prepared;
use pyo3::{
    exceptions::{PyRuntimeError, PyStopAsyncIteration, PyStopIteration},
    intern,
    prelude::*,
};

use super::{Form, Inner};
use crate::{
    driver::{self, Entered, EventLoop, Seat, ends_loop, pass_on},
    plan::call_one,
};

/// What steps a task that waits.
#[derive(Default)]
pub(super) struct Waiter {
    waiting: Mutex<Option<Waiting>>,
}

struct Waiting {
    /// What it waits for, and what its task has given that.
    wait: Py<Wait>,
    callback: Py<PyAny>,
    context: Py<PyAny>,
}

impl Waiter {
    fn lock(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_awaited(&self) -> bool {
        self.lock().is_some()
    }

    fn take(&self) -> Option<Waiting> {
        self.lock().take()
    }

    /// Steps the task that waits, if one does. The loop's thread, with no task current.
    fn step(&self, py: Python<'_>, event_loop: &Bound<'_, PyAny>) {
        let Some(Waiting { wait, callback, context }) = self.take() else { return };
        let stepped = Entered::new(context.bind(py).clone()).and_then(|_entered| call_one(&callback, wait.bind(py)));
        match stepped {
            Ok(_) => {}
            Err(error) if ends_loop(py, &error) => pass_on(py, event_loop, &error),
            Err(error) => error.write_unraisable(py, Some(callback.bind(py))),
        }
    }
}

impl Wake for Waiter {
    fn wake(self: Arc<Self>) {
        match driver::seat() {
            Some(Seat::Here(event_loop)) if event_loop.is_closed() => drop(Python::attach(|_| self.take())),
            Some(Seat::Here(event_loop)) => {
                driver::pause();
                Python::attach(|py| {
                    if event_loop.is_stepping() {
                        // Somebody's first step: not the connection's task, whatever it is.
                        self.step_soon(py, &event_loop);
                    } else {
                        self.step(py, event_loop.object(py));
                    }
                    event_loop.after_python(py);
                });
            }
            Some(Seat::There(there)) => {
                there.tell(Box::new(move |py, event_loop| self.step(py, event_loop.object(py))));
            }
            // The runtime is gone, and with it the loop.
            None => drop(Python::try_attach(|_| self.take())),
        }
    }
}

impl Waiter {
    fn step_soon(&self, py: Python<'_>, event_loop: &EventLoop) {
        if let Some(Waiting { wait, callback, context }) = self.take()
            && let Err(error) = call_soon(event_loop.object(py), callback.bind(py), &wait, &context)
        {
            error.write_unraisable(py, Some(callback.bind(py)));
        }
    }
}

fn call_soon(
    event_loop: &Bound<'_, PyAny>,
    callback: &Bound<'_, PyAny>,
    wait: &Py<Wait>,
    context: &Py<PyAny>,
) -> PyResult<()> {
    let py = event_loop.py();
    let keywords = pyo3::types::PyDict::new(py);
    keywords.set_item(intern!(py, "context"), context)?;
    event_loop.call_method(intern!(py, "call_soon"), (callback, wait), Some(&keywords)).map(drop)
}

/// What is waited for.
pub(super) enum What {
    /// The next message.
    Message(Form),
    /// Room to send this.
    Room(Prepared),
}

/// An awaitable of a WebSocket's.
#[pyclass(frozen, module = "httpy._httpy", name = "_SocketWait")]
pub(super) struct Wait {
    inner: Arc<Inner>,
    what: What,
    waiter: Arc<Waiter>,
    /// Whether the task has yet to see that it is to wait.
    is_blocking: AtomicBool,
    is_cancelled: AtomicBool,
}

impl Wait {
    pub(super) fn new(inner: Arc<Inner>, what: What) -> Self {
        let waiter = match what {
            What::Message(_) => inner.waiter.clone(),
            What::Room(_) => Arc::default(),
        };
        Self { inner, what, waiter, is_blocking: AtomicBool::new(false), is_cancelled: AtomicBool::new(false) }
    }

    /// Looks for what is waited for. None: it is not there yet, and the waker will say when it is.
    fn poll<'py>(&self, py: Python<'py>, cx: &mut Context<'_>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match &self.what {
            What::Message(form) => match self.inner.open(py)?.receiver.poll_receive(cx) {
                Poll::Ready(Ok(message)) => self.inner.shape(py, &message, *form).map(Some),
                Poll::Ready(Err(_)) if *form == Form::Next => Err(PyStopAsyncIteration::new_err(())),
                Poll::Ready(Err(close)) => Err(self.inner.disconnected(py, &close)),
                Poll::Pending => Ok(None),
            },
            What::Room(message) => match self.inner.open(py)?.sender.poll_send(message, cx) {
                Poll::Ready(Ok(_)) => Ok(Some(py.None().into_bound(py))),
                Poll::Ready(Err(_)) => Err(self.inner.closed(py)),
                Poll::Pending => Ok(None),
            },
        }
    }

    /// Waits on a thread that may block.
    pub(super) fn block<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let parked = Arc::new(Parked { thread: thread::current(), is_woken: AtomicBool::new(false) });
        let waker = Waker::from(parked.clone());
        loop {
            if let Some(found) = self.poll(py, &mut Context::from_waker(&waker))? {
                return Ok(found);
            }
            py.detach(|| {
                while !parked.is_woken.swap(false, std::sync::atomic::Ordering::AcqRel) {
                    thread::park();
                }
            });
        }
    }
}

/// A thread that blocks.
struct Parked {
    thread: Thread,
    is_woken: AtomicBool,
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, std::sync::atomic::Ordering::Release);
        self.thread.unpark();
    }
}

/// What a coroutine is to a task, and what a future is.
#[pymethods]
impl Wait {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// One step of awaiting: ends with what is waited for, or yields itself until there is news.
    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        if matches!(this.what, What::Message(_)) && this.waiter.is_awaited() {
            return Err(PyRuntimeError::new_err("another task waits for the next message of this WebSocket"));
        }
        let waker = Waker::from(this.waiter.clone());
        match this.poll(py, &mut Context::from_waker(&waker))? {
            Some(found) => Err(PyStopIteration::new_err((found.unbind(),))),
            None => {
                this.is_blocking.store(true, Relaxed);
                Ok(slf.clone().into_any())
            }
        }
    }

    fn send<'py>(slf: &Bound<'py, Self>, _value: Py<PyAny>) -> PyResult<Bound<'py, PyAny>> {
        Self::__next__(slf)
    }

    #[pyo3(signature = (error, value=None, _traceback=None))]
    fn throw(
        &self,
        error: Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        _traceback: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        Err(PyErr::from_value(value.filter(|value| !value.is_none()).unwrap_or(error)))
    }

    fn close(&self) {}

    #[getter(_asyncio_future_blocking)]
    fn is_blocking(&self) -> bool {
        self.is_blocking.load(Relaxed)
    }

    #[setter(_asyncio_future_blocking)]
    fn set_blocking(&self, value: bool) {
        self.is_blocking.store(value, Relaxed);
    }

    fn get_loop<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.inner.home.event_loop.bind(py).clone()
    }

    #[pyo3(signature = (callback, *, context))]
    fn add_done_callback(slf: Py<Self>, callback: Py<PyAny>, context: Py<PyAny>) {
        let waiter = slf.get().waiter.clone();
        let last = waiter.lock().replace(Waiting { wait: slf, callback, context });
        drop(last);
    }

    fn result(&self, py: Python<'_>) -> PyResult<()> {
        if self.is_cancelled.swap(false, Relaxed) {
            let cancelled = py.import(intern!(py, "asyncio"))?.getattr(intern!(py, "CancelledError"))?;
            return Err(PyErr::from_value(cancelled.call0()?));
        }
        Ok(())
    }

    /// Has the task stop waiting.
    #[pyo3(signature = (msg=None))]
    fn cancel(&self, py: Python<'_>, msg: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let _ = msg;
        let Some(Waiting { wait, callback, context }) = self.waiter.take() else { return Ok(false) };
        self.is_cancelled.store(true, Relaxed);
        call_soon(self.inner.home.event_loop.bind(py), callback.bind(py), &wait, &context)?;
        Ok(true)
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.inner.home.event_loop)
    }
}

/// What is awaited where there is nothing to wait for.
#[pyclass(frozen, module = "httpy._httpy", name = "_SocketDone")]
pub(super) struct Done;

impl Done {
    /// The one there is.
    pub(super) fn get(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        static DONE: pyo3::sync::PyOnceLock<Py<Done>> = pyo3::sync::PyOnceLock::new();
        DONE.get_or_try_init(py, || Py::new(py, Done)).map(|done| done.bind(py).clone().into_any())
    }
}

#[pymethods]
impl Done {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self) -> Option<Py<PyAny>> {
        None
    }

    fn send(&self, _value: Py<PyAny>) -> PyResult<()> {
        Err(PyStopIteration::new_err(()))
    }

    #[pyo3(signature = (error, value=None, _traceback=None))]
    fn throw(
        &self,
        error: Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        _traceback: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        Err(PyErr::from_value(value.filter(|value| !value.is_none()).unwrap_or(error)))
    }

    fn close(&self) {}
}
