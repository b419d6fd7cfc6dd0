//! Running a Python function for a request, wherever its kind says and whichever driver it is.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::Arc,
};

use http::StatusCode;
use httpy::{Reply, Response, message::text};
use pyo3::{exceptions::PyRuntimeError, ffi, intern, prelude::*, sync::PyOnceLock, types::PyString};
use tokio::runtime::LocalRuntime;

use super::{
    EventLoop, Home, Job, RuntimeThread, Seat, Slot, Stepped, Trampoline, ends_loop, fork, pass_on, run_in_copy, seat,
    slot::Watch,
};
use crate::threads::Pool;

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

/// One request's way through Python.
pub(crate) trait Visit: Send + 'static {
    /// Calls the function: its result, or a coroutine to await. `pool` is for `def` functions called on the way.
    ///
    /// # Errors
    /// What the function raises.
    fn call(&mut self, py: Python<'_>, pool: &Arc<Pool>) -> PyResult<Py<PyAny>>;

    /// Decides what comes of what was returned or raised. Called again with the end of each coroutine it asks to await.
    fn respond(&mut self, py: Python<'_>, ended: PyResult<Py<PyAny>>) -> Then;

    /// The response will come later; `watch` tells whether anybody still waits for it.
    fn will_wait(&mut self, watch: Watch);
}

/// What comes next.
pub(crate) enum Then {
    /// This response. As in [`Reply::Now`], one pointer.
    Answer(Box<Response>),
    /// The end of this coroutine.
    Await(Py<PyAny>),
}

/// Answers a request with a Python function.
///
/// For [`Kind::Pooled`] the function runs in a copy of the context the server was started in, like every coroutine.
///
/// To be called on a runtime thread.
pub(crate) fn run<V: Visit>(kind: Kind, visit: V) -> Reply {
    match (seat(), kind) {
        (Some(Seat::Here(event_loop)), Kind::Pooled) => pooled(event_loop.pool(), event_loop.home(), visit),
        (Some(Seat::Here(event_loop)), _) => {
            // SAFETY: the runtime runs inside `select`, a method Python called, and lets the interpreter go only while it is
            // parked, when no future is polled (`selector.rs`, rule 2). To attach once more costs two locked instructions
            // and 130 others, of which the look for what other threads have dropped is made up for in `after_python`.
            let py = unsafe { Python::assume_attached() };
            let reply = run_here(py, &event_loop, visit);
            event_loop.after_python();
            reply
        }
        (Some(Seat::There(there)), Kind::Pooled) => pooled(there.pool(), there.home(), visit),
        (Some(Seat::There(there)), _) => {
            there.reply(move |py, event_loop, slot| run_there(py, event_loop, slot, visit))
        }
        (None, _) => text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable").into(),
    }
}

fn run_here<V: Visit>(py: Python<'_>, event_loop: &Rc<EventLoop>, mut visit: V) -> Reply {
    match follow(py, event_loop, &mut visit) {
        Ok(response) => Reply::Now(response),
        Err((trampoline, task)) => {
            let (slot, waiting) = Slot::new(event_loop.bell().clone(), Some(task));
            visit.will_wait(slot.watch());
            trampoline.get().finish_into(py, slot, Box::new(visit));
            Reply::later(waiting)
        }
    }
}

fn run_there<V: Visit>(py: Python<'_>, event_loop: &Rc<EventLoop>, slot: Slot, mut visit: V) {
    match follow(py, event_loop, &mut visit) {
        Ok(response) => slot.fill_soon(py, *response),
        Err((trampoline, task)) => {
            visit.will_wait(slot.watch());
            let given_up = slot.set_task(py, &task);
            trampoline.get().finish_into(py, slot, Box::new(visit));
            if let Some(task) = given_up {
                super::cancel_here(py, task);
            }
        }
    }
}

/// Calls the function and follows it to a response, or to the first suspension of a coroutine on the way.
fn follow<V: Visit>(
    py: Python<'_>,
    event_loop: &Rc<EventLoop>,
    visit: &mut V,
) -> Result<Box<Response>, (Py<Trampoline>, Py<PyAny>)> {
    let mut outcome = visit.call(py, event_loop.pool());
    loop {
        let ended = match outcome {
            Ok(value) if is_awaitable(value.bind(py)) => {
                let settle = |ended| settle(py, event_loop.object(py), visit, ended);
                match event_loop.step(py, value.into_bound(py), settle) {
                    Ok(Stepped::Ended(then)) => Ok(then),
                    Ok(Stepped::Suspended(trampoline, task)) => return Err((trampoline, task)),
                    Err(error) => Err(Err(error)),
                }
            }
            other => Err(other),
        };
        match ended.unwrap_or_else(|ended| settle(py, event_loop.object(py), visit, ended)) {
            Then::Answer(response) => return Ok(response),
            Then::Await(coroutine) => outcome = Ok(coroutine),
        }
    }
}

/// What a pool thread does for one request.
fn pooled<V: Visit>(pool: &Arc<Pool>, home: Arc<Home>, mut visit: V) -> Reply {
    let own = pool.clone();
    pool.reply(move |py, slot| {
        visit.will_wait(slot.watch());
        run_in_copy(home.context.bind(py), |py| {
            let then = match visit.call(py, &own) {
                // A `def` that returns a coroutine has it awaited, on the loop.
                Ok(value) if is_awaitable(value.bind(py)) => Then::Await(value),
                ended => settle(py, home.event_loop.bind(py), &mut visit, ended),
            };
            match then {
                Then::Answer(response) => slot.fill(*response),
                Then::Await(coroutine) => await_on_loop(py, &home, slot, visit, coroutine),
            }
        });
    })
}

/// Goes on with a coroutine on the loop, from a pool thread.
fn await_on_loop<V: Visit>(py: Python<'_>, home: &Home, slot: Slot, visit: V, coroutine: Py<PyAny>) {
    let start = || -> PyResult<Py<Trampoline>> { Py::new(py, Trampoline::default()) };
    let Ok(trampoline) = start() else { return };
    trampoline.get().adopt(coroutine.bind(py), None);
    trampoline.get().finish_into(py, slot, Box::new(visit));
    let start = Start { event_loop: home.event_loop.clone_ref(py), trampoline };
    // An error means that the loop is closed: the slot answers when it is dropped.
    drop(
        Py::new(py, start).and_then(|start| {
            home.event_loop.call_method1(py, intern!(py, "call_soon_threadsafe"), (start,)).map(drop)
        }),
    );
}

/// Starts a task, on the loop's thread.
#[pyclass(frozen)]
struct Start {
    event_loop: Py<PyAny>,
    trampoline: Py<Trampoline>,
}

#[pymethods]
impl Start {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let task = self.event_loop.call_method1(py, intern!(py, "create_task"), (&self.trampoline,))?;
        if let Some(task) = self.trampoline.get().set_task(py, &task) {
            super::cancel_here(py, task);
        }
        Ok(())
    }
}

