//! Remembers where each key was written, so that the rows of a table have their keys copied from the first row.
//!
//! Rules:
//! 1. A key is known by its address: the keys of alike dicts are the same interned `str`. Remembered keys are owned, so
//!    that no other `str` gets the address, nor is one changed in place.
//! 2. It lives for one walk, and what was written never changes during that.
//! 3. It is bounded and nothing in it is replaced: many different keys cost a look each, and no more.

use std::mem::MaybeUninit;

use pyo3::ffi;
use pyo3::prelude::*;

use super::out::Piece;

/// One bit of `taken` each, so that a walk starts with nothing to clear. Rows have ten or twenty keys.
pub(super) const PLACES: usize = 64;

/// Lent by who walks, as it is too much to move for a small document.
pub(super) type Room = [MaybeUninit<(*mut ffi::PyObject, Piece)>; PLACES];

pub(super) struct Repeats<'a, 'py> {
    _py: Python<'py>,
    taken: u64,
    places: &'a mut Room,
}

impl<'a, 'py> Repeats<'a, 'py> {
    #[inline]
    pub(super) fn new(py: Python<'py>, room: &'a mut Room) -> Self {
        Repeats { _py: py, taken: 0, places: room }
    }

    /// Returns where `key` was written.
    #[inline]
    pub(super) fn find(&self, key: Borrowed<'_, 'py, PyAny>) -> Option<Piece> {
        let index = place_of(key.as_ptr());
        if self.taken >> index & 1 == 0 {
            return None;
        }
        // SAFETY: what is taken was set.
        let (known, piece) = unsafe { self.places[index].assume_init_ref() };
        (*known == key.as_ptr()).then_some(*piece)
    }

    /// Remembers `key`, a `str`, if its place is free.
    #[cold]
    #[inline(never)]
    pub(super) fn remember(&mut self, key: Borrowed<'_, 'py, PyAny>, piece: Piece) {
        let index = place_of(key.as_ptr());
        if self.taken >> index & 1 == 0 {
            self.places[index].write((key.to_owned().into_ptr(), piece));
            self.taken |= 1 << index;
        }
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.taken == u64::MAX
    }
}

impl Drop for Repeats<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        while self.taken != 0 {
            let index = self.taken.trailing_zeros() as usize;
            self.taken &= self.taken - 1;
            // SAFETY: what is taken was set, to a reference of our own, and we are attached.
            unsafe { ffi::Py_DecRef(self.places[index].assume_init_ref().0) };
        }
    }
}

/// The upper bits of a product depend on all bits of the address, of which the lowest four are always zero.
#[inline]
fn place_of(key: *mut ffi::PyObject) -> usize {
    ((key as usize as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - PLACES.ilog2())) as usize
}
