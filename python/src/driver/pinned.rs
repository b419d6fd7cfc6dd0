//! A value that stays on its thread, inside a Python object that may be freed on any.

use std::{
    mem::ManuallyDrop,
    thread::{self, ThreadId},
};

use pyo3::{exceptions::PyRuntimeError, prelude::*};

/// Python's garbage collector runs on whichever thread allocates, so an object that belongs to a loop's thread may be
/// freed on another. Then the value is leaked: better than dropped where it must not be. (pyo3's `unsendable` does the
/// same, and complains on stderr.)
pub(crate) struct Pinned<T> {
    value: ManuallyDrop<T>,
    thread: ThreadId,
}

// SAFETY: the value is only ever touched on the thread it was made on: `get` and `drop` see to that.
unsafe impl<T> Send for Pinned<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Pinned<T> {}

impl<T> Pinned<T> {
    /// Pins a value to this thread.
    pub(crate) fn new(value: T) -> Self {
        Self { value: ManuallyDrop::new(value), thread: thread::current().id() }
    }

    /// The value.
    ///
    /// # Errors
    /// `RuntimeError` on another thread.
    pub(crate) fn get(&self) -> PyResult<&T> {
        if self.thread == thread::current().id() {
            Ok(&self.value)
        } else {
            Err(PyRuntimeError::new_err("this belongs to another thread: make it on the one that runs the event loop"))
        }
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        if self.thread == thread::current().id() {
            // SAFETY: this is the only place that drops it, and it is not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}
