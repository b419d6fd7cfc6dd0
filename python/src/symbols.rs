//! Interpreter functions that the limited API of Python 3.9 lacks, looked up by name at run time.
//!
//! Rules:
//! 1. Nothing here is linked against, so one `cp39-abi3` file loads in every Python.
//! 2. Every function may be missing; its caller has a way round it inside the limited API.
//! 3. Only functions whose signature is documented and has never changed; a private name may.

use std::ffi::{CStr, c_char, c_void};
use std::sync::OnceLock;

use pyo3::ffi;

/// `PyUnicode_AsUTF8AndSize`: limited API since 3.10, exported since 3.3.
pub(crate) type AsUtf8AndSize = unsafe extern "C" fn(*mut ffi::PyObject, *mut ffi::Py_ssize_t) -> *const c_char;

/// What was found in this interpreter.
pub(crate) struct Symbols {
    /// Lends the UTF-8 of a `str` without a copy. Without it every text is encoded into a new `bytes`.
    pub(crate) as_utf8_and_size: Option<AsUtf8AndSize>,
}

/// The functions of this process' interpreter; the first call looks them up.
#[inline]
pub(crate) fn symbols() -> &'static Symbols {
    static SYMBOLS: OnceLock<Symbols> = OnceLock::new();
    SYMBOLS.get_or_init(Symbols::find)
}

impl Symbols {
    fn find() -> Symbols {
        let as_utf8_and_size = find_symbol(c"PyUnicode_AsUTF8AndSize");
        Symbols {
            // SAFETY: the address is that of CPython's function of this name, and the type repeats its signature.
            as_utf8_and_size: as_utf8_and_size
                .map(|address| unsafe { std::mem::transmute::<*mut c_void, AsUtf8AndSize>(address) }),
        }
    }
}

#[cfg(unix)]
fn find_symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name is NUL-terminated, and RTLD_DEFAULT searches only what is already loaded.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}

// Windows has no search over everything loaded, and the name of the Python DLL differs per version:
// the way round is taken there until somebody measures that it matters.
#[cfg(not(unix))]
fn find_symbol(_name: &CStr) -> Option<*mut c_void> {
    None
}
