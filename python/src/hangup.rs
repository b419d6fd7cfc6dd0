//! Ends a process whose parent is gone.
//!
//! A worker stops by itself then, but its loop may be stuck, or a thread may hold the interpreter for ever. What sees to it
//! that no process stays behind must need neither: a thread that never attaches.

use std::{
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    thread,
    time::Duration,
};

use pyo3::{exceptions::PyValueError, prelude::*};

use crate::threads;

/// What the thread needs: a call to `poll` and one to `sleep`. 64 KiB, at least four times the least that systems allow.
const STACK: usize = 64 * 1024;

/// Ends this process some seconds after the other end of a socket was closed, whatever runs in it.
///
/// Not on Windows.
#[pyfunction]
#[pyo3(signature = (descriptor, seconds, status, /))]
pub(crate) fn end_after_hangup(descriptor: RawFd, seconds: f64, status: i32) -> PyResult<()> {
    let wait = Duration::try_from_secs_f64(seconds).map_err(|error| PyValueError::new_err(error.to_string()))?;
    // SAFETY: the caller has it open while this runs.
    let ours = unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned()?;
    let watch = move || {
        threads::block_signals();
        wait_for_hangup(&ours);
        thread::sleep(wait);
        // SAFETY: ends the process at once, with nothing else run.
        unsafe { libc::_exit(status) }
    };
    thread::Builder::new().name("httpy-hangup".to_owned()).stack_size(STACK).spawn(watch)?;
    Ok(())
}

fn wait_for_hangup(socket: &OwnedFd) {
    // No events asked for: a hangup is told in any case.
    let mut watched = libc::pollfd { fd: socket.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: one entry, which outlives the call.
    while unsafe { libc::poll(&raw mut watched, 1, -1) } < 1 {}
}
