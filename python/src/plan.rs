//! What a handler needs, worked out once in Python (`httpy/plan.py`) and carried out here for each request.

use std::borrow::Cow;

use httpy::{
    Request,
    route::{Converter, Pattern},
};
use pyo3::{
    exceptions::{PyException, PyValueError},
    ffi, intern,
    prelude::*,
    types::{PyBool, PyDict, PyFloat, PyList, PyString, PyTuple},
};

use crate::{query, request::PyRequest, symbols::symbols};

/// How a handler is called.
pub(crate) struct Plan {
    pub(crate) function: Py<PyAny>,
    parameters: Vec<Parameter>,
    /// The names of the last parameters, which are passed by keyword.
    keywords: Option<Py<PyTuple>>,
    pattern: String,
    path_names: Vec<(String, Converter)>,
}

struct Parameter {
    name: String,
    source: Source,
    convert: Convert,
    /// None: required.
    default: Option<Py<PyAny>>,
    many: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Request,
    /// The WebSocket, of a handler for those.
    Socket,
    Path(usize),
    Query,
    Body,
}

enum Convert {
    Str,
    Int,
    Float,
    Bool,
    Call(Py<PyAny>),
}

/// One reason why a request does not fit the handler, as it goes into a 422.
pub(crate) struct Misfit {
    loc: Vec<Py<PyAny>>,
    msg: String,
    kind: String,
}

/// Why a handler could not be called.
pub(crate) enum Unfit {
    /// The request's fault: 422 with these reasons.
    Request(Vec<Misfit>),
    /// Anything else.
    Error(PyErr),
}

impl From<PyErr> for Unfit {
    fn from(error: PyErr) -> Self {
        Self::Error(error)
    }
}

/// A parameter as `httpy/plan.py` describes it: name, source, convert, default, many.
pub(crate) type Described<'py> = (String, String, Bound<'py, PyAny>, Bound<'py, PyAny>, bool);

