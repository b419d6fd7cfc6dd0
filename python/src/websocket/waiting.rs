//! Waiting for a WebSocket: what handlers await, or block for.
//!
//! Rules:
//! 1. What a handler's task waits for looks like a future to it, and is none: when the connection's task has news, it steps
//!    the handler's task right there, with no callback through the loop. A message costs neither a future nor a turn of it.
//! 2. That is right because the core wakes applications only from the connection's task, which runs below `select`, where no
//!    task of the loop's is current. With the thread driver it is a job on the loop's thread, where none is either. Whoever else
//!    wakes leaves it to the loop.
//! 3. News are only told, never handed over: what was waited for stays where it is until the task takes it, so that nothing is
//!    lost if the task is cancelled in between.
//! 4. One waits at a time, for messages; several may wait for room.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use httpy::ws::Prepared;
use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::{PyRuntimeError, PyStopAsyncIteration, PyStopIteration},
    intern,
    prelude::*,
    types::PyDict,
};

use super::{Form, Inner, hosted::Conversation, line::Line};
use crate::{
    driver::{self, Entered, Home, Seat, ends_loop, pass_on},
    plan::call_one,
    site::call_soon,
};

/// What steps a task that waits.
pub(super) struct Waiter {
    news: Py<News>,
}

impl Waiter {
    pub(super) fn new(py: Python<'_>, home: &Arc<Home>) -> PyResult<Arc<Self>> {
        let news = News {
            home: home.clone(),
            awaited_by: Mutex::default(),
            is_blocking: AtomicBool::new(false),
            is_cancelled: AtomicBool::new(false),
        };
        Ok(Arc::new(Self { news: Py::new(py, news)? }))
    }

    /// Has the loop step the task that waits, if one does. The loop's thread, where a task may be current.
    pub(super) fn step_soon(&self, py: Python<'_>) {
        News::step_soon(self.news.bind(py));
    }

    /// Steps the task that waits, if one does. The loop's thread, with no task current.
    fn step(&self, py: Python<'_>, event_loop: &Bound<'_, PyAny>) {
        let Some(AwaitedBy { callback, context }) = self.news.get().take() else { return };
        let stepped =
            Entered::new(context.bind(py).clone()).and_then(|_entered| call_one(&callback, self.news.bind(py)));
        match stepped {
            Ok(_) => {}
            Err(error) if ends_loop(py, &error) => pass_on(py, event_loop, &error),
            Err(error) => error.write_unraisable(py, Some(callback.bind(py))),
        }
    }
}

impl Wake for Waiter {
    fn wake(self: Arc<Self>) {
        match driver::seat_at(&self.news.get().home) {
            Some(Seat::Here(event_loop)) if event_loop.is_closed() => drop(self.news.get().take()),
            Some(Seat::Here(event_loop)) => {
                driver::pause();
                Python::attach(|py| {
                    // In somebody's first step a task is current: then it is not the connection's task that wakes.
                    if event_loop.is_stepping() {
                        News::step_soon(self.news.bind(py));
                    } else {
                        self.step(py, event_loop.object(py));
                    }
                    event_loop.after_python();
                    // Not later, when nobody may be attached.
                    drop(self);
                });
            }
            Some(Seat::There(there)) => {
                there.tell(Box::new(move |py, event_loop| self.step(py, event_loop.object(py))));
            }
            // Some other thread: the loop's own, where it is no seat of ours. Or the runtime is gone, and with it the loop.
            None => drop(Python::try_attach(|py| {
                let home = self.news.get().home.clone();
                if home.is_running_here(py) {
                    self.step_soon(py);
                } else {
                    call_soon(home.event_loop.bind(py), Box::new(move |py, _| self.step_soon(py)));
                }
            })),
        }
    }
}

/// The part of a future that `Task.__step` and `Task.__wakeup` use. Nobody else ever sees it.
#[pyclass(frozen, module = "httpy._httpy", name = "_SocketNews")]
pub(super) struct News {
    home: Arc<Home>,
    awaited_by: Mutex<Option<AwaitedBy>>,
    /// Whether the task has yet to see that it is to wait.
    is_blocking: AtomicBool,
    is_cancelled: AtomicBool,
}

/// What wakes a task, and in which context.
struct AwaitedBy {
    callback: Py<PyAny>,
    context: Py<PyAny>,
}

impl News {
    fn lock(&self) -> MutexGuard<'_, Option<AwaitedBy>> {
        self.awaited_by.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<AwaitedBy> {
        self.lock().take()
    }

    /// Has the loop wake the task. Returns whether one waits.
    fn step_soon(slf: &Bound<'_, Self>) -> bool {
        let py = slf.py();
        let Some(AwaitedBy { callback, context }) = slf.get().take() else { return false };
        let keywords = PyDict::new(py);
        let called = keywords.set_item(intern!(py, "context"), context).and_then(|()| {
            let event_loop = slf.get().home.event_loop.bind(py);
            event_loop.call_method(intern!(py, "call_soon"), (&callback, slf), Some(&keywords))
        });
        if let Err(error) = called {
            error.write_unraisable(py, Some(callback.bind(py)));
        }
        true
    }
}

