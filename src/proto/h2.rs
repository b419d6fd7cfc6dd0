//! Walk 5/10 and 10/10. Before: proto/negotiate.rs. After: handler.rs.
//!
//! HTTP/2 (RFC 9113). h2 parses, frames, compresses and counts windows; this file runs one connection: it turns requests into
//! ours, has them answered, and decides what h2 leaves open: which heads are refused (`h2/head.rs`), whose content is sent
//! next (`h2/turns.rs`), when bytes go out (`h2/wire.rs`), what a client may do for nothing (`h2/calm.rs`), how long it may
//! take (`h2/patience.rs`), and how a connection ends.
//!
//! A connection is one task, and its streams are futures in it (`h2/answering.rs`): what arrives together is answered
//! together. A response that is there at once takes no future at all.

mod answering;
mod calm;
mod content;
mod frames;
mod head;
mod patience;
mod side;
mod tunnel;
mod turns;
mod wire;

use std::{
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream as _, stream::FuturesUnordered};
use h2::{
    Ping, PingPong, Reason, RecvStream,
    server::{Builder, Connection as H2Connection, SendResponse},
};
use http::{HeaderMap, Method, Uri, Version, header};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep_until, timeout},
};

use self::{
    answering::{Answering, Asked, Channel},
    calm::Allowances,
    content::Content,
    frames::{Offence, PREFACE},
    head::{Heads, Refusal, WEBSOCKET},
    patience::{Late, Patience, Waiting},
    side::{Link, Pushed, Side},
    turns::Turns,
    wire::Wire,
};
use super::{
    Looks,
    linger::{LINGER, linger},
    priority::Said,
};
use crate::{
    config::Config,
    conn::{Connection, Cx, LocalFuture, Place, Protocol, Standing},
    handler::{Guarded, Stack},
    message::{Body, Exchange, Feature, Features, Params, Parts, Peer, Request, Stream, text},
    metrics::{Counted, Metrics},
};

/// 64. After so many requests other connections get their turn.
const MAX_REQUESTS_AT_A_TIME: usize = 64;

/// How much content a client has to take before its connection counts as one that gets on. 64 KiB, as with HTTP/1.1.
const PROGRESS_BYTES: u64 = 64 * 1024;

/// 16 times what is gathered, 1 MiB. After so much content other connections get their turn.
const MAX_SENT_AT_A_TIME: u32 = 16;

/// 128 KiB. How much the system may hold that was written and not sent; left to itself, some megabytes. What it holds can't be
/// overtaken by what is more urgent. Measured (`scripts/priorities.py`): over 10 Mbit/s an urgent response behind others takes a
/// sixth of a second, not two. Not for HTTP/1.1, where it is of no use and large responses would cost more.
const UNSENT_BYTES: u32 = 128 * 1024;

/// What every request can do. Pushes are for the client to allow.
const FEATURES: Features = Features::NONE
    .with(Feature::Multiplexing)
    .with(Feature::EarlyHints)
    .with(Feature::Trailers)
    .with(Feature::WebSocket)
    .with(Feature::Priority);

/// HTTP/2.
pub struct H2;

impl H2 {
    /// RFC 9113 §3.4: every connection begins with the same 24 bytes.
    pub(super) fn looks(bytes: &[u8]) -> Looks {
        if bytes.starts_with(PREFACE) {
            Looks::Like
        } else if PREFACE.starts_with(bytes) {
            Looks::Unsure
        } else {
            Looks::Unlike
        }
    }
}

