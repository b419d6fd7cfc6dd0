//! The containers that the walk is inside of, and whether it owns them.
//!
//! Rules:
//! 1. Nobody can release a container while no Python code runs, so it is not owned until then: a reference costs two
//!    calls in the limited API. [`Open::hold`] comes before anything that may run Python code, and owns all that are
//!    open.
//! 2. The owned ones are the outermost ones, as what is opened later is held later.
//! 3. Without a GIL other threads run Python code at any time, so each is owned at once.

use std::mem::MaybeUninit;

use pyo3::ffi;
use pyo3::prelude::*;

use super::MAX_DEPTH;

/// Lent by who walks, as 2 KiB are too much to clear, or to move, for a small document.
pub(super) type Room = [MaybeUninit<*mut ffi::PyObject>; MAX_DEPTH as usize];

pub(super) struct Open<'a> {
    /// The first `count` are set.
    containers: &'a mut Room,
    count: usize,
    held: usize,
}

impl<'a> Open<'a> {
    #[inline]
    pub(super) fn new(room: &'a mut Room) -> Self {
        Open { containers: room, count: 0, held: 0 }
    }

    /// Steps into a container, which is alive. Whoever does has to `leave` it again.
    #[inline]
    pub(super) fn enter(&mut self, container: Borrowed<'_, '_, PyAny>) {
        // Each open container is one level, and `write::enter` refuses levels past MAX_DEPTH, so there is room.
        self.containers[self.count].write(container.as_ptr());
        self.count += 1;
        if cfg!(Py_GIL_DISABLED) {
            self.hold();
        }
    }

    /// Steps out of the innermost container.
    #[inline]
    pub(super) fn leave(&mut self) {
        self.count -= 1;
        if self.held > self.count {
            self.release();
        }
    }

    /// Whether the innermost container is owned, as Python code may have run since it was entered: it may have changed.
    #[inline]
    pub(super) fn is_held(&self) -> bool {
        self.held == self.count
    }

    /// Owns all that is open: rule 1.
    #[inline]
    pub(super) fn hold(&mut self) {
        if self.held < self.count {
            self.hold_all();
        }
    }

    #[cold]
    #[inline(never)]
    fn hold_all(&mut self) {
        for container in &self.containers[self.held..self.count] {
            // SAFETY: set by `enter`, as it is below `count`; alive since then, as no Python code ran; and we are
            // attached, as whoever writes is.
            unsafe { ffi::Py_IncRef(container.assume_init()) };
        }
        self.held = self.count;
    }

    #[cold]
    #[inline(never)]
    fn release(&mut self) {
        self.held = self.count;
        // SAFETY: set by `enter`, and held since `hold_all`; we are attached.
        unsafe { ffi::Py_DecRef(self.containers[self.count].assume_init()) };
    }
}
