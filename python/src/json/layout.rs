//! Where CPython keeps what the limited API hides behind calls: all knowledge of the inside of its objects is here.
//!
//! Rules:
//! 1. It is used only where it was read from the headers and tested: CPython 3.9 to 3.13 with a GIL, 64 bits, little
//!    endian. Even there a self-test at import first compares it with what the interpreter says of objects of every kind.
//!    Whatever is not as expected switches all of it off. A new version is added to `find` once its tests were run. That
//!    test is here too, so that this file is all there is to look at then.
//! 2. Everything here answers `None` where it does not know, and the caller asks the interpreter. That way always works;
//!    `tests_py/test_json.py` runs all tests both ways (`json_layout`).
//! 3. It only reads, allocates nothing and runs no Python code. What it returns is borrowed from the object, and of a
//!    container valid until that changes, which nothing does but Python code.
//!
//! Why: the document of 11 KB takes 5.7 us with it and 11.2 without (AMD EPYC, CPython 3.11, fat LTO).

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyFloat, PyList, PyString, PyTuple, PyType};

use crate::symbols::symbols;

/// What is known of this interpreter.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// Whether anything below may be used.
    known: bool,
    /// Where the bytes of an ASCII `str` begin: `sizeof(PyASCIIObject)`, which lost `wstr` in 3.12.
    text_data: usize,
    /// Where the characters of any other `str` begin: `sizeof(PyCompactUnicodeObject)`, which lost `wstr_length` too.
    wide_text_data: usize,
    /// Whether the table of a `dict` tells its shape in single bytes (3.11) or by its size alone.
    has_described_tables: bool,
    /// Whether an `int` has its number of digits and its sign in one tag (3.12) or as a signed size.
    has_tagged_integers: bool,
}

/// An ASCII text, borrowed from its `str`.
#[derive(Clone, Copy)]
pub(super) struct Ascii {
    data: *const u8,
    length: usize,
}

impl Ascii {
    #[inline]
    pub(super) fn len(self) -> usize {
        self.length
    }

    /// # Safety
    /// The `str` has to outlive 'a.
    #[inline]
    pub(super) unsafe fn bytes<'a>(self) -> &'a [u8] {
        // SAFETY: `Layout::ascii` made it of a `str` of that length, and the caller keeps that alive.
        unsafe { std::slice::from_raw_parts(self.data, self.length) }
    }

    /// The text as a word with zeros above it. Only for texts of less than eight bytes.
    ///
    /// # Safety
    /// The `str` has to be alive.
    #[inline]
    pub(super) unsafe fn short_word(self) -> u64 {
        debug_assert!(self.length < 8);
        // SAFETY: in front of the text, in the same allocation, are more than eight bytes of the object's head.
        let word = unsafe { self.data.add(self.length).sub(8).cast::<u64>().read_unaligned() };
        // In two steps, as one of 64 bits for the empty text would overflow.
        word >> 8 >> (56 - 8 * self.length)
    }
}

