//! The server as Python holds it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use httpy::{
    App, Config, Handler, Middleware, Reply, Request,
    config::{Secret, Supervision},
    conn::{Board, Listener, Siblings},
    listen::{self, Listening, Tls},
    metrics::Metrics,
    middleware::HttpsRedirect,
    server::{Queued, deadline},
    ws::{RedisUrl, Rooms},
};
use pyo3::{
    exceptions::PyRuntimeError,
    prelude::*,
    types::{PyDict, PyString},
};
use socket2::Socket;
use tokio::{sync::oneshot, task::JoinSet};

use crate::{
    access_log::AccessLog,
    call::Limits,
    chain::Chain,
    counts::Counts,
    driver::{self, Home, Runtime, RuntimeThread},
    errors,
    memory::Memory,
    routes::Routes,
    site::Site,
    threads,
    tls::Credentials,
    websocket::PyRooms,
};
#[cfg(unix)]
use crate::{board::SharedBoard, driver::Selector};

/// A bound server, run by one loop.
#[pyclass(frozen, module = "httpy._httpy")]
pub(crate) struct Core {
    handler: Arc<dyn Handler>,
    /// Around the handler, outermost first.
    middleware: Vec<Arc<dyn Middleware>>,
    config: Config,
    listeners: Mutex<Vec<Wanted>>,
    /// Those without a socket.
    memory: Mutex<Vec<Box<dyn Listener + Send>>>,
    /// The thread driver's; the selector's belongs to the selector.
    thread: Mutex<Option<RuntimeThread>>,
    stop: Mutex<Option<oneshot::Sender<Stop>>>,
    count: Arc<Count>,
    metrics: Arc<Metrics>,
    board: Mutex<Option<Box<dyn Board>>>,
    rooms: Rooms,
    /// What connects them with those of the other workers.
    hub: Mutex<Option<Socket>>,
}

/// A socket to be served, encrypted or not.
type Wanted = (Listening, Option<Arc<listen::Credentials>>);

/// How a server is to stop.
struct Stop {
    grace: Duration,
    queued: Queued,
    done: Py<PyAny>,
}

#[pymethods]
impl Core {
    #[new]
    #[pyo3(signature = (routes, config=None, /, *, access_log=None, https_redirect=None, counts=None))]
    fn new(
        py: Python<'_>,
        routes: &Routes,
        config: Option<&Bound<'_, PyDict>>,
        access_log: Option<&AccessLog>,
        https_redirect: Option<u16>,
        counts: Option<&Counts>,
    ) -> PyResult<Self> {
        let config = read_config(py, config)?;
        let redirect = https_redirect.map(|port| Arc::new(HttpsRedirect::new(port)) as Arc<dyn Middleware>);
        let count = Arc::<Count>::default();
        let limits = Limits::new(&config);
        if config.rooms_url.is_some() {
            limits.rooms.share();
        }
        let handler = Paced { handler: routes.build(py, "", &limits, &Chain::new())?, count: count.clone() };
        Ok(Self {
            count,
            metrics: counts.map(|counts| counts.0.clone()).unwrap_or_default(),
            handler: Arc::new(handler),
            middleware: access_log.map(AccessLog::middleware).into_iter().chain(redirect).collect(),
            config,
            listeners: Mutex::default(),
            memory: Mutex::default(),
            thread: Mutex::default(),
            stop: Mutex::default(),
            board: Mutex::default(),
            rooms: limits.rooms,
            hub: Mutex::default(),
        })
    }

    /// Binds a TCP address and returns its port.
    ///
    /// Raises `ConfigError` if the host is not an address or the port can't be had.
    #[pyo3(signature = (host, port, /, *, credentials=None))]
    fn bind(&self, py: Python<'_>, host: &str, port: u16, credentials: Option<&Credentials>) -> PyResult<u16> {
        let address = SocketAddr::new(read_address(py, host)?, port);
        let socket = Listening::tcp(address, self.config.backlog).map_err(|error| errors::from_core(py, &error))?;
        let port = socket.port().unwrap_or(port);
        lock(&self.listeners).push((socket, credentials.map(|credentials| credentials.0.clone())));
        Ok(port)
    }

