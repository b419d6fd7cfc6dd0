//! The door: the extension module `httpy._httpy`.

use pyo3::prelude::*;

mod json;
mod symbols;

/// Native half of HTTPy.
#[pymodule(gil_used = false)]
mod _httpy {
    #[pymodule_export]
    use crate::json::{json_dumps, json_loads};
}
