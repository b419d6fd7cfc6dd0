//! Walk 5/10 and 10/10. Before: proto/negotiate.rs. After: handler.rs.
//!
//! HTTP/1.1 and HTTP/1.0 (RFC 9112). hyper parses, frames and writes; this file turns its messages into ours and decides
//! what hyper leaves open: what is refused (`strict.rs`) before hyper sees it (`h1/intake.rs`), when bytes go out
//! (`h1/wire.rs`), what becomes of content that nobody read (`h1/content.rs`), how long a client may take
//! (`h1/patience.rs`), what goes ahead of a response (`h1/hints.rs`), which responses can't be sent as they are, and how a
//! connection ends.
//!
//! ```text
//!              a whole head, or a refused one
//!   at rest ──────────────────────────────────► served by hyper ──► closed
//!      ▲  └─► closed                                │
//!      └────────────────────────────────────────────┘
//!            idle for a second, nothing half done
//! ```
//!
//! A response that [switches](Switch) ends hyper's part, and what is left of the connection is the tunnel's (`h1/tunnel.rs`).
//!
//! At rest a connection has no hyper, and none of its buffers: ten thousand idle ones would hold 160 MB of them. Where very
//! many are awake, none waits for that second.

mod awake;
mod content;
mod hints;
mod intake;
mod patience;
mod tunnel;
mod wire;

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Version, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncWriteExt,
    time::{Sleep, sleep, timeout},
};

use self::{
    awake::{Awake, Waking},
    content::{Content, Unread},
    hints::Hints,
    patience::{Late, Patience, Waiting},
    wire::{Arrival, Wire},
};
use super::{
    linger::{LINGER, linger},
    strict::{Limits, Refusal},
};
use crate::{
    config::Config,
    conn::{Connection, Cx, LocalFuture, Place, Protocol, Standing},
    error::Error,
    handler::{Guarded, Reply, Stack},
    message::{
        Body, Exchange, Feature, Features, Params, Parts, Peer, Request, Response, Stream, Switch, Tunnel, text,
    },
};

/// How much of a connection hyper may hold in each direction, unless a head may be larger. 64 KiB, a socket buffer's worth.
const BUFFER_BYTES: usize = 64 * 1024;

/// How much of a response a client has to take before its connection counts as one that gets on, and goes to the end of the
/// line of those that make room for others. 64 KiB, a socket buffer's worth: clients that only pretend to read take bytes.
const PROGRESS_BYTES: u64 = 64 * 1024;

/// 1 s. A connection that has been idle for so long gives up hyper's buffers, 16 KiB. Getting them again costs half a
/// microsecond, which is not much once a second.
const REST: Duration = Duration::from_secs(1);

/// What HTTP/1.1 can do. HTTP/1.0 can do nothing of it.
const HTTP_11: Features = Features::NONE.with(Feature::Trailers).with(Feature::WebSocket);

/// 2048 connections with hyper's buffers, 32 MB at most, may idle for a second to be served again a little faster. From there
/// on memory counts for more than the microsecond that it takes to get them again.
const MAX_AWAKE: usize = 2048;

/// HTTP/1.1 and 1.0.
#[derive(Default)]
pub struct H1 {
    awake: Awake,
}

impl Protocol<Stream> for H1 {
    fn serve(&self, connection: Connection<Stream>, cx: Cx) -> LocalFuture<'static, ()> {
        let awake = self.awake.clone();
        Box::pin(async move {
            let Cx { stack, config, signal, place, .. } = cx;
            let serving = Serving::new(connection, stack, config, awake, place.clone());
            let wire = serving.wire.clone();
            let write_timeout = serving.site.config.write_timeout;
            match signal.watch(serving, Serving::poll, Serving::finish).await {
                End::Switched(tunnel) => {
                    if let Some(mut io) = tunnel::run(tunnel, wire, write_timeout, &signal, place).await {
                        shut(&mut io, true).await;
                    }
                }
                end => {
                    place.renew(Standing::Resting);
                    close(end, wire).await;
                }
            }
        })
    }
}

