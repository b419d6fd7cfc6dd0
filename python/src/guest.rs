//! An HTTPy app inside of another server: requests come from Python, pass the same handler as everywhere, and their responses
//! go back. No byte of HTTP is written or read.
//!
//! ```text
//! container -- visit --> Request --> Stack, on the runtime's thread --> Response -- events --> container
//!      '------------------- feed <-- want -------'
//! ```
//!
//! One file, because a request's two directions and its end are one state, behind one lock.
//!
//! Rules:
//! 1. Content is asked of the container when a handler asks for it, and not before: the container tells its client to go on
//!    (RFC 9110 §10.1.1) when it is asked.
//! 2. A response waits for the container, at [`FULL`] bytes.
//! 3. Events are taken by whoever runs the request: in a task of the loop, or on a thread that may block.
//! 4. A WebSocket is a request, too. If the answer opens it, its messages go another way (`websocket/line.rs`).

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use httpy::{
    Body, Handler, Request, Response,
    error::{Error, Kind},
    handler::Stack,
    message::{Exchange, Feature, Features, Params, Parts, Peer},
    ws::{Relay, Rooms},
};
use pyo3::{
    exceptions::{PyRuntimeError, PyStopIteration, PyValueError},
    intern,
    prelude::*,
    types::{PyBytes, PyDict, PyList, PyTuple},
};
use tokio::task::{AbortHandle, spawn_local};

use crate::{
    call::Limits,
    chain::Chain,
    driver::{self, Home, RuntimeThread},
    outgoing::resolve,
    routes::Routes,
    server::read_config,
    threads,
    websocket::{PyLine, PyRooms},
};

/// How much of a response waits for the container. 64 KiB, a socket buffer's worth.
const FULL: usize = 64 * 1024;

/// An app inside of another server.
#[pyclass(frozen, module = "httpy._httpy")]
pub(crate) struct Guest {
    runtime: RuntimeThread,
    home: Arc<Home>,
    stack: Stack,
    rooms: Rooms,
}

#[pymethods]
impl Guest {
    #[new]
    #[pyo3(signature = (routes, config, event_loop, /))]
    fn new(
        py: Python<'_>,
        routes: &Routes,
        config: Option<&Bound<'_, PyDict>>,
        event_loop: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let config = read_config(py, config)?;
        let limits = Limits::new(&config);
        let handler: Arc<dyn Handler> = routes.build(py, "", &limits, &Chain::new())?;
        let home = Home::new(event_loop)?;
        let runtime = RuntimeThread::start(py, home.clone(), threads::default_threads())?;
        Ok(Self { runtime, home, stack: Stack::new(Vec::new(), handler), rooms: limits.rooms })
    }

    /// The rooms of this process.
    #[getter]
    fn rooms(&self) -> PyRooms {
        PyRooms(self.rooms.clone())
    }