/// Turns what a function returned or raised into what comes next, or lets it end the loop.
fn settle<V: Visit>(py: Python<'_>, event_loop: &Bound<'_, PyAny>, visit: &mut V, ended: PyResult<Py<PyAny>>) -> Then {
    fork::end_child();
    match ended {
        Err(error) if ends_loop(py, &error) => {
            pass_on(py, event_loop, &error);
            Then::Answer(text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error").into())
        }
        ended => visit.respond(py, ended),
    }
}

/// Whether a value is to be awaited. The exact type first: it is what `async def` makes.
pub(crate) fn is_awaitable(value: &Bound<'_, PyAny>) -> bool {
    static COROUTINE: PyOnceLock<usize> = PyOnceLock::new();
    let py = value.py();
    let coroutine = *COROUTINE.get_or_init(py, || {
        let found = py.import("types").and_then(|types| types.getattr("CoroutineType"));
        // Kept for ever, like the module it is in: its address stays its own.
        found.map_or(0, |kind| kind.into_ptr() as usize)
    });
    // SAFETY: `value` is a live object.
    if unsafe { ffi::Py_TYPE(value.as_ptr()) } as usize == coroutine {
        return true;
    }
    // What handlers commonly return is told apart without looking for an attribute that is not there.
    if value.is_instance_of::<PyString>()
        || value.is_instance_of::<pyo3::types::PyDict>()
        || value.is_instance_of::<crate::response::PyResponse>()
        || value.is_none()
    {
        return false;
    }
    value.hasattr(intern!(py, "__await__")).unwrap_or(false)
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
            event_loop.after_python();
        }),
        Some(Seat::There(there)) => there.tell(job),
        None => drop(job),
    }
}

/// A runtime that serves for an asyncio loop, seen from the loop's side.
pub(crate) enum Runtime {
    /// The `selector` driver's, on this thread.
    #[cfg_attr(not(unix), expect(dead_code, reason = "the selector driver is Unix's"))]
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
