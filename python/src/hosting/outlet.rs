//! The way out of a hosted app: what it says of its response, held to the rules, becomes one.
//!
//! ```text
//! Silent --start--> Started --first content--> Sending --last content--> Trailing --trailers--> Complete
//!                      '----------- the only content -----------------------'---- none to come ---^
//! ```
//!
//! Rules:
//! 1. Nothing is sent before there is content, so that an app that fails until then still gets an error sent.
//! 2. Content that is whole at once leaves as one piece; other content as a [`Flow`].
//! 3. What the app declared as `Content-Length` it has to keep (RFC 9110 §8.6): more is refused when it comes, less when
//!    the app says that it is done.
//! 4. What has no content by its method or status (RFC 9110 §6.4.1) is sent without, whatever the app gives.
//!
//! One file, because it is one machine of states.
//!
//! ASGI's and WSGI's rules of saying it are in `asgi.rs` and `wsgi.rs`.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{
        AtomicU8,
        Ordering::{Acquire, Release},
    },
};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use httpy::{Body, Response};
use pyo3::{
    exceptions::{PyRuntimeError, PyStopIteration, PyValueError},
    intern,
    prelude::*,
};

use super::flow::{Flow, Flowing, Piece, Pushed};
use crate::{
    driver::{Follower, Watch},
    errors,
    outgoing::resolve,
    response,
    site::{Afterwards, Site},
};

/// See the module.
pub(crate) struct Outlet {
    is_head: bool,
    pub(super) site: Option<Arc<Site>>,
    state: Mutex<State>,
    /// What decides about a message, beside the lock: the number of the phase, and [`GONE`]. Written under it.
    stand: AtomicU8,
}

/// The client has gone.
const GONE: u8 = 1 << 7;

#[derive(Default)]
struct State {
    phase: Phase,
    /// What was said and not sent. Rule 1.
    head: Option<Head>,
    /// Made, and nobody has it yet.
    response: Option<Response>,
    /// The way to the carrier, once it waits.
    watch: Option<Watch>,
    /// A future for middleware that waits for a response.
    begun: Option<Py<PyAny>>,
    /// What the app raised, for that same middleware.
    failure: Option<PyErr>,
    has_ended: bool,
    /// How many bytes of content are still to come, if the app declared that.
    left: Option<u64>,
    /// Whether content is thrown away. Rule 4.
    is_bare: bool,
    has_trailers: bool,
    /// Boxed, because hardly anybody has any.
    trailers: Option<Box<HeaderMap>>,
    flow: Option<Arc<Flow>>,
    is_gone: bool,
    /// Futures that are resolved when the client leaves, or all is sent.
    leaving: Vec<Py<PyAny>>,
    /// How often the app may still send to nobody, as somebody is being told that the client has left; and which task was.
    spared: u8,
    told: usize,
    /// Keeps a server that stops waiting for the app.
    afterwards: Option<Afterwards>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    #[default]
    Silent,
    Started,
    Sending,
    Trailing,
    Complete,
}

/// Status and fields.
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Whether a trailer section is to follow, and the client takes it.
    pub(super) has_trailers: bool,
}

/// What the end of an app leaves to do.
pub(crate) enum Ended {
    /// This is the response, and whether it is whole, or at least nobody's any more.
    Response(Response, bool),
    /// It is gone its way already.
    Given,
    /// There is none.
    Missing,
    /// It is on its way, but not whole, and is cut.
    Cut,
}

/// 8. A task that listens is done in the next turn of the loop, who waits for that is told in the second, and cancels in the third.
const SPARED: u8 = 8;

/// The list of futures is looked through for those that nobody awaits any more when it is as long as this.
const MANY: usize = 8;

