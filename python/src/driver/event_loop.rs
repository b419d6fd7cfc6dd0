//! An asyncio loop as the drivers see it. The few parts of it that they touch are in `parts.rs`.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use pyo3::{
    exceptions::{PyKeyboardInterrupt, PySystemExit},
    intern,
    prelude::*,
    types::PyList,
};

use super::{Bell, Parked, Trampoline, parts::Parts, spare::Spare, turns::Turns};
use crate::threads::Pool;

/// Where handlers run, for whom is on another thread.
pub(crate) struct Home {
    /// The loop.
    pub(crate) event_loop: Py<PyAny>,
    /// What handlers' contexts are copies of.
    pub(crate) context: Py<PyAny>,
}

impl Home {
    /// A loop, and the context this is called in.
    ///
    /// # Errors
    /// If `contextvars` can't be imported.
    pub(crate) fn new(event_loop: &Bound<'_, PyAny>) -> PyResult<Arc<Self>> {
        let context = event_loop.py().import("contextvars")?.call_method0("copy_context")?;
        Ok(Arc::new(Self { event_loop: event_loop.clone().unbind(), context: context.unbind() }))
    }

    /// Whether this is the loop's thread, and the loop is running.
    pub(crate) fn is_running_here(&self, py: Python<'_>) -> bool {
        let running = py
            .import(intern!(py, "asyncio"))
            .and_then(|asyncio| asyncio.call_method0(intern!(py, "_get_running_loop")));
        running.is_ok_and(|running| running.is(&self.event_loop))
    }
}

/// A loop, on the thread that runs it.
pub(crate) struct EventLoop {
    object: Py<PyAny>,
    /// How answers reach the runtime.
    bell: Arc<Bell>,
    /// Where `def` handlers run.
    pool: Arc<Pool>,
    home: RefCell<Arc<Home>>,
    /// Its private parts, if they are as this version knows them.
    parts: Option<Parts>,
    /// Tasks ready for the next `async def` handlers.
    spares: RefCell<Vec<Spare>>,
    /// Tasks whose handlers have ended in this round of the loop's callbacks: they are looked at in `entered`.
    candidates: RefCell<Vec<Spare>>,
    /// The task that is being parked, and its coroutine.
    parking: RefCell<Option<(Py<PyAny>, Py<Trampoline>)>>,
    /// The turns that were queued last, and what the loop's queue holds for them.
    pub(super) last_turns: RefCell<Option<(Py<PyAny>, Py<Turns>)>>,
    /// Whether tasks are parked: not where nobody calls `entered`.
    parks: Cell<bool>,
    /// Whether a handler is in its first step.
    stepping: Cell<bool>,
    /// The first timer when `select` was entered; only its identity matters.
    first_timer: Cell<usize>,
    /// Whether `select` is to return.
    leave: Cell<bool>,
    closed: Cell<bool>,
    /// How often Python code ran since it was last looked at what that left.
    unseen: Cell<u32>,
}

/// After how many calls it is looked for work of the loop's. 16: a 60th of a millisecond of small requests.
const LOOK: u32 = 16;

/// How many tasks are kept for handlers at most. 128: as many as wait at once on a busy server, 1 KiB each.
const SPARES: usize = 128;

/// What handlers' tasks are called.
pub(crate) const NAME: &str = "httpy-handler";

/// A task as every request will find it.
fn proven(py: Python<'_>, mut spare: Spare, parts: &Parts) -> PyResult<Spare> {
    if !spare.is_untouched(py, parts)? {
        return Err(pyo3::exceptions::PyRuntimeError::new_err("asyncio.Task is not as it was"));
    }
    spare.hide(py, parts)?;
    Ok(spare)
}