impl Protocol<Stream> for H2 {
    fn serve(&self, connection: Connection<Stream>, cx: Cx) -> LocalFuture<'static, ()> {
        Box::pin(async move {
            let Cx { stack, config, signal, place, metrics } = cx;
            let allowances = Allowances::new(config.h2_max_idle_frames, config.h2_max_resets);
            connection.io.limit_unsent(UNSENT_BYTES);
            let wire = Wire::new(connection.io, allowances);
            let handshake = builder(&config).handshake(wire.clone());
            let idle_until = Instant::now() + config.idle_grace;
            let shaken = tokio::select! {
                biased;
                shaken = timeout(config.head_timeout, handshake) => shaken,
                // Nothing was asked yet: as an idle connection of any protocol.
                _ = async { (signal.started().await, sleep_until(idle_until).await) } => return,
            };
            let end = match shaken {
                Ok(Ok(h2)) => {
                    let link = Arc::new(Link::new(metrics.clone()));
                    let site = Site::new(connection.peer, stack, config, link);
                    let serving = Serving::new(h2, wire.clone(), site, place.clone());
                    signal.watch(serving, Serving::poll, Serving::finish).await
                }
                Ok(Err(error)) => End::Closed(Err(error)),
                Err(_) => return,
            };
            place.renew(Standing::Resting);
            close(end, wire, &metrics).await;
        })
    }
}

fn builder(config: &Config) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(config.h2_max_concurrent_streams)
        .max_header_list_size(u32::try_from(config.max_head_bytes).unwrap_or(u32::MAX))
        .initial_window_size(config.h2_stream_window_bytes)
        .initial_connection_window_size(config.h2_connection_window_bytes)
        // Those that were reset before they were seen here. They don't count as open, but take memory.
        .max_pending_accept_reset_streams(config.h2_max_concurrent_streams as usize)
        .max_local_error_reset_streams(Some(config.h2_max_resets as usize))
        .enable_connect_protocol();
    builder
}

/// A connection on its way through requests and responses.
struct Serving {
    /// First, so that it is dropped before what its streams hold of it.
    streams: FuturesUnordered<Answering>,
    h2: H2Connection<Wire, Bytes>,
    wire: Wire,
    site: Site,
    patience: Patience,
    pings: Option<PingPong>,
    place: Rc<Place>,
    /// What the place was last told of.
    progress: u64,
    /// Held once more by every stream for which the server works.
    working: Rc<()>,
    /// How many requests have come.
    requests: u64,
    /// The last stream that the client has opened.
    last: u32,
    is_finishing: bool,
}

/// What all requests of a connection have in common.
struct Site {
    stack: Stack,
    peer: Arc<Peer>,
    config: Arc<Config>,
    heads: Heads,
    features: Features,
    link: Arc<Link>,
    turns: Turns,
}

/// How a connection ended.
enum End {
    /// h2 had enough, or was told to.
    Closed(Result<(), h2::Error>),
    /// Reading or writing failed, or the client takes nothing any more.
    Broken(io::Error),
}

impl Serving {
    fn new(h2: H2Connection<Wire, Bytes>, wire: Wire, site: Site, place: Rc<Place>) -> Self {
        Self {
            streams: FuturesUnordered::new(),
            h2,
            wire,
            patience: Patience::new(site.config.clone()),
            site,
            pings: None,
            place,
            progress: 0,
            working: Rc::new(()),
            requests: 0,
            last: 0,
            is_finishing: false,
        }
    }

    /// Finishes what runs and takes nothing new (RFC 9113 §6.8).
    fn finish(&mut self) {
        self.is_finishing = true;
        self.h2.graceful_shutdown();
        self.streams.iter_mut().for_each(Answering::stop);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.wire.begin();
        self.site.link.waker.register(cx.waker());
        let mut sent = 0;
        loop {
            if let Poll::Ready(result) = self.poll_requests(cx) {
                return Poll::Ready(End::Closed(result));
            }
            if let Some(offence) = self.wire.take_offence().or_else(|| self.take_news()) {
                self.send_away(offence);
                continue;
            }
            self.site.turns.begin_round(self.wire.room(), self.wire.window());
            if self.poll_streams(cx) {
                // h2 may have something to do now.
                continue;
            }
            let was_full = self.wire.room() == 0;
            match self.wire.poll_send(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(End::Broken(error)),
                // h2, or a turn, waited for room.
                Poll::Ready(Ok(())) if was_full && sent < MAX_SENT_AT_A_TIME => {
                    sent += 1;
                    continue;
                }
                Poll::Ready(Ok(())) if was_full => cx.waker().wake_by_ref(),
                _ => {}
            }
            let waiting = self.waiting();
            self.stand(waiting);
            if let Poll::Ready(late) = self.patience.poll(waiting, cx) {
                match self.give_up(late, cx) {
                    Some(end) => return Poll::Ready(end),
                    None => continue,
                }
            }
            return Poll::Pending;
        }
    }

