//! Request content as it arrives, for handlers that asked for that with `stream=True`.
//!
//! A reader on the runtime's thread has the content, the handler has [`Chunks`], and between the two is an inbox.
//!
//! Rules:
//! 1. Nothing is read before the first chunk is asked for, so until then the client is not told to go on either
//!    (RFC 9110 §10.1.1, `100 Continue`).
//! 2. The reader rests while [`FULL`] is waiting: then the socket fills, and the client has to wait.
//! 3. The content lasts as long as the exchange. When the response was sent, or dropped, what was not read is given
//!    back to the carrier, whoever still holds the request object.

use std::{
    collections::VecDeque,
    future::Future,
    mem::take,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http_body::Body as HttpBody;
use httpy::{Body, Reply, Request, Response, error::Kind, message::TooLarge};
use pyo3::{
    exceptions::{PyRuntimeError, PyStopAsyncIteration, PyStopIteration},
    intern,
    prelude::*,
    types::PyBytes,
};
use tokio::task::spawn_local;

use crate::{
    afterwards::followed,
    errors,
    outgoing::resolve,
    site::{Site, call_soon},
};

/// How much waits for the handler before reading stops. 64 KiB, a socket buffer's worth; one frame more may wait, which
/// is as large as the carrier reads at a time.
const FULL: usize = 64 * 1024;
/// How much may be left when reading goes on.
const LOW: usize = FULL / 2;

/// A request's content as the door has it.
pub(crate) enum Content {
    /// All of it.
    Whole(Bytes),
    /// Not yet.
    Arriving(Arriving),
}

/// Content that is there for the asking, once.
pub(crate) struct Arriving(Arc<Inbox>);

impl Arriving {
    /// The chunks, for the first who asks.
    ///
    /// # Errors
    /// `RuntimeError` for others.
    pub(crate) fn chunks(&self) -> PyResult<Chunks> {
        if std::mem::replace(&mut self.0.lock().is_taken, true) {
            return Err(PyRuntimeError::new_err("request.stream() was called already: content arrives only once"));
        }
        Ok(Chunks(self.0.clone()))
    }

    /// The same content. Middleware that has read some of it has that chunk, and the app does not.
    pub(crate) fn share(&self) -> Self {
        Self(self.0.clone())
    }

    /// What is between the reader and whoever takes the content.
    pub(crate) fn into_inbox(self) -> Arc<Inbox> {
        self.0
    }
}

/// Answers a request whose handler reads the content, at most `limit` bytes of it, while it arrives.
///
/// To be called on a runtime thread.
pub(crate) fn answer(mut request: Request, limit: u64, run: impl FnOnce(Request, Content) -> Reply) -> Reply {
    let inbox = match take(&mut request.body) {
        Body::Empty => Inbox::filled(Bytes::new()),
        Body::Full(content) if content.len() as u64 <= limit => Inbox::filled(content),
        body => Inbox::new(body, limit),
    };
    let exchange = Exchange { inbox: inbox.clone(), end: End::Gone };
    match run(request, Content::Arriving(Arriving(inbox))) {
        Reply::Now(response) => exchange.ends_with(*response).into(),
        Reply::Later(response) => Reply::later(async move { exchange.ends_with(response.await) }),
    }
}

/// Lasts as long as anybody may read the content.
struct Exchange {
    inbox: Arc<Inbox>,
    end: End,
}

impl Exchange {
    fn ends_with(mut self, response: Response) -> Response {
        self.end = End::Answered;
        response.map(|body| followed(body, move || drop(self)))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.inbox.end(self.end.clone());
    }
}

// -- between the reader and the handler ------------------------------------------------------------------------------

/// Content that has arrived and waits for the handler. Never locked while Python code runs or objects are dropped.
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// Wakes threads that wait for news.
    news: Condvar,
    site: Option<Arc<Site>>,
}

#[derive(Default)]
struct State {
    chunks: VecDeque<Bytes>,
    size: usize,
    end: Option<End>,
    is_taken: bool,
    /// Whether the handler has asked for a chunk.
    is_wanted: bool,
    /// The reader, and whether it rests: nobody has asked yet, or enough is waiting.
    reader: Option<Waker>,
    rests: bool,
    /// A task waits for news with this future.
    waiting: Option<Py<PyAny>>,
}

/// Why nothing follows.
#[derive(Clone)]
pub(crate) enum End {
    Whole,
    /// With the message for the client.
    TooLarge(String),
    /// The client went away.
    Gone,
    /// The response was sent.
    Answered,
}