/// A connection on its way through requests and responses.
struct Serving {
    wire: Wire,
    site: Rc<Site>,
    /// None: at rest.
    hyper: Option<Box<Hyper>>,
    patience: Patience,
    place: Rc<Place>,
    /// What the place was last told of.
    progress: u64,
}

/// What all requests of a connection have in common.
struct Site {
    stack: Stack,
    peer: Arc<Peer>,
    config: Arc<Config>,
    http_11: Exchange,
    http_10: Exchange,
    awake: Awake,
    /// Whether the server stops, so that the next response is the last one.
    is_stopping: Cell<bool>,
    /// What the connection becomes when hyper has sent the response that says so.
    tunnel: RefCell<Option<Box<dyn Tunnel>>>,
}

/// What a connection has only while it is served.
struct Hyper {
    connection: http1::Connection<TokioIo<Wire>, Answerer>,
    site: Rc<Site>,
    unread: Arc<Unread>,
    /// Held once more by every request that is being answered.
    busy: Busy,
    /// How long unwanted content may take to come.
    discarding: Option<Pin<Box<Sleep>>>,
    /// Last, so that everything else is free by then.
    _waking: Waking,
}

/// Counts by being cloned: the answerer holds one, [`Hyper`] one, and so does a request until its response is at hand, or
/// has come to its end where the response is a stream.
type Busy = Rc<()>;

/// How a connection ended.
enum End {
    /// hyper had enough; whether it left content unread.
    Closed { result: Result<(), hyper::Error>, cut: bool },
    /// Reading or writing failed, or the client takes nothing any more.
    Broken(io::Error),
    /// Between requests: the client left, or none came in time, or the server stops.
    Idle,
    /// It is not HTTP any more.
    Switched(Box<dyn Tunnel>),
}

impl Serving {
    fn new(connection: Connection<Stream>, stack: Stack, config: Arc<Config>, awake: Awake, place: Rc<Place>) -> Self {
        let features = |features: Features| if connection.peer.is_tls { features.with(Feature::Tls) } else { features };
        let http_11 = if config.h1_early_hints { HTTP_11.with(Feature::EarlyHints) } else { HTTP_11 };
        let site = Site {
            stack,
            http_11: Exchange::new(features(http_11)),
            http_10: Exchange::new(features(Features::NONE)),
            peer: Arc::new(connection.peer),
            config: config.clone(),
            awake,
            is_stopping: Cell::new(false),
            tunnel: RefCell::new(None),
        };
        Self {
            wire: Wire::new(connection.io, Limits::from(&*config)),
            site: Rc::new(site),
            hyper: None,
            patience: Patience::new(config),
            place,
            progress: 0,
        }
    }

    /// The next response is the last one. hyper could end the connection, but would do so under a client that is about to
    /// send, or whose last response did not say `close` because it has begun before.
    fn finish(&mut self) {
        self.site.is_stopping.set(true);
    }