impl Plan {
    /// Reads the plan of a handler.
    ///
    /// # Errors
    /// `ValueError` for words that are not in the contract.
    pub(crate) fn new(
        py: Python<'_>,
        function: Py<PyAny>,
        described: Vec<Described<'_>>,
        keywords: usize,
        required: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let parameters = described
            .into_iter()
            .map(|(name, source, convert, default, many)| {
                let source = match source.as_str() {
                    "request" => Source::Request,
                    "websocket" => Source::Socket,
                    "path" => Source::Path(usize::MAX),
                    "query" => Source::Query,
                    "body" => Source::Body,
                    other => return Err(PyValueError::new_err(format!("no source {other:?}"))),
                };
                let convert = match convert.extract::<Cow<'_, str>>().as_deref() {
                    Ok("str") => Convert::Str,
                    Ok("int") => Convert::Int,
                    Ok("float") => Convert::Float,
                    Ok("bool") => Convert::Bool,
                    Ok(other) => return Err(PyValueError::new_err(format!("no converter {other:?}"))),
                    Err(_) => Convert::Call(convert.unbind()),
                };
                let default = (!default.is(required)).then(|| default.unbind());
                Ok(Parameter { name, source, convert, default, many })
            })
            .collect::<PyResult<Vec<_>>>()?;
        let first = parameters.len().saturating_sub(keywords);
        let names: Vec<_> = parameters[first..].iter().map(|parameter| PyString::intern(py, &parameter.name)).collect();
        let keywords = if names.is_empty() { None } else { Some(PyTuple::new(py, names)?.unbind()) };
        Ok(Self { function, parameters, keywords, pattern: String::new(), path_names: Vec::new() })
    }

    /// A plan that calls nothing, for answers that are no function's.
    pub(crate) fn empty(py: Python<'_>) -> Self {
        Self {
            function: py.None(),
            parameters: Vec::new(),
            keywords: None,
            pattern: String::new(),
            path_names: Vec::new(),
        }
    }

    /// The plan for this handler on one route: parameters from the path are found by their place in the pattern.
    ///
    /// # Errors
    /// `ValueError` if the pattern lacks a parameter the handler takes from the path.
    pub(crate) fn on_route(&self, py: Python<'_>, pattern: &Pattern, prefix: &str) -> PyResult<Self> {
        let path_names: Vec<(String, Converter)> =
            pattern.parameters().map(|(name, converter)| (name.to_owned(), converter)).collect();
        let place = |parameter: &Parameter| match parameter.source {
            Source::Path(_) => match path_names.iter().position(|(name, _)| *name == parameter.name) {
                Some(place) => Ok(Source::Path(place)),
                None => {
                    let message = format!("pattern {pattern} has no parameter {:?}", parameter.name);
                    Err(PyValueError::new_err(message))
                }
            },
            source => Ok(source),
        };
        let parameters = self
            .parameters
            .iter()
            .map(|parameter| {
                Ok(Parameter {
                    name: parameter.name.clone(),
                    source: place(parameter)?,
                    convert: match &parameter.convert {
                        Convert::Str => Convert::Str,
                        Convert::Int => Convert::Int,
                        Convert::Float => Convert::Float,
                        Convert::Bool => Convert::Bool,
                        Convert::Call(convert) => Convert::Call(convert.clone_ref(py)),
                    },
                    default: parameter.default.as_ref().map(|default| default.clone_ref(py)),
                    many: parameter.many,
                })
            })
            .collect::<PyResult<Vec<_>>>()?;
        Ok(Self {
            function: self.function.clone_ref(py),
            parameters,
            keywords: self.keywords.as_ref().map(|names| names.clone_ref(py)),
            pattern: format!("{}{pattern}", prefix.trim_end_matches('/')),
            path_names,
        })
    }

    /// The pattern of the route.
    pub(crate) fn pattern(&self) -> &str {
        &self.pattern
    }

    /// The parameters of the pattern.
    pub(crate) fn path_names(&self) -> impl Iterator<Item = (&str, Converter)> {
        self.path_names.iter().map(|(name, converter)| (name.as_str(), *converter))
    }

    /// Whether a call needs the request object: somebody takes it, or the content.
    pub(crate) fn needs_request(&self) -> bool {
        self.parameters.iter().any(|parameter| matches!(parameter.source, Source::Request | Source::Body))
    }

    /// Calls the handler, which has no use for the request object.
    pub(crate) fn call_without_request<'py>(
        &self,
        py: Python<'py>,
        request: &Request,
    ) -> Result<Bound<'py, PyAny>, Unfit> {
        if self.parameters.is_empty() {
            return Ok(vectorcall(py, &self.function, &[], None)?);
        }
        let path = request.path();
        self.fill(py, |place| request.params.get(path, place), request.uri.query().unwrap_or(""), None, None)
    }

    /// Calls the handler with what it takes of `request`.
    pub(crate) fn call<'py>(&self, request: &Bound<'py, PyRequest>) -> Result<Bound<'py, PyAny>, Unfit> {
        let inner = request.get();
        self.fill(request.py(), |place| inner.path_param(place), inner.query_text(), Some(request), None)
    }

    /// Calls the handler of a WebSocket with what it takes of that, and of the request that asked for it.
    pub(crate) fn call_with_socket<'py>(
        &self,
        request: &Bound<'py, PyRequest>,
        socket: &Bound<'py, PyAny>,
    ) -> Result<Bound<'py, PyAny>, Unfit> {
        let inner = request.get();
        let path_param = |place| inner.path_param(place);
        self.fill(request.py(), path_param, inner.query_text(), Some(request), Some(socket))
    }

    fn fill<'py, 'a>(
        &self,
        py: Python<'py>,
        path_param: impl Fn(usize) -> Option<&'a str>,
        query: &str,
        request: Option<&Bound<'py, PyRequest>>,
        socket: Option<&Bound<'py, PyAny>>,
    ) -> Result<Bound<'py, PyAny>, Unfit> {
        let mut arguments: Vec<Bound<'py, PyAny>> = Vec::with_capacity(self.parameters.len());
        let mut misfits = Vec::new();
        for parameter in &self.parameters {
            let argument = match (parameter.source, request) {
                (Source::Request, Some(request)) => Ok(request.clone().into_any()),
                (Source::Path(place), _) => parameter.read_text(py, "path", path_param(place)),
                (Source::Query, _) if parameter.many => parameter.read_texts(py, query),
                (Source::Query, _) => parameter.read_text(py, "query", query::last(query, &parameter.name).as_deref()),
                (Source::Body, Some(request)) => parameter.read_body(request),
                (Source::Socket, _) => Ok(socket.cloned().unwrap_or_else(|| py.None().into_bound(py))),
                (Source::Request | Source::Body, None) => Ok(py.None().into_bound(py)),
            };
            match argument {
                Ok(argument) => arguments.push(argument),
                Err(Unfit::Request(found)) => misfits.extend(found),
                Err(error) => return Err(error),
            }
        }
        if misfits.is_empty() {
            Ok(vectorcall(py, &self.function, &arguments, self.keywords.as_ref())?)
        } else {
            Err(Unfit::Request(misfits))
        }
    }
}