#[pymethods]
impl News {
    #[getter(_asyncio_future_blocking)]
    fn is_blocking(&self) -> bool {
        self.is_blocking.load(Relaxed)
    }

    #[setter(_asyncio_future_blocking)]
    fn set_blocking(&self, value: bool) {
        self.is_blocking.store(value, Relaxed);
    }

    fn get_loop<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.home.event_loop.bind(py).clone()
    }

    #[pyo3(signature = (callback, *, context))]
    fn add_done_callback(&self, callback: Py<PyAny>, context: Py<PyAny>) {
        let last = self.lock().replace(AwaitedBy { callback, context });
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
    fn cancel(slf: &Bound<'_, Self>, msg: Option<&Bound<'_, PyAny>>) -> bool {
        let _ = msg;
        let is_awaited = Self::step_soon(slf);
        slf.get().is_cancelled.store(is_awaited, Relaxed);
        is_awaited
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(awaited_by) = self.awaited_by.try_lock()
            && let Some(AwaitedBy { callback, context }) = &*awaited_by
        {
            visit.call(callback)?;
            visit.call(context)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        drop(self.take());
    }
}

/// What is waited for.
pub(super) enum What {
    /// The next message.
    Message(Arc<Inner>, Form),
    /// Room to send this.
    Room(Arc<Inner>, Prepared),
    /// The next message as an ASGI app has it, which begins and ends with messages that are none of the client's.
    Event(Arc<Conversation>),
    /// What a server whose guest we are is to send.
    Outgoing(Arc<Line>),
    /// Room for what it brings.
    Incoming(Arc<Line>),
}

/// An awaitable of a WebSocket's: what a coroutine is to a task.
#[pyclass(frozen, module = "httpy._httpy", name = "_SocketWait")]
pub(super) struct Wait {
    what: What,
    /// None before it had to wait.
    waiter: OnceLock<Arc<Waiter>>,
}

impl Wait {
    pub(super) fn new(what: What) -> Self {
        Self { what, waiter: OnceLock::new() }
    }

    /// What steps its task. Those who wait for messages share one, as one waits at a time.
    fn waiter(&self, py: Python<'_>) -> PyResult<&Arc<Waiter>> {
        let (home, place) = match &self.what {
            What::Message(inner, _) => (&inner.home, &inner.waiter),
            What::Event(conversation) => (&conversation.inner.home, &conversation.inner.waiter),
            What::Room(inner, _) => (&inner.home, &self.waiter),
            What::Outgoing(line) => (&line.home, &line.waiter),
            What::Incoming(line) => (&line.home, &self.waiter),
        };
        get_or_try_init(place, || Waiter::new(py, home))
    }

    /// Looks for what is waited for. None: it is not there yet, and the waker will say when it is.
    fn poll<'py>(&self, py: Python<'py>, cx: &mut Context<'_>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match &self.what {
            What::Message(inner, form) => match inner.open()?.receiver.poll_receive(cx) {
                Poll::Ready(Ok(message)) => inner.shape(py, &message, *form).map(Some),
                Poll::Ready(Err(_)) if *form == Form::Next => Err(PyStopAsyncIteration::new_err(())),
                Poll::Ready(Err(close)) => Err(inner.disconnected(py, &close)),
                Poll::Pending => Ok(None),
            },
            What::Event(conversation) => conversation.poll_receive(py, cx),
            What::Outgoing(line) => line.poll_outgoing(py, cx),
            What::Incoming(line) => Ok(line.poll_room(cx).then(|| py.None().into_bound(py))),
            What::Room(inner, message) => match inner.open()?.sender.poll_send(message, cx) {
                Poll::Ready(Ok(_)) => Ok(Some(py.None().into_bound(py))),
                Poll::Ready(Err(_)) => Err(inner.closed(py)),
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

fn get_or_try_init<T>(place: &OnceLock<T>, make: impl FnOnce() -> PyResult<T>) -> PyResult<&T> {
    if place.get().is_none() {
        let _ = place.set(make()?);
    }
    place.get().ok_or_else(|| PyRuntimeError::new_err("a value that was set is gone"))
}

#[pymethods]
impl Wait {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// One step of awaiting: ends with what is waited for, or yields what brings news of it.
    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        let waiter = this.waiter(py)?;
        let news = waiter.news.get();
        if news.lock().is_some() {
            return Err(PyRuntimeError::new_err("another task waits for the next message of this WebSocket"));
        }
        let waker = Waker::from(waiter.clone());
        match this.poll(py, &mut Context::from_waker(&waker))? {
            Some(found) => Err(PyStopIteration::new_err((found.unbind(),))),
            None => {
                news.is_blocking.store(true, Relaxed);
                Ok(waiter.news.bind(py).clone().into_any())
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
}
