//! Response content that a hosted app pushes, in the order it does.
//!
//! The counterpart of `outgoing.rs`, which pulls: there the server says when a chunk is made, here the app does, and has to
//! wait while [`FULL`] is queued.
//!
//! Rules:
//! 1. A chunk is offered to the carrier at once (PEP 3333 and ASGI both ask for that).
//! 2. A file is read while it is sent, on the runtime's blocking threads, [`READ`] bytes at a time.
//! 3. Who waits for room is let go, too, when the carrier drops the content.

use std::{
    collections::VecDeque,
    fs::File,
    future::Future,
    io::{self, Read},
    mem::take,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use httpy::error::{Error, Kind};
use pyo3::{intern, prelude::*};
use tokio::task::{JoinHandle, spawn_blocking};

use super::outlet::Outlet;
use crate::{outgoing::resolve, site::Site};

/// How much is queued before the app has to wait. 64 KiB, a socket buffer's worth.
const FULL: usize = 64 * 1024;
/// How much may be left when it goes on.
const LOW: usize = FULL / 2;
/// What a chunk counts besides its length, so that many tiny ones don't take much more memory than they count. 64 bytes.
const CHUNK: usize = 64;
/// How much of a file is read at a time. 64 KiB: measured elsewhere, larger pieces save nothing.
const READ: usize = 64 * 1024;

/// A piece of content.
pub(crate) enum Piece {
    Data(Bytes),
    File(Slice),
}

impl Piece {
    /// How many bytes it is, as far as that is known.
    pub(super) fn size(&self) -> Option<u64> {
        match self {
            Self::Data(data) => Some(data.len() as u64),
            Self::File(slice) => slice.left,
        }
    }

    /// A file counts as a full queue: whoever sends one waits until it was read, and may close it then.
    fn weight(&self) -> usize {
        match self {
            Self::Data(data) => data.len() + CHUNK,
            Self::File(_) => FULL,
        }
    }
}

/// A part of a file.
pub(crate) struct Slice {
    file: Arc<File>,
    /// Where reading goes on. None: wherever the file is, which is moved.
    at: Option<u64>,
    /// None: to its end.
    left: Option<u64>,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Slice {
    pub(super) fn new(file: File, at: Option<u64>, left: Option<u64>) -> Self {
        Self { file: Arc::new(file), at, left, reading: None }
    }

    /// The next bytes; empty at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let wanted = self.left.map_or(READ, |left| usize::try_from(left).unwrap_or(READ).min(READ));
        if wanted == 0 {
            return Poll::Ready(Ok(Bytes::new()));
        }
        let (file, at) = (&self.file, self.at);
        let reading = self.reading.get_or_insert_with(|| {
            let file = file.clone();
            spawn_blocking(move || read(&file, at, wanted))
        });
        let outcome = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        let bytes = outcome.unwrap_or_else(|error| Err(io::Error::other(error)))?;
        let n = bytes.len() as u64;
        self.at = self.at.map(|at| at + n);
        match &mut self.left {
            // The file is shorter than was said.
            Some(_) if n == 0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Some(left) => *left -= n,
            None => {}
        }
        Poll::Ready(Ok(bytes))
    }
}

fn read(file: &File, at: Option<u64>, wanted: usize) -> io::Result<Bytes> {
    let mut bytes = BytesMut::zeroed(wanted);
    let n = loop {
        let outcome = match at {
            #[cfg(unix)]
            Some(at) => std::os::unix::fs::FileExt::read_at(file, &mut bytes, at),
            #[cfg(windows)]
            Some(at) => std::os::windows::fs::FileExt::seek_read(file, &mut bytes, at),
            None => (&*file).read(&mut bytes),
        };
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => break outcome?,
        }
    };
    bytes.truncate(n);
    Ok(bytes.freeze())
}

/// What the app and the carrier share. Never locked while Python code runs or objects are dropped.
pub(crate) struct Flow {
    state: Mutex<State>,
    /// Wakes threads that wait for room.
    room: Condvar,
    site: Option<Arc<Site>>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Piece>,
    /// What the queue counts, in bytes.
    weight: usize,
    end: Option<End>,
    /// The carrier waits.
    carrier: Option<Waker>,
    is_gone: bool,
    /// Futures of tasks that wait for room.
    waiting: Vec<Py<PyAny>>,
}

enum End {
    Whole(Option<HeaderMap>),
    Cut,
}

/// What came of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    Room,
    /// The app is to wait.
    Full,
    /// Nobody reads any more.
    Gone,
}

