//! Which interpreter of the process this is.
//!
//! What we keep for a process (classes, interned strings, threads that enter Python) belongs to its main interpreter. Another one
//! could import us and half work: its app would run with objects of the main one, and nobody would stop it.

use pyo3::{exceptions::PyImportError, prelude::*};

/// Refuses any interpreter but the main one.
///
/// # Errors
/// `ImportError`, with what to do in the one place where people meet it.
pub(crate) fn require_main() -> PyResult<()> {
    // The main interpreter is number 0, the first that there is.
    if find_current().is_none_or(|id| id == 0) {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "httpy needs the main interpreter of its process, and this is another one; \
         in Apache's configuration, mod_wsgi uses the main one with: WSGIApplicationGroup %{GLOBAL}",
    ))
}

/// The number of the current interpreter.
#[cfg(not(windows))]
fn find_current() -> Option<i64> {
    // SAFETY: we are attached, for Python code is importing us.
    Some(unsafe { pyo3::ffi::PyInterpreterState_GetID(pyo3::ffi::PyInterpreterState_Get()) })
}

/// The library that we are linked to there has no such function for Python 3.9; that of the version that runs has it.
#[cfg(windows)]
fn find_current() -> Option<i64> {
    use std::ffi::c_void;

    type Get = unsafe extern "C" fn() -> *mut c_void;
    type GetId = unsafe extern "C" fn(*mut c_void) -> i64;

    let get = crate::symbols::find(c"PyInterpreterState_Get")?;
    let get_id = crate::symbols::find(c"PyInterpreterState_GetID")?;
    // SAFETY: documented with these signatures in CPython's C API; we are attached, for Python code is importing us.
    unsafe {
        let get = std::mem::transmute::<*mut c_void, Get>(get);
        let get_id = std::mem::transmute::<*mut c_void, GetId>(get_id);
        Some(get_id(get()))
    }
}
