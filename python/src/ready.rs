//! What is awaited where there is nothing to wait for: what `send` of a hosted app or of a WebSocket returns, most of the time.
//!
//! Rules:
//! 1. There is one for all: it has no state.
//! 2. It has the methods of a coroutine: `asyncio.create_task(send(message))` is what some apps do.
//! 3. What `await` calls is not PyO3's, which goes by way of a guard and a handler for panics: it is what C's functions are, and
//!    returns what it is given. Measured: to await it took 290 instructions as a class of PyO3's, and takes 77.

use std::{ffi::c_int, ptr::null_mut};

use pyo3::{
    exceptions::PyStopIteration,
    ffi, intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyString, PyTuple, PyType},
};

/// The object to await.
///
/// # Errors
/// If there is no memory, the first time.
pub(crate) fn ready(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static READY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    READY.get_or_try_init(py, || make(py)).map(|ready| ready.bind(py).clone())
}

/// The part of it that nobody calls often.
#[pyclass(frozen, subclass, module = "httpy._httpy", name = "_Done")]
struct Done;

#[pymethods]
impl Done {
    #[expect(clippy::unused_self, reason = "a coroutine has it")]
    fn send(&self, _value: Py<PyAny>) -> PyResult<()> {
        Err(PyStopIteration::new_err(()))
    }

    #[pyo3(signature = (error, value=None, _traceback=None))]
    #[expect(clippy::unused_self, reason = "a coroutine has it")]
    fn throw(
        &self,
        error: Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        _traceback: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        Err(PyErr::from_value(value.filter(|value| !value.is_none()).unwrap_or(error)))
    }

    #[expect(clippy::unused_self, reason = "a coroutine has it")]
    fn close(&self) {}

    #[getter]
    fn __name__<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        intern!(py, "send").clone()
    }

    #[getter]
    fn __qualname__<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        intern!(py, "send").clone()
    }
}

/// The end, at once: an iterator that has nothing, and raises nothing either.
unsafe extern "C" fn next(_ready: *mut ffi::PyObject) -> *mut ffi::PyObject {
    null_mut()
}

/// `Py_am_send`, in the limited API since 3.10.
const AM_SEND: c_int = 81;
/// `PYGEN_RETURN`.
const RETURN: c_int = 0;

/// The same, for interpreters that ask this way (3.10, 3.11): no exception is looked for.
unsafe extern "C" fn send(
    _ready: *mut ffi::PyObject,
    _value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> c_int {
    // SAFETY: CPython calls it, attached, with a place for one owned reference.
    unsafe {
        ffi::Py_IncRef(ffi::Py_None());
        *result = ffi::Py_None();
    }
    RETURN
}

/// Makes the one there is, of a class below [`Done`] that adds what `await` calls.
fn make(py: Python<'_>) -> PyResult<Py<PyAny>> {
    type Send = unsafe extern "C" fn(*mut ffi::PyObject, *mut ffi::PyObject, *mut *mut ffi::PyObject) -> c_int;
    let itself = ffi::PyObject_SelfIter as unsafe extern "C" fn(*mut ffi::PyObject) -> *mut ffi::PyObject;
    let mut slots = vec![
        ffi::PyType_Slot { slot: ffi::Py_am_await, pfunc: itself as *mut _ },
        ffi::PyType_Slot { slot: ffi::Py_tp_iter, pfunc: itself as *mut _ },
        ffi::PyType_Slot { slot: ffi::Py_tp_iternext, pfunc: next as ffi::iternextfunc as *mut _ },
    ];
    if py.version_info() >= (3, 10) {
        slots.push(ffi::PyType_Slot { slot: AM_SEND, pfunc: send as Send as *mut _ });
    }
    slots.push(ffi::PyType_Slot { slot: 0, pfunc: null_mut() });
    let mut spec = ffi::PyType_Spec {
        name: c"httpy._httpy._Ready".as_ptr(),
        // The base class'.
        basicsize: 0,
        itemsize: 0,
        flags: ffi::Py_TPFLAGS_DEFAULT as _,
        slots: slots.as_mut_ptr(),
    };
    // Python 3.9 takes no class that is not in a tuple.
    let bases = PyTuple::new(py, [PyType::new::<Done>(py)])?;
    // SAFETY: name and functions are static; the slots end with a zero, and are read by the call only, like the
    // specification. The class has no more memory than its base class, whose content has no size: it need not be set.
    unsafe {
        let class: Bound<'_, PyAny> =
            Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpecWithBases(&raw mut spec, bases.as_ptr()))?;
        Bound::from_owned_ptr_or_err(py, ffi::PyType_GenericAlloc(class.as_ptr().cast(), 0)).map(Bound::unbind)
    }
}
