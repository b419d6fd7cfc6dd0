//! Response content that is made while it is sent.
//!
//! Rules:
//! 1. Nothing starts before the carrier asks for content, so the answer to HEAD costs no generator its start.
//! 2. Iterables run on pool threads, and async iterables in a task on the loop, both in a copy of the context in which
//!    the handler returned them.
//! 3. Making waits while [`FULL`] is queued, and holds no thread meanwhile. A chunk is offered to the carrier at once,
//!    however small it is: somebody may wait for it.
//! 4. What was started is closed, on the thread it ran on: at its end, when it fails, or when the client goes away.
//!    A pool thread that is inside the iterable then can't be interrupted: it is closed when it gives its next chunk.
//! 5. A failure is logged and cuts the connection, since the status has long been sent: the client sees that the content
//!    ends without its end (RFC 9112 §8).
//!
//! One file, because both ways of making end in the same states of the same stream.

use std::{
    collections::VecDeque,
    mem::{replace, take},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use httpy::{
    Body,
    error::{Error, Kind},
};
use pyo3::{
    exceptions::{PyException, PyStopIteration, PyTypeError},
    intern,
    prelude::*,
    types::{PyByteArray, PyBytes, PyMemoryView, PyString},
};

use crate::{
    errors,
    failures::log_failure,
    site::{Afterwards, Site},
};

/// How much is queued before making waits. 64 KiB, a socket buffer's worth.
const FULL: usize = 64 * 1024;
/// How much may be left in the queue when making goes on. Half, so that the carrier has something meanwhile.
const LOW: usize = FULL / 2;
/// What a chunk counts besides its length, so that many tiny ones don't take much more memory than they count. 64 bytes.
const CHUNK: usize = 64;

/// Makes content of an iterable or async iterable of str (sent as UTF-8) and bytes-like chunks.
///
/// # Errors
/// If the current context can't be copied.
pub(crate) fn stream(py: Python<'_>, chunks: &Bound<'_, PyAny>) -> PyResult<Body> {
    let context = copy_context(py)?;
    let source = Source { chunks: chunks.clone().unbind(), context: context.unbind() };
    let maker = if chunks.hasattr(intern!(py, "__aiter__"))? {
        Maker::Unpumped(source)
    } else {
        Maker::Pull(Pull { source, next: None })
    };
    let pipe = Pipe(Mutex::new(State { maker, ..State::default() }));
    Ok(Body::stream(Outgoing { pipe: Arc::new(pipe), site: None, has_unflushed: false }))
}

pub(crate) fn copy_context(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import(intern!(py, "contextvars"))?.call_method0(intern!(py, "copy_context"))
}

/// What chunks come from.
struct Source {
    chunks: Py<PyAny>,
    context: Py<PyAny>,
}

impl Source {
    /// Calls a function in the source's context.
    fn run<'py>(
        &self,
        py: Python<'py>,
        function: Bound<'py, PyAny>,
        argument: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let context = self.context.bind(py);
        match argument {
            None => context.call_method1(intern!(py, "run"), (function,)),
            Some(argument) => context.call_method1(intern!(py, "run"), (function, argument)),
        }
    }

    fn log(&self, py: Python<'_>, error: &PyErr) {
        log_stream_failure(py, self.chunks.bind(py), error);
    }
}

/// Logs a failure of a stream, unless it only says that nobody listens any more.
fn log_stream_failure(py: Python<'_>, chunks: &Bound<'_, PyAny>, error: &PyErr) {
    if errors::is_client_disconnected(py, error) {
        return;
    }
    let name =
        chunks.getattr(intern!(py, "__qualname__")).or_else(|_| chunks.get_type().qualname().map(Bound::into_any));
    let name = name.map_or_else(|_| "?".to_owned(), |name| name.to_string());
    log_failure(py, &format!("response stream {name}"), "the connection is cut", error);
}

/// Reads a chunk.
///
/// # Errors
/// `TypeError` if it is nothing that can be sent, `UnicodeEncodeError` for lone surrogates, which have no UTF-8.
pub(crate) fn chunk(chunk: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    let py = chunk.py();
    if let Ok(bytes) = chunk.cast::<PyBytes>() {
        return Ok(Bytes::copy_from_slice(bytes.as_bytes()));
    }
    if let Ok(text) = chunk.cast::<PyString>() {
        return Ok(Bytes::copy_from_slice(text.to_cow()?.as_bytes()));
    }
    if chunk.is_instance_of::<PyByteArray>() || chunk.is_instance_of::<PyMemoryView>() {
        let bytes = py.get_type::<PyBytes>().call1((chunk,))?.cast_into::<PyBytes>()?;
        return Ok(Bytes::copy_from_slice(bytes.as_bytes()));
    }
    let found = chunk.get_type().fully_qualified_name()?;
    Err(PyTypeError::new_err(format!("a response stream yields str or bytes, not {found}")))
}

