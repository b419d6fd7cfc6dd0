//! A server over memory and a client that speaks raw bytes.

mod h2_client;
mod log;

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
pub(crate) use h2_client::*;
use http::StatusCode;
use http_body::Frame;
use httpy::{
    App, Body, Config, Error, Handler, Reply, Request, Response,
    conn::{Connection, Incoming, Listener, LocalFuture},
    listen::{MemoryConnector, memory},
    message::{Parts, Peer, Stream, text},
    metrics::Counted,
    server::{Queued, Server},
};
pub(crate) use log::log;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    runtime::{Builder, LocalOptions},
    sync::{mpsc, oneshot},
};

/// Runs a test on a local runtime whose clock moves only when nothing else can, and then at once to the next timer.
///
/// What would hang for ever fails instead, after an hour that takes no time.
pub(crate) fn run(test: impl AsyncFnOnce()) {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build_local(LocalOptions::default()).expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(3600), test()).await.expect("the test hangs");
    });
}

/// A running server and the way to it.
pub(crate) struct Served {
    connector: MemoryConnector,
    server: Server,
}

/// Serves `handler` with the default limits.
pub(crate) fn serve(handler: impl Handler + 'static) -> Served {
    serve_with(Config::default(), handler)
}

/// Serves `handler`.
pub(crate) fn serve_with(config: Config, handler: impl Handler + 'static) -> Served {
    serve_app(App::new(Arc::new(handler)).config(config))
}

/// Serves an app on a memory listener.
pub(crate) fn serve_app(app: App) -> Served {
    let (connector, listener) = memory();
    Served { connector, server: app.start(vec![Box::new(listener)]) }
}

impl Served {
    /// Opens a connection.
    pub(crate) fn connect(&self) -> Client {
        Client::over(self.connector.connect().expect("a connection"))
    }

    /// Opens a connection that speaks HTTP/2, with the client's settings told and both sides' agreed to.
    pub(crate) async fn connect_h2(&self, settings: &[(u16, u32)]) -> H2Client {
        let mut client = H2Client::new(self.connect().io);
        client.send(PREFACE).await;
        client.settings(settings).await;
        let first = [client.next().await, client.next().await, client.next().await];
        assert!(first[0].starts_with("SETTINGS:"), "{first:?}");
        assert_eq!(first[1..], ["SETTINGS ACK", "WINDOW_UPDATE 0 +983041"]);
        client.frame(SETTINGS, ACK, 0, b"").await;
        client
    }

    /// Opens a connection from an address.
    pub(crate) fn connect_from(&self, client: &str) -> Client {
        let client = Some(SocketAddr::new(client.parse().expect("an address"), 4711));
        let io = self.connector.connect_as(Peer { client, ..Peer::default() });
        Client::over(io.expect("a connection"))
    }

    /// Opens a connection, sends, and reads until the server closes.
    pub(crate) async fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.connect();
        client.send(bytes).await;
        client.rest().await
    }

    /// The connector, to see connections refused.
    pub(crate) fn connector(&self) -> MemoryConnector {
        self.connector.clone()
    }

    /// How often the server has counted something.
    pub(crate) fn counted(&self, what: Counted) -> u64 {
        self.server.metrics().get(what)
    }

    /// Stops the server.
    pub(crate) async fn stop(self, grace: Duration) -> usize {
        self.server.stop(grace, Queued::Served).await
    }
}

/// A client's end of a connection.
pub(crate) struct Client<IO = DuplexStream> {
    pub(crate) io: IO,
    ahead: Vec<u8>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Client<IO> {
    pub(crate) fn over(io: IO) -> Self {
        Self { io, ahead: Vec::new() }
    }

    /// Takes it apart: the connection, and what was read ahead.
    pub(crate) fn into_parts(self) -> (IO, Vec<u8>) {
        (self.io, self.ahead)
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.io.write_all(bytes.as_ref()).await.expect("the server takes bytes");
    }

    /// Closes the sending side and goes on reading.
    pub(crate) async fn half_close(&mut self) {
        self.io.shutdown().await.expect("half-close");
    }

    /// Reads one response, told from the next by its `content-length` or its last chunk. Without the Date field.
    pub(crate) async fn answer(&mut self) -> String {
        let head = self.read_until(b"\r\n\r\n").await;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let content = if let Some(length) = length {
            self.read_exactly(length.parse().expect("a length")).await
        } else if head.contains("transfer-encoding: chunked") {
            self.read_chunks().await
        } else {
            String::new()
        };
        without_date(&head) + &content
    }

    /// Reads an interim response, a chunk, or anything else that ends in `end`.
    pub(crate) async fn read_until(&mut self, end: &[u8]) -> String {
        loop {
            if let Some(at) = self.ahead.windows(end.len()).position(|window| window == end) {
                return take(&mut self.ahead, at + end.len());
            }
            assert!(self.read_more().await, "closed before {end:?} came: {:?}", String::from_utf8_lossy(&self.ahead));
        }
    }

    pub(crate) async fn read_exactly(&mut self, n: usize) -> String {
        while self.ahead.len() < n {
            assert!(self.read_more().await, "closed before {n} bytes came");
        }
        take(&mut self.ahead, n)
    }

    /// Reads to the end. Without Date fields.
    pub(crate) async fn rest(&mut self) -> String {
        while self.read_more().await {}
        let all = take(&mut self.ahead, usize::MAX);
        without_date(&all)
    }

    /// Sends a request for `/` and returns the response.
    pub(crate) async fn get(&mut self) -> String {
        self.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        self.answer().await
    }

    /// Whether the server has closed and everything it sent was read.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.ahead.is_empty() && !self.read_more().await
    }