impl End {
    /// Nothing, or what the handler gets to see.
    fn raise(&self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Whole => Ok(()),
            Self::TooLarge(message) => Err(errors::http(py, 413, message)),
            Self::Gone => {
                let message = "the client went away before the whole request body had arrived";
                Err(errors::client_disconnected(py, message))
            }
            Self::Answered => Err(PyRuntimeError::new_err(
                "the response was sent: what had not been read of the request body by then is gone",
            )),
        }
    }
}

/// What there is for the handler.
pub(crate) enum Found {
    Chunk(Bytes),
    End(End),
    Nothing,
}

impl Inbox {
    pub(crate) fn filled(content: Bytes) -> Arc<Self> {
        let size = content.len();
        let chunks = if content.is_empty() { VecDeque::new() } else { VecDeque::from([content]) };
        let state = State { chunks, size, end: Some(End::Whole), ..State::default() };
        Arc::new(Self { state: Mutex::new(state), news: Condvar::new(), site: None })
    }

    /// Makes an inbox, and starts the reader that fills it.
    fn new(body: Body, limit: u64) -> Arc<Self> {
        let state = State { rests: true, ..State::default() };
        let inbox = Arc::new(Self { state: Mutex::new(state), news: Condvar::new(), site: Site::here() });
        drop(spawn_local(Reader { inbox: inbox.clone(), body, left: limit, limit }));
        inbox
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether everything has arrived and was taken.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.lock();
        state.chunks.is_empty() && matches!(state.end, Some(End::Whole))
    }

    fn has_news(&self) -> bool {
        let state = self.lock();
        !state.chunks.is_empty() || state.end.is_some()
    }

    /// Takes a chunk, and has the reader go on.
    pub(crate) fn take(&self) -> Found {
        let mut state = self.lock();
        state.is_wanted = true;
        let found = match state.chunks.pop_front() {
            Some(chunk) => {
                state.size -= chunk.len();
                Found::Chunk(chunk)
            }
            None => state.end.clone().map_or(Found::Nothing, Found::End),
        };
        let goes_on = state.rests && state.size <= LOW;
        let reader = if goes_on { state.reader.take() } else { None };
        state.rests &= !goes_on;
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        found
    }

    /// Adds what has arrived.
    fn put(&self, chunk: Bytes) {
        let mut state = self.lock();
        if state.end.is_none() && !chunk.is_empty() {
            state.size += chunk.len();
            state.chunks.push_back(chunk);
            self.tell(state);
        }
    }

    /// Nothing follows. The first end counts.
    fn end(&self, end: End) {
        let mut state = self.lock();
        if state.end.is_none() {
            state.end = Some(end);
            let reader = state.reader.take();
            self.tell(state);
            if let Some(reader) = reader {
                reader.wake();
            }
        }
    }

    /// Tells who waits that there is news.
    fn tell(&self, mut state: MutexGuard<'_, State>) {
        let waiting = state.waiting.take();
        drop(state);
        self.news.notify_all();
        if let (Some(waiting), Some(site)) = (waiting, &self.site) {
            site.on_loop(Box::new(move |py, event_loop| resolve_on_its_loop(waiting.into_bound(py), event_loop)));
        }
    }

    /// Waits for news, on a thread that may block. Must not be called attached.
    pub(crate) fn wait(&self) {
        let has_none = |state: &mut State| state.chunks.is_empty() && state.end.is_none();
        drop(self.news.wait_while(self.lock(), has_none).unwrap_or_else(PoisonError::into_inner));
    }

    /// Has news resolve a future of the running loop. None if there is news already.
    ///
    /// # Errors
    /// `RuntimeError` outside of a loop, or if another task waits.
    pub(crate) fn wait_with_future<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let other = self.lock().waiting.take();
        if let Some(other) = other {
            let is_done = other.call_method0(py, intern!(py, "done"))?.is_truthy(py)?;
            if !is_done {
                self.lock().waiting = Some(other);
                return Err(PyRuntimeError::new_err("another task waits for the next chunk of this request"));
            }
        }
        let event_loop = py.import(intern!(py, "asyncio"))?.call_method0(intern!(py, "get_running_loop"))?;
        let future = event_loop.call_method0(intern!(py, "create_future"))?;
        let mut state = self.lock();
        if !state.chunks.is_empty() || state.end.is_some() {
            return Ok(None);
        }
        state.waiting = Some(future.clone().unbind());
        Ok(Some(future))
    }
}

/// Resolves a future, which usually belongs to the server's loop; but a `def` handler may run one of its own.
fn resolve_on_its_loop(future: Bound<'_, PyAny>, event_loop: &Bound<'_, PyAny>) {
    match future.call_method0(intern!(future.py(), "get_loop")) {
        Ok(its_loop) if !its_loop.is(event_loop) => {
            let future = future.unbind();
            call_soon(&its_loop, Box::new(move |py, _| resolve(future.bind(py))));
        }
        _ => resolve(&future),
    }
}

