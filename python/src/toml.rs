//! Reads TOML, which Python can do by itself from 3.11 on only.

use pyo3::{
    prelude::*,
    types::{PyDict, PyList},
};
use toml::de::{DeTable, DeValue};

use crate::errors;

/// Reads a TOML document.
///
/// Dates and times stay text.
#[pyfunction]
#[pyo3(signature = (text, /))]
pub(crate) fn read_toml<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyDict>> {
    let table = DeTable::parse(text).map_err(|error| {
        // toml's own rendering has several lines, and shows the source.
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let before = text.get(..at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let message = error.message().lines().next().unwrap_or("not TOML").to_owned();
        errors::config(py, format!("line {line}: {message}"))
    })?;
    to_dict(py, table.get_ref())
}

fn to_dict<'py>(py: Python<'py>, table: &DeTable<'_>) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in table {
        dict.set_item(name.get_ref(), to_python(py, value.get_ref())?)?;
    }
    Ok(dict)
}

/// Recurses as deep as the document nests, which the parser bounds.
fn to_python<'py>(py: Python<'py>, value: &DeValue<'_>) -> PyResult<Bound<'py, PyAny>> {
    let int = |text: &str, radix: u32| py.get_type::<pyo3::types::PyInt>().call1((text, radix));
    Ok(match value {
        DeValue::String(text) => text.into_pyobject(py)?.into_any(),
        DeValue::Integer(number) => int(number.as_str(), number.radix())?,
        DeValue::Float(number) => py.get_type::<pyo3::types::PyFloat>().call1((number.as_str(),))?,
        DeValue::Boolean(truth) => truth.into_pyobject(py)?.to_owned().into_any(),
        DeValue::Datetime(time) => time.to_string().into_pyobject(py)?.into_any(),
        DeValue::Array(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(to_python(py, item.get_ref())?)?;
            }
            list.into_any()
        }
        DeValue::Table(table) => to_dict(py, table)?.into_any(),
    })
}
