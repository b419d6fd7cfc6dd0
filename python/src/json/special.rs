//! Writes what JSON has no type for but the Python of a handler has.
//!
//! | Python | JSON |
//! |---|---|
//! | subclass of `str`, `int`, `float` (so `StrEnum`, `IntEnum`) | what it holds, as `json` does |
//! | subclass of `dict` (so `OrderedDict`) | object of its `items()`, as `json` does |
//! | subclass of `list` or `tuple` (so a named tuple), `set`, `frozenset` | array, in its order of iteration |
//! | `datetime`, `date`, `time` | string, `isoformat()` |
//! | `uuid.UUID` | string, `str()` |
//! | `decimal.Decimal` | string, `str()`, as pydantic does: the float most readers make of a number would round it |
//! | `enum.Enum` | its value |
//! | anything with `model_dump` (pydantic) | what `model_dump(mode="json")` returns |
//! | dataclass | object of its fields in order |
//! | `msgspec.Struct` | as its configuration says, but defaults are never left out (`omit_defaults`) |
//! | any other `collections.abc.Mapping` | object of its `items()` |
//!
//! The upper row wins. A dict key may be, as in `json`, a str, int, float, bool or None, and also an enum, a date, a time
//! or a UUID. `timedelta` and bytes have no agreed spelling and are refused, as is everything else.

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    IntoPyDict, PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PyMapping, PyMemoryView,
    PySet, PyString, PyTuple, PyType,
};

use super::refusal::Refusal;
use super::write::{Writer, Written, enter, not_finite};