    async fn read_chunks(&mut self) -> String {
        let mut content = String::new();
        loop {
            let line = self.read_until(b"\r\n").await;
            let size = usize::from_str_radix(line.trim_end(), 16).expect("a chunk size");
            content += &line;
            if size == 0 {
                loop {
                    let trailer = self.read_until(b"\r\n").await;
                    content += &trailer;
                    if trailer == "\r\n" {
                        return content;
                    }
                }
            }
            content += &self.read_exactly(size + 2).await;
        }
    }

    async fn read_more(&mut self) -> bool {
        // An error is a reset, and here as good as the end.
        self.io.read_buf(&mut self.ahead).await.unwrap_or(0) > 0
    }
}

fn take(bytes: &mut Vec<u8>, n: usize) -> String {
    let n = n.min(bytes.len());
    String::from_utf8(bytes.drain(..n).collect()).expect("text")
}

/// RFC 9110 §6.6.1: every response here has a Date, and its value is nothing to compare.
fn without_date(responses: &str) -> String {
    let is_date = |line: &&str| line.starts_with("date: ");
    let interim = responses.matches(" 100 Continue").count() + responses.matches(" 103 Early Hints").count();
    let finals = responses.matches("HTTP/1.").count() - interim;
    assert_eq!(responses.split("\r\n").filter(is_date).count(), finals, "one Date each: {responses}");
    responses.split("\r\n").filter(|line| !is_date(line)).collect::<Vec<_>>().join("\r\n")
}

/// A listener that is nothing but a queue, and fails when told to.
struct Scripted(RefCell<mpsc::UnboundedReceiver<io::Result<Incoming>>>);

/// A listener, and what it is to accept.
pub(crate) fn scripted() -> (mpsc::UnboundedSender<io::Result<Incoming>>, impl Listener) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Scripted(RefCell::new(receiver)))
}

impl Listener for Scripted {
    fn accept(&self) -> LocalFuture<'_, io::Result<Incoming>> {
        Box::pin(async {
            let next = std::future::poll_fn(|cx| self.0.borrow_mut().poll_recv(cx)).await;
            next.expect("the test keeps the queue as long as the server")
        })
    }

    fn address(&self) -> String {
        "scripted:".to_owned()
    }
}

/// A connection that is ready at once.
pub(crate) fn incoming(io: DuplexStream) -> Incoming {
    let ready = Connection { io: Stream::new(io), peer: Peer::default(), alpn: None };
    Incoming { peer: Peer::default(), handshake: Box::pin(async { Ok(ready) }) }
}

/// Lets the server see what was sent: as many turns as a request takes on its way.
pub(crate) async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// 200 with this content.
pub(crate) fn ok(content: impl Into<Body>) -> Response {
    text(StatusCode::OK, content)
}

/// Answers with what came: method, target, Host, and how much content.
pub(crate) fn describe(request: Request) -> Reply {
    Reply::later(async move {
        let Parts { method, uri, headers, body, .. } = request.into_parts();
        let host = headers.get("host").map(|host| host.to_str().unwrap_or("?").to_owned()).unwrap_or_default();
        match body.collect(1 << 20).await {
            Ok((content, _)) => ok(format!("{method} {uri} host={host} content={}", String::from_utf8_lossy(&content))),
            Err(error) => text(StatusCode::BAD_REQUEST, error.to_string()),
        }
    })
}

/// Tells when it is dropped.
pub(crate) struct Drops(Option<oneshot::Sender<()>>);

/// A value, and what resolves when it is dropped.
pub(crate) fn drops() -> (Drops, oneshot::Receiver<()>) {
    let (sender, receiver) = oneshot::channel();
    (Drops(Some(sender)), receiver)
}

impl Drop for Drops {
    fn drop(&mut self) {
        let _ = self.0.take().map(|sender| sender.send(()));
    }
}

/// A value given to a handler once.
pub(crate) fn once<T>(value: T) -> impl Fn() -> T + Send + Sync
where
    T: Send,
{
    let value = Mutex::new(Some(value));
    move || value.lock().expect("unpoisoned").take().expect("taken once")
}

/// Frames that a test sends into a response while it runs.
pub(crate) fn frames() -> (mpsc::UnboundedSender<Result<Frame<Bytes>, Error>>, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Body::stream(Frames(receiver)))
}

struct Frames(mpsc::UnboundedReceiver<Result<Frame<Bytes>, Error>>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.0.poll_recv(cx)
    }
}