impl Outlet {
    pub(crate) fn new(is_head: bool, site: Option<Arc<Site>>) -> Arc<Self> {
        Arc::new(Self { is_head, site, state: Mutex::default(), stand: AtomicU8::new(Phase::Silent as u8) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// Both of what decides about a message. An app says one after the other, so nobody else changes the phase meanwhile; the
    /// client may go at any time.
    pub(super) fn phase_and_gone(&self) -> (Phase, bool) {
        let stand = self.stand.load(Acquire);
        let phase = match stand & !GONE {
            0 => Phase::Silent,
            1 => Phase::Started,
            2 => Phase::Sending,
            3 => Phase::Trailing,
            _ => Phase::Complete,
        };
        (phase, stand & GONE != 0)
    }

    /// Keeps `stand` what the state says.
    fn note(&self, state: &State) {
        self.stand.store(state.phase as u8 | if state.is_gone { GONE } else { 0 }, Release);
    }

    /// Whether the client went away before it had everything.
    pub(crate) fn is_gone(&self) -> bool {
        self.lock().is_gone
    }

    /// Whether anything was sent, so that nothing can be taken back.
    pub(super) fn has_begun(&self) -> bool {
        !matches!(self.phase(), Phase::Silent | Phase::Started)
    }

    /// Holds status and fields until there is content. May be called again until then.
    ///
    /// # Errors
    /// `ValueError` for a length that is none.
    pub(super) fn start(&self, mut head: Head) -> PyResult<()> {
        let left = declared_length(&mut head.headers)?;
        let mut state = self.lock();
        state.is_bare = self.is_head
            || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::RESET_CONTENT);
        state.left = left.filter(|_| !state.is_bare);
        state.has_trailers = head.has_trailers;
        state.phase = Phase::Started;
        self.note(&state);
        state.head = Some(head);
        Ok(())
    }

    /// Sends content; the head goes ahead of the first.
    /// A response that is made by that is kept until [`Outlet::give`], or the app's end.
    ///
    /// # Errors
    /// `RuntimeError` if it is more, or as the last less, than the app declared.
    pub(super) fn push(self: &Arc<Self>, piece: Piece, more: bool) -> PyResult<Pushed> {
        let mut state = self.lock();
        if state.is_gone {
            return Ok(Pushed::Gone);
        }
        if let (Some(left), Some(size)) = (state.left, piece.size()) {
            let Some(left) = left.checked_sub(size) else {
                let message = format!("the app sends {} bytes more than its content-length says", size - left);
                return Err(PyRuntimeError::new_err(message));
            };
            if !more && left > 0 {
                let message = format!("the app sends {left} bytes less than its content-length says");
                return Err(PyRuntimeError::new_err(message));
            }
            state.left = Some(left);
        }
        let is_last = !more && !state.has_trailers;
        let next = match (more, state.has_trailers) {
            (true, _) => Phase::Sending,
            (false, true) => Phase::Trailing,
            (false, false) => Phase::Complete,
        };
        let mut pushed = Pushed::Room;
        if let Some(head) = state.head.take() {
            let body = match piece {
                Piece::Data(data) if is_last => Body::from(data),
                piece => {
                    let flow = Flow::new(self.site.clone());
                    if !state.is_bare {
                        pushed = flow.push(piece);
                    }
                    if is_last {
                        flow.finish(None);
                    }
                    if state.is_bare {
                        // The carrier throws its side away: that is no client that leaves.
                        flow.finish(None);
                        Body::stream(EndedBody)
                    } else {
                        state.flow = Some(flow.clone());
                        Body::stream(Flowing { flow, outlet: self.clone(), slice: None, has_unflushed: false })
                    }
                }
            };
            let mut response = Response::new(body);
            *response.status_mut() = head.status;
            *response.headers_mut() = head.headers;
            state.response = Some(response);
        } else if let Some(flow) = state.flow.clone() {
            // Under the lock of the outlet, which the carrier takes only when it drops the content, holding no other.
            pushed = flow.push(piece);
            if is_last {
                flow.finish(None);
            }
        }
        state.phase = next;
        self.note(&state);
        drop(state);
        Ok(pushed)
    }

    /// The response that was made, for who gives it to the carrier in another way.
    pub(super) fn take_response(&self) -> Option<Response> {
        self.lock().response.take()
    }

    /// Adds to the trailer section, and sends it with the last part.
    pub(super) fn trail(&self, headers: &HeaderMap, more: bool) {
        let mut state = self.lock();
        let trailers = state.trailers.get_or_insert_default();
        for (name, value) in headers {
            trailers.append(name, value.clone());
        }
        if !more {
            state.phase = Phase::Complete;
            self.note(&state);
            let trailers = state.trailers.take().map(|trailers| *trailers);
            if let Some(flow) = &state.flow {
                flow.finish(trailers);
            }
        }
    }

    /// How many bytes of content the app has declared and not sent.
    pub(super) fn left(&self) -> Option<u64> {
        self.lock().left
    }

    /// The flow that content goes to, once there is one.
    pub(super) fn flow(&self) -> Option<Arc<Flow>> {
        self.lock().flow.clone()
    }

    /// Answers in the app's place, if it has not begun, and has nothing of it count any more.
    pub(super) fn refuse(&self, py: Python<'_>, response: Response) {
        self.replace(response);
        self.give(py);
        self.tell_leaving(Some(py));
    }

    /// The same from a pool thread.
    pub(super) fn refuse_from_thread(&self, response: Response) {
        self.replace(response);
        self.give_from_thread();
    }

    fn replace(&self, response: Response) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Silent | Phase::Started) {
            state.head = None;
            state.response = Some(response);
        } else if let Some(flow) = &state.flow {
            flow.cut();
        }
        state.is_gone = true;
        self.note(&state);
    }

