//! Context variables: each call in a copy of the context the server was started in.

use pyo3::{exceptions::PyRuntimeError, intern, prelude::*};

use crate::symbols::symbols;

/// Holds a context entered on this thread; leaves it when dropped.
pub(crate) struct Entered<'py>(Bound<'py, PyAny>);

impl<'py> Entered<'py> {
    /// Enters `context`, a `contextvars.Context`.
    ///
    /// # Errors
    /// If it is entered already, or this Python can't do it.
    pub(crate) fn new(context: Bound<'py, PyAny>) -> PyResult<Self> {
        let Some(enter) = symbols().context_enter else {
            return Err(PyRuntimeError::new_err("this Python has no PyContext_Enter"));
        };
        // SAFETY: attached, and callers pass the context of a task or a copy of one.
        match unsafe { enter(context.as_ptr()) } {
            0 => Ok(Self(context)),
            _ => Err(PyErr::fetch(context.py())),
        }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let Some(exit) = symbols().context_exit else { return };
        // SAFETY: entered in `new`, on this thread: a `Bound` can't leave it.
        if unsafe { exit(self.0.as_ptr()) } != 0 {
            PyErr::fetch(self.0.py()).write_unraisable(self.0.py(), Some(&self.0));
        }
    }
}

/// Calls `function` in a copy of `base`, as `asyncio.to_thread` does. Where no context can be entered from here
/// (an interpreter without those functions), calls it without.
pub(crate) fn run_in_copy<T>(base: &Bound<'_, PyAny>, function: impl FnOnce(Python<'_>) -> T) -> T {
    let py = base.py();
    if symbols().context_enter.is_none() {
        return function(py);
    }
    let entered = copy(base).and_then(Entered::new);
    if let Err(error) = &entered {
        error.clone_ref(py).write_unraisable(py, Some(base));
    }
    let result = function(py);
    drop(entered);
    result
}

fn copy<'py>(base: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    match symbols().context_copy {
        // SAFETY: `base` is a `contextvars.Context`; the result is a new reference, or null with an exception set.
        Some(copy) => unsafe { Bound::from_owned_ptr_or_err(base.py(), copy(base.as_ptr())) },
        None => base.call_method0(intern!(base.py(), "copy")),
    }
}
