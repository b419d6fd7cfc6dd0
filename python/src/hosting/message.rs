//! An ASGI message of an app's, as a dict whose items are found in one pass.
//!
//! To look for an item in a dict takes 140 instructions, and the two messages of a response have five, and two more that
//! need not be there. Names in the source of an app are interned, so the key of an item is the very object that it is compared
//! with. Any other key is looked for as ever.

use std::ptr::null_mut;

use pyo3::{
    ffi,
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyString},
};

use crate::json::Layout;

/// What has a place in [`Message`]: the items of the messages that every response consists of.
#[derive(Clone, Copy)]
pub(super) enum Item {
    Type,
    Status,
    Headers,
    Trailers,
    Body,
    MoreBody,
}

/// How many of them there are.
const ITEMS: usize = 6;

/// What they are called, each at its place.
fn names(py: Python<'_>) -> &'static [Py<PyString>; ITEMS] {
    static NAMES: PyOnceLock<[Py<PyString>; ITEMS]> = PyOnceLock::new();
    NAMES.get_or_init(py, || {
        ["type", "status", "headers", "trailers", "body", "more_body"].map(|name| PyString::intern(py, name).unbind())
    })
}

/// See the module.
pub(super) struct Message<'a, 'py> {
    pub(super) dict: &'a Bound<'py, PyDict>,
    found: [Option<Bound<'py, PyAny>>; ITEMS],
    /// Whether it has keys that were not known: one of them may be equal to one that is.
    has_others: bool,
}

impl<'a, 'py> Message<'a, 'py> {
    pub(super) fn of(dict: &'a Bound<'py, PyDict>) -> Self {
        let py = dict.py();
        let mut found = [const { None }; ITEMS];
        if cfg!(Py_GIL_DISABLED) {
            // Another thread may change the dict meanwhile.
            return Self { dict, found, has_others: true };
        }
        let names = names(py);
        let mut has_others = false;
        // SAFETY: a live dict. No Python code runs until all is found, and there is a GIL: it stays as it is, and so its values
        // live until they are owned.
        unsafe {
            let (entries, mut place) = (Layout::current(py).entries(dict.as_ptr()), 0);
            let next = |place: &mut _| match &entries {
                Some(entries) => entries.next(place),
                None => ask(dict, place),
            };
            while let Some([key, value]) = next(&mut place) {
                match names.iter().position(|name| name.as_ptr() == key) {
                    Some(item) => found[item] = Some(Bound::from_borrowed_ptr(py, value)),
                    None => has_others = true,
                }
            }
        }
        Self { dict, found, has_others }
    }

    /// Takes the value of an item, if it is there.
    ///
    /// # Errors
    /// What comparing with a key of the app's raises.
    #[inline]
    pub(super) fn take(&mut self, item: Item) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.found[item as usize].take() {
            None if self.has_others => self.dict.get_item(&names(self.dict.py())[item as usize]),
            found => Ok(found),
        }
    }

    /// Takes a flag, which need not be there.
    ///
    /// # Errors
    /// What the value raises that is asked whether it is true.
    #[inline]
    pub(super) fn take_flag(&mut self, item: Item) -> PyResult<bool> {
        self.take(item)?.map_or(Ok(false), |value| value.is_truthy())
    }
}

/// The next key and value of a dict whose inside is not known.
///
/// # Safety
/// The dict has not changed since `place` was 0.
unsafe fn ask(dict: &Bound<'_, PyDict>, place: &mut ffi::Py_ssize_t) -> Option<[*mut ffi::PyObject; 2]> {
    let [mut key, mut value] = [null_mut(); 2];
    // SAFETY: a live dict, and the caller's word.
    let has_one = unsafe { ffi::PyDict_Next(dict.as_ptr(), place, &raw mut key, &raw mut value) } != 0;
    has_one.then_some([key, value])
}
