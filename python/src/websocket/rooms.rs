//! Rooms as Python has them: what an app sends to many with, and the hub that a supervisor has for its workers.

use httpy::ws::{Hub, Prepared, RoomError, Rooms, Sender};
use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
    types::{PyDict, PyList, PyString},
};

use super::{Inner, PyBlockingWebSocket, PyWebSocket, prepare_bytes, prepare_json, prepare_text};
use crate::{
    ready::ready,
    server::{Descriptor, own},
};

/// The rooms of one server.
#[pyclass(frozen, name = "Rooms", module = "httpy._httpy")]
pub(crate) struct PyRooms(pub(crate) Rooms);

#[pymethods]
impl PyRooms {
    /// Sends a message to every member of a room, without waiting for any.
    #[pyo3(signature = (room, message, /, *, exclude=None))]
    fn broadcast<'py>(
        &self,
        room: &str,
        message: &Bound<'py, PyAny>,
        exclude: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = message.py();
        let except = exclude.filter(|exclude| !exclude.is_none()).map(ids_of).transpose()?.unwrap_or_default();
        let message = prepare(message)?;
        self.0.broadcast(room, message, &except).map_err(|error| PyValueError::new_err(error.to_string()))?;
        ready(py)
    }

    /// How many members a room has, in all processes.
    #[pyo3(signature = (room, /))]
    fn count(&self, room: &str) -> usize {
        self.0.count(room)
    }

    fn __repr__(&self) -> String {
        format!("<Rooms {}>", self.0.len())
    }
}

/// What connects the rooms of workers, on a thread of its own.
#[pyclass(frozen, name = "RoomHub", module = "httpy._httpy")]
pub(crate) struct PyHub(Hub);

#[pymethods]
impl PyHub {
    #[new]
    fn new(max_queue_bytes: usize) -> PyResult<Self> {
        Ok(Self(Hub::start(max_queue_bytes)?))
    }

    /// Connects workers by the sockets behind descriptors, which are the hub's from now on.
    #[pyo3(signature = (descriptors, /))]
    fn add(&self, descriptors: Vec<Descriptor>) {
        // SAFETY: the caller has given them away; each is closed when its socket is dropped, and nowhere else.
        self.0.add(descriptors.into_iter().map(|descriptor| unsafe { own(descriptor) }).collect());
    }
}

impl Inner {
    pub(super) fn join(&self, py: Python<'_>, room: &str) -> PyResult<()> {
        match self.common.rooms.join(&self.open()?.sender, room) {
            Ok(_) => Ok(()),
            Err(RoomError::Closed) => Err(self.closed(py)),
            Err(error) => Err(PyValueError::new_err(error.to_string())),
        }
    }

    pub(super) fn leave(&self, room: &str) -> PyResult<()> {
        self.common.rooms.leave(&self.open()?.sender, room);
        Ok(())
    }

    pub(super) fn room_names(&self) -> Vec<String> {
        let mut names: Vec<String> = match self.open.get() {
            Some(open) => open.sender.rooms().iter().map(|name| (**name).to_owned()).collect(),
            None => Vec::new(),
        };
        names.sort_unstable();
        names
    }
}

/// A message to a room: text, bytes, or what JSON says.
fn prepare(message: &Bound<'_, PyAny>) -> PyResult<Prepared> {
    if let Ok(text) = message.cast::<PyString>() {
        return prepare_text(text);
    }
    if message.is_instance_of::<PyDict>() || message.is_instance_of::<PyList>() {
        return prepare_json(message);
    }
    prepare_bytes(message).map_err(|_| {
        let found = message.get_type().name().map(|name| name.to_string()).unwrap_or_default();
        PyTypeError::new_err(format!("a message to a room is str, bytes, dict or list, not {found}"))
    })
}

/// The ids of one WebSocket or of several. One that is not open is no member.
fn ids_of(exclude: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
    if let Some(id) = id_of(exclude) {
        return Ok(id.into_iter().collect());
    }
    let wrong = |found: &Bound<'_, PyAny>| {
        let found = found.get_type().name().map(|name| name.to_string()).unwrap_or_default();
        PyTypeError::new_err(format!("exclude is a WebSocket or some of them, not {found}"))
    };
    let mut ids = Vec::new();
    for one in exclude.try_iter().map_err(|_| wrong(exclude))? {
        let one = one?;
        ids.extend(id_of(&one).ok_or_else(|| wrong(&one))?);
    }
    Ok(ids)
}

/// None: it is no WebSocket. None in it: it is not open.
fn id_of(one: &Bound<'_, PyAny>) -> Option<Option<usize>> {
    let inner = match one.cast::<PyWebSocket>() {
        Ok(socket) => &socket.get().inner,
        Err(_) => &one.cast::<PyBlockingWebSocket>().ok()?.get().inner,
    };
    Some(inner.open.get().map(|open| Sender::id(&open.sender)))
}