    /// Hands over the response that was made, if there is one and somebody waits for it, and tells who waits for the end of
    /// everything if that is it.
    pub(super) fn give(&self, py: Python<'_>) {
        let mut state = self.lock();
        if state.watch.is_none() && state.begun.is_none() && state.leaving.is_empty() {
            return;
        }
        let begun = state.begun.take();
        let leaving = if state.phase == Phase::Complete { std::mem::take(&mut state.leaving) } else { Vec::new() };
        let given = match state.watch.take() {
            Some(watch) => match state.response.take() {
                Some(response) => Some((watch, response)),
                None => {
                    state.watch = Some(watch);
                    None
                }
            },
            None => None,
        };
        drop(state);
        if let Some((watch, response)) = given {
            watch.answer_soon(py, response);
        }
        if let Some(begun) = begun {
            self.resolve_begun(py, begun);
        }
        leaving.iter().for_each(|future| resolve(future.bind(py)));
    }

    /// The same from a pool thread.
    pub(super) fn give_from_thread(&self) {
        let mut state = self.lock();
        if state.response.is_none() {
            return;
        }
        let watch = state.watch.take();
        let response = if watch.is_some() { state.response.take() } else { None };
        let begun = state.begun.take();
        drop(state);
        if let (Some(watch), Some(response)) = (watch, response) {
            watch.answer(response);
        }
        self.resolve_begun_from_anywhere(begun);
    }

    fn resolve_begun(&self, py: Python<'_>, begun: Py<PyAny>) {
        resolve(begun.bind(py));
    }

    fn resolve_begun_from_anywhere(&self, begun: Option<Py<PyAny>>) {
        if let (Some(begun), Some(site)) = (begun, &self.site) {
            site.on_loop(Box::new(move |py, _| resolve(begun.bind(py))));
        }
    }

    /// Somebody waits for the response: it goes there, now or when it is made, and the app goes on behind it.
    pub(crate) fn answer_through(self: &Arc<Self>, watch: Watch) {
        watch.follow(self.clone());
        let mut state = self.lock();
        if state.afterwards.is_none() && !state.has_ended {
            state.afterwards = self.site.as_ref().map(Site::begin_afterwards);
        }
        match state.response.take() {
            Some(response) => {
                drop(state);
                watch.answer(response);
            }
            None => state.watch = Some(watch),
        }
    }

    /// Keeps a server that stops waiting until the app has ended.
    pub(super) fn begin_afterwards(&self) {
        let afterwards = self.site.as_ref().map(Site::begin_afterwards);
        self.lock().afterwards = afterwards;
    }

