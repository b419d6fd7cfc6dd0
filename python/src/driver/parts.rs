//! The private parts of asyncio's loops and tasks that the drivers touch, looked up once, and seen to work before they are used.

use pyo3::{
    ffi, intern,
    prelude::*,
    types::{PyDict, PyList, PySet, PyTuple, PyWeakrefReference},
};

use crate::plan::{call_one, call_two};

/// What asyncio does not document and we use all the same. `tests_py/test_private_parts.py` guards each of them.
pub(crate) struct Parts {
    /// `loop._ready`, a deque of handles to run.
    pub(crate) ready: Py<PyAny>,
    /// `loop._scheduled`, a heap of timers.
    pub(super) scheduled: Py<PyAny>,
    /// `loop.__dict__`, which has `_stopping`: to ask it takes half of what asking the loop does.
    attributes: Py<PyDict>,
    /// `asyncio.tasks._enter_task`, `_leave_task`: whose step it is.
    enter_task: Py<PyAny>,
    leave_task: Py<PyAny>,
    /// `asyncio.tasks._current_tasks`: what these two change, by loop. None where they don't (3.14).
    current_tasks: Option<Py<PyDict>>,
    /// `loop.call_soon`.
    pub(crate) call_soon: Py<PyAny>,
    /// `asyncio.tasks._register_task`, `_unregister_task`: what `asyncio.all_tasks` shows.
    register_task: Py<PyAny>,
    unregister_task: Py<PyAny>,
    /// The set behind them, and what its references are made with; none where they are fast by themselves (3.14).
    registered: Option<(Py<PySet>, Py<PyAny>)>,
    pub(crate) task_type: Py<PyAny>,
    /// Names of the task's last two arguments: `loop`, `name`.
    pub(crate) task_keywords: Py<PyTuple>,
    /// `Task._must_cancel`, `_callbacks`.
    pub(crate) must_cancel: Getter,
    pub(crate) callbacks: Getter,
    /// `Task.get_name`, and `cancelling`, which is there since 3.11.
    pub(crate) get_name: Py<PyAny>,
    pub(crate) cancelling: Option<Py<PyAny>>,
}

impl Parts {
    /// Finds the parts of asyncio's own loops; none of others, or if they are not what they were when this was written.
    pub(super) fn find(py: Python<'_>, object: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
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
        let attributes = object.getattr("__dict__")?.cast_into_exact::<PyDict>()?;
        attributes.as_any().get_item("_stopping")?;
        if !ready.is_instance(&deque)? {
            return Err(pyo3::exceptions::PyTypeError::new_err("loop._ready is not a deque"));
        }
        scheduled.cast_exact::<PyList>()?;
        let task_type = tasks.getattr("Task")?;
        Ok(Self {
            ready: ready.unbind(),
            scheduled: scheduled.unbind(),
            attributes: attributes.unbind(),
            current_tasks: Self::find_current_tasks(&tasks).ok().flatten(),
            enter_task: tasks.getattr("_enter_task")?.unbind(),
            call_soon: object.getattr("call_soon")?.unbind(),
            leave_task: tasks.getattr("_leave_task")?.unbind(),
            register_task: tasks.getattr("_register_task")?.unbind(),
            unregister_task: tasks.getattr("_unregister_task")?.unbind(),
            registered: Self::find_registered(&tasks).ok().flatten(),
            task_keywords: PyTuple::new(py, ["loop", "name"])?.unbind(),
            must_cancel: Getter::new(&task_type, "_must_cancel")?,
            callbacks: Getter::new(&task_type, "_callbacks")?,
            get_name: task_type.getattr("get_name")?.unbind(),
            cancelling: task_type.getattr("cancelling").ok().map(Bound::unbind),
            task_type: task_type.unbind(),
        })
    }

    /// The dict is asked only after it was seen to be what the functions change.
    fn find_current_tasks(tasks: &Bound<'_, PyModule>) -> PyResult<Option<Py<PyDict>>> {
        let py = tasks.py();
        let current = tasks.getattr("_current_tasks")?.cast_into_exact::<PyDict>()?;
        // Stands for a loop and for its task.
        let probe = py.get_type::<PyAny>().call0()?;
        tasks.call_method1("_enter_task", (&probe, &probe))?;
        let is_there = current.get_item(&probe)?.is_some_and(|task| task.is(&probe));
        tasks.call_method1("_leave_task", (&probe, &probe))?;
        let is_gone = !current.contains(&probe)?;
        Ok((is_there && is_gone).then(|| current.unbind()))
    }