    /// Takes over a socket that listens, by its descriptor, which is the server's from now on, even if this fails.
    ///
    /// `shared` says that others may hold the socket too. Raises `ConfigError` if it is no listening stream socket.
    #[pyo3(signature = (descriptor, /, *, shared, credentials=None))]
    fn adopt(
        &self,
        py: Python<'_>,
        descriptor: Descriptor,
        shared: bool,
        credentials: Option<&Credentials>,
    ) -> PyResult<()> {
        // SAFETY: the caller has given it away; it is closed when the socket is dropped, and nowhere else.
        let socket = unsafe { own(descriptor) };
        let socket = Listening::adopt(socket, shared).map_err(|error| errors::from_core(py, &error))?;
        lock(&self.listeners).push((socket, credentials.map(|credentials| credentials.0.clone())));
        Ok(())
    }

    /// Has it listen in memory, and returns what opens connections.
    ///
    /// To be called before `start`.
    fn listen_in_memory(&self) -> Memory {
        let (connector, listener) = listen::memory();
        lock(&self.memory).push(Box::new(listener));
        Memory(connector)
    }

    /// Shares connections with other workers, which are told in the shared memory behind a descriptor.
    ///
    /// The descriptor stays the caller's; `place` is this worker's there.
    #[cfg(unix)]
    #[pyo3(signature = (descriptor, place, /))]
    fn share(&self, descriptor: Descriptor, place: usize) -> PyResult<()> {
        *lock(&self.board) = Some(Box::new(SharedBoard::new(descriptor, place)?));
        Ok(())
    }

    /// The rooms of this server.
    #[getter]
    fn rooms(&self) -> PyRooms {
        PyRooms(self.rooms.clone())
    }

    /// Shares rooms with other workers, through the hub behind a socket, which is the server's from now on.
    ///
    /// To be called before `start`.
    #[pyo3(signature = (descriptor, /))]
    fn share_rooms(&self, descriptor: Descriptor) {
        // SAFETY: the caller has given it away; it is closed when the socket is dropped, and nowhere else.
        *lock(&self.hub) = Some(unsafe { own(descriptor) });
        self.rooms.share();
    }

    /// Starts serving: on the loop's own selector, or (None) beside a loop that runs or is about to.
    #[cfg(unix)]
    #[pyo3(signature = (selector, event_loop, /))]
    fn start(&self, py: Python<'_>, selector: Option<&Selector>, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
        let runtime = match selector {
            Some(selector) => {
                selector.attach(event_loop)?;
                Runtime::Here(selector.runtime()?)
            }
            None => Runtime::There(RuntimeThread::start(py, Home::new(event_loop)?, threads::default_threads())?),
        };
        self.serve(runtime)
    }

    /// Starts serving beside a loop that runs or is about to; `selector` is None.
    #[cfg(not(unix))]
    #[pyo3(signature = (selector, event_loop, /))]
    fn start(&self, py: Python<'_>, selector: Option<Py<PyAny>>, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
        if selector.is_some() {
            return Err(PyRuntimeError::new_err("the selector driver needs epoll or kqueue; pass None"));
        }
        self.serve(Runtime::There(RuntimeThread::start(py, Home::new(event_loop)?, threads::default_threads())?))
    }

    /// Stops accepting, finishes what runs, and calls `done` on the loop's thread.
    ///
    /// At most `grace` seconds; None is the configured time. `done` gets the number of connections that were cut off.
    /// Connections that are queued and not accepted yet are served, or with `leave_queued` left to other processes.
    #[pyo3(signature = (grace, done, /, *, leave_queued=false))]
    fn stop(&self, py: Python<'_>, grace: Option<f64>, done: Py<PyAny>, leave_queued: bool) -> PyResult<()> {
        let not_running = || PyRuntimeError::new_err("the server does not run");
        let grace = match grace {
            None => self.config.grace,
            Some(seconds) => Duration::try_from_secs_f64(seconds)
                .map_err(|_| errors::config(py, format!("grace is a number of seconds, not {seconds}")))?,
        };
        let stop = lock(&self.stop).take().ok_or_else(not_running)?;
        let queued = if leave_queued { Queued::Left } else { Queued::Served };
        stop.send(Stop { grace, queued, done }).map_err(|_| not_running())
    }