/// A text that is not ASCII, borrowed from its `str`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wide<'a> {
    /// The UTF-8 that the interpreter keeps of a text once it was asked for.
    Utf8(&'a [u8]),
    Latin1(&'a [u8]),
    /// Not UTF-16: a surrogate stands for itself.
    Ucs2(&'a [u16]),
    Ucs4(&'a [u32]),
}

/// Whether this build is for what rule 1 asks for.
const IS_BUILT_FOR_IT: bool =
    cfg!(all(not(any(Py_GIL_DISABLED, PyPy, GraalPy)), target_pointer_width = "64", target_endian = "little"));
/// `ob_size` of a `PyVarObject`, `length` of a `str`, `ob_fval`, `lv_tag`, `ma_used`: whatever follows `ob_type`.
const AFTER_HEAD: usize = 16;
/// `ob_digit` of an `int`, `ob_item` of a `list` (a pointer) and of a `tuple` (the first item).
const AFTER_SIZE: usize = 24;
/// `state` of a `str`, behind `length` and `hash`.
const TEXT_STATE: usize = 32;
/// `state.compact` and `state.ascii`: the bits behind `interned` (2) and `kind` (3).
const COMPACT_ASCII: u32 = 0b110_0000;
const COMPACT: u32 = 0b010_0000;
/// `ma_keys` and `ma_values` of a `dict`.
const DICT_KEYS: usize = 32;
const DICT_VALUES: usize = 40;
/// `PyDictKeysObject` since 3.11.
const TABLE_LOG2_INDEX_BYTES: usize = 9;
const TABLE_KIND: usize = 10;
const TABLE_COUNT: usize = 24;
const TABLE_INDICES: usize = 32;
/// `PyDictKeysObject` before.
const OLD_TABLE_SIZE: usize = 8;
const OLD_TABLE_COUNT: usize = 32;
const OLD_TABLE_INDICES: usize = 40;

impl Layout {
    /// The layout for a walk that begins now.
    #[inline]
    pub(crate) fn current(py: Python<'_>) -> Layout {
        static LAYOUT: PyOnceLock<Layout> = PyOnceLock::new();
        let found = *LAYOUT.get_or_init(py, || Layout::find(py).unwrap_or(Layout::UNKNOWN));
        if ENABLED.load(Ordering::Relaxed) { found } else { Layout::UNKNOWN }
    }

    /// Whether it is worth to ask here before the interpreter.
    #[inline]
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    const UNKNOWN: Layout = Layout {
        known: false,
        text_data: 0,
        wide_text_data: 0,
        has_described_tables: false,
        has_tagged_integers: false,
    };

    fn find(py: Python<'_>) -> Option<Layout> {
        if !IS_BUILT_FOR_IT {
            return None;
        }
        let version = (py.version_info().major, py.version_info().minor);
        if !((3, 9)..(3, 14)).contains(&version) {
            return None;
        }
        let layout = Layout {
            known: true,
            text_data: if version < (3, 12) { 48 } else { 40 },
            wide_text_data: if version < (3, 12) { 72 } else { 56 },
            has_described_tables: version >= (3, 11),
            has_tagged_integers: version >= (3, 12),
        };
        layout.agrees(py).unwrap_or(false).then_some(layout)
    }

    /// The text of a `str` (or of a subclass) that is ASCII.
    ///
    /// # Safety
    /// `text` is a `str`.
    #[inline]
    pub(super) unsafe fn ascii(&self, text: *mut ffi::PyObject) -> Option<Ascii> {
        if !self.known {
            return None;
        }
        // SAFETY: a `str` by the caller's word, and the layout is known. A compact ASCII text follows its head.
        unsafe {
            let state: u32 = field(text, TEXT_STATE);
            (state & COMPACT_ASCII == COMPACT_ASCII)
                .then(|| Ascii { data: text.cast::<u8>().add(self.text_data), length: field(text, AFTER_HEAD) })
        }
    }

    /// The text of a `str` (or of a subclass) that is not ASCII.
    ///
    /// # Safety
    /// `text` is a `str`, and outlives 'a.
    #[inline]
    pub(super) unsafe fn wide<'a>(&self, text: *mut ffi::PyObject) -> Option<Wide<'a>> {
        if !self.known {
            return None;
        }
        // SAFETY: a `str` by the caller's word, and the layout is known. Behind the head of an ASCII text come the length
        // and the address of the UTF-8, if there is one, and the characters. They never change once they are there.
        unsafe {
            let state: u32 = field(text, TEXT_STATE);
            if state & COMPACT_ASCII != COMPACT {
                return None;
            }
            let utf8: *const u8 = field(text, self.text_data + 8);
            if !utf8.is_null() {
                return Some(Wide::Utf8(std::slice::from_raw_parts(utf8, field(text, self.text_data))));
            }
            let length: usize = field(text, AFTER_HEAD);
            let data = text.cast::<u8>().cast_const().add(self.wide_text_data);
            match state >> 2 & 7 {
                1 => Some(Wide::Latin1(std::slice::from_raw_parts(data, length))),
                2 => Some(Wide::Ucs2(std::slice::from_raw_parts(data.cast(), length))),
                4 => Some(Wide::Ucs4(std::slice::from_raw_parts(data.cast(), length))),
                _ => None,
            }
        }
    }

    /// The value of an `int` of no more than one digit: below 2^30.
    ///
    /// # Safety
    /// `integer` is an `int`.
    #[inline]
    pub(super) unsafe fn integer(&self, integer: *mut ffi::PyObject) -> Option<i64> {
        if !self.known {
            return None;
        }
        // SAFETY: an `int` by the caller's word, and the layout is known. A zero may have no digit, so none is read.
        unsafe {
            let size: isize = field(integer, AFTER_HEAD);
            let (count, sign) = if self.has_tagged_integers { (size >> 3, 1 - (size & 3)) } else { (size.abs(), size) };
            match count {
                1 => Some(sign as i64 * i64::from(field::<u32>(integer, AFTER_SIZE))),
                0 => Some(0),
                _ => None,
            }
        }
    }

    /// The value of a `float`.
    ///
    /// # Safety
    /// `float` is a `float`.
    #[inline]
    pub(super) unsafe fn float(&self, float: *mut ffi::PyObject) -> Option<f64> {
        // SAFETY: a `float` by the caller's word, and the layout is known.
        self.known.then(|| unsafe { field(float, AFTER_HEAD) })
    }

    /// The length of a `list`, `tuple` or `dict`.
    ///
    /// # Safety
    /// `container` is one of these.
    #[inline]
    pub(super) unsafe fn len(&self, container: *mut ffi::PyObject) -> Option<usize> {
        // SAFETY: one of these by the caller's word, and the layout is known.
        self.known.then(|| unsafe { field(container, AFTER_HEAD) })
    }

    /// The entries of a `dict`, if it has them in one table. They may be used until the dict changes.
    ///
    /// # Safety
    /// `dict` is a `dict`.
    #[inline]
    pub(crate) unsafe fn entries(&self, dict: *mut ffi::PyObject) -> Option<Entries> {
        if !self.known {
            return None;
        }
        // SAFETY: a `dict` by the caller's word, and the layout is known. The table's `dk_nentries` entries follow its
        // `dk_indices`.
        unsafe {
            // A table of keys that the instances of a class share has its values elsewhere.
            if !field::<*mut ffi::PyObject>(dict, DICT_VALUES).is_null() {
                return None;
            }
            let table: *mut ffi::PyObject = field(dict, DICT_KEYS);
            let (entries, count, has_hashes) = if self.has_described_tables {
                let indices = 1_usize << field::<u8>(table, TABLE_LOG2_INDEX_BYTES);
                (TABLE_INDICES + indices, field(table, TABLE_COUNT), field::<u8>(table, TABLE_KIND) == 0)
            } else {
                let size: usize = field(table, OLD_TABLE_SIZE);
                // Wide enough for an index of each entry.
                let width = match usize::BITS - size.leading_zeros() {
                    ..=8 => 1,
                    9..=16 => 2,
                    17..=32 => 4,
                    _ => 8,
                };
                (OLD_TABLE_INDICES + size * width, field(table, OLD_TABLE_COUNT), true)
            };
            // `me_hash` comes first, but is left out where all keys are `str`.
            let (step, key_at) = if has_hashes { (24, 8) } else { (16, 0) };
            Some(Entries { first: table.cast::<u8>().add(entries + key_at), step, count })
        }
    }

    /// The items of a `list` or a `tuple`. Those of a list may be used until it changes.
    ///
    /// # Safety
    /// `container` is a `list` or, if `is_list` says so, a `tuple`.
    #[inline]
    pub(super) unsafe fn items(&self, container: *mut ffi::PyObject, is_list: bool) -> Option<Items> {
        if !self.known {
            return None;
        }
        // SAFETY: by the caller's word, and the layout is known.
        unsafe {
            let first = if is_list {
                field(container, AFTER_SIZE)
            } else {
                container.cast::<u8>().add(AFTER_SIZE).cast::<*mut ffi::PyObject>().cast_const()
            };
            Some(Items { first, count: field(container, AFTER_HEAD) })
        }
    }
}

/// The entries of a `dict`.
#[derive(Clone, Copy)]
pub(crate) struct Entries {
    first: *const u8,
    step: usize,
    count: usize,
}

impl Entries {
    /// Does what `PyDict_Next` does: finds the key and value at `position` or behind it, and steps behind that.
    ///
    /// # Safety
    /// The dict has not changed since the entries were taken from it.
    #[inline]
    pub(crate) unsafe fn next(&self, position: &mut ffi::Py_ssize_t) -> Option<[*mut ffi::PyObject; 2]> {
        while position.unsigned_abs() < self.count {
            // SAFETY: an entry, as it is one of `count`.
            let entry =
                unsafe { self.first.add(self.step * position.unsigned_abs()).cast::<[*mut ffi::PyObject; 2]>().read() };
            *position += 1;
            // Deleted ones have no value.
            if !entry[1].is_null() {
                return Some(entry);
            }
        }
        None
    }
}

/// The items of a `list` or a `tuple`.
#[derive(Clone, Copy)]
pub(super) struct Items {
    first: *const *mut ffi::PyObject,
    count: usize,
}

impl Items {
    /// The item at `index`, if there is one.
    ///
    /// # Safety
    /// The container has not changed since the items were taken from it.
    #[inline]
    pub(super) unsafe fn at(&self, index: usize) -> Option<*mut ffi::PyObject> {
        // SAFETY: one of `count`.
        (index < self.count).then(|| unsafe { *self.first.add(index) })
    }
}

/// Reads the field of an object at an offset.
///
/// # Safety
/// There has to be such a field, of that type.
#[inline]
unsafe fn field<T: Copy>(object: *mut ffi::PyObject, offset: usize) -> T {
    // SAFETY: by the caller's word.
    unsafe { object.cast::<u8>().add(offset).cast::<T>().read() }
}

/// Runs the self-test, so that the first request need not.
pub(crate) fn test_layout(py: Python<'_>) {
    let _ = Layout::current(py);
}

/// Off in tests of the way around.
static ENABLED: AtomicBool = AtomicBool::new(true);

/// Has the JSON writer read CPython's objects in place, or ask for everything. Returns which of both it does now.
#[pyfunction]
#[pyo3(signature = (enabled, /))]
pub(crate) fn json_layout(py: Python<'_>, enabled: bool) -> bool {
    ENABLED.store(enabled, Ordering::Relaxed);
    Layout::current(py).known
}

/// The self-test of rule 1.
impl Layout {
    fn agrees(&self, py: Python<'_>) -> PyResult<bool> {
        // First what can be compared without reading by offset: builds with other heads or fields end here.
        Ok(self.agrees_on_sizes(py)?
            && self.agrees_on_ascii(py)
            && self.agrees_on_wide_texts(py)?
            && self.agrees_on_numbers(py)
            && self.agrees_on_containers(py)?
            && self.agrees_on_dicts(py)?)
    }

    fn agrees_on_sizes(&self, py: Python<'_>) -> PyResult<bool> {
        let size = |kind: Bound<'_, PyType>| kind.getattr("__basicsize__")?.extract::<usize>();
        Ok(size(py.get_type::<PyAny>())? == AFTER_HEAD
            // The address of a text that is not compact comes last.
            && size(py.get_type::<PyString>())? == self.wide_text_data + size_of::<usize>()
            && size(py.get_type::<PyFloat>())? == AFTER_HEAD + size_of::<f64>()
            // The address of the items, and their room.
            && size(py.get_type::<PyList>())? == AFTER_SIZE + 2 * size_of::<usize>()
            && size(py.get_type::<PyTuple>())? == AFTER_SIZE
            && size(py.get_type::<PyDict>())? == DICT_VALUES + size_of::<usize>())
    }

    fn agrees_on_ascii(&self, py: Python<'_>) -> bool {
        let texts = ["", "a", "\x7f", "1234567", "12345678", "HTTPy reads this in place, forty bytes"];
        texts.iter().all(|text| {
            let object = PyString::new(py, text);
            let start = &text.as_bytes()[..text.len().min(7)];
            let mut word = [0; 8];
            word[..start.len()].copy_from_slice(start);
            // SAFETY: a str, alive while we look.
            unsafe {
                self.wide(object.as_ptr()).is_none()
                    && self.ascii(object.as_ptr()).is_some_and(|found| {
                        found.bytes() == text.as_bytes()
                            && (text.len() > 7 || found.short_word() == u64::from_le_bytes(word))
                    })
            }
        })
    }

    fn agrees_on_wide_texts(&self, py: Python<'_>) -> PyResult<bool> {
        let texts = [
            ("\u{ff}\u{80}", Wide::Latin1(&[0xFF, 0x80])),
            ("a漢", Wide::Ucs2(&[0x61, 0x6F22])),
            ("Ω\u{fffd}Ω", Wide::Ucs2(&[0x3A9, 0xFFFD, 0x3A9])),
            ("a😀", Wide::Ucs4(&[0x61, 0x1F600])),
        ];
        let agree = texts.iter().all(|(text, expected)| {
            let object = PyString::new(py, text);
            // SAFETY: a str, alive while we look.
            let found =
                || unsafe { self.ascii(object.as_ptr()).is_none().then(|| self.wide(object.as_ptr())).flatten() };
            let at_first = found();
            at_first == Some(*expected) && (!ask_for_utf8(&object) || found() == Some(Wide::Utf8(text.as_bytes())))
        });
        // A subclass is not compact. It is the one object that tells that bit from the others.
        let subclasses = py.eval(c"[type('Text', (str,), {})(text) for text in ('ascii', '\\xe9')]", None, None)?;
        // SAFETY: texts, alive while we look.
        let is_compact = |text: Bound<'_, PyAny>| unsafe {
            self.ascii(text.as_ptr()).is_some() || self.wide(text.as_ptr()).is_some()
        };
        Ok(agree && !subclasses.cast_into::<PyList>()?.iter().any(is_compact))
    }

    fn agrees_on_numbers(&self, py: Python<'_>) -> bool {
        let limit = 1 << 30;
        let small = [0, 1, -1, 256, -1000, 1 << 15, -(1 << 16), 1 << 29, limit - 1, 1 - limit];
        let large = [limit, -limit, 1 << 60, i64::MAX, i64::MIN];
        let floats = [0.0, -0.0, 1.5, -1e300, f64::INFINITY];
        let reads = |value: i64| {
            let Ok(object) = value.into_pyobject(py);
            // SAFETY: an int, alive while we look.
            unsafe { self.integer(object.as_ptr()) }
        };
        small.iter().all(|&value| reads(value) == Some(value))
            && large.iter().all(|&value| reads(value).is_none())
            && floats.iter().all(|&value| {
                // SAFETY: a float, alive while we look.
                let found = unsafe { self.float(PyFloat::new(py, value).as_ptr()) };
                found.map(f64::to_bits) == Some(value.to_bits())
            })
    }

    fn agrees_on_containers(&self, py: Python<'_>) -> PyResult<bool> {
        for length in [0, 1, 2, 9, 100] {
            let items: Vec<_> = (0..length).map(|n| PyFloat::new(py, f64::from(n))).collect();
            let list = PyList::new(py, &items)?;
            let tuple = PyTuple::new(py, &items)?;
            for (container, is_list) in [(list.as_ptr(), true), (tuple.as_ptr(), false)] {
                // SAFETY: a list and a tuple, alive and unchanged while we look.
                let (found, found_length) = unsafe { (self.items(container, is_list), self.len(container)) };
                let Some(found) = found.filter(|_| found_length == Some(items.len())) else { return Ok(false) };
                // SAFETY: as above.
                let at = |index| unsafe { found.at(index) };
                if at(items.len()).is_some() || !(0..).zip(&items).all(|(n, item)| at(n) == Some(item.as_ptr())) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn agrees_on_dicts(&self, py: Python<'_>) -> PyResult<bool> {
        // With and without room for hashes, with indices of one and of two bytes, and with holes in each.
        let dicts = c"[{}, {'a': 1}, {n: n for n in range(9)}, {str(n): n for n in range(400)}, {'a': 1, None: 2}]";
        for dict in py.eval(dicts, None, None)?.cast::<PyList>()? {
            let dict = dict.cast_into::<PyDict>()?;
            let holes = dict.copy()?;
            for key in dict.keys().iter().step_by(3) {
                holes.del_item(key)?;
            }
            if !self.agrees_on_dict(&dict, false) || !self.agrees_on_dict(&holes, false) {
                return Ok(false);
            }
        }
        // That of an instance may share its keys with others.
        let kind = c"type('Kind', (), {'__init__': lambda self: setattr(self, 'a', 1)})().__dict__";
        Ok(self.agrees_on_dict(py.eval(kind, None, None)?.cast()?, true))
    }

    fn agrees_on_dict(&self, dict: &Bound<'_, PyDict>, may_be_unknown: bool) -> bool {
        // SAFETY: a dict, alive and unchanged while we look.
        let (entries, length) = unsafe { (self.entries(dict.as_ptr()), self.len(dict.as_ptr())) };
        // Until 3.10 an empty dict counts as one that shares its keys.
        let Some(entries) = entries else { return may_be_unknown || dict.is_empty() };
        let (mut position, mut expected_position) = (0, 0);
        loop {
            let [mut key, mut value] = [std::ptr::null_mut(); 2];
            // SAFETY: as above, and we are attached.
            let (found, more) = unsafe {
                let found = entries.next(&mut position);
                (found, ffi::PyDict_Next(dict.as_ptr(), &raw mut expected_position, &raw mut key, &raw mut value))
            };
            match found {
                None => return more == 0 && length == Some(dict.len()),
                Some(found) if more == 0 || position != expected_position || found != [key, value] => return false,
                Some(_) => {}
            }
        }
    }
}

/// Has the interpreter make the UTF-8 of a text, and keep it. Returns whether it can.
fn ask_for_utf8(text: &Bound<'_, PyString>) -> bool {
    let Some(as_utf8_and_size) = symbols().as_utf8_and_size else { return false };
    let mut size = 0;
    // SAFETY: a str, and we are attached.
    !unsafe { as_utf8_and_size(text.as_ptr(), &raw mut size) }.is_null()
}
