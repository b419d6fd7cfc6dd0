//! Connections to a server in this process, without sockets, for tests (`httpy/testing/`).
//!
//! The server's end is like any other connection's. The client's end is waited for by a thread that blocks, with the
//! interpreter let go.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use httpy::{listen::MemoryConnector, message::Peer};
use pyo3::{exceptions::PyValueError, prelude::*, types::PyBytes};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// How long a thread waits before it looks for signals: 100 ms, so that Ctrl-C ends a test that hangs.
const SIGNALS_EVERY: Duration = Duration::from_millis(100);

/// The most that is read at once, on the stack: 16 KiB.
const READ_BYTES: usize = 16 * 1024;

/// Opens connections to a server in this process, without sockets.
#[pyclass(frozen, module = "httpy._httpy")]
pub(crate) struct Memory(pub(crate) MemoryConnector);

#[pymethods]
impl Memory {
    /// Opens a connection, between these addresses as the server sees it.
    #[pyo3(signature = (*, client=None, server=None, is_tls=false))]
    fn connect(&self, client: Option<(String, u16)>, server: Option<(String, u16)>, is_tls: bool) -> PyResult<Pipe> {
        let peer = Peer { client: address(client)?, server: address(server)?, is_tls, tls: None };
        let end = End { io: Some(self.0.connect_as(peer)?), ahead: BytesMut::new() };
        Ok(Pipe { end: Mutex::new(end), bell: Arc::default() })
    }
}

fn address(pair: Option<(String, u16)>) -> PyResult<Option<SocketAddr>> {
    let read = |(host, port): (String, u16)| {
        let ip: Result<IpAddr, _> = host.parse();
        ip.map(|ip| SocketAddr::new(ip, port))
            .map_err(|_| PyValueError::new_err(format!("an address is an IP address and a port, found {host:?}")))
    };
    pair.map(read).transpose()
}

/// The client's end of a connection in memory, which holds 64 KiB each way.
///
/// From any thread; one may write while another reads. Timeouts are in seconds, for a whole call; None waits for ever.
#[pyclass(frozen, module = "httpy._httpy")]
pub(crate) struct Pipe {
    end: Mutex<End>,
    bell: Arc<Bell>,
}

struct End {
    /// None once it is closed.
    io: Option<DuplexStream>,
    /// What has come while writing had to wait. Without a bound: whoever tests a server trusts it.
    ahead: BytesMut,
}

#[pymethods]
impl Pipe {
    /// Waits for bytes, at most so many; none are the end.
    #[pyo3(signature = (max_bytes, timeout, /))]
    fn read<'py>(&self, py: Python<'py>, max_bytes: usize, timeout: Option<f64>) -> PyResult<Bound<'py, PyBytes>> {
        let data = self.wait(py, timeout, |end, cx| {
            if end.ahead.is_empty()
                && let Poll::Ready(result) = end.poll_more(cx)
            {
                result?;
            } else if end.ahead.is_empty() {
                return Poll::Pending;
            }
            let count = max_bytes.min(end.ahead.len());
            Poll::Ready(Ok(end.ahead.split_to(count)))
        })?;
        Ok(PyBytes::new(py, &data))
    }

    /// Sends bytes, all of them. What comes meanwhile is kept, so that both sides may send at once.
    #[pyo3(signature = (data, timeout, /))]
    fn write(&self, py: Python<'_>, data: &[u8], timeout: Option<f64>) -> PyResult<()> {
        let mut left = data;
        let bell = self.bell.clone();
        self.wait(py, timeout, move |end, cx| {
            while left.has_remaining() {
                let Some(io) = &mut end.io else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
                match Pin::new(io).poll_write(cx, left) {
                    Poll::Ready(Ok(count)) => left.advance(count),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        // A server that waits for its answer to be read reads nothing.
                        while let Poll::Ready(Ok(1..)) = end.poll_more(cx) {
                            bell.ring();
                        }
                        return Poll::Pending;
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Whether it is open and nothing has come that was not read.
    fn is_quiet(&self, py: Python<'_>) -> bool {
        py.detach(|| {
            let mut end = self.end();
            // Not a waker of its own: it would take the place of that of who waits.
            let waker = Waker::from(self.bell.clone());
            let mut cx = Context::from_waker(&waker);
            end.io.is_some() && end.ahead.is_empty() && end.poll_more(&mut cx).is_pending()
        })
    }

    /// Closes it. Whoever waits for it sees the end.
    fn close(&self, py: Python<'_>) {
        py.detach(|| {
            let io = self.end().io.take();
            drop(io);
            self.bell.ring();
        });
    }
}

impl Pipe {
    fn end(&self) -> MutexGuard<'_, End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries until it is done, with the interpreter let go.
    fn wait<T: Send>(
        &self,
        py: Python<'_>,
        timeout: Option<f64>,
        mut attempt: impl FnMut(&mut End, &mut Context<'_>) -> Poll<io::Result<T>> + Send,
    ) -> PyResult<T> {
        let limit = timeout.map(Duration::try_from_secs_f64).transpose();
        let limit = limit.map_err(|_| PyValueError::new_err("a timeout is a number of seconds, or None"))?;
        // A time that no clock can tell is no limit.
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let waker = Waker::from(self.bell.clone());
        loop {
            let done = py.detach(|| {
                let heard = self.bell.rings();
                let mut cx = Context::from_waker(&waker);
                if let Poll::Ready(result) = attempt(&mut self.end(), &mut cx) {
                    return Some(result);
                }
                let left =
                    deadline.map_or(SIGNALS_EVERY, |deadline| deadline.saturating_duration_since(Instant::now()));
                if left.is_zero() {
                    return Some(Err(io::Error::new(io::ErrorKind::TimedOut, "the server took too long")));
                }
                self.bell.wait_after(heard, left.min(SIGNALS_EVERY));
                None
            });
            if let Some(result) = done {
                return Ok(result?);
            }
            py.check_signals()?;
        }
    }
}

impl End {
    /// Reads what is there behind what has come before; zero bytes are the end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Ok(0)) };
        let mut space = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut space);
        match Pin::new(io).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => {
                self.ahead.extend_from_slice(buffer.filled());
                Poll::Ready(Ok(buffer.filled().len()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Wakes all who wait for a connection: the stream itself knows one reader and one writer.
#[derive(Default)]
struct Bell {
    rings: Mutex<u64>,
    rung: Condvar,
}

impl Bell {
    fn count(&self) -> MutexGuard<'_, u64> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rings(&self) -> u64 {
        *self.count()
    }

    fn ring(&self) {
        *self.count() += 1;
        self.rung.notify_all();
    }

    /// Waits until it has rung more often, or the time is over.
    fn wait_after(&self, heard: u64, longest: Duration) {
        let waited = self.rung.wait_timeout_while(self.count(), longest, |rings| *rings == heard);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}