    /// Gives hyper up if it has nothing to do. What has come of a next head is not lost: it was not hyper's.
    fn rest(&mut self) {
        if self.hyper.as_ref().is_some_and(|hyper| !hyper.is_busy()) && self.wire.is_at_rest() {
            self.hyper = None;
            self.wire.rest();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.wire.begin();
        loop {
            let polled = match &mut self.hyper {
                Some(hyper) => hyper.poll(&self.wire, cx),
                None => match self.wire.poll_rest(cx) {
                    Poll::Ready(Ok(Arrival::Request)) => {
                        self.hyper = Some(Box::new(Hyper::new(&self.wire, &self.site)));
                        continue;
                    }
                    Poll::Ready(Ok(Arrival::End)) => return Poll::Ready(End::Idle),
                    Poll::Ready(Err(error)) => return Poll::Ready(End::Broken(error)),
                    Poll::Pending => Ok(Waiting { request: Some(self.wire.awaited_request()), ..Waiting::default() }),
                },
            };
            let mut waiting = match polled {
                Ok(waiting) => waiting,
                Err(end) => return Poll::Ready(self.end(end)),
            };
            if self.site.is_stopping.get() {
                waiting.leave = Some(self.site.config.idle_grace);
            }
            self.stand(waiting.reader.is_some());
            match ready!(self.patience.poll(waiting, cx)) {
                Late::Rest => self.rest(),
                Late::Request => return Poll::Ready(End::Idle),
                Late::Head => self.wire.refuse_head(Refusal::HeadLate),
                Late::Content => self.wire.refuse_content(Refusal::ContentLate),
                Late::Reader => return Poll::Ready(End::Broken(io::ErrorKind::TimedOut.into())),
            }
        }
    }

    /// How it ended, as hyper has.
    fn end(&mut self, end: End) -> End {
        let tunnel = self.site.tunnel.borrow_mut().take();
        let (End::Closed { result: Ok(()), .. }, Some(tunnel), Some(hyper)) = (&end, tunnel, self.hyper.take()) else {
            return end;
        };
        // RFC 6455 §4.1: a client waits for the answer to its handshake. What it has sent without was looked at as a request.
        if !hyper.connection.into_parts().read_buf.is_empty() || !self.wire.is_switchable() {
            tracing::debug!(kind = "peer", "a client did not wait for the answer to its handshake");
            return End::Idle;
        }
        End::Switched(tunnel)
    }

    /// Tells the server what the connection does. Whether content is late by the client or by the handler can't be told.
    fn stand(&mut self, is_unread: bool) {
        let standing = match &self.hyper {
            Some(_) if is_unread => Standing::Waiting,
            Some(hyper) if hyper.has_content() => Standing::Waiting,
            Some(hyper) if hyper.is_busy() => Standing::Working,
            _ => Standing::Resting,
        };
        // Also a client that reads, however long a response may be, gets on.
        let progress = self.wire.parsed() + self.wire.taken() / PROGRESS_BYTES;
        if std::mem::replace(&mut self.progress, progress) == progress {
            self.place.set(standing);
        } else {
            self.place.renew(standing);
        }
    }
}

impl Hyper {
    fn new(wire: &Wire, site: &Rc<Site>) -> Self {
        let (unread, busy) = (Arc::new(Unread::default()), Busy::default());
        let answerer = Answerer { site: site.clone(), wire: wire.clone(), unread: unread.clone(), busy: busy.clone() };
        // What a head may be was checked before. Here the empty lines before it count, and those come in one buffer.
        let buffer = site.config.max_head_bytes.max(BUFFER_BYTES);
        let mut builder = http1::Builder::new();
        builder.header_read_timeout(None).max_buf_size(buffer).max_header_size(buffer + 1);
        // To hyper any number but its own default means an allocation for each request.
        if site.config.max_fields > Config::default().max_fields {
            builder.max_headers(site.config.max_fields);
        }
        let connection = builder.serve_connection(TokioIo::new(wire.clone()), answerer);
        let waking = site.awake.wake();
        Self { connection, site: site.clone(), unread, busy, discarding: None, _waking: waking }
    }

    /// Has hyper do what it can, and sends what came of it. Returns what there is to wait for.
    fn poll(&mut self, wire: &Wire, cx: &mut Context<'_>) -> Result<Waiting, End> {
        let served = Pin::new(&mut self.connection).poll(cx);
        let sent = match wire.poll_send(cx) {
            Poll::Ready(Err(error)) => return Err(End::Broken(error)),
            sent => sent.is_ready(),
        };
        if let Poll::Ready(result) = served {
            return Err(End::Closed { result, cut: self.unread.is_cut() });
        }
        if self.unread.is_in_use() {
            self.discard(cx);
        }
        Ok(Waiting {
            request: (sent && !self.is_busy()).then(|| wire.awaited_request()),
            rest: if wire.is_at_rest() { Some(self.rest_after()) } else { None },
            // Unwanted content has a time limit of its own.
            content: if self.discarding.is_none() { wire.awaited_content() } else { None },
            reader: (!sent).then(|| wire.taken()),
            leave: None,
        })
    }

    /// How long after the last response hyper is given up.
    fn rest_after(&self) -> Duration {
        if self.site.awake.count() > MAX_AWAKE { Duration::ZERO } else { REST }
    }

    /// Two references each are here and in the answerer. Any other belongs to a request or its content.
    fn is_busy(&self) -> bool {
        Rc::strong_count(&self.busy) > 2 || self.has_content()
    }

