//! An asyncio loop as the drivers see it: the few parts of it they touch, looked up once.

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

use super::{Bell, step::Spare};
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
    /// A task ready for the next `async def` handler.
    spare: RefCell<Option<Spare>>,
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

/// What asyncio does not document and we use all the same. `tests_py/test_private_parts.py` guards each of them.
pub(crate) struct Parts {
    /// `loop._ready`, a deque of handles to run.
    pub(crate) ready: Py<PyAny>,
    /// `loop._scheduled`, a heap of timers.
    scheduled: Py<PyAny>,
    /// `asyncio.tasks._enter_task`, `_leave_task`: whose step it is.
    pub(crate) enter_task: Py<PyAny>,
    pub(crate) leave_task: Py<PyAny>,
    /// `asyncio.tasks._register_task`, `_unregister_task`: what `asyncio.all_tasks` shows.
    pub(crate) register_task: Py<PyAny>,
    pub(crate) unregister_task: Py<PyAny>,
    pub(crate) task_type: Py<PyAny>,
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
            spare: RefCell::new(None),
            first_timer: Cell::new(0),
            leave: Cell::new(false),
            closed: Cell::new(false),
            unseen: Cell::new(0),
        };
        if let Some(parts) = &event_loop.parts {
            // The proof that they work: a task made ready as every request will find it.
            let made = event_loop.make_spare(py, parts).and_then(|mut spare| spare.hide(py, parts).map(|()| spare));
            match made {
                Ok(spare) => *event_loop.spare.borrow_mut() = Some(spare),
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
        let spare = self.spare.borrow_mut().take();
        let last = self.home.replace(home);
        drop((spare, last));
    }

    /// Its private parts, if they can be used.
    pub(crate) fn parts(&self) -> Option<&Parts> {
        self.parts.as_ref()
    }

    /// Takes the task that waits for a handler, or makes one.
    pub(crate) fn take_spare(&self, py: Python<'_>, parts: &Parts) -> PyResult<Spare> {
        let kept = self.spare.borrow_mut().take();
        match kept {
            Some(spare) => Ok(spare),
            None => self.make_spare(py, parts),
        }
    }

    /// Keeps a task for the next handler.
    pub(crate) fn keep_spare(&self, spare: Spare) {
        let other = self.spare.borrow_mut().replace(spare);
        drop(other);
    }

    /// The loop is closed, or about to be: nothing is sent to it any more.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        let spare = self.spare.borrow_mut().take();
        drop(spare);
    }

    /// Whether `close` was called.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// `select` is entered: remembers the first timer, which the loop has seen.
    #[cfg(unix)]
    pub(crate) fn entered(&self, py: Python<'_>) {
        self.first_timer.set(self.find_first_timer(py));
        self.leave.set(false);
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

    /// Python code ran below `select`: returns to the loop if that left work for it, now or before the runtime waits.
    ///
    /// Looking costs as much as a small request, and the loop is not entered before the tasks that are ready have run
    /// anyway: so it is put off, to every 16th call or [`EventLoop::before_wait`], whichever comes first.
    pub(crate) fn after_python(&self, py: Python<'_>) {
        let unseen = self.unseen.get() + 1;
        self.unseen.set(unseen);
        if unseen >= LOOK {
            self.look(py);
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
        if has_ready || self.find_first_timer(py) != self.first_timer.get() || self.is_stopping(py) {
            self.leave();
        }
    }

    fn is_stopping(&self, py: Python<'_>) -> bool {
        let stopping = self.object.bind(py).getattr(intern!(py, "_stopping"));
        stopping.and_then(|stopping| stopping.is_truthy()).unwrap_or(true)
    }

    fn find_first_timer(&self, py: Python<'_>) -> usize {
        let Some(parts) = &self.parts else { return 0 };
        let scheduled = parts.scheduled.bind(py);
        // SAFETY: `Parts::find` saw that it is a list.
        let scheduled = unsafe { scheduled.cast_unchecked::<PyList>() };
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

impl Parts {
    /// Finds the parts of asyncio's own loops; none of others, or if they are not what they were when this was written.
    fn find(py: Python<'_>, object: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let base = py.import("asyncio")?.getattr("BaseEventLoop")?;
        if !object.is_instance(&base)? {
            return Ok(None);
        }
        Ok(Self::look_up(py, object).ok())
    }

    fn look_up(py: Python<'_>, object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let tasks = py.import("asyncio.tasks")?;
        let ready = object.getattr("_ready")?;
        let deque = py.import("collections")?.getattr("deque")?;
        let scheduled = object.getattr("_scheduled")?;
        object.getattr("_stopping")?;
        if !ready.is_instance(&deque)? {
            return Err(pyo3::exceptions::PyTypeError::new_err("loop._ready is not a deque"));
        }
        scheduled.cast_exact::<PyList>()?;
        Ok(Self {
            ready: ready.unbind(),
            scheduled: scheduled.unbind(),
            enter_task: tasks.getattr("_enter_task")?.unbind(),
            leave_task: tasks.getattr("_leave_task")?.unbind(),
            register_task: tasks.getattr("_register_task")?.unbind(),
            unregister_task: tasks.getattr("_unregister_task")?.unbind(),
            task_type: tasks.getattr("Task")?.unbind(),
        })
    }
}
