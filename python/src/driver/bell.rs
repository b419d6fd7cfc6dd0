//! How answers made elsewhere reach the runtime: many of them for one wake-up.
//!
//! Waking a tokio task from outside its runtime costs a system call each. So whoever has an answer only leaves the
//! waker here, and rings once it has nothing more to add; the runtime's root future then wakes them all from inside,
//! where it costs next to nothing.

use std::{
    mem::take,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{
            AtomicBool,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
    task::{Context, Waker},
};

use httpy::Response;
use pyo3::{intern, prelude::*};

/// The bell of one runtime.
#[derive(Default)]
pub(crate) struct Bell {
    left: Mutex<Left>,
    root: Mutex<Option<Waker>>,
    /// Whether the runtime runs. While it does not (the loop's own callbacks run on its thread), ringing is needless:
    /// it looks here first thing.
    inside: AtomicBool,
    /// Whether the root was woken and has not looked since.
    rung: AtomicBool,
    /// How a loop on another thread rings after its present round of callbacks.
    later: OnceLock<Later>,
    /// Whether somebody is going to ring.
    due: AtomicBool,
}

#[derive(Default)]
struct Left {
    wakers: Vec<Waker>,
    discarded: Vec<Response>,
}

struct Later {
    call_soon: Py<PyAny>,
    ring: Py<Ring>,
}

impl Bell {
    /// Leaves a waker for the next ring.
    pub(crate) fn leave(&self, waker: Waker) {
        lock(&self.left).wakers.push(waker);
    }

    /// Leaves a response that nobody waits for any more, to be dropped with the next ring: what follows a response runs
    /// where it is dropped, and relies on that being the runtime's thread.
    pub(crate) fn discard(&self, response: Response) {
        lock(&self.left).discarded.push(response);
    }

    /// Wakes the runtime, if it runs and does not know yet. Any thread.
    ///
    /// No waker is missed: `inside` and `rung` are changed by the root before it takes what was left, and read here
    /// after something was left, and the lock on `left` puts the two in order.
    pub(crate) fn ring(&self) {
        if self.inside.load(Acquire)
            && !self.rung.swap(true, AcqRel)
            && let Some(root) = &*lock(&self.root)
        {
            root.wake_by_ref();
        }
    }

    /// Rings when the loop's present round of callbacks is over. The loop's thread.
    pub(crate) fn ring_soon(&self, py: Python<'_>) {
        let Some(later) = self.later.get() else { return self.ring() };
        if !self.due.swap(true, AcqRel) && later.call_soon.call1(py, (&later.ring,)).is_err() {
            // The loop is closed: nothing else will come.
            self.ring_due();
        }
    }

    /// Lets `ring_soon` do nothing until `ring_due`.
    pub(crate) fn hold(&self) {
        self.due.store(true, Release);
    }

    /// Rings what `ring_soon` put off.
    pub(crate) fn ring_due(&self) {
        self.due.store(false, Release);
        self.ring();
    }

    /// Makes `ring_soon` go through `event_loop`, which runs on another thread than the runtime.
    ///
    /// # Errors
    /// If it has no `call_soon`.
    pub(crate) fn ring_through(self: &Arc<Self>, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = event_loop.py();
        let call_soon = event_loop.getattr(intern!(py, "call_soon"))?.unbind();
        let ring = Py::new(py, Ring { bell: Arc::downgrade(self) })?;
        // Set once: a second loop can't have the same runtime.
        let _ = self.later.set(Later { call_soon, ring });
        Ok(())
    }

    /// The runtime is about to run, or has stopped running.
    pub(crate) fn set_inside(&self, inside: bool) {
        self.inside.store(inside, Release);
    }

    /// Wakes everyone who was left here. Called by the root future, each time it is polled.
    pub(crate) fn answer(&self, cx: &Context<'_>) {
        {
            let mut root = lock(&self.root);
            match &mut *root {
                Some(known) if known.will_wake(cx.waker()) => {}
                other => *other = Some(cx.waker().clone()),
            }
        }
        self.rung.swap(false, AcqRel);
        // Taken first: a waker may run code that leaves another.
        let Left { wakers, discarded } = take(&mut *lock(&self.left));
        for waker in wakers {
            waker.wake();
        }
        drop(discarded);
    }

    /// Wakes the root, from the runtime's own thread.
    pub(crate) fn wake_root(&self) {
        if let Some(root) = &*lock(&self.root) {
            root.wake_by_ref();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the loop calls to ring.
#[pyclass(frozen, module = "httpy._httpy", name = "_Ring")]
struct Ring {
    /// Weak, because the bell has this: a cycle would keep the loop, and the runtime's descriptors.
    bell: Weak<Bell>,
}

#[pymethods]
impl Ring {
    fn __call__(&self) {
        // Gone with its runtime: nobody waits.
        if let Some(bell) = self.bell.upgrade() {
            bell.ring_due();
        }
    }
}