    /// Has a request answered.
    ///
    /// `root_len` is how many bytes of the target the container has taken; `subprotocols` says that it asks for a WebSocket, and
    /// may be empty.
    ///
    /// Raises `ValueError` if it is none, and `RuntimeError` after `close`.
    #[pyo3(signature = (method, target, headers, /, *, version, root_len=0, client=None, server=None, is_tls=false, has_content=true, subprotocols=None))]
    #[allow(clippy::too_many_arguments)] // Keywords.
    fn visit(
        &self,
        method: &str,
        target: &[u8],
        headers: &Bound<'_, PyAny>,
        version: &str,
        root_len: usize,
        client: Option<(String, u16)>,
        server: Option<(String, u16)>,
        is_tls: bool,
        has_content: bool,
        subprotocols: Option<Vec<String>>,
    ) -> PyResult<Visit> {
        let mut request = read_request(method, target, headers, version)?;
        if root_len <= request.uri.path().len() {
            request.root_len = root_len;
        }
        let address = |pair: Option<(String, u16)>| {
            let (host, port) = pair?;
            Some(SocketAddr::new(host.parse::<IpAddr>().ok()?, port))
        };
        request.peer = Arc::new(Peer { client: address(client), server: address(server), is_tls, tls: None });
        let multiplexed = request.version >= Version::HTTP_2;
        let features = if multiplexed { Features::NONE.with(Feature::Multiplexing) } else { Features::NONE };
        let features = if is_tls { features.with(Feature::Tls) } else { features };
        request.exchange = match &subprotocols {
            None => Exchange::new(features),
            Some(offered) => {
                shake_hands(&mut request.headers, offered)?;
                Exchange::new(features.with(Feature::WebSocket)).with_protocol("websocket")
            }
        };
        let talk = Arc::new(Talk::default());
        if has_content {
            request.body = Body::stream(Fed(talk.clone()));
        }
        let (stack, home, theirs) = (self.stack.clone(), self.home.clone(), talk.clone());
        let task: Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send> = Box::new(move || {
            // A task of its own, so that it can be given up from outside.
            let ended = Ended(theirs.clone());
            let running = spawn_local(async move {
                let is_head = request.method == Method::HEAD;
                let mut response = stack.answer(request).await;
                if let Some(relay) = Relay::take(&mut response) {
                    ended.0.put(Event::Open(response.into_parts().0.headers, relay, home));
                    return;
                }
                conform(&mut response, is_head);
                ended.0.answer(response).await;
                drop(ended);
            });
            theirs.runs(running.abort_handle());
            Box::pin(async {})
        });
        self.runtime.spawn(task).map_err(|()| PyRuntimeError::new_err("the guest is closed"))?;
        Ok(Visit(talk))
    }

    /// Ends the runtime; handlers that still run are cancelled.
    fn close(&self, py: Python<'_>) {
        self.runtime.close(py);
    }
}

/// Makes a response one that says its length where that is known, as our own protocols do.
fn conform(response: &mut Response, is_head: bool) {
    let status = response.status();
    let is_bare = matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
    if let Some(size) = response.body().size_hint().exact()
        && !is_bare
        && !response.headers().contains_key(header::CONTENT_LENGTH)
        && (size > 0 || !is_head)
    {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    }
    if is_bare || is_head {
        *response.body_mut() = Body::Empty;
    }
}

/// Makes the fields of a handshake, which the container has read, say what is left to say of it.
fn shake_hands(fields: &mut HeaderMap, offered: &[String]) -> PyResult<()> {
    fields.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    // Compression is between the container and its client.
    fields.remove(header::SEC_WEBSOCKET_EXTENSIONS);
    fields.remove(header::SEC_WEBSOCKET_PROTOCOL);
    if !offered.is_empty() {
        let offered = HeaderValue::from_str(&offered.join(", "));
        let offered = offered.map_err(|_| PyValueError::new_err("the container gives a subprotocol that is none"))?;
        fields.insert(header::SEC_WEBSOCKET_PROTOCOL, offered);
    }
    Ok(())
}

fn read_request(method: &str, target: &[u8], headers: &Bound<'_, PyAny>, version: &str) -> PyResult<Request> {
    let wrong = |what: &str| PyValueError::new_err(format!("the container gives {what}"));
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| wrong("a method that is none"))?;
    let uri = Uri::try_from(target).map_err(|_| wrong("a target that is none"))?;
    let mut fields = HeaderMap::new();
    for pair in headers.try_iter()? {
        let (name, value): (Bound<'_, PyBytes>, Bound<'_, PyBytes>) = pair?.extract()?;
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("a field name that is none"))?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| wrong("a field value that is none"))?;
        fields.append(name, value);
    }
    Ok(Request::from(Parts {
        method,
        uri,
        version: match version {
            "1.0" => Version::HTTP_10,
            "2" | "2.0" => Version::HTTP_2,
            "3" => Version::HTTP_3,
            _ => Version::HTTP_11,
        },
        headers: fields,
        body: Body::Empty,
        peer: Arc::new(Peer::default()),
        exchange: Exchange::default(),
        params: Params::default(),
        root_len: 0,
    }))
}

