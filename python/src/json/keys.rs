//! Remembers the short keys of objects, so that a document of a hundred alike objects makes each key once.
//!
//! Rules:
//! 1. A cache is used by one reader at a time; who finds none free reads without. Nobody ever waits, so it is safe
//!    on free-threaded Python, and when a finaliser that runs during a read reads JSON itself.
//! 2. It is bounded: a fixed number of short keys, each in the one place its hash gives. A client that sends
//!    ever new keys evicts and slows nobody by more than a miss.
//! 3. The keys are not interned: Python 3.12 never frees an interned `str`, which would be a leak a client can drive.
//! 4. The caches live as long as the process; nothing is released after the interpreter has gone.

use std::sync::{Mutex, MutexGuard};

use pyo3::prelude::*;
use pyo3::types::PyString;

/// In bytes. Longer keys are rare, and each byte here is paid for in every place.
const LONGEST_KEY: usize = 32;

/// 24 KiB a cache, which is more keys than a known document type has and still less than a first-level data cache.
const PLACES: usize = 512;

/// One suffices under a GIL. Free-threaded Python takes one per thread that reads at the same instant.
const CACHES: usize = 8;

/// The keys of earlier documents.
pub(super) struct Keys {
    places: Option<Box<[Place; PLACES]>>,
}

struct Place {
    length: u8,
    bytes: [u8; LONGEST_KEY],
    key: Option<Py<PyString>>,
}

impl Keys {
    /// Takes a cache that nobody uses, if there is one.
    #[inline]
    pub(super) fn take() -> Option<MutexGuard<'static, Keys>> {
        static CACHE: [Mutex<Keys>; CACHES] = [const { Mutex::new(Keys { places: None }) }; CACHES];
        CACHE.iter().find_map(|cache| cache.try_lock().ok())
    }

    /// Returns the key spelt by `bytes`, from the cache or by `make`, which the cache then remembers.
    #[inline]
    pub(super) fn find_or_make<'py, E>(
        &mut self,
        py: Python<'py>,
        bytes: &[u8],
        make: impl FnOnce() -> Result<Bound<'py, PyString>, E>,
    ) -> Result<Bound<'py, PyString>, E> {
        if bytes.len() > LONGEST_KEY {
            return make();
        }
        let places = self.places.get_or_insert_with(empty_places);
        let place = &mut places[place_of(bytes)];
        if let Some(key) = &place.key
            && place.bytes[..usize::from(place.length)] == *bytes
        {
            return Ok(key.bind(py).clone());
        }
        let key = make()?;
        place.length = bytes.len() as u8;
        place.bytes[..bytes.len()].copy_from_slice(bytes);
        place.key = Some(key.clone().unbind());
        Ok(key)
    }
}

#[cold]
fn empty_places() -> Box<[Place; PLACES]> {
    let places: Vec<Place> = (0..PLACES).map(|_| Place { length: 0, bytes: [0; LONGEST_KEY], key: None }).collect();
    match places.into_boxed_slice().try_into() {
        Ok(places) => places,
        Err(_) => unreachable!("the vector was collected from exactly PLACES items"),
    }
}

/// Mixes the length and both ends of the key. Keys alike in these share a place, which costs a miss and no more.
#[inline]
fn place_of(bytes: &[u8]) -> usize {
    let (front, back) = if let (Some(front), Some(back)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (u64::from_le_bytes(*front), u64::from_le_bytes(*back))
    } else if let (Some(front), Some(back)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        (u32::from_le_bytes(*front).into(), u32::from_le_bytes(*back).into())
    } else {
        bytes.iter().fold((0, 0), |(front, back), &byte| (front << 8 | u64::from(byte), back))
    };
    let mixed = (front ^ back.rotate_left(23) ^ bytes.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> (u64::BITS - PLACES.ilog2())) as usize
}
