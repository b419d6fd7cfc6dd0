//! Passes pyo3's `cfg` flags on (`Py_GIL_DISABLED` is the one in use); runs only when they change.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    pyo3_build_config::use_pyo3_cfgs();
}
