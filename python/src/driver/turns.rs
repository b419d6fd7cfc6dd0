//! The turns of handlers that wait for nothing else: `await asyncio.sleep(0)`.
//!
//! asyncio queues the next step of such a task as a callback of its own, and with many requests at a time those are
//! most of what the loop has to do. So tasks that queue one behind the other share a callback. What was queued between
//! two of them is between them still: by the order of things nobody can tell the difference.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;

use super::{EventLoop, Parked, context::Entered, ends_loop, parts::Parts};
use crate::plan::{call_none, call_one};

/// A callback of the loop's that gives tasks their turns.
#[pyclass(frozen, module = "httpy._httpy", name = "_Turns")]
pub(crate) struct Turns {
    /// `loop.call_soon`.
    call_soon: Py<PyAny>,
    waiting: Mutex<Vec<Turn>>,
}

/// What steps a task, and the context it runs in.
pub(crate) struct Turn {
    pub(crate) step: Py<PyAny>,
    /// What the task is parked at, if it is.
    pub(crate) at: Option<Py<Parked>>,
    pub(crate) context: Py<PyAny>,
}

#[pymethods]
impl Turns {
    fn __call__(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let mut turns = std::mem::take(&mut *this.lock()).into_iter();
        while let Some(turn) = turns.next() {
            match turn.take(py) {
                Ok(()) => {}
                Err(error) if ends_loop(py, &error) => {
                    // The others keep their turns, for when the loop runs again.
                    *this.lock() = turns.collect();
                    call_one(&this.call_soon, slf)?;
                    return Err(error);
                }
                // Nothing that a task does.
                Err(error) => error.write_unraisable(py, Some(slf)),
            }
        }
        Ok(())
    }
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, Vec<Turn>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    fn take(&self, py: Python<'_>) -> PyResult<()> {
        let _entered = Entered::new(self.context.bind(py).clone())?;
        match &self.at {
            None => call_none(py, &self.step)?,
            Some(at) => call_one(&self.step, at.bind(py))?,
        };
        Ok(())
    }
}

impl EventLoop {
    /// Queues a turn behind everything that is ready.
    ///
    /// # Errors
    /// If the loop is closed.
    pub(crate) fn queue(&self, py: Python<'_>, parts: &Parts, turn: Turn) -> PyResult<()> {
        let last = self.last_turns.borrow().as_ref().map(|(handle, turns)| (handle.clone_ref(py), turns.clone_ref(py)));
        let ready = parts.ready.bind(py);
        let length = ready.len()?;
        if let Some((handle, turns)) = last
            && length > 0
            && ready.get_item(length - 1)?.is(&handle)
        {
            turns.get().lock().push(turn);
            return Ok(());
        }
        let call_soon = parts.call_soon.clone_ref(py);
        let turns = Bound::new(py, Turns { call_soon, waiting: Mutex::new(vec![turn]) })?;
        let handle = call_one(&parts.call_soon, &turns)?;
        let last = self.last_turns.replace(Some((handle.unbind(), turns.unbind())));
        drop(last);
        Ok(())
    }
}