impl EventLoop {
    /// Looks up what is needed of a loop.
    ///
    /// To be called on the loop's thread, or before it runs. A loop that is not asyncio's own (uvloop), or whose private
    /// parts are not as expected, gets plain tasks.
    ///
    /// # Errors
    /// If asyncio can't be imported.
    pub(crate) fn new(py: Python<'_>, home: Arc<Home>, bell: Arc<Bell>, pool: Arc<Pool>) -> PyResult<Rc<Self>> {
        let mut event_loop = Self {
            object: home.event_loop.clone_ref(py),
            bell,
            pool,
            parts: Parts::find(py, home.event_loop.bind(py))?,
            home: RefCell::new(home),
            spares: RefCell::default(),
            candidates: RefCell::default(),
            parking: RefCell::default(),
            last_turns: RefCell::default(),
            parks: Cell::new(false),
            stepping: Cell::new(false),
            first_timer: Cell::new(0),
            leave: Cell::new(false),
            closed: Cell::new(false),
            unseen: Cell::new(0),
        };
        if let Some(parts) = &event_loop.parts {
            // The proof that they work: a task made ready as every request will find it.
            match Spare::new(py, &event_loop, parts).and_then(|spare| proven(py, spare, parts)) {
                Ok(spare) => event_loop.spares.borrow_mut().push(spare),
                Err(_) => event_loop.parts = None,
            }
        }
        Ok(Rc::new(event_loop))
    }

