//! Knowing that this process is the child of a fork.
//!
//! A forked child has the runtime's memory but not its threads, and shares its descriptors with the parent: what it
//! did with them would happen to the parent's connections. So everything here refuses to run in it.

use std::sync::{
    Once,
    atomic::{AtomicU32, Ordering::Relaxed},
};

static FORKS: AtomicU32 = AtomicU32::new(0);

/// Which process this is: the number differs from the one its parent saw.
///
/// A counter and not the process id: reading it is no system call.
pub(crate) fn generation() -> u32 {
    FORKS.load(Relaxed)
}

/// Starts counting. Idempotent.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[cfg(unix)]
        // SAFETY: the handler only adds to an atomic, which is allowed after a fork.
        unsafe {
            libc::pthread_atfork(None, None, Some(in_child));
        }
    });
}

#[cfg(unix)]
extern "C" fn in_child() {
    FORKS.fetch_add(1, Relaxed);
}