    /// The app has ended.
    #[inline]
    pub(crate) fn end(&self) -> Ended {
        let mut state = self.lock();
        state.has_ended = true;
        let afterwards = state.afterwards.take();
        let ended = match (state.response.take(), state.phase) {
            (Some(response), Phase::Complete) => Ended::Response(response, true),
            // Refused in its place.
            (Some(response), _) if state.is_gone => Ended::Response(response, true),
            (None, Phase::Complete) => Ended::Given,
            (None, _) if state.is_gone => Ended::Given,
            (response, Phase::Sending | Phase::Trailing) => {
                if let Some(flow) = &state.flow {
                    flow.cut();
                }
                response.map_or(Ended::Cut, |response| Ended::Response(response, false))
            }
            (_, Phase::Silent | Phase::Started) => Ended::Missing,
        };
        drop(state);
        drop(afterwards);
        ended
    }

    /// The app has ended, and middleware that may wait for its response is told: with what the app raised, or that there is
    /// none.
    pub(super) fn end_inside(&self, py: Python<'_>, failure: Option<PyErr>) -> Ended {
        if self.lock().has_ended {
            return Ended::Given;
        }
        let ended = match self.end() {
            Ended::Response(response, _) => {
                self.lock().response = Some(response);
                Ended::Given
            }
            other => other,
        };
        let begun = {
            let mut state = self.lock();
            if matches!(ended, Ended::Missing) {
                state.failure = failure;
            }
            state.begun.take()
        };
        if let Some(begun) = begun {
            match &self.site {
                Some(site) => site.on_loop(Box::new(move |py, _| resolve(begun.bind(py)))),
                None => resolve(begun.bind(py)),
            }
        }
        ended
    }

    /// The carrier has dropped the response, or gave up waiting for it.
    pub(crate) fn leave(&self) {
        {
            let mut state = self.lock();
            if state.phase != Phase::Complete {
                state.is_gone = true;
                self.note(&state);
            }
        }
        self.tell_leaving(None);
    }

    /// Resolves the futures of those who wait for the client to leave. `py` says that this is the loop's thread.
    fn tell_leaving(&self, py: Option<Python<'_>>) {
        let leaving = {
            let mut state = self.lock();
            if !state.leaving.is_empty() {
                state.spared = SPARED;
            }
            std::mem::take(&mut state.leaving)
        };
        if leaving.is_empty() {
            return;
        }
        match (py, &self.site) {
            (Some(py), _) => leaving.iter().for_each(|future| resolve(future.bind(py))),
            (None, Some(site)) => {
                site.on_loop(Box::new(move |py, _| leaving.iter().for_each(|future| resolve(future.bind(py)))));
            }
            (None, None) => {}
        }
    }

    /// The current task is told that the client has left.
    pub(super) fn note_told(&self, py: Python<'_>) {
        let told = current_task(py);
        self.lock().told = told;
    }

    /// Whether what is sent to nobody is dropped without a word: where another task listens for the client's leaving, it is
    /// that one's to act, which takes it a moment. Frameworks cancel what sends then, wherever it is; an error in `send` would be
    /// there first, and close less (Django leaves a generator to the garbage collector).
    pub(super) fn is_sparing(&self, py: Python<'_>) -> bool {
        let sends = current_task(py);
        let mut state = self.lock();
        if state.spared == 0 || state.told == sends {
            return false;
        }
        state.spared -= 1;
        true
    }

