//! The pool for `def` handlers.
use pyo3::prelude::*;
pub(crate) type Job = Box<dyn FnOnce(Python<'_>) + Send>;
pub(crate) fn submit(job: Job) {
    std::thread::spawn(move || Python::attach(job));
}