impl Parameter {
    fn read_text<'py>(&self, py: Python<'py>, place: &str, text: Option<&str>) -> Result<Bound<'py, PyAny>, Unfit> {
        match (text, &self.default) {
            (Some(text), _) => self.convert(py, place, None, text),
            (None, Some(default)) => Ok(default.bind(py).clone()),
            (None, None) => Err(self.misfit(py, place, None, "Field required", "missing")),
        }
    }

    fn read_texts<'py>(&self, py: Python<'py>, query: &str) -> Result<Bound<'py, PyAny>, Unfit> {
        let texts: Vec<_> = query::values(query, &self.name).collect();
        if texts.is_empty() {
            return self.read_text(py, "query", None);
        }
        let list = PyList::empty(py);
        let mut misfits = Vec::new();
        // A call converts the whole list (to a set, a tuple, ...); a word converts each value.
        if let Convert::Call(_) = &self.convert {
            return self.called(py, "query", PyList::new(py, texts)?.into_any());
        }
        for (index, text) in texts.iter().enumerate() {
            match self.convert(py, "query", Some(index), text) {
                Ok(value) => list.append(value)?,
                Err(Unfit::Request(found)) => misfits.extend(found),
                Err(error) => return Err(error),
            }
        }
        if misfits.is_empty() { Ok(list.into_any()) } else { Err(Unfit::Request(misfits)) }
    }

    fn read_body<'py>(&self, request: &Bound<'py, PyRequest>) -> Result<Bound<'py, PyAny>, Unfit> {
        let py = request.py();
        if request.get().content("json")?.is_empty() {
            return self.read_text(py, "body", None);
        }
        match request.get().read_json(py) {
            Ok(value) => self.called(py, "body", value.clone()),
            Err(error) if error.is_instance_of::<PyValueError>(py) => {
                Err(self.misfit(py, "body", None, &error.value(py).to_string(), "json_invalid"))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn convert<'py>(
        &self,
        py: Python<'py>,
        place: &str,
        index: Option<usize>,
        text: &str,
    ) -> Result<Bound<'py, PyAny>, Unfit> {
        let (value, found, kind) = match &self.convert {
            Convert::Str => return Ok(PyString::new(py, text).into_any()),
            Convert::Call(_) => return self.called(py, place, PyString::new(py, text).into_any()),
            Convert::Int => (int(py, text), "a valid integer", "int_parsing"),
            Convert::Float => (float(py, text), "a valid number", "float_parsing"),
            Convert::Bool => (boolean(py, text), "a valid boolean", "bool_parsing"),
        };
        value.ok_or_else(|| {
            self.misfit(py, place, index, &format!("Input should be {found}, unable to parse the string"), kind)
        })
    }

    /// Has a Python callable convert. What it raises about the value is the request's fault.
    fn called<'py>(&self, py: Python<'py>, place: &str, value: Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>, Unfit> {
        let Convert::Call(convert) = &self.convert else { return Ok(value) };
        let error = match convert.bind(py).call1((value,)) {
            Ok(converted) => return Ok(converted),
            Err(error) => error,
        };
        if !error.is_instance_of::<PyException>(py) {
            return Err(error.into());
        }
        if error.value(py).hasattr(intern!(py, "errors"))? {
            return Err(Unfit::Request(self.reported(py, place, &error)?));
        }
        if error.is_instance_of::<PyValueError>(py) || error.is_instance_of::<pyo3::exceptions::PyTypeError>(py) {
            return Err(self.misfit(py, place, None, &error.value(py).to_string(), "value_error"));
        }
        Err(error.into())
    }

    /// The reasons an exception with `errors()` gives, as pydantic's does, under this parameter.
    fn reported(&self, py: Python<'_>, place: &str, error: &PyErr) -> PyResult<Vec<Misfit>> {
        let mut misfits = Vec::new();
        for reason in error.value(py).call_method0(intern!(py, "errors"))?.try_iter()? {
            let reason = reason?;
            let mut loc = self.loc(py, place, None);
            if place == "body" {
                // A body has no name in the request.
                loc.truncate(1);
            }
            for part in reason.get_item("loc")?.try_iter()? {
                loc.push(part?.unbind());
            }
            let msg = reason.get_item("msg")?.to_string();
            misfits.push(Misfit { loc, msg, kind: reason.get_item("type")?.to_string() });
        }
        Ok(misfits)
    }

    fn loc(&self, py: Python<'_>, place: &str, index: Option<usize>) -> Vec<Py<PyAny>> {
        let mut loc = vec![PyString::new(py, place).into_any().unbind()];
        if place != "body" {
            loc.push(PyString::new(py, &self.name).into_any().unbind());
        }
        loc.extend(index.and_then(|index| Some(index.into_pyobject(py).ok()?.into_any().unbind())));
        loc
    }

    fn misfit(&self, py: Python<'_>, place: &str, index: Option<usize>, msg: &str, kind: &str) -> Unfit {
        let loc = self.loc(py, place, index);
        Unfit::Request(vec![Misfit { loc, msg: msg.to_owned(), kind: kind.to_owned() }])
    }
}