    /// Has h2 read and write, and answers what came. Pending: that is all. Ready: the connection has ended.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        for _ in 0..MAX_REQUESTS_AT_A_TIME {
            match self.h2.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.begin(request, respond, cx),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Runs the streams, and gives one of them a turn. Returns whether any of them has done something.
    ///
    /// One turn at a time: h2 would mix those of several streams.
    fn poll_streams(&mut self, cx: &mut Context<'_>) -> bool {
        let pushed = self.site.link.take_pushed();
        let mut have_moved = !pushed.is_empty();
        for pushed in pushed {
            self.begin_pushed(pushed, cx);
        }
        have_moved |= self.poll_woken(cx);
        if self.site.turns.call() {
            have_moved = true;
            self.poll_woken(cx);
        }
        have_moved
    }

    /// Runs the streams that have been woken. Returns whether any of them has ended.
    fn poll_woken(&mut self, cx: &mut Context<'_>) -> bool {
        let mut have_ended = false;
        while let Poll::Ready(Some(())) = Pin::new(&mut self.streams).poll_next(cx) {
            have_ended = true;
        }
        have_ended
    }

    /// Answers a request.
    fn begin(&mut self, request: http::Request<RecvStream>, respond: SendResponse<Bytes>, cx: &mut Context<'_>) {
        self.requests += 1;
        let stream = respond.stream_id().as_u32();
        self.last = stream;
        let (mut head, incoming) = request.into_parts();
        // They may have come together with the request.
        self.take_pushes();
        let site = &mut self.site;
        let has_pushes = site.link.has_pushes();
        let origin = if has_pushes { head.uri.scheme().cloned().zip(head.uri.authority().cloned()) } else { None };
        let side = Arc::new(Side::new(respond, site.link.clone(), origin));
        let mut asked = Asked {
            stream,
            is_head: head.method == Method::HEAD,
            has_content: !incoming.is_end_stream(),
            takes_trailers: false,
            write_timeout: site.config.write_timeout,
        };
        let mut asked_priority = Said::default();
        let is_connect = head.method == Method::CONNECT;
        let mut tunnel = None;
        let reply = match site.heads.conform(&mut head) {
            Ok(found) => {
                asked.takes_trailers = found.takes_trailers;
                asked_priority = found.priority;
                let body = if is_connect {
                    tunnel = Some(incoming);
                    Body::Empty
                } else if !asked.has_content {
                    Body::Empty
                } else {
                    let declared = declared_length(&head.headers);
                    Body::stream(Content::new(incoming, declared, found.has_expectation, side.clone(), &site.config))
                };
                let features = if has_pushes { site.features.with(Feature::Push) } else { site.features };
                let mut exchange = Exchange::carried(features, side.clone());
                if is_connect {
                    exchange = exchange.with_protocol(WEBSOCKET);
                }
                site.stack.answer(site.request(head.method, head.uri, head.headers, body, exchange))
            }
            Err(Refusal::Malformed(why)) => {
                tracing::debug!(why, "malformed request");
                side.send_reset(Reason::PROTOCOL_ERROR);
                self.wire.blame_for_reset();
                return;
            }
            Err(Refusal::Answer(status, why)) => {
                tracing::debug!(%status, why, "request refused");
                side.leave(incoming);
                Guarded::new(text(status, why).into())
            }
        };
        let ticket = site.turns.ticket(stream, asked_priority);
        self.run(Answering::new(asked, Channel::Asked(side), ticket, reply).tunnelling(tunnel), cx);
    }

