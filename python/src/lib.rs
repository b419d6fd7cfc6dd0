//! The door: the extension module `httpy._httpy`.

mod call;
mod driver;
mod response;
mod server;
mod symbols;
mod threads;

use pyo3::prelude::*;

/// Native half of HTTPy.
#[pymodule(gil_used = false)]
mod _httpy {
    #[pymodule_export]
    use crate::{call::Endpoint, driver::Selector, server::Core};
}