    /// Whether there is content that has not come, or was not read.
    fn has_content(&self) -> bool {
        Arc::strong_count(&self.unread) > 2 || self.discarding.is_some()
    }

    fn discard(&mut self, cx: &mut Context<'_>) {
        if self.unread.poll_discard(cx).is_ready() {
            self.discarding = None;
            return;
        }
        let limit = self.site.config.head_timeout;
        let discarding = self.discarding.get_or_insert_with(|| Box::pin(sleep(limit)));
        if discarding.as_mut().poll(cx).is_ready() {
            self.unread.cut();
            self.discarding = None;
        }
    }
}

/// Answers the requests of one connection.
struct Answerer {
    site: Rc<Site>,
    wire: Wire,
    unread: Arc<Unread>,
    busy: Busy,
}

impl Service<hyper::Request<Incoming>> for Answerer {
    type Response = http::Response<Outgoing>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: hyper::Request<Incoming>) -> Answering {
        let (mut head, incoming) = request.into_parts();
        let is_head = head.method == Method::HEAD;
        if let Some(refusal) = self.wire.next_verdict() {
            return self.answering(Guarded::new(refuse(refusal)), is_head, None);
        }
        let (body, content) = if incoming.is_end_stream() {
            (Body::Empty, None)
        } else {
            let awaits_continue = head.version == Version::HTTP_11 && head.headers.contains_key(header::EXPECT);
            let content = Content::new(incoming, awaits_continue, self.unread.clone());
            (Body::stream(content), Some((self.wire.clone(), self.unread.clone())))
        };
        // RFC 9112 §3.2.2: the authority of an absolute-form target takes the place of what Host says.
        if let Some(authority) = head.uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            head.headers.insert(header::HOST, host);
        }
        let site = &self.site;
        let (exchange, hints) = self.exchange(head.version);
        let request = Request::from(Parts {
            method: head.method,
            uri: head.uri,
            version: head.version,
            headers: head.headers,
            body,
            peer: site.peer.clone(),
            exchange,
            params: Params::default(),
            root_len: 0,
        });
        let answering = self.answering(site.stack.answer(request), is_head, content);
        Answering { hints, ..answering }
    }
}

impl Answerer {
    fn answering(&self, reply: Guarded, is_head: bool, content: Option<(Wire, Arc<Unread>)>) -> Answering {
        Answering { reply, is_head, content, hints: None, busy: self.busy.clone(), site: self.site.clone() }
    }

    /// What a request by this version can have besides its response, and what carries it.
    fn exchange(&self, version: Version) -> (Exchange, Option<(Wire, Arc<Hints>)>) {
        let site = &self.site;
        if version != Version::HTTP_11 {
            return (site.http_10.clone(), None);
        }
        if !site.http_11.supports(Feature::EarlyHints) {
            return (site.http_11.clone(), None);
        }
        let hints = Arc::<Hints>::default();
        (site.http_11.clone().with_carrier(hints.clone()), Some((self.wire.clone(), hints)))
    }
}

fn refuse(refusal: Refusal) -> Reply {
    tracing::debug!(?refusal, "request refused");
    let (status, message) = refusal.answer();
    let mut response = text(status, message);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response.into()
}

/// Walk 10/10: the answer, as hyper wants it.
struct Answering {
    reply: Guarded,
    is_head: bool,
    /// If the request came with content: what says whether that is refused, and where it is left unread.
    content: Option<(Wire, Arc<Unread>)>,
    /// If it may be preceded by hints: where they are, and where they go.
    hints: Option<(Wire, Arc<Hints>)>,
    busy: Busy,
    site: Rc<Site>,
}

