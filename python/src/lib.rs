//! The door: the extension module `httpy._httpy`.

use pyo3::prelude::*;

/// Native half of HTTPy.
#[pymodule(gil_used = false)]
mod _httpy {}
