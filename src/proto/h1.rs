//! Walk 5/10 and 10/10. Before: proto/negotiate.rs. After: handler.rs.
//!
//! HTTP/1.1 and HTTP/1.0 (RFC 9112). hyper parses, frames and writes; this file turns its messages into ours and decides
//! what hyper leaves open: which heads are refused (`strict.rs`), when bytes go out (`h1/wire.rs`), what becomes of
//! content that nobody read (`h1/content.rs`), how long a client may take (`h1/patience.rs`), which responses can't be sent
//! as they are, and how a connection ends.

mod content;
mod patience;
mod wire;

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::SystemTime,
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
    content::{Content, Unread},
    patience::Patience,
    wire::Wire,
};
use super::{
    Looks,
    linger::{LINGER, linger},
    strict::{Limits, Refusal},
};
use crate::{
    config::Config,
    conn::{Connection, Cx, LocalFuture, Protocol},
    error::Error,
    handler::{Guarded, Reply, Stack},
    message::{Body, Exchange, Feature, Features, Params, Parts, Peer, Request, Response, Stream, text},
};

/// How much of a connection hyper may hold in each direction, unless a head may be larger. 64 KiB, a socket buffer's worth.
const BUFFER_BYTES: usize = 64 * 1024;

/// What HTTP/1.1 can do. HTTP/1.0 can do nothing of it.
const HTTP_11: Features = Features::NONE.with(Feature::Trailers);

/// HTTP/1.1 and 1.0.
pub struct H1;

impl H1 {
    /// Takes everything but a first line of three words whose third is no version of HTTP. Who sends that speaks something
    /// else, and could not read a 400 (RFC 9113 §3.4: no HTTP/2 preface is a reason to close).
    pub(super) fn looks(bytes: &[u8]) -> Looks {
        let line = bytes.split(|&byte| byte == b'\r').next().unwrap_or_default();
        let mut words = line.split(|&byte| byte == b' ');
        let third = if line.len() < bytes.len() { words.nth(2) } else { None };
        let is_foreign = third.is_some_and(|version| !version.starts_with(b"HTTP/")) && words.next().is_none();
        if is_foreign { Looks::Unlike } else { Looks::Like }
    }
}

impl Protocol<Stream> for H1 {
    fn serve(&self, connection: Connection<Stream>, cx: Cx) -> LocalFuture<'static, ()> {
        Box::pin(async move {
            let Cx { stack, config, signal } = cx;
            let serving = Serving::new(connection, stack, &config);
            let wire = serving.wire.clone();
            let end = signal.watch(serving, Serving::poll, Serving::finish).await;
            close(end, wire).await;
        })
    }
}

/// A connection on its way through requests and responses.
struct Serving {
    hyper: http1::Connection<TokioIo<Wire>, Answerer>,
    wire: Wire,
    unread: Arc<Unread>,
    /// Held once more by every request that is being answered.
    busy: Busy,
    patience: Patience,
    /// How long unwanted content may take to come.
    discarding: Option<Pin<Box<Sleep>>>,
}

/// Counts by being cloned: the answerer holds one, [`Serving`] one, and so does a request until its response is at hand,
/// or has come to its end where the response is a stream.
type Busy = Rc<()>;

/// How a connection ended.
enum End {
    /// hyper had enough; whether it left content unread.
    Closed { result: Result<(), hyper::Error>, cut: bool },
    /// Reading or writing failed.
    Broken(io::Error),
    /// No request came in time.
    Late,
}

impl Serving {
    fn new(connection: Connection<Stream>, stack: Stack, config: &Config) -> Self {
        let limits = Limits { max_target_bytes: config.max_target_bytes, max_head_bytes: config.max_head_bytes };
        let wire = Wire::new(connection.io, limits);
        let (unread, busy) = (Arc::new(Unread::default()), Busy::default());
        let features = |features: Features| if connection.peer.is_tls { features.with(Feature::Tls) } else { features };
        let answerer = Answerer {
            stack,
            http_11: Exchange::new(features(HTTP_11)),
            http_10: Exchange::new(features(Features::NONE)),
            peer: Arc::new(connection.peer),
            wire: wire.clone(),
            unread: unread.clone(),
            busy: busy.clone(),
        };
        let mut builder = http1::Builder::new();
        builder
            .header_read_timeout(None)
            .max_header_size(config.max_head_bytes)
            .max_buf_size(config.max_head_bytes.max(BUFFER_BYTES));
        if config.max_fields != Config::default().max_fields {
            builder.max_headers(config.max_fields);
        }
        let hyper = builder.serve_connection(TokioIo::new(wire.clone()), answerer);
        Self { hyper, wire, unread, busy, patience: Patience::new(config.head_timeout), discarding: None }
    }

    /// Finishes what runs and takes nothing new.
    fn finish(&mut self) {
        Pin::new(&mut self.hyper).graceful_shutdown();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.wire.begin();
        let served = Pin::new(&mut self.hyper).poll(cx);
        let sent = match self.wire.poll_send(cx) {
            Poll::Ready(Err(error)) => return Poll::Ready(End::Broken(error)),
            sent => sent.is_ready(),
        };
        if let Poll::Ready(result) = served {
            return Poll::Ready(End::Closed { result, cut: self.unread.is_cut() });
        }
        if self.unread.is_in_use() {
            self.discard(cx);
        }
        if sent && !self.is_busy() && self.patience.poll(self.wire.parsed(), cx).is_ready() {
            return Poll::Ready(End::Late);
        }
        Poll::Pending
    }

