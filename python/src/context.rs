//! What all endpoints of one application share: the application object, its state, and how errors are answered.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use pyo3::{PyTraverseError, PyVisit, prelude::*, types::PyDict};

/// The shared part.
pub(crate) struct Context {
    app: Py<PyAny>,
    on_error: Option<Py<PyAny>>,
    statuses: Vec<u16>,
    root_path: String,
    state: Mutex<Option<Py<PyDict>>>,
    is_stopping: AtomicBool,
}

impl Context {
    pub(crate) fn app<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.app.bind(py).clone()
    }

    /// What answers exceptions, if the application wants to: called with the request and the exception.
    pub(crate) fn on_error(&self) -> Option<&Py<PyAny>> {
        self.on_error.as_ref()
    }

    /// Whether the application answers this status itself when HTTPy would.
    pub(crate) fn answers(&self, status: u16) -> bool {
        self.statuses.contains(&status)
    }

    /// What a proxy has taken away from the beginning of paths.
    pub(crate) fn root_path(&self) -> &str {
        &self.root_path
    }

    /// Whether the server stops.
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Relaxed)
    }

    /// A namespace for one request.
    pub(crate) fn new_state<'py>(&self, py: Python<'py>) -> PyResult<Py<PyAny>> {
        let values = self.lock().as_ref().map(|values| values.clone_ref(py));
        let values = values.map(|values| values.into_bound(py));
        Ok(py.import("types")?.getattr("SimpleNamespace")?.call((), values.as_ref())?.unbind())
    }

    /// A copy of what `lifespan` gave, as ASGI has it.
    pub(crate) fn copy_state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let values = self.lock().as_ref().map(|values| values.clone_ref(py));
        values.map_or_else(|| Ok(PyDict::new(py)), |values| values.bind(py).copy())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Py<PyDict>>> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What all endpoints of one app share.
#[pyclass(frozen, name = "Context", module = "httpy._httpy")]
pub(crate) struct PyContext(pub(crate) Arc<Context>);

#[pymethods]
impl PyContext {
    #[new]
    #[pyo3(signature = (app, *, on_error=None, statuses=Vec::new(), root_path=String::new()))]
    fn new(app: Py<PyAny>, on_error: Option<Py<PyAny>>, statuses: Vec<u16>, root_path: String) -> Self {
        Self(Arc::new(Context {
            app,
            on_error,
            statuses,
            root_path,
            state: Mutex::new(None),
            is_stopping: AtomicBool::new(false),
        }))
    }

    /// Sets what appears on every request's `state`.
    #[pyo3(signature = (values, /))]
    fn set_state(&self, values: &Bound<'_, PyAny>) -> PyResult<()> {
        let dict = PyDict::new(values.py());
        dict.as_any().call_method1("update", (values,))?;
        let old = self.0.lock().replace(dict.unbind());
        drop(old);
        Ok(())
    }

    /// Tells requests that the server stops.
    fn stop(&self) {
        self.0.is_stopping.store(true, Relaxed);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0.app)?;
        visit.call(&self.0.on_error)
    }
}