impl<'py> Writer<'_, 'py> {
    /// Writes a value that is not exactly of a JSON type, and a comma.
    #[cold]
    #[inline(never)]
    pub(super) fn special(&mut self, value: Bound<'py, PyAny>, depth: u32) -> Written {
        if value.is_instance_of::<PyString>() {
            self.text(value.as_borrowed(), b',')
        } else if value.is_instance_of::<PyInt>() {
            self.integer(value.as_borrowed())
        } else if value.is_instance_of::<PyFloat>() {
            self.float(value.as_borrowed())
        } else if value.is_instance_of::<PyDict>() {
            self.mapping(&value, depth)
        } else if is_collection(&value) {
            // A list of our own, so that the walk ends even if an item's code adds items.
            let list = self.py.get_type::<PyList>().call1((value,)).map_err(Refusal::raised)?;
            self.list(list.as_borrowed(), depth)
        } else if let Some(text) = self.plain_text(&value)? {
            self.text(text.as_borrowed(), b',')
        } else if self.types()?.is_decimal(&value) {
            let text = value.str().map_err(Refusal::raised)?;
            self.text(text.as_any().as_borrowed(), b',')
        } else if self.types()?.is_enum(&value) {
            let depth = enter(depth)?;
            let inner = value.getattr(intern!(self.py, "value")).map_err(Refusal::raised)?;
            self.value(inner.as_borrowed(), depth)
        } else {
            self.object(&value, depth)
        }
    }

    /// Writes a dict key that is not exactly a `str`, in quotes and with its colon.
    #[cold]
    #[inline(never)]
    pub(super) fn special_key(&mut self, key: Bound<'py, PyAny>, depth: u32) -> Written {
        if key.is_instance_of::<PyString>() {
            return self.text(key.as_borrowed(), b':');
        }
        if let Some(text) = self.plain_text(&key)? {
            return self.text(text.as_borrowed(), b':');
        }
        if let Ok(float) = key.cast::<PyFloat>() {
            // Python's own spelling: here it is a text, and 1e16 is another text than 1e+16.
            let value = float.value();
            if !value.is_finite() {
                return Err(not_finite(value));
            }
            let text = PyFloat::new(self.py, value).repr().map_err(Refusal::raised)?;
            return self.text(text.as_any().as_borrowed(), b':');
        }
        if key.is_instance_of::<PyInt>() || key.is_none() {
            self.out.push(b'"');
            if key.is_instance_of::<PyBool>() || key.is_none() {
                self.value(key.as_borrowed(), depth)?;
            } else {
                self.integer(key.as_borrowed())?;
            }
            self.out.replace_last(b'"');
            self.out.push(b':');
            return Ok(());
        }
        if self.types()?.is_enum(&key) {
            let depth = enter(depth)?;
            let inner = key.getattr(intern!(self.py, "value")).map_err(Refusal::raised)?;
            return self.special_key(inner, depth);
        }
        Err(Refusal::kind(
            format!("key of type {} is not JSON serializable", type_name(&key)),
            "keys are str, int, float, bool, None, Enum, UUID, datetime, date or time",
        ))
    }

    /// The text of a date, a time or a UUID.
    fn plain_text(&self, value: &Bound<'py, PyAny>) -> Result<Option<Bound<'py, PyAny>>, Box<Refusal>> {
        let types = self.types()?;
        let text = if types.has_isoformat(value) {
            value.call_method0(intern!(self.py, "isoformat")).map_err(Refusal::raised)?
        } else if types.is_uuid(value) {
            value.str().map_err(Refusal::raised)?.into_any()
        } else {
            return Ok(None);
        };
        // A subclass may return what it likes.
        Ok(Some(text.cast_into::<PyString>().map_err(Refusal::raised)?.into_any()))
    }

    fn mapping(&mut self, mapping: &Bound<'py, PyAny>, depth: u32) -> Written {
        let depth = enter(depth)?;
        let items = mapping.cast::<PyMapping>().map_err(Refusal::raised)?.items().map_err(Refusal::raised)?;
        self.out.push(b'{');
        for item in items {
            let (key, value): (Bound<'py, PyAny>, Bound<'py, PyAny>) = item.extract().map_err(Refusal::raised)?;
            self.member(key.as_borrowed(), value.as_borrowed(), depth)?;
        }
        self.close(b'{', b'}');
        Ok(())
    }

    fn object(&mut self, value: &Bound<'py, PyAny>, depth: u32) -> Written {
        let py = self.py;
        let kind = value.get_type();
        let find = |name| kind.getattr_opt(name).map_err(Refusal::raised);
        // A missing name costs an exception, and with pydantic's metaclass a Python call, so models are asked first.
        if find(intern!(py, "model_dump"))?.is_some() {
            let depth = enter(depth)?;
            let arguments = [(intern!(py, "mode"), intern!(py, "json"))].into_py_dict(py).map_err(Refusal::raised)?;
            let dumped = value.call_method(intern!(py, "model_dump"), (), Some(&arguments)).map_err(Refusal::raised)?;
            self.value(dumped.as_borrowed(), depth)
        } else if let Some(fields) = find(intern!(py, "__dataclass_fields__"))? {
            self.dataclass(value, &fields, depth)
        } else if let Some(fields) = find(intern!(py, "__struct_fields__"))? {
            self.structure(value, &kind, &fields, depth)
        } else if value.cast::<PyMapping>().is_ok() {
            self.mapping(value, depth)
        } else {
            Err(refuse_type(value))
        }
    }

    fn dataclass(&mut self, value: &Bound<'py, PyAny>, fields: &Bound<'py, PyAny>, depth: u32) -> Written {
        let depth = enter(depth)?;
        let marker = self.types()?.field.bind(self.py);
        let fields = fields.cast::<PyDict>().map_err(Refusal::raised)?.items();
        self.out.push(b'{');
        for field in fields {
            let (name, field): (Bound<'py, PyString>, Bound<'py, PyAny>) = field.extract().map_err(Refusal::raised)?;
            // `ClassVar` and `InitVar` are listed too. `dataclasses.fields` tells them apart by this same attribute, but
            // takes 400 ns for six fields.
            let kind = field.getattr(intern!(self.py, "_field_type")).map_err(Refusal::raised)?;
            if kind.is(marker) {
                let content = value.getattr(&name).map_err(Refusal::raised)?;
                self.member(name.as_any().as_borrowed(), content.as_borrowed(), depth)?;
            }
        }
        self.close(b'{', b'}');
        Ok(())
    }

    /// Writes a `msgspec.Struct`.
    fn structure(
        &mut self,
        value: &Bound<'py, PyAny>,
        kind: &Bound<'py, PyType>,
        fields: &Bound<'py, PyAny>,
        depth: u32,
    ) -> Written {
        let py = self.py;
        let depth = enter(depth)?;
        let structure = Structure::of(kind, fields).map_err(Refusal::raised)?;
        let (opening, closing) = if structure.is_array { (b'[', b']') } else { (b'{', b'}') };
        self.out.push(opening);
        let mut index = 0;
        if let Some((name, tag)) = &structure.tag {
            if structure.is_array {
                self.item(tag.as_borrowed(), index, depth)?;
                index += 1;
            } else {
                self.member(name.as_borrowed(), tag.as_borrowed(), depth)?;
            }
        }
        for (field, name) in structure.fields.iter().zip(structure.names.iter()) {
            let field = field.cast_into::<PyString>().map_err(Refusal::raised)?;
            let content = value.getattr(&field).map_err(Refusal::raised)?;
            if structure.is_array {
                self.item(content.as_borrowed(), index, depth)?;
                index += 1;
            } else if !is_unset(py, &content).map_err(Refusal::raised)? {
                self.member(name.as_borrowed(), content.as_borrowed(), depth)?;
            }
        }
        self.close(opening, closing);
        Ok(())
    }

    fn types(&self) -> Result<&'py Types, Box<Refusal>> {
        static TYPES: PyOnceLock<Types> = PyOnceLock::new();
        TYPES.get_or_try_init(self.py, || Types::import(self.py)).map_err(Refusal::raised)
    }
}

