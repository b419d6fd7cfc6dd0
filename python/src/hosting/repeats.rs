//! What is said again and again, and is an object each time: it is made once, and found again.
//!
//! A scope's or an environ's strings cost more than its dict. Nearly all of them were in the request before.
//!
//! Rules:
//! 1. Only what nobody can change is shared: `str`, `bytes`, and tuples of those. A dict is copied before anybody gets it.
//! 2. A table has a fixed number of places, and what comes later takes its place from what was there.
//! 3. Of fields only those are kept that are named here: none has a secret for a value.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use http::{HeaderName, HeaderValue, header};
use httpy::message::Peer;
use pyo3::{
    Bound, Py, PyResult, Python,
    types::{PyDict, PyString},
};

/// How many connections are known. 256: clients with a keep-alive connection that are busy. A dict takes up to 1.2 KB.
const CONNECTIONS: usize = 256;
/// How many fields are known.
const FIELDS: usize = 64;
/// The longest value that is kept, in bytes. Browsers say up to 150 of themselves.
const LONGEST: usize = 256;

/// Entries, each in the one place that it can have.
struct Table<K, V>(Mutex<Vec<Option<(K, V)>>>);

impl<K, V> Table<K, V> {
    const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<(K, V)>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `take` makes of an entry, if there is one in this place, and `is_it` says that it is the one.
    fn find<R>(&self, place: usize, is_it: impl FnOnce(&K) -> bool, take: impl FnOnce(&V) -> R) -> Option<R> {
        match self.lock().get(place) {
            Some(Some((key, value))) if is_it(key) => Some(take(value)),
            _ => None,
        }
    }

    fn keep(&self, size: usize, place: usize, key: K, value: V) {
        let old = {
            let mut places = self.lock();
            if places.is_empty() {
                places.resize_with(size, || None);
            }
            places[place].replace((key, value))
        };
        // Behind the lock: it may be an object of Python's.
        drop(old);
    }
}

/// Dicts with what is the same for all requests of a connection, to be copied.
pub(super) struct Connections(Table<Ends, Py<PyDict>>);

/// What those dicts depend on.
#[derive(PartialEq, Eq)]
struct Ends {
    client: SocketAddr,
    server: Option<SocketAddr>,
    is_tls: bool,
}

impl Connections {
    pub(super) const fn new() -> Self {
        Self(Table::new())
    }

    /// The dict of a connection, made if it is not known.
    pub(super) fn dict<'py>(
        &self,
        py: Python<'py>,
        peer: &Peer,
        make: impl FnOnce() -> PyResult<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        // A unix socket's client has no address, which saves the most of it.
        let Some(client) = peer.client else { return make() };
        let ends = Ends { client, server: peer.server, is_tls: peer.is_tls };
        // Clients of one host come by one port after the other.
        let place = usize::from(client.port()) % CONNECTIONS;
        if let Some(known) = self.0.find(place, |known| *known == ends, |dict| dict.clone_ref(py)) {
            return Ok(known.into_bound(py));
        }
        let made = make()?;
        self.0.keep(CONNECTIONS, place, ends, made.clone().unbind());
        Ok(made)
    }
}

/// Fields of requests, as objects of one kind.
pub(super) struct Fields<T>(Table<(HeaderName, Box<[u8]>), Py<T>>);

impl<T> Fields<T> {
    pub(super) const fn new() -> Self {
        Self(Table::new())
    }

    /// The object of a field, made if it is not known.
    pub(super) fn object<'py>(
        &self,
        py: Python<'py>,
        name: &HeaderName,
        value: &HeaderValue,
        make: impl FnOnce() -> PyResult<Bound<'py, T>>,
    ) -> PyResult<Bound<'py, T>> {
        if !is_kept_of_requests(name) || value.len() > LONGEST {
            return make();
        }
        let (value, place) = (value.as_bytes(), place_of(name.as_str().as_bytes(), value.as_bytes()));
        let is_it = |known: &(HeaderName, Box<[u8]>)| known.0 == *name && *known.1 == *value;
        if let Some(known) = self.0.find(place, is_it, |object| object.clone_ref(py)) {
            return Ok(known.into_bound(py));
        }
        let made = make()?;
        // A copy: the request's own bytes are a part of its connection's buffer.
        self.0.keep(FIELDS, place, (name.clone(), value.into()), made.clone().unbind());
        Ok(made)
    }
}

/// Names of fields, as the keys of an environ.
pub(super) struct Keys(Table<HeaderName, Py<PyString>>);

impl Keys {
    pub(super) const fn new() -> Self {
        Self(Table::new())
    }

    /// The key of a field, made if it is not known. None: it has none.
    pub(super) fn find_object<'py>(
        &self,
        py: Python<'py>,
        name: &HeaderName,
        make: impl FnOnce() -> Option<Bound<'py, PyString>>,
    ) -> Option<Bound<'py, PyString>> {
        let said = name.as_str().as_bytes();
        let place = place_of(said, b"");
        if let Some(known) = self.0.find(place, |known| known == name, |object| object.clone_ref(py)) {
            return Some(known.into_bound(py));
        }
        let made = make()?;
        if said.len() <= LONGEST {
            self.0.keep(FIELDS, place, name.clone(), made.clone().unbind());
        }
        Some(made)
    }
}

/// Rule 3. None is a client's own: not `Cookie`, not `Authorization`, not what nobody knows.
fn is_kept_of_requests(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::HOST
            | header::USER_AGENT
            | header::ACCEPT
            | header::ACCEPT_ENCODING
            | header::ACCEPT_LANGUAGE
            | header::CACHE_CONTROL
            | header::CONNECTION
            | header::CONTENT_TYPE
            | header::UPGRADE_INSECURE_REQUESTS
    )
}

/// Fields of responses, as they were said. Of all apps: there is nothing of Python's in them.
static SAID: Table<Said, (HeaderName, HeaderValue)> = Table::new();

/// Name and value in one, and how long the name is.
struct Said(Box<[u8]>, usize);

/// A field that an app has said before, in these very bytes.
pub(super) fn find_field(name: &[u8], value: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let is_it = |known: &Said| {
        let (known_name, known_value) = known.0.split_at(known.1);
        known_name == name && known_value == value
    };
    SAID.find(place_of(name, value), is_it, Clone::clone)
}

/// Keeps a field that an app has said, if it is one that is said again.
pub(super) fn keep_field(said: (&[u8], &[u8]), name: &HeaderName, value: &HeaderValue) {
    // Rule 3. ASCII, since the same other bytes mean one thing in ASGI and another one in WSGI's text.
    let is_kept = matches!(
        *name,
        header::CONTENT_TYPE
            | header::CONTENT_LENGTH
            | header::CONTENT_ENCODING
            | header::CACHE_CONTROL
            | header::SERVER
            | header::VARY
            | header::X_CONTENT_TYPE_OPTIONS
            | header::X_FRAME_OPTIONS
            | header::REFERRER_POLICY
            | header::ACCESS_CONTROL_ALLOW_ORIGIN
    );
    if is_kept && said.1.len() <= LONGEST && said.1.is_ascii() {
        let key = Said([said.0, said.1].concat().into(), said.0.len());
        SAID.keep(FIELDS, place_of(said.0, said.1), key, (name.clone(), value.clone()));
    }
}

/// Where a field is, if it is known: what lengths and ends make of it is different enough.
fn place_of(name: &[u8], value: &[u8]) -> usize {
    let end = |bytes: &[u8]| usize::from(bytes.last().copied().unwrap_or_default());
    (name.len() * 31 + end(name) * 7 + value.len() * 5 + end(value) * 3) % FIELDS
}
