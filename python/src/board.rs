//! Where workers tell each other how many connections they have: memory that they share.
//!
//! A row of numbers, one for each worker: zero if it is not there, else one more than its connections. The supervisor
//! makes it, gives every worker a place, and writes zero there when the worker has ended.

use std::{
    io,
    os::fd::RawFd,
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use httpy::conn::{Board, Told};

/// How many workers there may be. 256, which are read in 50 ns: several for each processor of a large machine.
const PLACES: usize = 256;
const BYTES: usize = PLACES * size_of::<AtomicU32>();

/// Shared memory, and this worker's place in it.
pub(crate) struct SharedBoard {
    places: NonNull<AtomicU32>,
    own: usize,
}

// SAFETY: it is shared between processes already, and by atomics only.
unsafe impl Send for SharedBoard {}

impl SharedBoard {
    /// Maps the memory behind a descriptor, which stays the caller's.
    ///
    /// # Errors
    /// If that can't be mapped, or is too small.
    pub(crate) fn new(descriptor: RawFd, place: usize) -> io::Result<Self> {
        // SAFETY: all zeros is a valid value of this plain struct, and `fstat` writes no more than it.
        let size = unsafe {
            let mut about: libc::stat = std::mem::zeroed();
            if libc::fstat(descriptor, &raw mut about) != 0 {
                return Err(io::Error::last_os_error());
            }
            about.st_size
        };
        // Reading behind the end of a file ends the process.
        if usize::try_from(size).unwrap_or(0) < BYTES || place >= PLACES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (read_write, none) = (libc::PROT_READ | libc::PROT_WRITE, std::ptr::null_mut());
        // SAFETY: a new mapping of our own choice of length, at a place of the system's choice.
        let mapped = unsafe { libc::mmap(none, BYTES, read_write, libc::MAP_SHARED, descriptor, 0) };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let places = NonNull::new(mapped.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { places, own: place })
    }

    fn places(&self) -> &[AtomicU32] {
        // SAFETY: mapped until this is dropped, page-aligned, of this length, and zeros are valid atomics.
        unsafe { std::slice::from_raw_parts(self.places.as_ptr(), PLACES) }
    }
}

impl Board for SharedBoard {
    fn write(&self, open: Option<usize>) {
        let told = open.map_or(0, |open| u32::try_from(open).unwrap_or(u32::MAX).saturating_add(1));
        self.places()[self.own].store(told, Relaxed);
    }

    fn read(&self) -> Told {
        let told = self.places().iter().map(|place| place.load(Relaxed)).filter(|told| *told > 0);
        told.fold(Told { open: 0, processes: 0 }, |all, told| Told {
            open: all.open + told as usize - 1,
            processes: all.processes + 1,
        })
    }
}

impl Drop for SharedBoard {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, with this length, and used by nobody else here.
        unsafe { libc::munmap(self.places.as_ptr().cast(), BYTES) };
    }
}