/// Between the container's side and the runtime's. Never locked while Python code runs or objects are dropped.
#[derive(Default)]
struct Talk {
    state: Mutex<State>,
    /// Wakes the thread that waits for an event.
    news: Condvar,
}

#[derive(Default)]
struct State {
    // What comes in.
    is_wanted: bool,
    fed: VecDeque<Bytes>,
    fed_end: Option<FedEnd>,
    reader: Option<Waker>,
    // What goes out.
    events: VecDeque<Event>,
    weight: usize,
    writer: Option<Waker>,
    is_over: bool,
    // Who waits.
    waiting: Option<Py<PyAny>>,
    running: Option<AbortHandle>,
    is_left: bool,
}

#[derive(Clone, Copy)]
enum FedEnd {
    Whole,
    Broken,
}

enum Event {
    Head(u16, HeaderMap),
    /// And whether it is the last one.
    Chunk(Bytes, bool),
    /// Whether the response is whole.
    End(bool),
    /// The handshake of a WebSocket was accepted. The last one.
    Open(HeaderMap, Relay, Arc<Home>),
}

impl Talk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells who waits. The runtime's thread.
    fn tell(&self, mut state: MutexGuard<'_, State>) {
        let waiting = state.waiting.take();
        drop(state);
        self.news.notify_all();
        if let Some(waiting) = waiting {
            driver::tell(Box::new(move |py, _| resolve(waiting.bind(py))));
        }
    }

    fn put(&self, event: Event) {
        let mut state = self.lock();
        state.is_over |= matches!(event, Event::End(_) | Event::Chunk(_, true) | Event::Open(..));
        state.events.push_back(event);
        self.tell(state);
    }

    /// Passes a response on, as fast as it is taken.
    async fn answer(&self, response: Response) {
        let (head, mut body) = response.into_parts();
        self.put(Event::Head(head.status.as_u16(), head.headers));
        if let Body::Full(data) = body {
            // At once with its end, so that a container can send it as one piece.
            self.lock().weight += data.len();
            return self.put(Event::Chunk(data, true));
        }
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            match frame {
                Some(Ok(frame)) => {
                    // Containers take no trailer section: `supports` has said so.
                    let Ok(data) = frame.into_data() else { continue };
                    self.put_chunk(data).await;
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "a response inside of another server broke off");
                    return self.put(Event::End(false));
                }
                None => return self.put(Event::End(true)),
            }
        }
    }

    async fn put_chunk(&self, data: Bytes) {
        self.lock().weight += data.len();
        self.put(Event::Chunk(data, false));
        std::future::poll_fn(|cx| {
            let mut state = self.lock();
            if state.weight < FULL {
                return Poll::Ready(());
            }
            state.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// It can be given up through this.
    fn runs(&self, running: AbortHandle) {
        let mut state = self.lock();
        if state.is_left {
            running.abort();
        }
        state.running = Some(running);
    }

    /// The next event, if there is one.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let (event, writer, is_wanted) = {
            let mut state = self.lock();
            let is_wanted = std::mem::take(&mut state.is_wanted);
            let event = if is_wanted { None } else { state.events.pop_front() };
            let mut writer = None;
            if let Some(Event::Chunk(data, _)) = &event {
                state.weight -= data.len();
                writer = state.writer.take();
            }
            (event, writer, is_wanted)
        };
        if let Some(writer) = writer {
            writer.wake();
        }
        if is_wanted {
            return (intern!(py, "want"), py.None(), py.None()).into_pyobject(py).map(Some);
        }
        let Some(event) = event else { return Ok(None) };
        let event = match event {
            Event::Head(status, headers) => (intern!(py, "head"), status, pairs(py, &headers)?).into_pyobject(py)?,
            Event::Open(headers, relay, home) => {
                (intern!(py, "open"), PyLine::new(relay, home), pairs(py, &headers)?).into_pyobject(py)?
            }
            Event::Chunk(data, is_last) => {
                (intern!(py, "chunk"), PyBytes::new(py, &data), is_last).into_pyobject(py)?
            }
            Event::End(is_whole) => (intern!(py, "end"), is_whole, py.None()).into_pyobject(py)?,
        };
        Ok(Some(event))
    }

    fn has_news(state: &State) -> bool {
        state.is_wanted || !state.events.is_empty()
    }
}

