//! What a server counts of its clients, as Python reads it.

use std::{collections::HashMap, sync::Arc};

use httpy::metrics::Metrics;
use pyo3::prelude::*;

/// How often something was counted, from the first start of a server on.
#[pyclass(frozen, module = "httpy._httpy")]
#[derive(Default)]
pub(crate) struct Counts(pub(crate) Arc<Metrics>);

#[pymethods]
impl Counts {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Returns all counts by their names.
    fn all(&self) -> HashMap<&'static str, u64> {
        self.0.all().collect()
    }
}