    /// A future of the running loop for the time when the client leaves or everything is sent. None: it has come.
    ///
    /// # Errors
    /// `RuntimeError` outside of a loop.
    pub(super) fn wait_to_leave<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let future = super::new_future(py)?;
        let known = {
            let mut state = self.lock();
            if state.is_gone || state.phase == Phase::Complete {
                return Ok(None);
            }
            if state.leaving.len() >= MANY { std::mem::take(&mut state.leaving) } else { Vec::new() }
        };
        // Asking `is_disconnected` again and again leaves cancelled ones behind.
        let is_awaited = |one: &Py<PyAny>| {
            !one.call_method0(py, intern!(py, "done")).and_then(|done| done.is_truthy(py)).unwrap_or(false)
        };
        let mut known: Vec<_> = known.into_iter().filter(is_awaited).collect();
        let mut state = self.lock();
        if state.is_gone || state.phase == Phase::Complete {
            drop(state);
            known.iter().for_each(|one| resolve(one.bind(py)));
            return Ok(None);
        }
        state.leaving.append(&mut known);
        state.leaving.push(future.clone().unbind());
        Ok(Some(future))
    }

    /// One step of waiting for the response, for middleware: yields futures, then ends with a response object.
    fn begin_step<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        loop {
            let (made, failure, is_over) = {
                let mut state = self.lock();
                let is_over = state.has_ended || state.is_gone;
                (state.response.take(), state.failure.take(), is_over)
            };
            if let Some(made) = made {
                let object = response::object_of(py, made)?;
                return Err(PyStopIteration::new_err((object.unbind(),)));
            }
            if let Some(failure) = failure {
                return Err(failure);
            }
            if is_over {
                return Err(PyRuntimeError::new_err("the hosted app ended without a response"));
            }
            let future = super::new_future(py)?;
            let mut state = self.lock();
            if state.response.is_none() && !state.has_ended && !state.is_gone {
                let old = state.begun.replace(future.clone().unbind());
                drop(state);
                drop(old);
                return super::first_step(&future);
            }
        }
    }
}

/// The current task, or 0: to be compared and no more.
fn current_task(py: Python<'_>) -> usize {
    let task = py.import(intern!(py, "asyncio")).and_then(|asyncio| asyncio.call_method0(intern!(py, "current_task")));
    task.map_or(0, |task| task.as_ptr() as usize)
}

impl Follower for Outlet {
    fn given_up(&self) {
        self.leave();
    }
}

/// No content, of a response whose length is not told.
struct EndedBody;

impl http_body::Body for EndedBody {
    type Data = bytes::Bytes;
    type Error = httpy::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, httpy::Error>>> {
        std::task::Poll::Ready(None)
    }
}

/// Takes `Transfer-Encoding`, which is the server's, away, and returns what `Content-Length` says.
fn declared_length(headers: &mut HeaderMap) -> PyResult<Option<u64>> {
    let (mut length, mut has_coding) = (None, false);
    // All of them, once: for the few fields that a response has, that is less than to look for two.
    for (name, value) in &*headers {
        if *name == header::CONTENT_LENGTH {
            let found = read_length(value)?;
            if length.replace(found).is_some_and(|other| other != found) {
                return Err(PyValueError::new_err("content-length is said twice, and not the same"));
            }
        }
        has_coding |= *name == header::TRANSFER_ENCODING;
    }
    if has_coding {
        headers.remove(header::TRANSFER_ENCODING);
    }
    Ok(length)
}

fn read_length(value: &HeaderValue) -> PyResult<u64> {
    let length = value.as_bytes().iter().try_fold(0_u64, |length, byte| match byte {
        b'0'..=b'9' => length.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    });
    length
        .filter(|_| !value.is_empty())
        .ok_or_else(|| PyValueError::new_err(format!("content-length is a number of bytes, found {value:?}")))
}

/// The response of a hosted app, for middleware to await.
#[pyclass(frozen, module = "httpy._httpy", name = "_Begun")]
pub(super) struct Begun(pub(super) Arc<Outlet>);

#[pymethods]
impl Begun {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.begin_step(py)
    }

    fn send<'py>(&self, py: Python<'py>, _value: Py<PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.0.begin_step(py)
    }

    #[pyo3(signature = (error, _value=None, _traceback=None))]
    fn throw(
        &self,
        py: Python<'_>,
        error: Py<PyAny>,
        _value: Option<Py<PyAny>>,
        _traceback: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        // Cancelled with the middleware that waits: to the app, that is a client that left.
        self.0.leave();
        Err(PyErr::from_value(error.into_bound(py)))
    }

    fn close(&self) {
        self.0.leave();
    }
}

/// Answers 413 in the app's place.
pub(super) fn too_large(message: &str) -> Response {
    crate::failures::plain_detail(StatusCode::PAYLOAD_TOO_LARGE, message)
}

/// What an app is raised that sends to nobody.
pub(super) fn nobody_reads(py: Python<'_>) -> PyErr {
    errors::client_disconnected(py, "the client went away before it had the whole response")
}
