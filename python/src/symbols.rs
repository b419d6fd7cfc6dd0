//! Functions of the interpreter that are outside the limited API we build against, looked up once at import.
//!
//! One `abi3` wheel serves every Python from 3.9 on. What newer or fuller interpreters do faster is found by name in
//! the running process; where it is missing, callers take the slow way. Measured: 2 to 7 % of a pipelined request.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    sync::OnceLock,
};

use pyo3::ffi::{Py_ssize_t, PyObject};

/// `PyObject_Vectorcall(callable, args, nargsf, kwnames)`: limited API only since 3.12.
pub(crate) type Vectorcall = unsafe extern "C" fn(
    callable: *mut PyObject,
    args: *const *mut PyObject,
    nargsf: usize,
    kwnames: *mut PyObject,
) -> *mut PyObject;
/// `PyIter_Send(iterator, value, result)`: since 3.10. Returns 0 returned, 1 yielded, -1 raised.
pub(crate) type IterSend =
    unsafe extern "C" fn(iterator: *mut PyObject, value: *mut PyObject, result: *mut *mut PyObject) -> c_int;
/// `PyContext_Enter`, `PyContext_Exit`: never in the limited API.
pub(crate) type ContextSwitch = unsafe extern "C" fn(context: *mut PyObject) -> c_int;
/// `PyContext_Copy(context)`: never in the limited API.
pub(crate) type ContextCopy = unsafe extern "C" fn(context: *mut PyObject) -> *mut PyObject;

/// `PyUnicode_AsUTF8AndSize`: limited API since 3.10, exported since 3.3.
pub(crate) type AsUtf8AndSize = unsafe extern "C" fn(text: *mut PyObject, size: *mut Py_ssize_t) -> *const c_char;

/// What was found.
#[derive(Default)]
pub(crate) struct Symbols {
    /// Lends the UTF-8 of a `str` without a copy. Without it every text is encoded into a new `bytes`.
    pub(crate) as_utf8_and_size: Option<AsUtf8AndSize>,
    pub(crate) vectorcall: Option<Vectorcall>,
    pub(crate) iter_send: Option<IterSend>,
    pub(crate) context_enter: Option<ContextSwitch>,
    pub(crate) context_exit: Option<ContextSwitch>,
    pub(crate) context_copy: Option<ContextCopy>,
}

/// The symbols of this process.
#[inline]
pub(crate) fn symbols() -> &'static Symbols {
    static SYMBOLS: OnceLock<Symbols> = OnceLock::new();
    SYMBOLS.get_or_init(|| {
        // SAFETY: each name is documented in CPython's C API with exactly the signature of its type above.
        unsafe {
            Symbols {
                as_utf8_and_size: find(c"PyUnicode_AsUTF8AndSize")
                    .map(|f| std::mem::transmute::<*mut c_void, AsUtf8AndSize>(f)),
                vectorcall: find(c"PyObject_Vectorcall").map(|f| std::mem::transmute::<*mut c_void, Vectorcall>(f)),
                iter_send: find(c"PyIter_Send").map(|f| std::mem::transmute::<*mut c_void, IterSend>(f)),
                context_enter: find(c"PyContext_Enter").map(|f| std::mem::transmute::<*mut c_void, ContextSwitch>(f)),
                context_exit: find(c"PyContext_Exit").map(|f| std::mem::transmute::<*mut c_void, ContextSwitch>(f)),
                context_copy: find(c"PyContext_Copy").map(|f| std::mem::transmute::<*mut c_void, ContextCopy>(f)),
            }
        }
    })
}

#[cfg(unix)]
pub(crate) fn find(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: dlsym with RTLD_DEFAULT only reads the tables of loaded objects; the interpreter is one of them.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}

/// `python3.dll`, which we are linked to, has only the limited API. The rest is in the library of the version that runs.
#[cfg(windows)]
pub(crate) fn find(name: &CStr) -> Option<*mut c_void> {
    unsafe extern "system" {
        fn GetModuleHandleA(name: *const std::ffi::c_char) -> *mut c_void;
        fn GetProcAddress(module: *mut c_void, name: *const std::ffi::c_char) -> *mut c_void;
    }
    // SAFETY: a static string, as documented.
    let version = unsafe { CStr::from_ptr(pyo3::ffi::Py_GetVersion()) };
    let mut numbers = version.to_str().ok()?.split('.');
    let library = format!("python{}{}", numbers.next()?, numbers.next()?);
    // As shipped, free-threaded, and built for debugging.
    ["", "t", "_d", "t_d"].iter().find_map(|suffix| {
        let library = std::ffi::CString::new(format!("{library}{suffix}.dll")).ok()?;
        // SAFETY: both strings end with NUL; a module that is not loaded is null, and then not asked.
        unsafe {
            let module = GetModuleHandleA(library.as_ptr());
            let address = if module.is_null() { module } else { GetProcAddress(module, name.as_ptr()) };
            (!address.is_null()).then_some(address)
        }
    })
}

#[cfg(not(any(unix, windows)))]
pub(crate) fn find(_name: &CStr) -> Option<*mut c_void> {
    None
}
