//! Knowing that this process is the child of a fork.
//!
//! A forked child has the runtime's memory but not its threads, and shares its descriptors with the parent: what it
//! did with them would happen to the parent's connections. So everything here refuses to run in it, and a handler that
//! forked must not return in the child: it ends with `os._exit`, or by running another program.

use std::sync::{
    Once,
    atomic::{AtomicU32, Ordering::Relaxed},
};

static FORKS: AtomicU32 = AtomicU32::new(0);
/// The process that serves.
static SERVING: AtomicU32 = AtomicU32::new(0);

/// The child's exit status if its handler returned: `EX_SOFTWARE` of sysexits.h.
#[cfg(unix)]
const RETURNED: i32 = 70;

/// Which process this is: the number differs from the one its parent saw.
///
/// A counter and not the process id: reading it is no system call.
pub(crate) fn generation() -> u32 {
    FORKS.load(Relaxed)
}

/// This process is about to serve.
pub(crate) fn watch() {
    SERVING.store(generation(), Relaxed);
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[cfg(unix)]
        // SAFETY: the handler only adds to an atomic, which is allowed after a fork.
        unsafe {
            libc::pthread_atfork(None, None, Some(in_child));
        }
    });
}

/// A handler has returned: ends this process if it is not the one that called it.
///
/// Exiting is not a library's business, but here everything else is worse: the child would write its answer to the
/// parent's client, and go on to serve the parent's connections.
#[inline]
pub(crate) fn end_child() {
    #[cfg(unix)]
    if generation() != SERVING.load(Relaxed) {
        eprintln!("httpy: a handler forked and returned in the child, which ends here: use os._exit");
        // SAFETY: ends the process at once, with nothing else run.
        unsafe { libc::_exit(RETURNED) }
    }
}

#[cfg(unix)]
extern "C" fn in_child() {
    FORKS.fetch_add(1, Relaxed);
}