// -- the runtime's side ----------------------------------------------------------------------------------------------

/// Moves content into the inbox, as fast as the handler takes it out.
struct Reader {
    inbox: Arc<Inbox>,
    body: Body,
    /// How many bytes may still come.
    left: u64,
    limit: u64,
}

impl Future for Reader {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            let mut state = this.inbox.lock();
            if state.end.is_some() {
                return Poll::Ready(());
            }
            match &mut state.reader {
                Some(known) => known.clone_from(cx.waker()),
                None => state.reader = Some(cx.waker().clone()),
            }
            state.rests = !state.is_wanted || state.size >= FULL;
            if state.rests {
                return Poll::Pending;
            }
            drop(state);
            if this.body.size_hint().lower() > this.left {
                // RFC 9110 §15.5.14: said before the client is told to go on.
                this.refuse();
                return Poll::Ready(());
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    // A trailer section is not content.
                    let Ok(data) = frame.into_data() else { continue };
                    match this.left.checked_sub(data.len() as u64) {
                        Some(left) => this.left = left,
                        None => {
                            this.refuse();
                            return Poll::Ready(());
                        }
                    }
                    this.inbox.put(data);
                }
                Some(Err(error)) if error.kind() == Kind::Limit => {
                    this.inbox.end(End::TooLarge(error.to_string()));
                    return Poll::Ready(());
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "a streamed request body broke off");
                    this.inbox.end(End::Gone);
                    return Poll::Ready(());
                }
                None => {
                    this.inbox.end(End::Whole);
                    return Poll::Ready(());
                }
            }
        }
    }
}

impl Reader {
    fn refuse(&self) {
        self.inbox.end(End::TooLarge(TooLarge { limit: self.limit }.to_string()));
    }
}

impl Drop for Reader {
    /// The runtime ends, if the content has not.
    fn drop(&mut self) {
        self.inbox.end(End::Gone);
    }
}

// -- Python's side ---------------------------------------------------------------------------------------------------

/// Chunks of request content, for `async for`, or for `for` on a thread that may block.
#[pyclass(frozen, module = "httpy._httpy")]
pub(crate) struct Chunks(Arc<Inbox>);

impl Chunks {
    /// One chunk that is there.
    pub(crate) fn whole(content: Bytes) -> Self {
        Self(Inbox::filled(content))
    }

    /// Waiting on a loop's thread for what the loop has to bring would last for ever.
    fn refuse_to_block(&self, py: Python<'_>) -> PyResult<()> {
        if self.0.has_news() {
            return Ok(());
        }
        let running = py.import(intern!(py, "asyncio"))?.call_method0(intern!(py, "_get_running_loop"))?;
        if running.is_none() {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(
            "`for` over request.stream() would block the event loop: use `async for` in an `async def` handler, or a \
             `def` handler without inline=True",
        ))
    }
}

#[pymethods]
impl Chunks {
    fn __iter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().refuse_to_block(slf.py())?;
        Ok(slf)
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        self.refuse_to_block(py)?;
        loop {
            match self.0.take() {
                Found::Chunk(chunk) => return Ok(Some(PyBytes::new(py, &chunk))),
                Found::End(end) => return end.raise(py).map(|()| None),
                Found::Nothing => py.detach(|| self.0.wait()),
            }
        }
    }

    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__(&self) -> NextChunk {
        NextChunk(self.0.clone())
    }
}

/// The next chunk, to be awaited.
#[pyclass(frozen, module = "httpy._httpy", name = "_NextChunk")]
struct NextChunk(Arc<Inbox>);

#[pymethods]
impl NextChunk {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// One step of awaiting: yields futures until there is news, then ends with the chunk.
    ///
    /// A future brings only the news. A chunk stays in the inbox until it is handed out, so that none is lost if the
    /// task is cancelled in between.
    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        loop {
            match self.0.take() {
                Found::Chunk(chunk) => return Err(PyStopIteration::new_err((PyBytes::new(py, &chunk).unbind(),))),
                Found::End(end) => {
                    end.raise(py)?;
                    return Err(PyStopAsyncIteration::new_err(()));
                }
                Found::Nothing => {}
            }
            if let Some(future) = self.0.wait_with_future(py)? {
                // Its own iterator marks it as awaited, which the task checks.
                let step = future.call_method0(intern!(py, "__await__"))?;
                return step.call_method0(intern!(py, "__next__"));
            }
        }
    }
}
