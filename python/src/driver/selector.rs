//! The selector driver: asyncio's selector is tokio.
//!
//! A stock `asyncio.SelectorEventLoop` asks its selector to wait for file descriptors. Ours waits by running a tokio
//! runtime on the same thread until the time is up, one of asyncio's own descriptors is ready, or Python code left
//! work for the loop. The loop itself is what called us, so everything that asyncio calls "running" is true while
//! requests are answered.
//!
//! Rules:
//! 1. asyncio's own descriptors stay with a real selector; its epoll or kqueue descriptor is watched from tokio.
//! 2. The interpreter is let go exactly while the runtime is parked (`on_thread_park`), and signal handlers run right
//!    after. Letting go around the whole `block_on` delayed plain signal handlers by 400 ms.
//! 3. Nothing may drop a `Py<T>` inside tokio's I/O driver while parked: pyo3 believes that we are attached.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    os::fd::{BorrowedFd, OwnedFd, RawFd},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use pyo3::{
    exceptions::{PyRuntimeError, PyValueError},
    ffi, intern,
    prelude::*,
    types::PyList,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::{Builder, LocalOptions, LocalRuntime},
    time::{Instant, sleep_until},
};

use super::{Bell, EventLoop, Home, Pinned, Seat, fork, sit};
use crate::threads::{self, Pool};

/// How long the interpreter may be held without a pause while others want it. 5 ms, as `sys.getswitchinterval()`.
const LONGEST_HOLD: Duration = Duration::from_millis(5);

thread_local! {
    /// Where the interpreter was let go; null while it is held.
    static SAVED: Cell<*mut ffi::PyThreadState> = const { Cell::new(std::ptr::null_mut()) };
    /// What a signal handler raised; `select` raises it again in the loop.
    static RAISED: RefCell<Option<PyErr>> = const { RefCell::new(None) };
    /// Since when the interpreter is known to be held: the clock is not read when it is taken back.
    static HELD_SINCE: Cell<Option<std::time::Instant>> = const { Cell::new(None) };
}

/// A selector for `asyncio.SelectorEventLoop` that runs a tokio runtime while it waits.
///
/// To be made on the thread that will run the loop.
#[pyclass(frozen, module = "httpy._httpy")]
pub(crate) struct Selector {
    pinned: Pinned<Waiting>,
}

/// What waits.
struct Waiting {
    inner: Py<PyAny>,
    /// Empty only after `close`.
    runtime: RefCell<Option<Rc<LocalRuntime>>>,
    watched: RefCell<Option<AsyncFd<OwnedFd>>>,
    /// Whether asyncio's own selector may have something for us.
    flagged: Cell<bool>,
    event_loop: RefCell<Option<Rc<EventLoop>>>,
    running: Cell<bool>,
    generation: u32,
}

