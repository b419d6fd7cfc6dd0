//! Why a value can't be written, and where in the whole it stands: `... at $.users[3].avatar`.

use std::fmt::Write as _;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

/// Why writing stopped. Boxed where it is returned, so that the usual result fits a register.
pub(super) enum Refusal {
    Raised(PyErr),
    Refused { kind: Kind, what: String, advice: &'static str, path: Vec<Step> },
}

/// Which exception it becomes.
pub(super) enum Kind {
    Type,
    Value,
}

/// One step from the root to the place, in the order they are found: the last one first.
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl Refusal {
    #[cold]
    pub(super) fn raised(error: impl Into<PyErr>) -> Box<Refusal> {
        Box::new(Refusal::Raised(error.into()))
    }

    #[cold]
    pub(super) fn kind(what: impl Into<String>, advice: &'static str) -> Box<Refusal> {
        Box::new(Refusal::Refused { kind: Kind::Type, what: what.into(), advice, path: Vec::new() })
    }

    #[cold]
    pub(super) fn value(what: impl Into<String>, advice: &'static str) -> Box<Refusal> {
        Box::new(Refusal::Refused { kind: Kind::Value, what: what.into(), advice, path: Vec::new() })
    }

    #[cold]
    pub(super) fn at_key(mut self: Box<Self>, key: &[u8]) -> Box<Self> {
        if let Refusal::Refused { path, .. } = &mut *self {
            let key = String::from_utf8_lossy(key);
            let name = key.trim_matches('"');
            let is_name = |c: char| c.is_alphanumeric() || c == '_';
            path.push(Step::Key(if !name.is_empty() && name.chars().all(is_name) {
                format!(".{name}")
            } else {
                format!("[{key}]")
            }));
        }
        self
    }

    #[cold]
    pub(super) fn at_index(mut self: Box<Self>, index: usize) -> Box<Self> {
        if let Refusal::Refused { path, .. } = &mut *self {
            path.push(Step::Index(index));
        }
        self
    }

    #[cold]
    pub(super) fn into_error(self) -> PyErr {
        let (kind, what, advice, path) = match self {
            Refusal::Raised(error) => return error,
            Refusal::Refused { kind, what, advice, path } => (kind, what, advice, path),
        };
        let mut message = format!("{what} at {}", path_text(path));
        if !advice.is_empty() {
            // Infallible: it writes to a String.
            let _ = write!(message, ": {advice}");
        }
        match kind {
            Kind::Type => PyTypeError::new_err(message),
            Kind::Value => PyValueError::new_err(message),
        }
    }
}

/// Spells a path as `$.users[3].avatar`. A message is for reading, so long keys and paths are cut.
fn path_text(path: Vec<Step>) -> String {
    const LONGEST_PATH: usize = 16;
    const LONGEST_KEY: usize = 64;
    let steps = path.len();
    let mut text = String::from("$");
    for step in path.into_iter().rev().take(LONGEST_PATH) {
        match step {
            Step::Key(key) if key.chars().count() > LONGEST_KEY => {
                text.extend(key.chars().take(LONGEST_KEY));
                text.push('…');
            }
            Step::Key(key) => text.push_str(&key),
            Step::Index(index) => {
                // Infallible: it writes to a String.
                let _ = write!(text, "[{index}]");
            }
        }
    }
    if steps > LONGEST_PATH {
        text.push('…');
    }
    text
}
