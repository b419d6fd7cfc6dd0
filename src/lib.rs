//! HTTPy's server: knows HTTP, does not know Python.

pub mod route;