/// The content of a 422.
pub(crate) fn detail<'py>(py: Python<'py>, misfits: Vec<Misfit>) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for misfit in misfits {
        let reason = PyDict::new(py);
        reason.set_item("loc", PyList::new(py, misfit.loc)?)?;
        reason.set_item("msg", misfit.msg)?;
        reason.set_item("type", misfit.kind)?;
        list.append(reason)?;
    }
    Ok(list)
}

/// A path parameter as `request.path_params` has it.
pub(crate) fn path_value<'py>(py: Python<'py>, converter: Converter, text: &str) -> PyResult<Bound<'py, PyAny>> {
    let value = match converter {
        Converter::Int => int(py, text),
        Converter::Float => float(py, text),
        Converter::Uuid => return py.import("uuid")?.getattr("UUID")?.call1((text,)),
        Converter::Str | Converter::Path => None,
    };
    Ok(value.unwrap_or_else(|| PyString::new(py, text).into_any()))
}

/// Reads an int as an `int` parameter does: a sign, perhaps, and at most 4300 ASCII digits.
///
/// Raises `ValueError` for anything else.
#[pyfunction]
#[pyo3(signature = (text, /))]
pub(crate) fn to_int<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    int(py, text).ok_or_else(|| PyValueError::new_err("expected a whole number"))
}

/// Reads a float as a `float` parameter does: a finite number, in decimal or scientific notation.
///
/// Raises `ValueError` for anything else.
#[pyfunction]
#[pyo3(signature = (text, /))]
pub(crate) fn to_float<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    float(py, text).ok_or_else(|| PyValueError::new_err("expected a finite number"))
}

/// Reads a bool as a `bool` parameter does: true, 1, yes, on, t, y and their opposites, in any case.
///
/// Raises `ValueError` for anything else.
#[pyfunction]
#[pyo3(signature = (text, /))]
pub(crate) fn to_bool<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    boolean(py, text).ok_or_else(|| PyValueError::new_err("expected true or false, 1 or 0, yes or no, on or off"))
}

/// An integer: an optional sign and decimal digits. Not what `int()` takes besides: spaces, underscores, other digits.
fn int<'py>(py: Python<'py>, text: &str) -> Option<Bound<'py, PyAny>> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if let Ok(small) = text.parse::<i64>() {
        return Some(small.into_pyobject(py).ok()?.into_any());
    }
    // Python refuses more digits than `sys.get_int_max_str_digits()`; before 3.11 it takes quadratic time for them.
    if digits.len() > 4300 {
        return None;
    }
    py.get_type::<pyo3::types::PyInt>().call1((text,)).ok()
}