    /// How many requests were given to the app.
    #[getter]
    fn requests(&self) -> u64 {
        self.count.requests.load(Relaxed)
    }

    /// Calls `function` on the loop's thread when so many requests were given to the app.
    ///
    /// To be called before `start`.
    #[pyo3(signature = (requests, function, /))]
    fn after_requests(&self, requests: u64, function: Py<PyAny>) {
        let old = lock(&self.count.function).replace(function);
        self.count.limit.store(requests, Relaxed);
        drop(old);
    }

    /// Ends the thread driver's runtime; the selector's ends with its loop.
    fn close(&self, py: Python<'_>) {
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            thread.close(py);
        }
    }
}

impl Core {
    fn serve(&self, runtime: Runtime) -> PyResult<()> {
        let (handler, middleware, config) = (self.handler.clone(), self.middleware.clone(), self.config.clone());
        let metrics = self.metrics.clone();
        let sockets: Vec<Wanted> = lock(&self.listeners).drain(..).collect();
        let memory = std::mem::take(&mut *lock(&self.memory));
        let board = lock(&self.board).take();
        let (rooms, hub) = (self.rooms.clone(), lock(&self.hub).take());
        if let Some(board) = &board {
            // Not only when the runtime gets to it: until then the others would take connections from one that is there.
            board.write(Some(0));
        }
        // It was read before.
        let redis = config.rooms_url.as_ref().and_then(|Secret(url)| RedisUrl::parse(url).ok());
        let channel = config.rooms_channel.clone();
        let (stop, stopped) = oneshot::channel();
        runtime.spawn(move || async move {
            let mut app = App::new(handler).config(config).metrics(metrics);
            app = middleware.into_iter().fold(app, App::middleware);
            let (mut listeners, credentials) = match listen_on(sockets) {
                Ok(listening) => listening,
                Err(error) => {
                    tracing::error!(%error, "a listening socket can't be used");
                    return;
                }
            };
            listeners.extend(memory.into_iter().map(|listener| listener as Box<dyn Listener>));
            // Ends with this task.
            let mut watching = JoinSet::new();
            for credentials in credentials {
                credentials.offer(app.alpn());
                watching.spawn_local(async move { credentials.watch().await });
            }
            let is_elsewhere = redis.is_some();
            if let Some(url) = redis {
                let rooms = rooms.clone();
                watching.spawn_local(async move { rooms.over_redis(&url, &channel).await });
            }
            if let Some(hub) = hub {
                let rooms = rooms.clone();
                watching.spawn_local(async move {
                    if let Err(error) = rooms.follow(hub).await {
                        tracing::error!(%error, "rooms are not shared with other workers any more");
                    }
                });
            }
            if let Some(board) = board {
                app = app.siblings(Siblings::new(board));
            }
            let server = app.start(listeners);
            // Kept for as long as it serves: who needs one finds it, and need not make one for a single request.
            let site = Site::here();
            let Ok(Stop { grace, queued, done }) = stopped.await else {
                // Started and forgotten: it serves as long as its runtime.
                return std::future::pending().await;
            };
            let deadline = deadline(grace);
            let cut_off = server.stop(grace, queued).await;
            if let Some(site) = site {
                // What still runs behind responses then is left to the loop, which cancels it when it ends.
                let _ = tokio::time::timeout_at(deadline, site.rested()).await;
            }
            if is_elsewhere {
                rooms.say_goodbye().await;
            }
            driver::tell(Box::new(move |py, _| {
                if let Err(error) = done.call1(py, (cut_off,)) {
                    error.write_unraisable(py, Some(done.bind(py)));
                }
            }));
        })?;
        if let Runtime::There(thread) = runtime {
            *lock(&self.thread) = Some(thread);
        }
        *lock(&self.stop) = Some(stop);
        Ok(())
    }
}

/// Sockets on a runtime, and what the encrypted ones are encrypted with, each once.
type Listeners = (Vec<Box<dyn Listener>>, Vec<Arc<listen::Credentials>>);