impl Flow {
    pub(super) fn new(site: Option<Arc<Site>>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), room: Condvar::new(), site })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, piece: Piece) -> Pushed {
        let mut state = self.lock();
        if state.is_gone {
            return Pushed::Gone;
        }
        let mut carrier = None;
        if piece.size() != Some(0) {
            state.weight += piece.weight();
            state.queue.push_back(piece);
            carrier = state.carrier.take();
        }
        let pushed = if state.weight < FULL { Pushed::Room } else { Pushed::Full };
        drop(state);
        if let Some(carrier) = carrier {
            carrier.wake();
        }
        pushed
    }

    /// Nothing follows but perhaps a trailer section.
    pub(super) fn finish(&self, trailers: Option<HeaderMap>) {
        self.end(End::Whole(trailers));
    }

    /// Nothing follows, although something should: the connection is cut.
    pub(super) fn cut(&self) {
        self.end(End::Cut);
    }

    /// The first end counts.
    fn end(&self, end: End) {
        let mut state = self.lock();
        state.end.get_or_insert(end);
        let carrier = state.carrier.take();
        drop(state);
        if let Some(carrier) = carrier {
            carrier.wake();
        }
    }

    /// Waits for room, on a thread that may block. Must not be called attached.
    pub(super) fn wait(&self) {
        let is_full = |state: &mut State| state.weight > LOW && !state.is_gone;
        drop(self.room.wait_while(self.lock(), is_full).unwrap_or_else(PoisonError::into_inner));
    }

    /// A future of the running loop that is resolved when there is room. None if there is.
    ///
    /// # Errors
    /// `RuntimeError` outside of a loop.
    pub(super) fn wait_with_future<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let future = super::new_future(py)?;
        let mut state = self.lock();
        if state.weight <= LOW || state.is_gone {
            return Ok(None);
        }
        state.waiting.push(future.clone().unbind());
        Ok(Some(future))
    }

    /// Lets go who waits for room.
    fn let_go(&self, waiting: Vec<Py<PyAny>>) {
        self.room.notify_all();
        if waiting.is_empty() {
            return;
        }
        if let Some(site) = &self.site {
            site.on_loop(Box::new(move |py, _| waiting.iter().for_each(|future| resolve(future.bind(py)))));
        }
    }
}

/// The content as the carrier polls it.
pub(super) struct Flowing {
    pub(super) flow: Arc<Flow>,
    /// Is told when the carrier drops the content.
    pub(super) outlet: Arc<Outlet>,
    /// The file that is being read.
    pub(super) slice: Option<Slice>,
    /// Whether the carrier was given something since it last had to wait, and so may not have written it yet.
    pub(super) has_unflushed: bool,
}

impl HttpBody for Flowing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        loop {
            if let Some(slice) = &mut this.slice {
                match ready!(slice.poll_read(cx)) {
                    Ok(bytes) if !bytes.is_empty() => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                    Ok(_) => this.slice = None,
                    Err(error) => {
                        tracing::error!(kind = "handler", %error, "a file that a hosted app sends can't be read");
                        this.slice = None;
                        this.flow.cut();
                        this.lighten(FULL);
                        let error = Error::new(Kind::Handler, "a file of the response can't be read").because(error);
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                this.lighten(FULL);
            }
            let mut state = this.flow.lock();
            match state.queue.pop_front() {
                Some(Piece::Data(data)) => {
                    drop(state);
                    this.lighten(data.len() + CHUNK);
                    this.has_unflushed = true;
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Piece::File(slice)) => {
                    this.slice = Some(slice);
                    continue;
                }
                None => {}
            }
            match &mut state.end {
                Some(End::Whole(trailers)) => return Poll::Ready(trailers.take().map(Frame::trailers).map(Ok)),
                // Carriers forget what they have not written when content fails; waiting once lets them write it.
                Some(End::Cut) if this.has_unflushed => {
                    this.has_unflushed = false;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(End::Cut) => {
                    let error = Error::new(Kind::Handler, "the app ended before its response; the log says why");
                    return Poll::Ready(Some(Err(error)));
                }
                None => {}
            }
            match &mut state.carrier {
                Some(known) => known.clone_from(cx.waker()),
                None => state.carrier = Some(cx.waker().clone()),
            }
            drop(state);
            this.has_unflushed = false;
            return Poll::Pending;
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = self.flow.lock();
        self.slice.is_none() && state.queue.is_empty() && matches!(state.end, Some(End::Whole(None)))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Flowing {
    /// So much of the queue was sent.
    fn lighten(&self, weight: usize) {
        let mut state = self.flow.lock();
        state.weight -= weight;
        if state.weight > LOW {
            return;
        }
        let waiting = take(&mut state.waiting);
        drop(state);
        self.flow.let_go(waiting);
    }
}

impl Drop for Flowing {
    fn drop(&mut self) {
        let (queue, waiting) = {
            let mut state = self.flow.lock();
            state.is_gone = true;
            state.carrier = None;
            (take(&mut state.queue), take(&mut state.waiting))
        };
        drop(queue);
        self.flow.let_go(waiting);
        self.outlet.leave();
    }
}

/// Room in a flow, to be awaited.
#[pyclass(frozen, module = "httpy._httpy", name = "_Room")]
pub(super) struct Room(pub(super) Arc<Flow>);

#[pymethods]
impl Room {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// Yields a future while there is no room.
    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.0.wait_with_future(py)? {
            Some(future) => super::first_step(&future),
            None => Err(super::finished(py)),
        }
    }

    fn send<'py>(&self, py: Python<'py>, _value: Py<PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.__next__(py)
    }

    #[pyo3(signature = (error, _value=None, _traceback=None))]
    fn throw(
        &self,
        py: Python<'_>,
        error: Py<PyAny>,
        _value: Option<Py<PyAny>>,
        _traceback: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        Err(PyErr::from_value(error.into_bound(py)))
    }

    #[expect(clippy::unused_self, reason = "a coroutine has it")]
    fn close(&self) {}

    #[getter]
    fn __name__<'py>(&self, py: Python<'py>) -> Bound<'py, pyo3::types::PyString> {
        intern!(py, "send").clone()
    }

    #[getter]
    fn __qualname__<'py>(&self, py: Python<'py>) -> Bound<'py, pyo3::types::PyString> {
        intern!(py, "send").clone()
    }
}
