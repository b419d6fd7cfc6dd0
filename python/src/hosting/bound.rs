//! Functions that are bound to what they work with: `receive` and `send` of a request.
//!
//! A request has two, and a response calls one of them twice, so they are as small as an object can be: a reference, and
//! what CPython calls without a tuple of arguments (PEP 590), which PyO3 can give no class. To make and free the two takes 530
//! instructions. As functions of CPython's (`METH_O`, `METH_NOARGS`), which have to be bound to an object of a class of PyO3's,
//! they took 1,360.
//!
//! Whoever is called by CPython is attached to the interpreter. [`Python::attach`] would only count that, so there is none
//! here; what is released where nobody counted, PyO3 keeps until the next one is counted.

use std::{
    ffi::{CStr, c_int, c_ulong, c_void},
    mem::{ManuallyDrop, offset_of},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::null_mut,
    sync::Arc,
};

use pyo3::{
    exceptions::{PyMemoryError, PyRuntimeError, PyTypeError},
    ffi,
    prelude::*,
    sync::PyOnceLock,
};

/// What such a function does. It takes no keywords.
pub(super) trait Function: 'static {
    /// What it works with.
    type Data: Send + Sync + 'static;

    /// Its name, and that of its class.
    const NAMES: [&'static CStr; 2];

    /// Whether it takes one argument; else none.
    const TAKES_ONE: bool;

    /// Where its class is kept.
    fn class() -> &'static PyOnceLock<Py<PyAny>>;

    /// Does it. The argument is there if it takes one.
    fn call<'py>(
        py: Python<'py>,
        data: &Arc<Self::Data>,
        argument: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>>;
}

/// A function that works with `data`.
///
/// # Errors
/// If there is no memory.
pub(super) fn bind<F: Function>(py: Python<'_>, data: Arc<F::Data>) -> PyResult<Bound<'_, PyAny>> {
    let class = F::class().get_or_try_init(py, || make_class::<F>(py))?;
    // SAFETY: memory as large as an `Object`, of which every field is written before anybody gets it.
    unsafe {
        let own = ffi::PyObject_Malloc(size_of::<Object<F::Data>>()).cast::<Object<F::Data>>();
        if own.is_null() {
            return Err(PyMemoryError::new_err(()));
        }
        ffi::PyObject_Init(own.cast(), class.as_ptr().cast());
        (&raw mut (*own).vectorcall).write(vectorcall::<F>);
        (&raw mut (*own).data).write(ManuallyDrop::new(data));
        Ok(Bound::from_owned_ptr(py, own.cast()))
    }
}

/// `vectorcallfunc`, which the limited API of Python 3.9 does not name.
type Vectorcall = unsafe extern "C" fn(
    function: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject;

/// `PY_VECTORCALL_ARGUMENTS_OFFSET`, a bit of the count.
const HAS_PLACE_BEFORE: usize = 1 << (usize::BITS - 1);
/// `Py_TPFLAGS_HAVE_VECTORCALL`, in the limited API since 3.12, and the same bit since 3.9.
const HAVE_VECTORCALL: c_ulong = 1 << 11;

#[repr(C)]
struct Object<T> {
    head: ffi::PyObject,
    vectorcall: Vectorcall,
    data: ManuallyDrop<Arc<T>>,
}

fn make_class<F: Function>(py: Python<'_>) -> PyResult<Py<PyAny>> {
    let at = ffi::PyMemberDef {
        name: c"__vectorcalloffset__".as_ptr(),
        type_code: ffi::Py_T_PYSSIZET,
        offset: offset_of!(Object<F::Data>, vectorcall).cast_signed(),
        flags: ffi::Py_READONLY,
        doc: null_mut(),
    };
    // SAFETY: all zero is a member without a name, which is the end of them.
    let members = Box::leak(Box::new([at, unsafe { std::mem::zeroed() }]));
    let name = |attribute: &'static CStr| ffi::PyGetSetDef {
        name: attribute.as_ptr(),
        get: Some(name::<F>),
        ..ffi::PyGetSetDef::default()
    };
    let names = Box::leak(Box::new([name(c"__name__"), name(c"__qualname__"), ffi::PyGetSetDef::default()]));
    let slot = |slot: c_int, pfunc: *mut c_void| ffi::PyType_Slot { slot, pfunc };
    let mut slots = [
        slot(ffi::Py_tp_call, call::<F> as ffi::ternaryfunc as *mut _),
        slot(ffi::Py_tp_dealloc, dealloc::<F> as ffi::destructor as *mut _),
        slot(ffi::Py_tp_new, new as ffi::newfunc as *mut _),
        slot(ffi::Py_tp_members, members.as_mut_ptr().cast()),
        slot(ffi::Py_tp_getset, names.as_mut_ptr().cast()),
        slot(0, null_mut()),
    ];
    let mut spec = ffi::PyType_Spec {
        name: F::NAMES[1].as_ptr(),
        basicsize: size_of::<Object<F::Data>>() as _,
        itemsize: 0,
        flags: (ffi::Py_TPFLAGS_DEFAULT | HAVE_VECTORCALL) as _,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: names, functions, members and attributes live for ever; the slots, which end with a zero, are read by the call
    // only. Objects are as large as is said, and none is made by Python (`new`).
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpec(&raw mut spec)).map(Bound::unbind) }
}

