//! The switch interval: while pool threads are busy, all threads let the interpreter go sooner.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering::AcqRel},
};

use pyo3::{intern, prelude::*};

use super::lock;

/// How often threads let the interpreter go while the pool is busy. 0.5 ms instead of Python's 5; measured: the slowest
/// 1 % of other routes go from 18 to 3 ms.
pub(super) const SWITCH_INTERVAL_S: f64 = 0.0005;
/// While one exists, threads let the interpreter go sooner.
pub(super) struct Busy;

static BUSY: AtomicUsize = AtomicUsize::new(0);
/// The switch interval the application had. Never held while Python runs.
static BEFORE: Mutex<Option<f64>> = Mutex::new(None);

impl Busy {
    /// One more thread is busy.
    pub(super) fn new(py: Python<'_>) -> Self {
        if BUSY.fetch_add(1, AcqRel) == 0 {
            let sped_up = switch_interval(py).and_then(|before| {
                if before > SWITCH_INTERVAL_S {
                    set_switch_interval(py, SWITCH_INTERVAL_S)?;
                    *lock(&BEFORE) = Some(before);
                }
                Ok(())
            });
            report(py, sped_up);
        }
        Self
    }

    /// One less.
    pub(super) fn end(self, py: Python<'_>) {
        if BUSY.fetch_sub(1, AcqRel) == 1
            && let Some(before) = lock(&BEFORE).take()
        {
            let restored = switch_interval(py).and_then(|now| {
                // Anything else was set by the application since, and stays.
                if (now - SWITCH_INTERVAL_S).abs() < f64::EPSILON { set_switch_interval(py, before) } else { Ok(()) }
            });
            report(py, restored);
        }
    }
}

fn switch_interval(py: Python<'_>) -> PyResult<f64> {
    py.import(intern!(py, "sys"))?.call_method0(intern!(py, "getswitchinterval"))?.extract()
}

fn set_switch_interval(py: Python<'_>, seconds: f64) -> PyResult<()> {
    py.import(intern!(py, "sys"))?.call_method1(intern!(py, "setswitchinterval"), (seconds,)).map(drop)
}

fn report(py: Python<'_>, outcome: PyResult<()>) {
    if let Err(error) = outcome {
        error.write_unraisable(py, None);
    }
}
