//! Functions that are bound to an object, and called with one argument or none.
//!
//! What a class of PyO3's has as `__call__` is called with a tuple, which Python makes, and PyO3 takes apart: 400 instructions
//! more for each `send`, of which a response has two. For its own functions CPython knows better ways (`METH_O`,
//! `METH_NOARGS`), which are in the limited API, but have no name in PyO3.

use std::{
    ffi::{CStr, c_int},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::{null, null_mut},
};

use pyo3::{PyClass, exceptions::PyRuntimeError, ffi, prelude::*};

/// What is called. The second object is the argument, and null where there is none.
pub(super) type Function = unsafe extern "C" fn(*mut ffi::PyObject, *mut ffi::PyObject) -> *mut ffi::PyObject;

/// A function, before it is bound.
pub(super) struct Method(ffi::PyMethodDef);

// SAFETY: nobody writes to it, CPython included: its pointers are to a static string and a function.
unsafe impl Sync for Method {}

impl Method {
    /// A function of no argument.
    pub(super) const fn of_none(name: &'static CStr, function: Function) -> Self {
        Self::new(name, function, ffi::METH_NOARGS)
    }

    /// A function of one argument.
    pub(super) const fn of_one(name: &'static CStr, function: Function) -> Self {
        Self::new(name, function, ffi::METH_O)
    }

    const fn new(name: &'static CStr, function: Function, flags: c_int) -> Self {
        let method = ffi::PyMethodDefPointer { PyCFunction: function };
        Self(ffi::PyMethodDef { ml_name: name.as_ptr(), ml_meth: method, ml_flags: flags, ml_doc: null() })
    }

    /// The function of an object, whose class is the one that it asks for with [`call`].
    ///
    /// # Errors
    /// If there is no memory.
    pub(super) fn bind<'py, T: PyClass>(&'static self, object: &Bound<'py, T>) -> PyResult<Bound<'py, PyAny>> {
        let definition = (&raw const self.0).cast_mut();
        // SAFETY: the definition lives for ever, and is not written to; the object is alive, and becomes the function's.
        unsafe {
            let function = ffi::PyCFunction_NewEx(definition, object.as_ptr(), null_mut());
            Bound::from_owned_ptr_or_err(object.py(), function)
        }
    }
}

/// What a [`Function`] does: `call` with the object that it is bound to, and its argument.
///
/// # Safety
/// Both are what CPython has called the function with.
pub(super) unsafe fn call<T: PyClass>(
    object: *mut ffi::PyObject,
    argument: *mut ffi::PyObject,
    call: impl FnOnce(&Bound<'_, T>, Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>>,
) -> *mut ffi::PyObject {
    Python::attach(|py| {
        // SAFETY: alive for as long as the call, says the caller; null is none.
        let (object, argument) =
            unsafe { (Bound::from_borrowed_ptr(py, object), Bound::from_borrowed_ptr_or_opt(py, argument)) };
        // A panic must not get into the interpreter.
        let outcome = catch_unwind(AssertUnwindSafe(|| call(object.cast::<T>()?, argument.as_ref())));
        let outcome = outcome.unwrap_or_else(|_| Err(PyRuntimeError::new_err("a bug in HTTPy: the log has a panic")));
        match outcome {
            Ok(value) => value.into_ptr(),
            Err(error) => {
                error.restore(py);
                null_mut()
            }
        }
    })
}
