//! Response content that is made as it is sent.
use crate::response::Background;
use httpy::{Body, Response};
use pyo3::{exceptions::PyTypeError, prelude::*};
pub(crate) fn stream(_py: Python<'_>, _chunks: &Bound<'_, PyAny>) -> PyResult<Body> {
    Err(PyTypeError::new_err("streams come next"))
}
pub(crate) fn with_background(_py: Python<'_>, response: Response, _background: Background) -> Response {
    response
}