#[pymethods]
impl Selector {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        fork::watch();
        threads::hang_if_ended();
        threads::end_with_interpreter(py)?;
        let inner = py.import("selectors")?.getattr("DefaultSelector")?.call0()?;
        let fileno: RawFd = inner.call_method0("fileno")?.extract()?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .on_thread_park(let_go)
            .on_thread_unpark(take_back)
            .build_local(LocalOptions::default())?;
        let watched = {
            let _guard = runtime.enter();
            // SAFETY: asyncio's selector keeps its descriptor open while it is borrowed here.
            let ours = unsafe { BorrowedFd::borrow_raw(fileno) }.try_clone_to_owned()?;
            // SAFETY: the copy is ours alone, so it stays open, and the same, until the `AsyncFd` is dropped.
            unsafe { AsyncFd::<OwnedFd>::register_with_interest(ours, Interest::READABLE) }
                .map_err(|error| PyRuntimeError::new_err(error.to_string()))?
        };
        let waiting = Waiting {
            inner: inner.unbind(),
            runtime: RefCell::new(Some(Rc::new(runtime))),
            watched: RefCell::new(Some(watched)),
            flagged: Cell::new(true),
            event_loop: RefCell::new(None),
            running: Cell::new(false),
            generation: fork::generation(),
        };
        Ok(Self { pinned: Pinned::new(waiting) })
    }

    /// Tells the selector whose it is; until then it only waits for asyncio's descriptors.
    ///
    /// Handlers will run in copies of the present context, so it may be called again.
    pub(crate) fn attach(&self, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = event_loop.py();
        let this = self.pinned.get()?;
        let home = Home::new(event_loop)?;
        if let Some(known) = &*this.event_loop.borrow() {
            if !known.object(py).is(event_loop) {
                return Err(PyRuntimeError::new_err("this selector belongs to another event loop"));
            }
            known.set_home(home);
            return Ok(());
        }
        let bell = Arc::new(Bell::default());
        let pool = Pool::new(bell.clone(), threads::default_threads());
        let event_loop = EventLoop::new(py, home, bell, pool)?;
        event_loop.park_tasks();
        *this.event_loop.borrow_mut() = Some(event_loop);
        Ok(())
    }

    /// Registers a descriptor, as `selectors.BaseSelector` has it.
    #[pyo3(signature = (fileobj, events, data=None))]
    fn register(
        &self,
        py: Python<'_>,
        fileobj: Py<PyAny>,
        events: i32,
        data: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let this = self.pinned.get()?;
        this.flagged.set(true);
        this.inner.call_method1(py, intern!(py, "register"), (fileobj, events, data))
    }

    /// Changes what a descriptor is watched for.
    #[pyo3(signature = (fileobj, events, data=None))]
    fn modify(&self, py: Python<'_>, fileobj: Py<PyAny>, events: i32, data: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        let this = self.pinned.get()?;
        this.flagged.set(true);
        this.inner.call_method1(py, intern!(py, "modify"), (fileobj, events, data))
    }

    /// Forgets a descriptor.
    fn unregister(&self, py: Python<'_>, fileobj: Py<PyAny>) -> PyResult<Py<PyAny>> {
        self.pinned.get()?.inner.call_method1(py, intern!(py, "unregister"), (fileobj,))
    }

    /// Returns the key of a descriptor.
    fn get_key(&self, py: Python<'_>, fileobj: Py<PyAny>) -> PyResult<Py<PyAny>> {
        self.pinned.get()?.inner.call_method1(py, intern!(py, "get_key"), (fileobj,))
    }

    /// Returns the keys of all descriptors.
    fn get_map(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.pinned.get()?.inner.call_method0(py, intern!(py, "get_map"))
    }

    /// Waits at most `timeout` seconds (None: without end) and returns the descriptors that are ready.
    #[pyo3(signature = (timeout=None))]
    fn select<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        let this = self.pinned.get()?;
        this.wait(py, timeout)?;
        if let Some(error) = RAISED.with(|raised| raised.borrow_mut().take()) {
            return Err(error);
        }
        this.collect(py)
    }

    /// Ends the runtime and everything that runs on it.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let this = self.pinned.get()?;
        if this.running.get() {
            return Err(PyRuntimeError::new_err("the event loop's selector can't be closed while it waits"));
        }
        let (watched, runtime) = (this.watched.borrow_mut().take(), this.runtime.borrow_mut().take());
        let event_loop = this.event_loop.borrow_mut().take();
        if this.is_forked() {
            // The runtime belongs to the parent: its descriptors are left alone.
            std::mem::forget((watched, runtime, event_loop));
        } else if let Some(runtime) = runtime {
            if let Some(event_loop) = &event_loop {
                event_loop.close();
                event_loop.pool().close();
            }
            let last = super::seat();
            sit(event_loop.clone().map(Seat::Here));
            {
                let _guard = runtime.enter();
                drop(watched);
            }
            drop(runtime);
            let is_ours =
                matches!((&last, &event_loop), (Some(Seat::Here(last)), Some(ours)) if Rc::ptr_eq(last, ours));
            sit(last.filter(|_| !is_ours));
        }
        this.inner.call_method0(py, intern!(py, "close"))?;
        Ok(())
    }
}

impl Selector {
    /// The runtime, to start servers on. Not to be kept: it ends with the selector.
    ///
    /// # Errors
    /// `RuntimeError` after `close`, or on another thread.
    pub(crate) fn runtime(&self) -> PyResult<Rc<LocalRuntime>> {
        self.pinned.get()?.runtime()
    }
}

impl Waiting {
    fn runtime(&self) -> PyResult<Rc<LocalRuntime>> {
        let closed = || PyRuntimeError::new_err("the event loop is closed");
        self.runtime.borrow().clone().ok_or_else(closed)
    }

    fn is_forked(&self) -> bool {
        self.generation != fork::generation()
    }

