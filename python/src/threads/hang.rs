//! What becomes of a thread that comes back to an interpreter that has ended: it hangs, and the process ends without it.
//!
//! Before 3.14 CPython ends such a thread itself, by `pthread_exit`. With glibc that unwinds its stack, through frames of
//! ours whose destructors then touch Python objects without the interpreter: the process crashes that was about to end
//! well. Since 3.14 such threads hang, for just this reason. pyo3 sees to it where it takes the interpreter itself, but
//! inside Python code, as after `time.sleep`, CPython does.

use std::{
    cell::UnsafeCell,
    ffi::{c_int, c_void},
    marker::PhantomPinned,
};

use crate::symbols;

/// Has this thread hang instead of being ended by somebody else. To be called where Python code is about to run below
/// frames of ours; again without effect. It does not keep a thread from ending by itself.
///
/// A handler for the thread's cancellation, of the kind that `pthread_cleanup_push` was before it became a macro: glibc
/// calls those that lie below the frame it has unwound, before it unwinds the next. One that is not on the stack at all
/// lies below the first.
pub(crate) fn hang_if_ended() {
    thread_local! {
        static HANGING: Option<Hanging> = Hanging::new();
    }
    HANGING.with(|_| ());
}

/// `_pthread_cleanup_push(buffer, routine, argument)`, in the Linux Standard Base since version 1.0. musl has it too, and
/// unwinds nothing; elsewhere threads are ended without unwinding.
type Push = unsafe extern "C" fn(buffer: *mut Buffer, routine: extern "C" fn(*mut c_void), argument: *mut c_void);
/// `_pthread_cleanup_pop(buffer, execute)`.
type Pop = unsafe extern "C" fn(buffer: *mut Buffer, execute: c_int);

/// `struct _pthread_cleanup_buffer`, four words, with room to spare.
#[repr(C, align(16))]
struct Buffer(UnsafeCell<[usize; 8]>, PhantomPinned);

struct Hanging {
    buffer: Box<Buffer>,
    pop: Pop,
}

impl Hanging {
    fn new() -> Option<Self> {
        let (push, pop) = (symbols::find(c"_pthread_cleanup_push")?, symbols::find(c"_pthread_cleanup_pop")?);
        // SAFETY: the functions have these signatures wherever they exist.
        let (push, pop) =
            unsafe { (std::mem::transmute::<*mut c_void, Push>(push), std::mem::transmute::<*mut c_void, Pop>(pop)) };
        let buffer = Box::new(Buffer(UnsafeCell::default(), PhantomPinned));
        // SAFETY: the buffer stays where it is until it is popped, on this thread.
        unsafe { push((&raw const *buffer).cast_mut(), hang, std::ptr::null_mut()) };
        Some(Self { buffer, pop })
    }
}

impl Drop for Hanging {
    /// The thread ends by itself.
    fn drop(&mut self) {
        // SAFETY: pushed in `new`, on this thread; nobody else in this process uses this old form.
        unsafe { (self.pop)(&raw mut *self.buffer, 0) };
    }
}

extern "C" fn hang(_: *mut c_void) {
    loop {
        std::thread::park();
    }
}