impl Future for Answering {
    type Output = Result<http::Response<Outgoing>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Whoever was to answer is dropped, as if the client had gone: what the request says is not what was meant.
        if let Some(refusal) = self.content.as_ref().and_then(|(wire, _)| wire.find_content_refusal()) {
            self.reply = Guarded::new(refuse(refusal));
        }
        if let Some((_, hints)) = &self.hints {
            hints.register(cx.waker());
        }
        let polled = Pin::new(&mut self.reply).poll(cx);
        if let Some((wire, hints)) = &self.hints {
            hints.write(wire, polled.is_ready());
        }
        let mut response = ready!(polled);
        if let Some(tunnel) = Switch::take(&mut response)
            && response.status() == StatusCode::SWITCHING_PROTOCOLS
        {
            *self.site.tunnel.borrow_mut() = Some(tunnel);
            return Poll::Ready(Ok(response.map(|_| Outgoing { body: Body::Empty, _busy: None })));
        }
        conform(&mut response, self.is_head);
        // RFC 9112 §9.6: a response that ends the connection says so.
        let is_last =
            self.site.is_stopping.get() || self.content.as_ref().is_some_and(|(_, unread)| unread.must_close());
        if is_last && !says_close(&response) {
            response.headers_mut().append(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response.map(|body| {
            let busy = matches!(body, Body::Stream(_)).then(|| self.busy.clone());
            Outgoing { body, _busy: busy }
        })))
    }
}

fn says_close(response: &Response) -> bool {
    response.headers().get_all(header::CONNECTION).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// Response content, which keeps the connection busy for as long as it streams.
struct Outgoing {
    body: Body,
    _busy: Option<Busy>,
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Makes a response one that HTTP/1.x can carry, whatever a handler made of it.
fn conform(response: &mut Response, is_head: bool) {
    // A version that came from elsewhere says nothing about this connection, and hyper panics at some.
    *response.version_mut() = Version::HTTP_11;
    let status = response.status();
    if status.is_informational() {
        // RFC 9110 §15.2: not an answer. Who switches protocols says to what.
        tracing::error!(kind = "handler", %status, "a handler answered with an interim status");
        *response = text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error");
    }
    let framing = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    if response.headers().keys().any(|name| framing.contains(name)) {
        conform_framing(response, is_head);
    }
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED) {
        *response.body_mut() = Body::Empty;
    }
}

/// Framing fields that contradict the content would tear apart this response and the next. RFC 9112 §6.3.
fn conform_framing(response: &mut Response, is_head: bool) {
    let size = response.body().size_hint().exact();
    let (mut length, mut lengths, mut has_coding) = (None, 0, false);
    // All of them, once: for the few fields that a response has, that is less than to look for two.
    for (name, value) in response.headers() {
        if *name == header::CONTENT_LENGTH {
            length = value.to_str().ok().and_then(|digits| digits.parse::<u64>().ok());
            lengths += 1;
        }
        has_coding |= *name == header::TRANSFER_ENCODING;
    }
    if has_coding {
        response.headers_mut().remove(header::TRANSFER_ENCODING);
    }
    let is_right = match (length, size, lengths) {
        // RFC 9110 §8.6: the answer to HEAD has the length that GET would have, and may come without the content.
        (Some(_), Some(0), 1) if is_head => true,
        (Some(length), Some(size), 1) => length == size,
        // hyper holds a stream to what was declared.
        (Some(_), None, 1) => true,
        _ => lengths == 0,
    };
    if !is_right || response.status() == StatusCode::NO_CONTENT {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
}

/// Closes a connection so that the client gets everything that was sent.
async fn close(end: End, wire: Wire) {
    let (has_ended, has_refused) = (wire.has_ended(), wire.has_refused());
    let Some(mut io) = wire.into_stream() else { return };
    let lingers = match end {
        End::Closed { result: Ok(()), cut } => cut || has_refused,
        // hyper has answered.
        End::Closed { result: Err(error), .. } if error.is_parse() => true,
        End::Closed { result: Err(_), .. } if has_refused => true,
        End::Closed { result: Err(error), .. } => {
            tracing::debug!(%error, "connection ended");
            return;
        }
        End::Broken(error) => {
            tracing::debug!(%error, "connection broke");
            return;
        }
        End::Idle | End::Switched(_) => false,
    };
    shut(&mut io, lingers && !has_ended).await;
}

/// Closes the stream, and waits for the client to have read what was sent.
async fn shut(io: &mut Stream, lingers: bool) {
    // With TLS there is something to send, and a client that does not read must not keep the connection.
    let _ = timeout(LINGER, io.shutdown()).await;
    if lingers {
        linger(io).await;
    }
}