/// A finite number in decimal or scientific notation.
fn float<'py>(py: Python<'py>, text: &str) -> Option<Bound<'py, PyAny>> {
    let first = *text.strip_prefix(['-', '+']).unwrap_or(text).as_bytes().first()?;
    if !first.is_ascii_digit() && first != b'.' {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    value.is_finite().then(|| PyFloat::new(py, value).into_any())
}

fn boolean<'py>(py: Python<'py>, text: &str) -> Option<Bound<'py, PyAny>> {
    const WORDS: [(&str, bool); 12] = [
        ("true", true),
        ("false", false),
        ("1", true),
        ("0", false),
        ("yes", true),
        ("no", false),
        ("on", true),
        ("off", false),
        ("t", true),
        ("f", false),
        ("y", true),
        ("n", false),
    ];
    let value = WORDS.iter().find(|(word, _)| text.eq_ignore_ascii_case(word))?.1;
    Some(PyBool::new(py, value).to_owned().into_any())
}

/// Calls a function without arguments.
pub(crate) fn call_none<'py>(py: Python<'py>, function: &Py<PyAny>) -> PyResult<Bound<'py, PyAny>> {
    vectorcall(py, function, &[], None)
}

/// Calls a function with one argument, without the tuple that `call1` makes.
pub(crate) fn call_one<'py, T>(function: &Py<PyAny>, argument: &Bound<'py, T>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the argument is a live object for as long as the call.
    unsafe { call_pointers(argument.py(), function, &[argument.as_ptr()]) }
}

/// Calls a function with two arguments, without the tuple that `call1` makes.
pub(crate) fn call_two<'py>(
    function: &Py<PyAny>,
    first: &Bound<'py, PyAny>,
    second: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the arguments are live objects for as long as the call.
    unsafe { call_pointers(first.py(), function, &[first.as_ptr(), second.as_ptr()]) }
}

/// # Safety
/// The arguments must be live objects for as long as the call.
unsafe fn call_pointers<'py>(
    py: Python<'py>,
    function: &Py<PyAny>,
    arguments: &[*mut ffi::PyObject],
) -> PyResult<Bound<'py, PyAny>> {
    if let Some(vectorcall) = symbols().vectorcall {
        // SAFETY: live objects, says the caller; a new reference, or null with an exception set.
        return unsafe {
            let result = vectorcall(function.as_ptr(), arguments.as_ptr(), arguments.len(), std::ptr::null_mut());
            Bound::from_owned_ptr_or_err(py, result)
        };
    }
    // SAFETY: live objects, says the caller.
    let borrowed = arguments.iter().map(|argument| unsafe { Bound::from_borrowed_ptr(py, *argument) });
    function.bind(py).call1(PyTuple::new(py, borrowed.collect::<Vec<_>>())?)
}

/// Calls a function with positional arguments, the last of which `keywords` names.
pub(crate) fn vectorcall<'py>(
    py: Python<'py>,
    function: &Py<PyAny>,
    arguments: &[Bound<'py, PyAny>],
    keywords: Option<&Py<PyTuple>>,
) -> PyResult<Bound<'py, PyAny>> {
    let named = keywords.map_or(0, |names| names.bind(py).len());
    let positional = arguments.len() - named;
    if let Some(vectorcall) = symbols().vectorcall {
        let names = keywords.map_or(std::ptr::null_mut(), |names| names.as_ptr());
        // SAFETY: `Bound` is a transparent pointer to a live object, there are `positional` of them and one more for
        // each name; the result is a new reference, or null with an exception set.
        return unsafe {
            let arguments = arguments.as_ptr().cast::<*mut ffi::PyObject>();
            Bound::from_owned_ptr_or_err(py, vectorcall(function.as_ptr(), arguments, positional, names))
        };
    }
    let kwargs = PyDict::new(py);
    if let Some(names) = keywords {
        for (name, argument) in names.bind(py).iter().zip(&arguments[positional..]) {
            kwargs.set_item(name, argument)?;
        }
    }
    function.bind(py).call(PyTuple::new(py, &arguments[..positional])?, Some(&kwargs))
}
