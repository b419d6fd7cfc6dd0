//! The access log as Python makes it and the server writes it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use httpy::{
    Middleware,
    middleware::{self, Format, Sink},
};
use pyo3::prelude::*;

use crate::errors;

/// How long a stop waits for the last lines. 1 s: who does not read them for so long does not read them.
const LAST_LINES: Duration = Duration::from_secs(1);

/// A line for every request, to standard output or the end of a file.
///
/// Written by a thread of its own, without Python. `format` is "text" or "json".
///
/// Raises `ConfigError` if it can't be written there.
#[pyclass(frozen, module = "httpy._httpy")]
pub(crate) struct AccessLog {
    sink: Arc<Sink>,
    format: Format,
}

#[pymethods]
impl AccessLog {
    #[new]
    #[pyo3(signature = (path=None, *, format="text"))]
    fn new(py: Python<'_>, path: Option<PathBuf>, format: &str) -> PyResult<Self> {
        let format = match format {
            "text" => Format::Text,
            "json" => Format::Json,
            _ => return Err(errors::config(py, format!("format is text or json, not {format:?}"))),
        };
        let place = path.as_ref().map_or_else(|| "standard output".to_owned(), |path| path.display().to_string());
        let sink = py.detach(|| path.map_or_else(Sink::stdout, Sink::file));
        let sink =
            sink.map_err(|error| errors::config(py, format!("can't write the access log to {place}: {error}")))?;
        Ok(Self { sink, format })
    }

    /// Waits until what was logged is written, a second at most, and returns whether it is.
    fn flush(&self, py: Python<'_>) -> bool {
        py.detach(|| self.sink.flush(LAST_LINES))
    }
}

impl AccessLog {
    pub(crate) fn middleware(&self) -> Arc<dyn Middleware> {
        Arc::new(middleware::AccessLog::new(self.sink.clone(), self.format))
    }
}