    /// Two references each are here and in the answerer. Any other belongs to a request or its content.
    fn is_busy(&self) -> bool {
        Rc::strong_count(&self.busy) > 2 || Arc::strong_count(&self.unread) > 2 || self.discarding.is_some()
    }

    fn discard(&mut self, cx: &mut Context<'_>) {
        if self.unread.poll_discard(cx).is_ready() {
            self.discarding = None;
            return;
        }
        let discarding = self.discarding.get_or_insert_with(|| Box::pin(sleep(self.patience.limit())));
        if discarding.as_mut().poll(cx).is_ready() {
            self.unread.cut();
            self.discarding = None;
        }
    }
}

/// Answers the requests of one connection.
struct Answerer {
    stack: Stack,
    peer: Arc<Peer>,
    http_11: Exchange,
    http_10: Exchange,
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
            // Where the next request begins is unknown now, or would be a matter of opinion.
            self.unread.cut();
            return Answering { reply: Guarded::new(refuse(refusal)), is_head, unread: None, busy: self.busy.clone() };
        }
        let (body, unread) = if incoming.is_end_stream() {
            (Body::Empty, None)
        } else {
            let awaits_continue = head.version == Version::HTTP_11 && head.headers.contains_key(header::EXPECT);
            let content = Content::new(incoming, awaits_continue, self.unread.clone());
            (Body::stream(content), Some(self.unread.clone()))
        };
        // RFC 9112 §3.2.2: the authority of an absolute-form target takes the place of what Host says.
        if let Some(authority) = head.uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            head.headers.insert(header::HOST, host);
        }
        let request = Request::from(Parts {
            method: head.method,
            uri: head.uri,
            version: head.version,
            headers: head.headers,
            body,
            peer: self.peer.clone(),
            exchange: if head.version == Version::HTTP_11 { self.http_11.clone() } else { self.http_10.clone() },
            params: Params::default(),
            root_len: 0,
        });
        let reply = self.stack.answer(request);
        Answering { reply, is_head, unread, busy: self.busy.clone() }
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
    /// Where unread content is left, if the request came with content.
    unread: Option<Arc<Unread>>,
    busy: Busy,
}

impl Future for Answering {
    type Output = Result<http::Response<Outgoing>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = ready!(Pin::new(&mut self.reply).poll(cx));
        conform(&mut response, self.is_head);
        // RFC 9112 §9.6: a response that ends the connection says so.
        if self.unread.as_ref().is_some_and(|unread| unread.must_close()) {
            response.headers_mut().append(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response.map(|body| {
            let busy = matches!(body, Body::Stream(_)).then(|| self.busy.clone());
            Outgoing { body, _busy: busy }
        })))
    }
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
        // RFC 9110 §15.2: not an answer. Switching protocols has its own way, which does not lead through a handler.
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
#[cold]
fn conform_framing(response: &mut Response, is_head: bool) {
    response.headers_mut().remove(header::TRANSFER_ENCODING);
    let size = response.body().size_hint().exact();
    let mut lengths = response.headers().get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next().and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let is_right = match (length, size, lengths.next()) {
        // RFC 9110 §8.6: the answer to HEAD has the length that GET would have, and may come without the content.
        (Some(_), Some(0), None) if is_head => true,
        (Some(length), Some(size), None) => length == size,
        // hyper holds a stream to what was declared.
        (Some(_), None, None) => true,
        _ => false,
    };
    if !is_right || response.status() == StatusCode::NO_CONTENT {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
}

/// Closes a connection so that the client gets everything that was sent, and tells it if it was too slow.
async fn close(end: End, wire: Wire) {
    let (has_ended, is_within_head) = (wire.has_ended(), wire.is_within_head());
    let Some(mut io) = wire.into_stream() else { return };
    let lingers = match end {
        End::Closed { result: Ok(()), cut } => cut,
        // hyper has answered.
        End::Closed { result: Err(error), .. } if error.is_parse() => true,
        End::Closed { result: Err(error), .. } => {
            tracing::debug!(%error, "connection ended");
            return;
        }
        End::Broken(error) => {
            tracing::debug!(%error, "connection broke");
            return;
        }
        End::Late if is_within_head => {
            let _ = timeout(LINGER, io.write_all(request_timeout().as_bytes())).await;
            true
        }
        End::Late => false,
    };
    // With TLS there is something to send, and a client that does not read must not keep the connection.
    let _ = timeout(LINGER, io.shutdown()).await;
    if lingers && !has_ended {
        linger(&mut io).await;
    }
}

/// RFC 9110 §15.5.9: 408, after which the connection closes.
fn request_timeout() -> String {
    let date = httpdate::fmt_http_date(SystemTime::now());
    format!("HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\ndate: {date}\r\n\r\n")
}
