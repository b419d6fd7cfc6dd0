//! JSON
use pyo3::{
    prelude::*,
    types::{PyBytes, PyString},
};
pub(crate) fn write(py: Python<'_>, value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    let text = py.import("json")?.call_method1("dumps", (value,))?;
    out.extend_from_slice(text.cast::<PyString>()?.to_cow()?.as_bytes());
    Ok(())
}
pub(crate) fn read<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    py.import("json")?.call_method1("loads", (PyBytes::new(py, bytes),))
}