    /// Makes a task its loop's current one.
    ///
    /// # Errors
    /// If another one is.
    #[inline]
    pub(crate) fn enter(&self, event_loop: &Bound<'_, PyAny>, task: &Bound<'_, PyAny>) -> PyResult<()> {
        match self.current_tasks.as_ref().map(|current| current.bind(event_loop.py())) {
            // Of no loop is there one, so there is nothing that `_enter_task` would find.
            Some(current) if current.is_empty() => current.set_item(event_loop, task),
            _ => call_two(&self.enter_task, event_loop, task).map(drop),
        }
    }

    /// Undoes [`Parts::enter`].
    ///
    /// # Errors
    /// If another task is the current one.
    #[inline]
    pub(crate) fn leave(&self, event_loop: &Bound<'_, PyAny>, task: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Some(current) = self.current_tasks.as_ref().map(|current| current.bind(event_loop.py()))
            && current.get_item(event_loop)?.is_some_and(|other| other.is(task))
        {
            return current.del_item(event_loop);
        }
        call_two(&self.leave_task, event_loop, task).map(drop)
    }

    /// Up to 3.13 the tasks are in a `WeakSet`, which is Python code around a set of weak references: adding to it costs as
    /// much as a small request, and to the set within next to nothing.
    fn find_registered(tasks: &Bound<'_, PyModule>) -> PyResult<Option<(Py<PySet>, Py<PyAny>)>> {
        let py = tasks.py();
        if py.version_info() >= (3, 14) {
            return Ok(None);
        }
        let name = if py.version_info() >= (3, 12) { "_scheduled_tasks" } else { "_all_tasks" };
        let registered = tasks.getattr(name)?;
        if !registered.get_type().is(&py.import("weakref")?.getattr("WeakSet")?) {
            return Ok(None);
        }
        let within = registered.getattr("data")?.cast_into_exact::<PySet>()?;
        Ok(Some((within.unbind(), registered.getattr("_remove")?.unbind())))
    }

    /// Whether the loop was told to stop.
    pub(super) fn is_stopping(&self, py: Python<'_>) -> bool {
        let stopping = self.attributes.bind(py).get_item(intern!(py, "_stopping")).ok().flatten();
        stopping.is_none_or(|stopping| stopping.is_truthy().unwrap_or(true))
    }

    /// Has `asyncio.all_tasks()` show a task that was hidden.
    pub(crate) fn register(&self, task: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = task.py();
        match &self.registered {
            Some((within, remove)) => within.bind(py).add(PyWeakrefReference::new_with(task, remove.bind(py))?),
            None => call_one(&self.register_task, task).map(drop),
        }
    }

    /// Hides a task from `asyncio.all_tasks()`.
    pub(crate) fn unregister(&self, task: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = task.py();
        match &self.registered {
            // References to one object are equal.
            Some((within, _)) => within.bind(py).discard(PyWeakrefReference::new(task)?).map(drop),
            None => call_one(&self.unregister_task, task).map(drop),
        }
    }
}

/// An attribute of a native class, read without looking it up: 30 instructions instead of 160.
pub(crate) struct Getter {
    descriptor: Py<PyAny>,
    get: Option<ffi::descrgetfunc>,
}

impl Getter {
    fn new(class: &Bound<'_, PyAny>, name: &str) -> PyResult<Self> {
        let py = class.py();
        let descriptor = class.getattr(name)?;
        // Before 3.10, only classes made at run time tell their slots.
        let get = (py.version_info() >= (3, 10)).then(|| {
            // SAFETY: a live type object; the slot, if there is one, holds a function of this type.
            unsafe {
                let slot = ffi::PyType_GetSlot(ffi::Py_TYPE(descriptor.as_ptr()), ffi::Py_tp_descr_get);
                std::mem::transmute::<*mut std::ffi::c_void, Option<ffi::descrgetfunc>>(slot)
            }
        });
        Ok(Self { descriptor: descriptor.unbind(), get: get.flatten() })
    }

    /// Its value.
    ///
    /// # Errors
    /// If `object` is of another class.
    pub(crate) fn get<'py>(&self, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = object.py();
        let Some(get) = self.get else {
            return self.descriptor.bind(py).call_method1(intern!(py, "__get__"), (object,));
        };
        // SAFETY: live objects; a new reference, or null with an exception set.
        unsafe {
            let class = ffi::Py_TYPE(object.as_ptr()).cast();
            Bound::from_owned_ptr_or_err(py, get(self.descriptor.as_ptr(), object.as_ptr(), class))
        }
    }
}