    /// The loop itself.
    pub(crate) fn object<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.object.bind(py)
    }

    /// How answers reach the runtime.
    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// Where `def` handlers run.
    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Whether it is this loop.
    pub(crate) fn is(&self, event_loop: &Py<PyAny>) -> bool {
        self.object.is(event_loop)
    }

    /// The loop and the base context.
    pub(crate) fn home(&self) -> Arc<Home> {
        self.home.borrow().clone()
    }

    /// The loop and the base context, for a moment.
    pub(crate) fn with_home<R>(&self, f: impl FnOnce(&Home) -> R) -> R {
        f(&self.home.borrow())
    }

    /// Lets handlers run in copies of another context from now on.
    #[cfg(unix)]
    pub(crate) fn set_home(&self, home: Arc<Home>) {
        self.forget_spares();
        let last = self.home.replace(home);
        drop(last);
    }

    /// Its private parts, if they can be used.
    pub(crate) fn parts(&self) -> Option<&Parts> {
        self.parts.as_ref()
    }

    /// Takes a task that waits for a handler, or makes one.
    pub(crate) fn take_spare(&self, py: Python<'_>, parts: &Parts) -> PyResult<Spare> {
        let kept = self.spares.borrow_mut().pop();
        match kept {
            Some(spare) => Ok(spare),
            None => Spare::new(py, self, parts),
        }
    }

    /// Keeps a task for the next handler.
    pub(crate) fn keep_spare(&self, spare: Spare) {
        self.spares.borrow_mut().push(spare);
    }

    /// Parks tasks whose handlers have ended, from now on: `entered` will be called in each round of the loop's.
    #[cfg(unix)]
    pub(crate) fn park_tasks(&self) {
        self.parks.set(true);
    }

    /// The handler of a task has ended: returns what the task is to wait for, unless it is to end too.
    pub(crate) fn park(
        self: &Rc<Self>,
        py: Python<'_>,
        task: Py<PyAny>,
        trampoline: Py<Trampoline>,
    ) -> Option<Py<Parked>> {
        let kept = self.spares.borrow().len() + self.candidates.borrow().len();
        if !self.parks.get() || kept >= SPARES || self.closed.get() || self.parking.borrow().is_some() {
            return None;
        }
        let parked = trampoline.get().place(py, self)?;
        *self.parking.borrow_mut() = Some((task, trampoline));
        Some(parked)
    }

    /// The task waits, and `step` wakes it.
    pub(crate) fn parked(&self, py: Python<'_>, step: (Py<PyAny>, Py<PyAny>), at: Py<Parked>) {
        let Some((task, trampoline)) = self.parking.borrow_mut().take() else { return };
        match Spare::parked(py, self, task, trampoline, step, at) {
            Ok(spare) => self.candidates.borrow_mut().push(spare),
            Err(error) => error.write_unraisable(py, None),
        }
    }

    /// Decides which of the tasks that were parked wait for another handler. Whoever waits for one that ends has to be
    /// told: returns whether there was one.
    #[cfg(unix)]
    fn settle_parked(&self, py: Python<'_>) -> bool {
        let mut has_ended = false;
        let Some(parts) = &self.parts else { return has_ended };
        // Not all at once: ending a task runs code of its holders.
        while let Some(mut spare) = { self.candidates.borrow_mut().pop() } {
            let is_untouched = spare.is_untouched(py, parts).unwrap_or(false);
            if is_untouched && spare.hide(py, parts).is_ok() {
                self.keep_spare(spare);
            } else {
                spare.end(py);
                has_ended = true;
            }
        }
        has_ended
    }

    /// Whether a handler is in its first step.
    pub(crate) fn is_stepping(&self) -> bool {
        self.stepping.get()
    }

    /// A handler begins, or has ended, its first step.
    pub(crate) fn set_stepping(&self, stepping: bool) {
        self.stepping.set(stepping);
    }

    /// The loop is closed, or about to be: nothing is sent to it any more.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.forget_spares();
    }

    fn forget_spares(&self) {
        let spares = (self.spares.take(), self.candidates.take(), self.last_turns.take());
        drop(spares);
    }

    /// Whether `close` was called.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// `select` is entered: remembers the first timer, which the loop has seen.
    #[cfg(unix)]
    pub(crate) fn entered(&self, py: Python<'_>) {
        let has_ended = self.settle_parked(py);
        self.first_timer.set(self.find_first_timer(py));
        self.leave.set(has_ended);
        self.unseen.set(0);
    }

    /// Whether `select` is to return.
    #[cfg(unix)]
    pub(crate) fn is_to_leave(&self) -> bool {
        self.leave.get()
    }

    /// Makes `select` return as soon as the tasks that are ready have run.
    pub(crate) fn leave(&self) {
        if !self.leave.replace(true) {
            self.bell.wake_root();
        }
    }

    /// Python code ran below `select`: returns to the loop if that left work for it, now or before the runtime waits. Attached.
    ///
    /// Looking costs as much as a small request, and the loop is not entered before the tasks that are ready have run
    /// anyway: so it is put off, to every 16th call or [`EventLoop::before_wait`], whichever comes first.
    pub(crate) fn after_python(&self) {
        let unseen = self.unseen.get() + 1;
        self.unseen.set(unseen);
        if unseen >= LOOK {
            // Attaching frees what was dropped by threads that were not.
            Python::attach(|py| self.look(py));
        }
    }

    /// The runtime has nothing left to do: Python code that ran may have left work for the loop. Attached.
    #[cfg(unix)]
    pub(crate) fn before_wait(&self) {
        if self.unseen.get() > 0 {
            Python::attach(|py| self.look(py));
        }
    }

    /// Only three things can be work for the loop: a handle that is ready, a timer earlier than the one `select` waits
    /// for, and `loop.stop`. (Anything from another thread arrives through the loop's own wake-up descriptor.)
    fn look(&self, py: Python<'_>) {
        self.unseen.set(0);
        if self.leave.get() {
            return;
        }
        let Some(parts) = &self.parts else { return self.leave() };
        let has_ready = parts.ready.bind(py).len().unwrap_or(1) > 0;
        if has_ready || self.find_first_timer(py) != self.first_timer.get() || parts.is_stopping(py) {
            self.leave();
        }
    }

    fn find_first_timer(&self, py: Python<'_>) -> usize {
        let Some(parts) = &self.parts else { return 0 };
        let scheduled = parts.scheduled.bind(py);
        // SAFETY: `Parts::find` saw that it is a list.
        let scheduled = unsafe { scheduled.cast_unchecked::<PyList>() };
        // Asking an empty list makes an exception: 780 of 16,400 instructions of a request that comes alone.
        if scheduled.is_empty() {
            return 0;
        }
        scheduled.get_item(0).map_or(0, |timer| timer.as_ptr() as usize)
    }
}

/// Whether an error is meant for the loop and not for a response: `KeyboardInterrupt` and `SystemExit` end it, as they
/// do when a task of the loop's own raises them.
pub(crate) fn ends_loop(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py)
}

/// Raises an error in the loop. From any thread.
pub(crate) fn pass_on(py: Python<'_>, event_loop: &Bound<'_, PyAny>, error: &PyErr) {
    let passed_on = wrap_pyfunction!(raise_in_loop, py)
        .and_then(|raise| event_loop.call_method1(intern!(py, "call_soon_threadsafe"), (raise, error.value(py))));
    // An error means that the loop is closed: it has ended already.
    drop(passed_on);
}

/// Raises what a handler raised, in a callback of the loop: there it ends `run_forever`.
#[pyfunction(name = "_raise_in_loop")]
fn raise_in_loop(error: Bound<'_, PyAny>) -> PyResult<()> {
    Err(PyErr::from_value(error))
}
