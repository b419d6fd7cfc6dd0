//! Request content as it arrives.
use bytes::Bytes;
use httpy::Body;
use pyo3::prelude::*;
/// Chunks of a request body.
#[pyclass(frozen, module = "httpy._httpy")]
pub(crate) struct Chunks;
impl Chunks {
    pub(crate) fn new(_body: Body) -> Self {
        Self
    }
    pub(crate) fn whole(_bytes: Bytes) -> Self {
        Self
    }
}
