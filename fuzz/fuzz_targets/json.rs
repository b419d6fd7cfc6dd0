//! Any bytes as JSON, read into Python objects and written again, in an interpreter of its own.
//!
//! The reader and the `json` module read the same documents, and the same from each; what was read is written so that
//! both read it back; and the writer writes the same whether it reads CPython's objects in place or asks for everything.
//! `json_reference.py` is where that is checked.
#![no_main]

use _httpy::_httpy;
use libfuzzer_sys::fuzz_target;
use pyo3::{ffi::c_str, prelude::*, sync::PyOnceLock, types::PyBytes};

fuzz_target!(
    init: {
        pyo3::append_to_inittab!(_httpy);
        Python::initialize();
    },
    |data: &[u8]| {
        Python::attach(|py| {
            if let Err(error) = check(py, data) {
                error.print(py);
                panic!("see above");
            }
        });
    }
);

/// The reference's `check`, and what it is given.
struct Reference {
    check: Py<PyAny>,
    functions: [Py<PyAny>; 3],
}

fn check(py: Python<'_>, data: &[u8]) -> PyResult<()> {
    static REFERENCE: PyOnceLock<Reference> = PyOnceLock::new();
    let reference = REFERENCE.get_or_try_init(py, || -> PyResult<Reference> {
        let native = py.import("_httpy")?;
        let module = PyModule::from_code(py, SOURCE, c_str!("json_reference.py"), c_str!("json_reference"))?;
        let function = |name| Ok::<_, PyErr>(native.getattr(name)?.unbind());
        Ok(Reference {
            check: module.getattr("check")?.unbind(),
            functions: [function("json_loads")?, function("json_dumps")?, function("json_layout")?],
        })
    })?;
    let [loads, dumps, layout] = &reference.functions;
    reference.check.call1(py, (loads, dumps, layout, PyBytes::new(py, data))).map(drop)
}

const SOURCE: &std::ffi::CStr = c_str!(include_str!("../json_reference.py"));