    /// Runs the runtime until there is a reason to return to the loop.
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        if self.is_forked() {
            return Err(PyRuntimeError::new_err("an event loop can't be used after a fork: start a new one"));
        }
        let deadline = match timeout {
            Some(seconds) if seconds.is_nan() => return Err(PyValueError::new_err("timeout is not a number")),
            // asyncio never waits longer than a day, so what does not fit means "without end".
            Some(seconds) => Some(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::from_secs(86400))),
            None => None,
        };
        let runtime = self.runtime()?;
        let event_loop = self.event_loop.borrow().clone();
        let _inside = Inside::enter(py, &self.running, event_loop.clone())?;
        let polls_once = deadline == Some(Duration::ZERO) || self.flagged.get();
        let after = deadline.filter(|_| !polls_once);
        runtime.block_on(async {
            let mut sleep = pin!(after.map(|after| sleep_until(Instant::now() + after)));
            let mut first = true;
            poll_fn(|cx| {
                if let Some(event_loop) = &event_loop {
                    event_loop.bell().answer(cx);
                    if event_loop.is_to_leave() {
                        return Poll::Ready(());
                    }
                }
                if RAISED.with(|raised| raised.borrow().is_some()) {
                    return Poll::Ready(());
                }
                if polls_once {
                    // One round: the tasks that are ready run, then I/O is polled without waiting.
                    if std::mem::take(&mut first) {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    return Poll::Ready(());
                }
                if let Some(watched) = &*self.watched.borrow()
                    && watched.poll_read_ready(cx).is_ready()
                {
                    // The guard is dropped without clearing: readiness stays until asyncio's selector is empty.
                    self.flagged.set(true);
                    return Poll::Ready(());
                }
                match sleep.as_mut().as_pin_mut() {
                    Some(sleep) => sleep.poll(cx),
                    None => Poll::Pending,
                }
            })
            .await;
        });
        Ok(())
    }

    /// Asks asyncio's own selector for what is ready, if it may have something.
    ///
    /// tokio reports an edge and asyncio's selector is level-triggered, so the flag stays up until the selector has
    /// nothing, and it is asked once more after the readiness was cleared: what came in between would be lost.
    fn collect<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if !self.flagged.get() {
            return Ok(PyList::empty(py).into_any());
        }
        let ask = || self.inner.bind(py).call_method1(intern!(py, "select"), (0,));
        let mut events = ask()?;
        if events.len()? == 0 {
            let runtime = self.runtime()?;
            let _guard = runtime.enter();
            if let Some(watched) = &*self.watched.borrow() {
                let waker = std::task::Waker::noop();
                if let Poll::Ready(Ok(mut guard)) = watched.poll_read_ready(&mut std::task::Context::from_waker(waker))
                {
                    guard.clear_ready();
                }
            }
            events = ask()?;
            self.flagged.set(events.len()? > 0);
        }
        Ok(events)
    }
}

/// While one exists, the runtime runs below `select`.
struct Inside<'a> {
    running: &'a Cell<bool>,
    event_loop: Option<Rc<EventLoop>>,
}

impl<'a> Inside<'a> {
    fn enter(py: Python<'_>, running: &'a Cell<bool>, event_loop: Option<Rc<EventLoop>>) -> PyResult<Self> {
        if running.replace(true) {
            return Err(PyRuntimeError::new_err(
                "this event loop is already waiting: it can't be run again from a handler",
            ));
        }
        if let Some(event_loop) = &event_loop {
            event_loop.entered(py);
            event_loop.bell().set_inside(true);
            sit(Some(Seat::Here(event_loop.clone())));
        }
        Ok(Self { running, event_loop })
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if let Some(event_loop) = &self.event_loop {
            event_loop.bell().set_inside(false);
        }
        self.running.set(false);
    }
}

/// The runtime is about to park: lets other threads have the interpreter, and pool threads their jobs.
fn let_go() {
    // What it finds makes the runtime look in on `select` instead of waiting.
    if let Some(Seat::Here(event_loop)) = super::seat() {
        event_loop.before_wait();
    }
    // SAFETY: the runtime runs inside `select`, a method Python called, so this thread is attached; `take_back`
    // restores the state before any other code of ours runs.
    SAVED.set(unsafe { ffi::PyEval_SaveThread() });
    // Not before: they would only wait for the interpreter.
    super::flush();
}

/// The runtime has unparked: takes the interpreter back, and runs signal handlers if this is the main thread.
fn take_back() {
    // SAFETY: the state is the one `let_go` saved on this thread, and parking does not nest.
    unsafe { ffi::PyEval_RestoreThread(SAVED.replace(std::ptr::null_mut())) };
    HELD_SINCE.set(None);
    // SAFETY: attached since the line above.
    if unsafe { ffi::PyErr_CheckSignals() } != 0 {
        Python::attach(|py| RAISED.with(|raised| *raised.borrow_mut() = PyErr::take(py)));
        if let Some(Seat::Here(event_loop)) = super::seat() {
            event_loop.leave();
        }
    }
}

/// Lets other threads have the interpreter for a moment if it was held for long without parking.
///
/// Answers made in Rust run no bytecode, and only bytecode notices that another thread waits. To be called once per
/// request: it reads the clock once in 64 calls, so the time counts from the first such reading after a park.
pub(crate) fn pause() {
    thread_local! {
        static CALLS: Cell<u32> = const { Cell::new(0) };
    }
    let calls = CALLS.get().wrapping_add(1);
    CALLS.set(calls);
    if !calls.is_multiple_of(64) || !matches!(super::seat(), Some(Seat::Here(_))) {
        return;
    }
    let now = std::time::Instant::now();
    match HELD_SINCE.get() {
        Some(since) if now - since < LONGEST_HOLD => {}
        Some(_) => {
            let_go();
            take_back();
            HELD_SINCE.set(Some(now));
        }
        None => HELD_SINCE.set(Some(now)),
    }
}
