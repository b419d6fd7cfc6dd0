//! Where the Python code behind a request runs, for what outlasts its handler: a loop and a pool.
//!
//! A generator is closed, a task is cancelled and background work is started when the carrier drops a response. That
//! happens on the runtime's thread, and this is how it gets from there to the right one, and back.

use std::{
    cell::RefCell,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use pyo3::{intern, prelude::*};
use tokio::sync::Notify;

use crate::{
    driver::{self, Seat},
    threads::{self, Pool},
};

/// Runs on the loop's thread, and is given the loop.
pub(crate) type Job = Box<dyn FnOnce(Python<'_>, &Bound<'_, PyAny>) + Send>;

/// The loop and the pool of one runtime, and how much work is under way that may outlast its response.
pub(crate) struct Site {
    event_loop: Arc<driver::Home>,
    pool: Arc<Pool>,
    afterwards: AtomicUsize,
    rested: Notify,
}

thread_local! {
    /// The site of this runtime thread, while anybody needs it.
    static SITE: RefCell<Weak<Site>> = const { RefCell::new(Weak::new()) };
}

impl Site {
    /// The site of this runtime thread; none on other threads.
    pub(crate) fn here() -> Option<Arc<Self>> {
        let seat = driver::seat()?;
        let pool = match &seat {
            Seat::Here(event_loop) => event_loop.pool(),
            Seat::There(there) => there.pool(),
        };
        SITE.with_borrow_mut(|known| match known.upgrade() {
            // A thread may run one loop after the other.
            Some(site) if Arc::ptr_eq(&site.pool, pool) => Some(site),
            _ => {
                let event_loop = match &seat {
                    Seat::Here(event_loop) => event_loop.home(),
                    Seat::There(there) => there.home(),
                };
                let (afterwards, rested) = (AtomicUsize::new(0), Notify::new());
                let site = Arc::new(Self { event_loop, pool: pool.clone(), afterwards, rested });
                *known = Arc::downgrade(&site);
                Some(site)
            }
        })
    }

    /// Runs a job on the loop's thread, soon, or at once if this is it. Drops it if the loop is closed.
    ///
    /// From any thread, attached or not, but with no lock held that the job takes.
    pub(crate) fn on_loop(&self, job: Job) {
        match driver::seat_at(&self.event_loop) {
            Some(Seat::Here(event_loop)) if event_loop.is_closed() => drop(job),
            Some(_) => driver::tell(Box::new(move |py, event_loop| job(py, event_loop.object(py)))),
            // None if the interpreter ends: the loop has ended before it.
            None => drop(Python::try_attach(|py| call_soon(self.event_loop.event_loop.bind(py), job))),
        }
    }

    /// Runs a job on a pool thread. Drops it if the pool is closed. From any thread.
    pub(crate) fn on_pool(&self, job: threads::Job) {
        self.pool.submit(job);
        self.pool.flush();
    }

    /// Counts work that may outlast its response, until the guard is dropped.
    pub(crate) fn begin_afterwards(self: &Arc<Self>) -> Afterwards {
        self.afterwards.fetch_add(1, Ordering::AcqRel);
        Afterwards(self.clone())
    }

    /// Waits until no work that outlasts its response is under way.
    pub(crate) async fn rested(&self) {
        let mut rested = pin!(self.rested.notified());
        loop {
            rested.as_mut().enable();
            if self.afterwards.load(Ordering::Acquire) == 0 {
                return;
            }
            rested.as_mut().await;
            rested.set(self.rested.notified());
        }
    }
}

/// Work that may outlast its response is under way.
pub(crate) struct Afterwards(Arc<Site>);

impl Drop for Afterwards {
    fn drop(&mut self) {
        if self.0.afterwards.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.rested.notify_waiters();
        }
    }
}

/// Runs a job on the thread of any loop, soon. Drops it if the loop is closed.
pub(crate) fn call_soon(event_loop: &Bound<'_, PyAny>, job: Job) {
    let py = event_loop.py();
    let called = Bound::new(py, Once { event_loop: event_loop.clone().unbind(), job: Mutex::new(Some(job)) })
        .and_then(|once| event_loop.call_method1(intern!(py, "call_soon_threadsafe"), (once,)));
    if let Err(error) = called {
        tracing::debug!(%error, "the event loop is closed: work for it was dropped");
    }
}

/// A job as a loop can call it.
#[pyclass(frozen, module = "httpy._httpy", name = "_Once")]
struct Once {
    event_loop: Py<PyAny>,
    job: Mutex<Option<Job>>,
}

#[pymethods]
impl Once {
    fn __call__(&self, py: Python<'_>) {
        let job = self.job.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(job) = job {
            job(py, self.event_loop.bind(py));
        }
    }
}