    /// Answers a request that was promised.
    fn begin_pushed(&mut self, pushed: Pushed, cx: &mut Context<'_>) {
        let Pushed { promise, authority, respond, place } = pushed;
        let stream = respond.stream_id().as_u32();
        let asked = Asked {
            stream,
            is_head: promise.is_head,
            has_content: false,
            takes_trailers: false,
            write_timeout: self.site.config.write_timeout,
        };
        let site = &self.site;
        let mut headers = promise.headers;
        let asked_priority = Said::in_fields(&headers);
        if let Ok(host) = authority.as_str().parse() {
            headers.insert(header::HOST, host);
        }
        let method = if promise.is_head { Method::HEAD } else { Method::GET };
        let multiplexing = Features::NONE.with(Feature::Multiplexing).with(Feature::Priority);
        let exchange = Exchange::new(if site.peer.is_tls { multiplexing.with(Feature::Tls) } else { multiplexing });
        let request = site.request(method, Uri::from(promise.target), headers, Body::Empty, exchange);
        let reply = site.stack.answer(request);
        let ticket = site.turns.ticket(stream, asked_priority);
        self.run(Answering::new(asked, Channel::Pushed { respond, place }, ticket, reply), cx);
    }

    /// Runs a stream at once, and keeps it if it has to wait.
    fn run(&mut self, mut answering: Answering, cx: &mut Context<'_>) {
        if Pin::new(&mut answering).poll(cx).is_pending() {
            answering.work(&self.working);
            self.streams.push(answering);
        }
    }

    fn take_pushes(&self) {
        if let Some(pushes) = self.wire.take_pushes() {
            self.site.link.allow_pushes(if pushes.is_enabled { pushes.max_streams } else { 0 });
        }
    }

    /// Takes over what the client has said in frames that h2 does not hand on.
    fn take_news(&mut self) -> Option<Offence> {
        self.take_pushes();
        for (stream, said) in self.wire.take_priorities() {
            let is_early = stream % 2 == 1 && stream > self.last;
            if is_early {
                let streams = self.streams.len() + self.site.turns.early_updates(self.last, stream);
                if streams >= self.site.config.h2_max_concurrent_streams as usize {
                    return Some(Offence::PriorityStreams);
                }
            }
            if is_early || self.streams.iter().any(|answering| answering.stream() == stream) {
                self.site.turns.update(stream, said);
            }
        }
        None
    }

    /// Ends a connection whose client does what it must not.
    fn send_away(&mut self, offence: Offence) {
        tracing::info!(kind = "limit", ?offence, "connection closed");
        let (reason, counted) = match offence {
            Offence::IdleFrames => (Reason::ENHANCE_YOUR_CALM, Counted::H2IdleFrames),
            Offence::Resets => (Reason::ENHANCE_YOUR_CALM, Counted::H2Resets),
            Offence::PriorityTarget | Offence::PriorityStreams => (Reason::PROTOCOL_ERROR, Counted::H2Violations),
            Offence::FrameLength => (Reason::FRAME_SIZE_ERROR, Counted::H2Violations),
            Offence::WindowSize => (Reason::FLOW_CONTROL_ERROR, Counted::H2Violations),
        };
        self.site.link.metrics.count(counted);
        self.h2.abrupt_shutdown(reason);
    }

    /// What there is to wait for.
    fn waiting(&self) -> Waiting {
        let (read_bytes, taken_bytes) = self.wire.moved_bytes();
        let (is_within_head, heads) = self.wire.head();
        let has_own_streams = !self.streams.is_empty();
        // Streams that are only h2's are those whose last bytes the client does not take.
        let has_streams = has_own_streams || self.h2.has_streams();
        let has_to_send = self.wire.is_blocked() || self.site.turns.is_awaited() || (has_streams && !has_own_streams);
        Waiting {
            request: (!has_streams).then_some(self.requests),
            head: is_within_head.then_some(heads),
            reader: has_to_send.then_some(taken_bytes),
            life: has_streams.then_some(read_bytes),
            parting: (self.is_finishing && !has_streams).then_some(0),
        }
    }

