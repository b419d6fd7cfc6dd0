//! Running a Python function for a request, wherever its kind says and whichever driver it is.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::Arc,
};

use http::StatusCode;
use httpy::{Reply, Response, message::text};
use pyo3::{exceptions::PyRuntimeError, prelude::*};
use tokio::runtime::LocalRuntime;

use super::{EventLoop, Home, Job, RuntimeThread, Seat, Slot, Stepped, ends_loop, pass_on, run_in_copy, seat};

/// How a handler is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `def` with `inline=True`: on the loop's thread.
    Inline,
    /// `async def`: on the loop.
    Async,
    /// `def`: on a pool thread.
    Pooled,
}

/// Answers a request with a Python function.
///
/// `call` calls it: it returns the function's result, or the coroutine of an `async def`. `respond` turns the result,
/// or what was raised, into a response; it is called once, on the thread the function ended on. For [`Kind::Pooled`],
/// `call` runs in a copy of the context the server was started in; for [`Kind::Async`], the coroutine does.
///
/// To be called on a runtime thread.
pub(crate) fn run<C, R>(kind: Kind, call: C, respond: R) -> Reply
where
    C: FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send + 'static,
    R: FnOnce(Python<'_>, PyResult<Py<PyAny>>) -> Response + Send + 'static,
{
    match (seat(), kind) {
        (Some(Seat::Here(event_loop)), Kind::Pooled) => {
            event_loop.pool().reply(pooled(event_loop.home(), call, respond))
        }
        (Some(Seat::Here(event_loop)), _) => Python::attach(|py| {
            let reply = run_here(py, &event_loop, kind, call, respond);
            event_loop.after_python(py);
            reply
        }),
        (Some(Seat::There(there)), Kind::Pooled) => there.pool().reply(pooled(there.home(), call, respond)),
        (Some(Seat::There(there)), _) => there.reply(move |py, event_loop, slot| {
            run_there(py, event_loop, kind, slot, call, respond);
        }),
        (None, _) => text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable").into(),
    }
}

fn run_here<C, R>(py: Python<'_>, event_loop: &Rc<EventLoop>, kind: Kind, call: C, respond: R) -> Reply
where
    C: FnOnce(Python<'_>) -> PyResult<Py<PyAny>>,
    R: FnOnce(Python<'_>, PyResult<Py<PyAny>>) -> Response + Send + 'static,
{
    match first_step(py, event_loop, kind, call) {
        Stepped::Ended(ended) => Reply::Now(finish(py, &event_loop.home(), ended, respond)),
        Stepped::Suspended(trampoline, task) => {
            let (slot, waiting) = Slot::new(event_loop.bell().clone(), Some(task));
            trampoline.get().finish_into(py, slot, Box::new(respond));
            Reply::later(waiting)
        }
    }
}

fn run_there<C, R>(py: Python<'_>, event_loop: &Rc<EventLoop>, kind: Kind, slot: Slot, call: C, respond: R)
where
    C: FnOnce(Python<'_>) -> PyResult<Py<PyAny>>,
    R: FnOnce(Python<'_>, PyResult<Py<PyAny>>) -> Response + Send + 'static,
{
    match first_step(py, event_loop, kind, call) {
        Stepped::Ended(ended) => slot.fill_soon(py, finish(py, &event_loop.home(), ended, respond)),
        Stepped::Suspended(trampoline, task) => {
            let given_up = slot.set_task(py, &task);
            trampoline.get().finish_into(py, slot, Box::new(respond));
            if let Some(task) = given_up {
                super::cancel_here(py, task);
            }
        }
    }
}

/// Calls the function, and runs the coroutine of an `async def` up to its first suspension.
fn first_step<C>(py: Python<'_>, event_loop: &Rc<EventLoop>, kind: Kind, call: C) -> Stepped
where
    C: FnOnce(Python<'_>) -> PyResult<Py<PyAny>>,
{
    match (kind, call(py)) {
        (Kind::Async, Ok(coroutine)) => {
            let stepped = event_loop.step(py, coroutine.into_bound(py));
            stepped.unwrap_or_else(|error| Stepped::Ended(Err(error)))
        }
        (_, called) => Stepped::Ended(called),
    }
}

/// What a pool thread does for one request.
fn pooled<C, R>(home: Arc<Home>, call: C, respond: R) -> impl FnOnce(Python<'_>) -> Response + Send
where
    C: FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send,
    R: FnOnce(Python<'_>, PyResult<Py<PyAny>>) -> Response + Send,
{
    move |py| run_in_copy(home.context.bind(py), |py| finish(py, &home, call(py), respond))
}

/// Turns what a function returned or raised into a response, or lets it end the loop.
fn finish<R>(py: Python<'_>, home: &Home, ended: PyResult<Py<PyAny>>, respond: R) -> Response
where
    R: FnOnce(Python<'_>, PyResult<Py<PyAny>>) -> Response,
{
    match ended {
        Err(error) if ends_loop(py, &error) => {
            pass_on(py, &home.event_loop, &error);
            text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
        }
        ended => respond(py, ended),
    }
}

/// Runs `job` on the loop's thread, soon. For what belongs to a request that is already under way: it never waits, so
/// its amount must be bounded by the caller.
///
/// To be called on a runtime thread.
pub(crate) fn tell(job: Job) {
    match seat() {
        Some(Seat::Here(event_loop)) => Python::attach(|py| {
            // Contained as the thread driver contains it.
            let _ = catch_unwind(AssertUnwindSafe(|| job(py, &event_loop)));
            event_loop.after_python(py);
        }),
        Some(Seat::There(there)) => there.tell(job),
        None => drop(job),
    }
}

/// A runtime that serves for an asyncio loop, seen from the loop's side.
pub(crate) enum Runtime {
    /// The `selector` driver's, on this thread.
    Here(Rc<LocalRuntime>),
    /// The `thread` driver's.
    There(RuntimeThread),
}

impl Runtime {
    /// Starts a task on the runtime's thread; `make` is called there, inside the runtime.
    ///
    /// # Errors
    /// `RuntimeError` after `close`.
    pub(crate) fn spawn<F, M>(&self, make: M) -> PyResult<()>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        match self {
            Self::Here(runtime) => {
                runtime.spawn_local(async move { make().await });
                Ok(())
            }
            Self::There(thread) => thread
                .spawn(Box::new(move || Box::pin(make()) as Pin<Box<dyn Future<Output = ()>>>))
                .map_err(|_| PyRuntimeError::new_err("the server is closed")),
        }
    }
}