fn is_collection(value: &Bound<'_, PyAny>) -> bool {
    value.is_instance_of::<PyList>()
        || value.is_instance_of::<PyTuple>()
        || value.is_instance_of::<PySet>()
        || value.is_instance_of::<PyFrozenSet>()
}

#[cold]
fn refuse_type(value: &Bound<'_, PyAny>) -> Box<Refusal> {
    let is_bytes = value.is_instance_of::<PyBytes>()
        || value.is_instance_of::<PyByteArray>()
        || value.is_instance_of::<PyMemoryView>();
    let advice = if is_bytes { "decode it to str, or spell it as base64 text" } else { "" };
    Refusal::kind(format!("object of type {} is not JSON serializable", type_name(value)), advice)
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().qualname().map_or_else(|_| "?".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// How a `msgspec.Struct` wants to be written.
struct Structure<'py> {
    fields: Bound<'py, PyTuple>,
    /// As they are spelt in JSON.
    names: Bound<'py, PyTuple>,
    is_array: bool,
    tag: Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)>,
}

impl<'py> Structure<'py> {
    fn of(kind: &Bound<'py, PyType>, fields: &Bound<'py, PyAny>) -> PyResult<Self> {
        let py = kind.py();
        let config = kind.getattr(intern!(py, "__struct_config__"))?;
        let tag = config.getattr(intern!(py, "tag"))?;
        let tag_field = config.getattr(intern!(py, "tag_field"))?;
        Ok(Structure {
            fields: fields.clone().cast_into()?,
            names: kind.getattr(intern!(py, "__struct_encode_fields__"))?.cast_into()?,
            is_array: config.getattr(intern!(py, "array_like"))?.is_truthy()?,
            tag: (!tag.is_none()).then_some((tag_field, tag)),
        })
    }
}

/// Whether it is `msgspec.UNSET`, which msgspec leaves out. Only asked where msgspec is there.
fn is_unset(py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    static UNSET: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let unset = UNSET.get_or_try_init(py, || Ok::<_, PyErr>(py.import("msgspec")?.getattr("UNSET")?.unbind()))?;
    Ok(value.is(unset.bind(py)))
}

/// The types of the standard library that are known by name.
struct Types {
    date: Py<PyType>,
    time: Py<PyType>,
    uuid: Py<PyType>,
    decimal: Py<PyType>,
    enumeration: Py<PyType>,
    /// What `dataclasses` marks an ordinary field with.
    field: Py<PyAny>,
}

impl Types {
    fn import(py: Python<'_>) -> PyResult<Types> {
        let find = |module: &str, name: &str| -> PyResult<Py<PyType>> {
            let found = py.import(module)?.getattr(name)?;
            Ok(found
                .cast_into::<PyType>()
                .map_err(|_| PyTypeError::new_err(format!("{module}.{name} is no type")))?
                .unbind())
        };
        Ok(Types {
            // `datetime` is a subclass of `date`.
            date: find("datetime", "date")?,
            time: find("datetime", "time")?,
            uuid: find("uuid", "UUID")?,
            decimal: find("decimal", "Decimal")?,
            enumeration: find("enum", "Enum")?,
            field: py.import("dataclasses")?.getattr("_FIELD")?.unbind(),
        })
    }

    fn has_isoformat(&self, value: &Bound<'_, PyAny>) -> bool {
        is_a(value, &self.date) || is_a(value, &self.time)
    }

    fn is_uuid(&self, value: &Bound<'_, PyAny>) -> bool {
        is_a(value, &self.uuid)
    }

    fn is_decimal(&self, value: &Bound<'_, PyAny>) -> bool {
        is_a(value, &self.decimal)
    }

    fn is_enum(&self, value: &Bound<'_, PyAny>) -> bool {
        is_a(value, &self.enumeration)
    }
}

/// Whether the value is truly an instance. `isinstance` would ask its `__class__` and the type's metaclass, which is
/// Python code, slow, and could lie.
fn is_a(value: &Bound<'_, PyAny>, kind: &Py<PyType>) -> bool {
    // SAFETY: both are types, and kept alive by `value` and `kind`.
    unsafe { ffi::PyType_IsSubtype(value.get_type_ptr(), kind.as_ptr().cast()) != 0 }
}