    /// Tells the server what the connection does. Whether content is late by the client or by the handler can't be told.
    fn stand(&mut self, waiting: Waiting) {
        let standing = if waiting.request.is_some() {
            Standing::Resting
        } else if Rc::strong_count(&self.working) > 1 && !self.wire.is_blocked() {
            Standing::Working
        } else {
            Standing::Waiting
        };
        // Also a client that reads, however long a response may be, gets on.
        let progress = self.requests + self.wire.moved_bytes().1 / PROGRESS_BYTES;
        if std::mem::replace(&mut self.progress, progress) == progress {
            self.place.set(standing);
        } else {
            self.place.renew(standing);
        }
    }

    fn give_up(&mut self, late: Late, cx: &mut Context<'_>) -> Option<End> {
        let metrics = &self.site.link.metrics;
        match late {
            Late::Head => metrics.count(Counted::H2HeadsLate),
            Late::Reader => metrics.count(Counted::H2ReadersLate),
            Late::Dead => metrics.count(Counted::H2Silent),
            Late::Request | Late::Ping | Late::Parting => {}
        }
        match late {
            Late::Request | Late::Parting => self.h2.abrupt_shutdown(Reason::NO_ERROR),
            Late::Head => {
                tracing::debug!(kind = "limit", "a request head took too long (head_timeout)");
                self.h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            }
            Late::Reader if self.wire.is_blocked() => return Some(End::Broken(io::ErrorKind::TimedOut.into())),
            Late::Reader => {
                tracing::info!(kind = "limit", "a client took nothing of what was to be sent (write_timeout)");
                self.h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            }
            Late::Ping => {
                if self.pings.is_none() {
                    self.pings = self.h2.ping_pong();
                }
                if let Some(pings) = &mut self.pings {
                    // The answer to the one before, which makes room for this one.
                    let _ = pings.poll_pong(cx);
                    let _ = pings.send_ping(Ping::opaque());
                }
            }
            Late::Dead => return Some(End::Broken(io::ErrorKind::TimedOut.into())),
        }
        None
    }
}

impl Site {
    fn new(peer: Peer, stack: Stack, config: Arc<Config>, link: Arc<Link>) -> Self {
        Self {
            stack,
            features: if peer.is_tls { FEATURES.with(Feature::Tls) } else { FEATURES },
            peer: Arc::new(peer),
            heads: Heads::new(&config),
            link,
            turns: Turns::default(),
            config,
        }
    }

    fn request(&self, method: Method, uri: Uri, headers: HeaderMap, body: Body, exchange: Exchange) -> Request {
        Request::from(Parts {
            method,
            uri,
            version: Version::HTTP_2,
            headers,
            body,
            peer: self.peer.clone(),
            exchange,
            params: Params::default(),
            root_len: 0,
        })
    }
}

/// How long the content is, if the client has said. h2 holds it to that.
fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Closes a connection so that the client gets everything that was sent.
async fn close(end: End, wire: Wire, metrics: &Metrics) {
    let has_ended = wire.has_ended();
    let Some(mut io) = wire.into_stream() else { return };
    match end {
        End::Closed(Ok(())) => {}
        End::Closed(Err(error)) if error.is_io() => {
            tracing::debug!(%error, "connection broke");
            return;
        }
        End::Closed(Err(error)) => {
            if error.is_library() {
                metrics.count(match error.reason() {
                    Some(Reason::ENHANCE_YOUR_CALM) => Counted::H2Floods,
                    _ => Counted::H2Violations,
                });
            }
            tracing::debug!(%error, "connection ended");
        }
        End::Broken(error) => {
            tracing::debug!(%error, "connection broke");
            return;
        }
    }
    // With TLS there is something to send, and a client that does not read must not keep the connection.
    let _ = timeout(LINGER, io.shutdown()).await;
    if !has_ended {
        linger(&mut io).await;
    }
}