/// Header fields as ASGI has them.
fn pairs<'py>(py: Python<'py>, headers: &HeaderMap) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for (name, value) in headers {
        list.append((PyBytes::new(py, name.as_str().as_bytes()), PyBytes::new(py, value.as_bytes())))?;
    }
    Ok(list)
}

/// Sees to it that a request has an end, whatever becomes of its task.
struct Ended(Arc<Talk>);

impl Drop for Ended {
    fn drop(&mut self) {
        let is_over = self.0.lock().is_over;
        if !is_over {
            self.0.put(Event::End(false));
        }
    }
}

/// The content of a request, as the container has it.
struct Fed(Arc<Talk>);

impl HttpBody for Fed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut state = self.0.lock();
        if let Some(chunk) = state.fed.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match state.fed_end {
            Some(FedEnd::Whole) => Poll::Ready(None),
            Some(FedEnd::Broken) => {
                Poll::Ready(Some(Err(Error::new(Kind::Peer, "the client went away within its content"))))
            }
            None => {
                let is_asked = state.reader.replace(cx.waker().clone()).is_some();
                if !is_asked {
                    state.is_wanted = true;
                    self.0.tell(state);
                }
                Poll::Pending
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// A request inside of another server.
#[pyclass(frozen, module = "httpy._httpy", name = "_Visit")]
struct Visit(Arc<Talk>);

#[pymethods]
impl Visit {
    /// The next event, to be awaited: `("want", None, None)`, `("head", status, headers)`, `("chunk", bytes, is_last)`,
    /// `("end", is_whole, None)`, `("open", line, headers)`. None follows the last chunk, the end, or a WebSocket that is open.
    fn next(&self) -> NextEvent {
        NextEvent(self.0.clone())
    }

    /// Waits for the next event on a thread that may block.
    fn wait<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        loop {
            if let Some(event) = self.0.next(py)? {
                return Ok(event);
            }
            py.detach(|| {
                let has_none = |state: &mut State| !Talk::has_news(state);
                drop(self.0.news.wait_while(self.0.lock(), has_none).unwrap_or_else(PoisonError::into_inner));
            });
        }
    }

    /// Gives content that is wanted.
    #[pyo3(signature = (data, more, /))]
    fn feed(&self, data: &[u8], more: bool) {
        let mut state = self.0.lock();
        if !data.is_empty() {
            state.fed.push_back(Bytes::copy_from_slice(data));
        }
        if !more {
            state.fed_end.get_or_insert(FedEnd::Whole);
        }
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// The client has left: nobody waits for the response any more.
    fn leave(&self) {
        let mut state = self.0.lock();
        state.is_left = true;
        state.fed_end.get_or_insert(FedEnd::Broken);
        let (running, reader) = (state.running.take(), state.reader.take());
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        if let Some(running) = running {
            running.abort();
        }
    }
}

/// See [`Visit::next`].
#[pyclass(frozen, module = "httpy._httpy", name = "_NextEvent")]
struct NextEvent(Arc<Talk>);

#[pymethods]
impl NextEvent {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        loop {
            if let Some(event) = self.0.next(py)? {
                return Err(PyStopIteration::new_err((event.unbind(),)));
            }
            let event_loop = py.import(intern!(py, "asyncio"))?.call_method0(intern!(py, "get_running_loop"))?;
            let future = event_loop.call_method0(intern!(py, "create_future"))?;
            let old = {
                let mut state = self.0.lock();
                if Talk::has_news(&state) {
                    continue;
                }
                state.waiting.replace(future.clone().unbind())
            };
            drop(old);
            return future.call_method0(intern!(py, "__await__"))?.call_method0(intern!(py, "__next__"));
        }
    }
}