/// Listens on sockets on the current runtime.
fn listen_on(sockets: Vec<Wanted>) -> io::Result<Listeners> {
    let mut used: Vec<Arc<listen::Credentials>> = Vec::new();
    let mut listeners = Vec::new();
    for (socket, credentials) in sockets {
        let listener = socket.listen()?;
        listeners.push(match credentials {
            None => listener,
            Some(credentials) => {
                if !used.iter().any(|one| Arc::ptr_eq(one, &credentials)) {
                    used.push(credentials.clone());
                }
                Box::new(Tls::new(listener, credentials))
            }
        });
    }
    Ok((listeners, used))
}

/// A socket as Python's `socket.detach()` gives it.
#[cfg(unix)]
pub(crate) type Descriptor = std::os::fd::RawFd;
#[cfg(windows)]
pub(crate) type Descriptor = std::os::windows::io::RawSocket;

/// # Safety
/// The descriptor is open and nobody else's.
#[cfg(unix)]
pub(crate) unsafe fn own(descriptor: Descriptor) -> Socket {
    use std::os::fd::FromRawFd;
    // SAFETY: as above.
    unsafe { Socket::from_raw_fd(descriptor) }
}

/// # Safety
/// The socket is open and nobody else's.
#[cfg(windows)]
pub(crate) unsafe fn own(descriptor: Descriptor) -> Socket {
    use std::os::windows::io::FromRawSocket;
    // SAFETY: as above.
    unsafe { Socket::from_raw_socket(descriptor) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets other threads have the interpreter now and then, however busy the server is and whoever answers. And counts.
struct Paced {
    handler: Arc<dyn Handler>,
    count: Arc<Count>,
}

impl Handler for Paced {
    fn call(&self, request: Request) -> Reply {
        driver::pause();
        self.count.add();
        self.handler.call(request)
    }
}

/// How many requests there were, and what is to be called at one of them.
#[derive(Default)]
struct Count {
    requests: AtomicU64,
    /// Zero is none: the first request is number one.
    limit: AtomicU64,
    function: Mutex<Option<Py<PyAny>>>,
}

impl Count {
    fn add(&self) {
        // One thread counts, the runtime's, so that this need not be one step: a locked instruction would cost 5 ns.
        let requests = self.requests.load(Relaxed) + 1;
        self.requests.store(requests, Relaxed);
        if requests == self.limit.load(Relaxed) {
            self.reach();
        }
    }

    #[cold]
    fn reach(&self) {
        let Some(function) = lock(&self.function).take() else { return };
        driver::tell(Box::new(move |py, _| {
            if let Err(error) = function.call0(py) {
                error.write_unraisable(py, Some(function.bind(py)));
            }
        }));
    }
}

/// Reads a configuration: what is not named keeps its default.
pub(crate) fn read_config(py: Python<'_>, values: Option<&Bound<'_, PyDict>>) -> PyResult<Config> {
    let mut config = Config::default();
    let Some(values) = values else { return Ok(config) };
    for (name, value) in values.iter() {
        let name = name.cast::<PyString>()?.to_cow()?;
        let wrong = |expected: &str| {
            let found = value.repr().map(|text| text.to_string()).unwrap_or_default();
            errors::config(py, format!("{name} is {expected}, not {found}"))
        };
        let size = || value.extract::<u64>().map_err(|_| wrong("a whole number that is not negative"));
        let seconds = || {
            let seconds = value.extract::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            seconds.ok_or_else(|| wrong("a number of seconds that is not negative"))
        };
        let narrow = |size: u64| usize::try_from(size).map_err(|_| wrong("smaller"));
        let small = || u32::try_from(size()?).map_err(|_| wrong("smaller"));
        // RFC 9113 §6.9.1: windows have 31 bits.
        let window = || small().and_then(|size| if size >> 31 == 0 { Ok(size) } else { Err(wrong("smaller")) });
        match &*name {
            "max_target_bytes" => config.max_target_bytes = narrow(size()?)?,
            "max_head_bytes" => config.max_head_bytes = narrow(size()?)?,
            "max_field_bytes" => config.max_field_bytes = narrow(size()?)?,
            "max_fields" => config.max_fields = narrow(size()?)?,
            "max_body_bytes" => config.max_body_bytes = size()?,
            "keep_alive_timeout" => config.keep_alive_timeout = seconds()?,
            "head_timeout" => config.head_timeout = seconds()?,
            "body_min_rate" => config.body_min_rate = size()?,
            "body_timeout" => config.body_timeout = seconds()?,
            "write_timeout" => config.write_timeout = seconds()?,
            "grace" => config.grace = seconds()?,
            "idle_grace" => config.idle_grace = seconds()?,
            "shutdown_timeout" => config.shutdown_timeout = seconds()?,
            "backlog" => config.backlog = small()?,
            "max_connections" => config.max_connections = narrow(size()?)?,
            "max_connections_per_address" => config.max_connections_per_address = narrow(size()?)?,
            "handshake_timeout" => config.handshake_timeout = seconds()?,
            "max_in_flight" => config.max_in_flight = narrow(size()?)?,
            "max_queued" => config.max_queued = narrow(size()?)?,
            "queue_timeout" => config.queue_timeout = seconds()?,
            "h1_early_hints" => config.h1_early_hints = value.extract().map_err(|_| wrong("true or false"))?,
            "h2_max_concurrent_streams" => config.h2_max_concurrent_streams = small()?,
            "h2_stream_window_bytes" => config.h2_stream_window_bytes = window()?,
            "h2_connection_window_bytes" => config.h2_connection_window_bytes = window()?,
            "h2_max_resets" => config.h2_max_resets = small()?,
            "h2_max_idle_frames" => config.h2_max_idle_frames = small()?,
            "h2_ping_interval" => config.h2_ping_interval = Some(seconds()?).filter(|limit| !limit.is_zero()),
            "h2_ping_timeout" => config.h2_ping_timeout = seconds()?,
            "ws_max_message_bytes" => config.ws_max_message_bytes = narrow(size()?)?,
            "ws_max_frame_bytes" => config.ws_max_frame_bytes = size()?,
            "ws_max_queue_bytes" => config.ws_max_queue_bytes = narrow(size()?)?,
            "ws_ping_interval" => config.ws_ping_interval = Some(seconds()?).filter(|limit| !limit.is_zero()),
            "ws_ping_timeout" => config.ws_ping_timeout = seconds()?,
            "ws_close_timeout" => config.ws_close_timeout = seconds()?,
            "ws_handler_grace" => config.ws_handler_grace = seconds()?,
            "ws_max_rooms" => config.ws_max_rooms = narrow(size()?)?,
            "rooms_max_queue_bytes" => config.rooms_max_queue_bytes = narrow(size()?)?,
            "rooms_url" if value.is_none() => config.rooms_url = None,
            "rooms_url" => {
                let wrong = |expected: &str| errors::config(py, format!("rooms_url is {expected}"));
                let url = value.extract::<String>().map_err(|_| wrong("a URL"))?;
                // What was found is not shown: there may be a password in it.
                RedisUrl::parse(&url).map_err(wrong)?;
                config.rooms_url = Some(Secret(url));
            }
            "rooms_channel" => config.rooms_channel = value.extract().map_err(|_| wrong("text"))?,
            "ws_compression" => {
                config.ws_compression = value.extract::<bool>().map_err(|_| wrong("True or False"))?;
            }
            "ws_compression_window_bits" => {
                let bits = size()?;
                config.ws_compression_window_bits = match u8::try_from(bits) {
                    Ok(bits @ 9..=15) => bits,
                    _ => return Err(wrong("a number from 9 to 15")),
                };
            }
            "handler_timeout" => config.handler_timeout = Some(seconds()?).filter(|limit| !limit.is_zero()),
            _ => return Err(errors::config(py, format!("no configuration value {name:?}"))),
        }
    }
    Ok(config)
}

fn read_address(py: Python<'_>, host: &str) -> PyResult<IpAddr> {
    let host = if host == "localhost" { "127.0.0.1" } else { host };
    host.trim_matches(['[', ']'])
        .parse()
        .map_err(|_| errors::config(py, format!("host {host:?} is not an IP address; use 127.0.0.1, 0.0.0.0 or ::")))
}

/// Every configuration value with its default.
#[pyfunction]
pub(crate) fn defaults(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let config = Config::default();
    let values = PyDict::new(py);
    values.set_item("max_target_bytes", config.max_target_bytes)?;
    values.set_item("max_head_bytes", config.max_head_bytes)?;
    values.set_item("max_field_bytes", config.max_field_bytes)?;
    values.set_item("max_fields", config.max_fields)?;
    values.set_item("max_body_bytes", config.max_body_bytes)?;
    values.set_item("keep_alive_timeout", config.keep_alive_timeout.as_secs_f64())?;
    values.set_item("head_timeout", config.head_timeout.as_secs_f64())?;
    values.set_item("body_min_rate", config.body_min_rate)?;
    values.set_item("body_timeout", config.body_timeout.as_secs_f64())?;
    values.set_item("write_timeout", config.write_timeout.as_secs_f64())?;
    values.set_item("grace", config.grace.as_secs_f64())?;
    values.set_item("idle_grace", config.idle_grace.as_secs_f64())?;
    values.set_item("shutdown_timeout", config.shutdown_timeout.as_secs_f64())?;
    values.set_item("backlog", config.backlog)?;
    values.set_item("max_connections", config.max_connections)?;
    values.set_item("max_connections_per_address", config.max_connections_per_address)?;
    values.set_item("handshake_timeout", config.handshake_timeout.as_secs_f64())?;
    values.set_item("max_in_flight", config.max_in_flight)?;
    values.set_item("max_queued", config.max_queued)?;
    values.set_item("queue_timeout", config.queue_timeout.as_secs_f64())?;
    values.set_item("handler_timeout", config.handler_timeout.unwrap_or_default().as_secs_f64())?;
    values.set_item("h1_early_hints", config.h1_early_hints)?;
    values.set_item("h2_max_concurrent_streams", config.h2_max_concurrent_streams)?;
    values.set_item("h2_stream_window_bytes", config.h2_stream_window_bytes)?;
    values.set_item("h2_connection_window_bytes", config.h2_connection_window_bytes)?;
    values.set_item("h2_max_resets", config.h2_max_resets)?;
    values.set_item("h2_max_idle_frames", config.h2_max_idle_frames)?;
    values.set_item("h2_ping_interval", config.h2_ping_interval.unwrap_or_default().as_secs_f64())?;
    values.set_item("h2_ping_timeout", config.h2_ping_timeout.as_secs_f64())?;
    values.set_item("ws_max_message_bytes", config.ws_max_message_bytes)?;
    values.set_item("ws_max_frame_bytes", config.ws_max_frame_bytes)?;
    values.set_item("ws_max_queue_bytes", config.ws_max_queue_bytes)?;
    values.set_item("ws_ping_interval", config.ws_ping_interval.unwrap_or_default().as_secs_f64())?;
    values.set_item("ws_ping_timeout", config.ws_ping_timeout.as_secs_f64())?;
    values.set_item("ws_close_timeout", config.ws_close_timeout.as_secs_f64())?;
    values.set_item("ws_handler_grace", config.ws_handler_grace.as_secs_f64())?;
    values.set_item("ws_max_rooms", config.ws_max_rooms)?;
    values.set_item("rooms_max_queue_bytes", config.rooms_max_queue_bytes)?;
    values.set_item("rooms_url", config.rooms_url.map(|Secret(url)| url))?;
    values.set_item("rooms_channel", config.rooms_channel)?;
    values.set_item("ws_compression", config.ws_compression)?;
    values.set_item("ws_compression_window_bits", config.ws_compression_window_bits)?;
    Ok(values)
}

/// How workers are looked after, by default.
#[pyfunction]
pub(crate) fn supervision_defaults(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let supervision = Supervision::default();
    let values = PyDict::new(py);
    values.set_item("workers", supervision.workers)?;
    values.set_item("worker_timeout", supervision.worker_timeout.as_secs_f64())?;
    values.set_item("max_requests", supervision.max_requests)?;
    values.set_item("max_rss", supervision.max_rss)?;
    values.set_item("recycle_jitter", supervision.recycle_jitter)?;
    values.set_item("reuse_port", supervision.reuse_port)?;
    Ok(values)
}
