//! What is in a dict, a list or a tuple, in order, while Python code may change it.
//!
//! Rules:
//! 1. A dict that changes its size raises RuntimeError, as a `for` loop does. A list is written up to the length it had at
//!    first, or to its end if that comes sooner. Both end.
//! 2. What `layout` says of a container is used only until it is held: no Python code ran until then, so it has not
//!    changed. From then on the interpreter is asked.
//! 3. What is returned is borrowed, see rule 4 of `write`; without a GIL it is owned.

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
#[cfg(Py_GIL_DISABLED)]
use pyo3::types::PyList;

use super::layout::{Entries, Items, Layout};
use super::open::Open;
use super::refusal::Refusal;

#[cfg(not(Py_GIL_DISABLED))]
type Content<'a, 'py> = Borrowed<'a, 'py, PyAny>;
#[cfg(Py_GIL_DISABLED)]
type Content<'a, 'py> = Bound<'py, PyAny>;

/// The members of a dict in order.
pub(super) struct Members<'a, 'py> {
    dict: Borrowed<'a, 'py, PyAny>,
    position: ffi::Py_ssize_t,
    left: usize,
    entries: Option<Entries>,
}

impl<'a, 'py> Members<'a, 'py> {
    #[inline]
    pub(super) fn of(dict: Borrowed<'a, 'py, PyAny>, layout: &Layout) -> Self {
        // SAFETY: an exact dict by the caller's check of the type.
        let entries = unsafe { layout.entries(dict.as_ptr()) };
        Members { dict, position: 0, left: length_of(dict, layout), entries }
    }

    #[inline]
    #[allow(clippy::type_complexity, reason = "a pair of members, perhaps, or a refusal")]
    pub(super) fn next(
        &mut self,
        open: &Open<'_>,
    ) -> Result<Option<(Content<'a, 'py>, Content<'a, 'py>)>, Box<Refusal>> {
        let member = self.step(open);
        match (&member, self.left) {
            (Some(_), 1..) => self.left -= 1,
            (None, 0) => {}
            _ => return Err(changed_size()),
        }
        Ok(member)
    }

    #[cfg(not(Py_GIL_DISABLED))]
    #[inline]
    fn step(&mut self, open: &Open<'_>) -> Option<(Content<'a, 'py>, Content<'a, 'py>)> {
        let [key, value] = match &self.entries {
            // SAFETY: the dict has not changed, as no Python code ran since it was entered.
            Some(entries) if !open.is_held() => unsafe { entries.next(&mut self.position)? },
            _ => self.ask()?,
        };
        let py = self.dict.py();
        // SAFETY: borrowed from the dict; `Writer` owns what it needs for longer than it takes until Python code may run.
        unsafe { Some((Borrowed::from_ptr(py, key), Borrowed::from_ptr(py, value))) }
    }

    #[cfg(not(Py_GIL_DISABLED))]
    #[inline(never)]
    fn ask(&mut self) -> Option<[*mut ffi::PyObject; 2]> {
        let [mut key, mut value] = [std::ptr::null_mut(); 2];
        // SAFETY: an exact dict by the caller's check of the type, and we are attached.
        let found =
            unsafe { ffi::PyDict_Next(self.dict.as_ptr(), &raw mut self.position, &raw mut key, &raw mut value) };
        (found != 0).then_some([key, value])
    }

    #[cfg(Py_GIL_DISABLED)]
    fn step(&mut self, _open: &Open<'_>) -> Option<(Content<'a, 'py>, Content<'a, 'py>)> {
        let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
        pyo3::sync::critical_section::with_critical_section(&self.dict, || {
            // SAFETY: an exact dict by the caller's check of the type, locked, so that the members live until they are
            // owned.
            unsafe {
                (ffi::PyDict_Next(self.dict.as_ptr(), &raw mut self.position, &raw mut key, &raw mut value) != 0).then(
                    || {
                        let py = self.dict.py();
                        (Bound::from_borrowed_ptr(py, key), Bound::from_borrowed_ptr(py, value))
                    },
                )
            }
        })
    }
}