unsafe extern "C" fn vectorcall<F: Function>(
    function: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let count = count & !HAS_PLACE_BEFORE;
    // SAFETY: CPython calls it with as many arguments, and then one for each name, if there is a tuple of names.
    unsafe {
        let is_fit = count == usize::from(F::TAKES_ONE) && (names.is_null() || ffi::PyTuple_Size(names) == 0);
        run::<F>(function, is_fit.then(|| if F::TAKES_ONE { *arguments } else { null_mut() }))
    }
}

/// The way of those who have a tuple of arguments.
unsafe extern "C" fn call<F: Function>(
    function: *mut ffi::PyObject,
    arguments: *mut ffi::PyObject,
    named: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls it with a tuple, and perhaps a dict.
    unsafe {
        let count = ffi::PyTuple_Size(arguments).unsigned_abs();
        let is_fit = count == usize::from(F::TAKES_ONE) && (named.is_null() || ffi::PyDict_Size(named) == 0);
        run::<F>(function, is_fit.then(|| if F::TAKES_ONE { ffi::PyTuple_GetItem(arguments, 0) } else { null_mut() }))
    }
}

/// Does what the function does. No argument is a wrong number of them, and null is one that it does not take.
///
/// # Safety
/// CPython has called `function`, which is one of `F`'s, and both are alive for as long as the call.
#[inline]
unsafe fn run<F: Function>(function: *mut ffi::PyObject, argument: Option<*mut ffi::PyObject>) -> *mut ffi::PyObject {
    // SAFETY: whoever is called by CPython is attached; what is borrowed here is alive, and ends with the call.
    let (py, data) = unsafe { (Python::assume_attached(), &(*function.cast::<Object<F::Data>>()).data) };
    // A panic must not get into the interpreter.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let Some(argument) = argument else {
            let takes = if F::TAKES_ONE { "exactly one argument" } else { "no arguments" };
            return Err(PyTypeError::new_err(format!("{}() takes {takes}", F::NAMES[0].to_string_lossy())));
        };
        // SAFETY: as above.
        let argument = unsafe { Bound::from_borrowed_ptr_or_opt(py, argument) };
        F::call(py, data, argument.as_ref())
    }));
    match outcome.unwrap_or_else(|_| Err(PyRuntimeError::new_err("a bug in HTTPy: the log has a panic"))) {
        Ok(value) => value.into_ptr(),
        Err(error) => {
            error.restore(py);
            null_mut()
        }
    }
}

unsafe extern "C" fn dealloc<F: Function>(function: *mut ffi::PyObject) {
    // SAFETY: nobody has it any more. It was made by `bind`, so that it has data, no garbage collector knows it, and its
    // class is its own.
    unsafe {
        let class = ffi::Py_TYPE(function);
        ManuallyDrop::drop(&mut (*function.cast::<Object<F::Data>>()).data);
        ffi::PyObject_Free(function.cast());
        ffi::Py_DecRef(class.cast());
    }
}

unsafe extern "C" fn new(
    _class: *mut ffi::PyTypeObject,
    _arguments: *mut ffi::PyObject,
    _named: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: whoever is called by CPython is attached.
    let py = unsafe { Python::assume_attached() };
    PyTypeError::new_err("only HTTPy makes these").restore(py);
    null_mut()
}

unsafe extern "C" fn name<F: Function>(_function: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: text that ends with a NUL.
    unsafe { ffi::PyUnicode_FromString(F::NAMES[0].as_ptr()) }
}