// -- the carrier's side ----------------------------------------------------------------------------------------------

/// Content as the carrier polls it.
struct Outgoing {
    pipe: Arc<Pipe>,
    /// Known from the first poll on.
    site: Option<Arc<Site>>,
    /// Whether the carrier was given chunks since it last had to wait, and so may not have written them yet.
    has_unflushed: bool,
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let mut state = this.pipe.lock();
        if let Some(chunk) = state.queue.pop_front() {
            state.weight -= chunk.len() + CHUNK;
            let waited = state.go_on();
            drop(state);
            this.go_on(waited);
            this.has_unflushed = true;
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match state.end {
            Some(End::Whole) => return Poll::Ready(None),
            // Carriers forget what they have not written when content fails; waiting once lets them write it.
            Some(End::Cut) if this.has_unflushed => {
                this.has_unflushed = false;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(End::Cut) => {
                let error = Error::new(Kind::Handler, "the response stream failed; the log says why");
                return Poll::Ready(Some(Err(error)));
            }
            None => {}
        }
        match &mut state.carrier {
            Some(known) => known.clone_from(cx.waker()),
            None => state.carrier = Some(cx.waker().clone()),
        }
        let waited = state.go_on();
        drop(state);
        this.has_unflushed = false;
        this.go_on(waited);
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let state = self.pipe.lock();
        state.queue.is_empty() && matches!(state.end, Some(End::Whole))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Outgoing {
    /// Has the maker go on, if it waited.
    fn go_on(&mut self, waited: Option<Waited>) {
        let Some(waited) = waited else { return };
        let Some(site) = self.site.take().or_else(Site::here) else {
            // A carrier without a loop: there is nobody to make anything.
            return self.pipe.end(End::Cut);
        };
        let duty = Duty { pipe: self.pipe.clone(), is_held: true, _afterwards: site.begin_afterwards() };
        match waited {
            Waited::Pull(pull) => site.on_pool(Box::new(move |py| pull.run(py, duty))),
            Waited::Unpumped(source) => {
                site.on_loop(Box::new(move |py, event_loop| pump(py, event_loop, source, duty)))
            }
            Waited::Pump(room) => {
                duty.put_down();
                site.on_loop(Box::new(move |py, _| resolve(room.bind(py))));
            }
        }
        self.site = Some(site);
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let (maker, queue) = {
            let mut state = self.pipe.lock();
            state.is_gone = true;
            state.carrier = None;
            // A pump that runs is left where it is: it may end by itself until it is cancelled.
            let runs = matches!(state.maker, Maker::Pump { .. });
            (if runs { None } else { Some(take(&mut state.maker)) }, take(&mut state.queue))
        };
        drop(queue);
        let site = self.site.take().or_else(Site::here);
        match (maker, site) {
            (Some(Maker::Pull(pull)), Some(site)) => {
                let afterwards = site.begin_afterwards();
                site.on_pool(Box::new(move |py| {
                    pull.close(py);
                    drop(afterwards);
                }));
            }
            // Not on a runtime thread, so it never started: what there is to close is closed here.
            (Some(Maker::Pull(pull)), None) => drop(Python::try_attach(|py| pull.close(py))),
            (None, Some(site)) => {
                let leaving = Leaving(self.pipe.clone());
                site.on_loop(Box::new(move |py, _| leaving.cancel_pump(py)));
            }
            // What never started has nothing to clean up, and what is busy sees for itself that the client is gone.
            _ => {}
        }
    }
}

/// The client has left. Lets go of the task that pumps, even if its loop is closed: the two hold each other.
struct Leaving(Arc<Pipe>);

impl Leaving {
    /// Cancels the pump, unless it has ended. One that is closing its iterable must not be interrupted in that.
    fn cancel_pump(&self, py: Python<'_>) {
        let maker = take(&mut self.0.lock().maker);
        if let Maker::Pump { task: Some(task), .. } = maker {
            cancel(task.bind(py));
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let maker = take(&mut self.0.lock().maker);
        drop(maker);
    }
}

fn cancel(task: &Bound<'_, PyAny>) {
    if let Err(error) = task.call_method0(intern!(task.py(), "cancel")) {
        error.write_unraisable(task.py(), Some(task));
    }
}

/// Gives a future the result None, unless it was cancelled meanwhile.
pub(crate) fn resolve(future: &Bound<'_, PyAny>) {
    let py = future.py();
    let resolved = future.call_method0(intern!(py, "done")).and_then(|done| {
        if !done.is_truthy()? {
            future.call_method1(intern!(py, "set_result"), (py.None(),))?;
        }
        Ok(())
    });
    if let Err(error) = resolved {
        error.write_unraisable(py, Some(future));
    }
}

// -- between the two -------------------------------------------------------------------------------------------------

/// What carrier and maker share. Never locked while Python code runs or objects are dropped.
struct Pipe(Mutex<State>);

#[derive(Default)]
struct State {
    queue: VecDeque<Bytes>,
    /// What the queue counts, in bytes.
    weight: usize,
    end: Option<End>,
    /// The carrier waits.
    carrier: Option<Waker>,
    /// The carrier has dropped the content.
    is_gone: bool,
    maker: Maker,
}

#[derive(Clone, Copy)]
enum End {
    Whole,
    Cut,
}

/// What makes the chunks.
///
/// ```text
/// Pull <--full, room--> Pulling (a pool thread has it) --.
/// Unpumped --> Pump (a task has it; `room` if full) -------> Over
/// ```
#[derive(Default)]
enum Maker {
    Pull(Pull),
    Pulling,
    Unpumped(Source),
    Pump {
        /// Known as soon as it was made.
        task: Option<Py<PyAny>>,
        /// The future it awaits while the queue is full.
        room: Option<Py<PyAny>>,
    },
    #[default]
    Over,
}

/// A maker that is to go on.
enum Waited {
    Pull(Pull),
    Unpumped(Source),
    Pump(Py<PyAny>),
}

impl State {
    /// Takes what is to go on, if the maker waits and there is room.
    fn go_on(&mut self) -> Option<Waited> {
        if self.weight > LOW {
            return None;
        }
        match replace(&mut self.maker, Maker::Pulling) {
            Maker::Pull(pull) => Some(Waited::Pull(pull)),
            Maker::Unpumped(source) => {
                self.maker = Maker::Pump { task: None, room: None };
                Some(Waited::Unpumped(source))
            }
            Maker::Pump { task, room } => {
                self.maker = Maker::Pump { task, room: None };
                room.map(Waited::Pump)
            }
            other => {
                self.maker = other;
                None
            }
        }
    }
}

/// What came of queueing a chunk.
enum Pushed {
    Room,
    Full,
    /// Nobody reads any more.
    Gone,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a chunk; an empty one is none.
    fn push(&self, chunk: Bytes) -> Pushed {
        let mut state = self.lock();
        if state.is_gone {
            return Pushed::Gone;
        }
        let mut carrier = None;
        if !chunk.is_empty() {
            state.weight += chunk.len() + CHUNK;
            state.queue.push_back(chunk);
            carrier = state.carrier.take();
        }
        let pushed = if state.weight < FULL { Pushed::Room } else { Pushed::Full };
        drop(state);
        if let Some(carrier) = carrier {
            carrier.wake();
        }
        pushed
    }

    /// Nothing follows. The first end counts.
    fn end(&self, end: End) {
        let mut state = self.lock();
        state.end.get_or_insert(end);
        let maker = replace(&mut state.maker, Maker::Over);
        let carrier = state.carrier.take();
        drop(state);
        drop(maker);
        if let Some(carrier) = carrier {
            carrier.wake();
        }
    }
}

/// The duty to make chunks. If it is dropped before their end, because its job was never run, panicked, or its loop was
/// closed, the connection is cut: no client waits for ever. A server that stops waits for whoever has it, so that what
/// was started is also closed.
struct Duty {
    pipe: Arc<Pipe>,
    is_held: bool,
    _afterwards: Afterwards,
}

impl Duty {
    /// Others have it from now on.
    fn put_down(mut self) {
        self.is_held = false;
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        if self.is_held {
            self.pipe.end(End::Cut);
        }
    }
}

// -- iterables: pulled on pool threads -------------------------------------------------------------------------------

/// An iterable on its way through pool threads.
struct Pull {
    source: Source,
    /// `__next__` of its iterator, once it was started.
    next: Option<Py<PyAny>>,
}

impl Pull {
    /// Pulls until the queue is full, the iterable ends, or the client goes away.
    fn run(mut self, py: Python<'_>, duty: Duty) {
        let pipe = &duty.pipe;
        loop {
            let mut state = pipe.lock();
            if state.is_gone {
                break;
            }
            if state.weight >= FULL {
                state.maker = Maker::Pull(self);
                drop(state);
                return duty.put_down();
            }
            drop(state);
            match self.next_chunk(py) {
                Ok(Some(chunk)) => drop(pipe.push(chunk)),
                Ok(None) => {
                    pipe.end(End::Whole);
                    break;
                }
                Err(error) => {
                    self.source.log(py, &error);
                    pipe.end(End::Cut);
                    break;
                }
            }
        }
        self.close(py);
    }

    fn next_chunk(&mut self, py: Python<'_>) -> PyResult<Option<Bytes>> {
        let next = match &self.next {
            Some(next) => next.bind(py).clone(),
            None => {
                let iter = py.import(intern!(py, "builtins"))?.getattr(intern!(py, "iter"))?;
                let iterator = self.source.run(py, iter, Some(self.source.chunks.bind(py).clone()))?;
                let next = iterator.getattr(intern!(py, "__next__"))?;
                self.source.chunks = iterator.unbind();
                self.next.insert(next.unbind()).bind(py).clone()
            }
        };
        match self.source.run(py, next, None) {
            Ok(value) => chunk(&value).map(Some),
            Err(error) if error.is_instance_of::<PyStopIteration>(py) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Closes the iterator, if it can be closed. An iterable that was never asked for its iterator is left alone.
    fn close(&self, py: Python<'_>) {
        let chunks = self.source.chunks.bind(py);
        if self.next.is_none() && !chunks.hasattr(intern!(py, "__next__")).unwrap_or(false) {
            return;
        }
        let Ok(close) = chunks.getattr(intern!(py, "close")) else { return };
        if let Err(error) = self.source.run(py, close, None) {
            self.source.log(py, &error);
        }
    }
}

// -- async iterables: pumped by a task -------------------------------------------------------------------------------

/// Starts the task that pumps.
fn pump(py: Python<'_>, event_loop: &Bound<'_, PyAny>, source: Source, duty: Duty) {
    let pipe = duty.pipe.clone();
    if pipe.lock().is_gone {
        return;
    }
    let start = || -> PyResult<Bound<'_, PyAny>> {
        let sink = Sink { duty, event_loop: event_loop.clone().unbind() };
        let streams = py.import(intern!(py, "httpy._streams"))?;
        let coroutine = streams.call_method1(intern!(py, "pump"), (&source.chunks, sink))?;
        // Before Python 3.11 a task's context can't be given: it copies the current one, so make it inside.
        let task = source.run(py, event_loop.getattr(intern!(py, "create_task"))?, Some(coroutine.clone()));
        if task.is_err() {
            // Else Python warns that nobody awaited it.
            coroutine.call_method0(intern!(py, "close"))?;
        }
        task
    };
    let task = match start() {
        Ok(task) => task,
        // The duty went with the sink.
        Err(error) => return source.log(py, &error),
    };
    let mut state = pipe.lock();
    if state.is_gone {
        drop(state);
        return cancel(&task);
    }
    // A task of an eager factory may have ended by now.
    if let Maker::Pump { task: place, .. } = &mut state.maker {
        *place = Some(task.unbind());
    }
}

/// Where the pump puts chunks.
#[pyclass(frozen, module = "httpy._httpy", name = "_Sink")]
struct Sink {
    duty: Duty,
    event_loop: Py<PyAny>,
}

#[pymethods]
impl Sink {
    /// Queues a chunk. Returns None, or a future to await first if the queue is full.
    ///
    /// Raises `ClientDisconnected` if nobody will read it, and `TypeError` if it can't be sent.
    fn push<'py>(&self, py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.duty.pipe.push(chunk(value)?) {
            Pushed::Room => return Ok(None),
            Pushed::Full => {}
            Pushed::Gone => {
                let message = "the client went away while the response was streamed";
                return Err(errors::client_disconnected(py, message));
            }
        }
        let future = self.event_loop.bind(py).call_method0(intern!(py, "create_future"))?;
        let mut state = self.duty.pipe.lock();
        if state.weight >= FULL
            && let Maker::Pump { room, .. } = &mut state.maker
        {
            *room = Some(future.clone().unbind());
            return Ok(Some(future));
        }
        Ok(None)
    }

    /// Nothing follows.
    fn finish(&self) {
        self.duty.pipe.end(End::Whole);
    }

    /// The iterable failed: logs it, and cuts the connection.
    fn fail(&self, py: Python<'_>, chunks: &Bound<'_, PyAny>, error: Bound<'_, PyAny>) {
        let error = PyErr::from_value(error);
        // A cancelled task is no failure; what else is no `Exception` goes on to the loop.
        if error.is_instance_of::<PyException>(py) {
            log_stream_failure(py, chunks, &error);
        }
        self.duty.pipe.end(End::Cut);
    }
}