#[cold]
pub(super) fn changed_size() -> Box<Refusal> {
    Refusal::raised(PyRuntimeError::new_err("dictionary changed size during iteration"))
}

/// The length of a dict, list or tuple, which the caller has checked the type to be.
#[inline]
fn length_of(container: Borrowed<'_, '_, PyAny>, layout: &Layout) -> usize {
    // SAFETY: one of these by the caller's check of the type, and we are attached; on these it can't fail.
    unsafe { layout.len(container.as_ptr()).unwrap_or_else(|| ffi::PyObject_Size(container.as_ptr()).unsigned_abs()) }
}

/// The items of a list.
pub(super) struct ListItems<'a, 'py> {
    list: Borrowed<'a, 'py, PyAny>,
    length: usize,
    items: Option<Items>,
}

impl<'a, 'py> ListItems<'a, 'py> {
    #[inline]
    pub(super) fn of(list: Borrowed<'a, 'py, PyAny>, layout: &Layout) -> Self {
        // SAFETY: a list by the caller's check of the type.
        let items = unsafe { layout.items(list.as_ptr(), true) };
        ListItems { list, length: length_of(list, layout), items }
    }

    #[cfg(not(Py_GIL_DISABLED))]
    #[inline]
    pub(super) fn at(&self, index: usize, open: &Open<'_>) -> Option<Content<'a, 'py>> {
        let item = match &self.items {
            // SAFETY: the list has not changed, as no Python code ran since it was entered.
            Some(items) if !open.is_held() => unsafe { items.at(index)? },
            _ => self.ask(index)?,
        };
        // SAFETY: borrowed from the list; `Writer` owns what it needs for longer than it takes until Python code may run.
        unsafe { Some(Borrowed::from_ptr(self.list.py(), item)) }
    }

    #[cfg(not(Py_GIL_DISABLED))]
    #[inline(never)]
    fn ask(&self, index: usize) -> Option<*mut ffi::PyObject> {
        if index >= self.length {
            return None;
        }
        // SAFETY: a list by the caller's check of the type, and we are attached.
        let item = unsafe { ffi::PyList_GetItem(self.list.as_ptr(), index as ffi::Py_ssize_t) };
        if item.is_null() {
            // It became shorter.
            drop(PyErr::take(self.list.py()));
            return None;
        }
        Some(item)
    }

    #[cfg(Py_GIL_DISABLED)]
    pub(super) fn at(&self, index: usize, _open: &Open<'_>) -> Option<Content<'a, 'py>> {
        if index >= self.length {
            return None;
        }
        self.list.cast::<PyList>().ok()?.get_item(index).ok()
    }
}

/// The items of a tuple, which never changes, so that they live as long as it does.
pub(crate) struct TupleItems<'a, 'py> {
    tuple: Borrowed<'a, 'py, PyAny>,
    length: usize,
    items: Option<Items>,
}

impl<'a, 'py> TupleItems<'a, 'py> {
    #[inline]
    pub(crate) fn of(tuple: Borrowed<'a, 'py, PyAny>, layout: &Layout) -> Self {
        // SAFETY: a tuple by the caller's check of the type.
        let items = unsafe { layout.items(tuple.as_ptr(), false) };
        TupleItems { tuple, length: length_of(tuple, layout), items }
    }

    #[inline]
    pub(crate) fn at(&self, index: usize) -> Option<Borrowed<'a, 'py, PyAny>> {
        if index >= self.length {
            return None;
        }
        // SAFETY: a tuple by the caller's check of the type, of more items than `index`, and we are attached.
        unsafe {
            let item = match &self.items {
                Some(items) => items.at(index)?,
                None => ffi::PyTuple_GetItem(self.tuple.as_ptr(), index as ffi::Py_ssize_t),
            };
            Some(Borrowed::from_ptr(self.tuple.py(), item))
        }
    }
}
