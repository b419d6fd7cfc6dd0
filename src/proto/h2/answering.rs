//! Walk 10/10, for HTTP/2: one stream, from the reply to the last frame of the response.
//!
//! ```text
//! Replying ──► Sending ──► Sent ──► Done
//!     └───────────────────▲  ▲│     ▲      (no content, or little)
//!     └──────────────────────┼┘     │
//!     └──────────────────────┴──────┘      (the client gave up)
//! Replying ──► Tunnelling ──► Sent         (the response switches to another protocol)
//! ```
//!
//! Dropping it resets the stream and drops the reply, which cancels the handler.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendPushedResponse};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::{Body as HttpBody, Frame};
use tokio::time::{Sleep, sleep};

use super::{
    head::is_connection_specific,
    side::{PushPlace, Side, remove_connection_specific},
    tunnel::Tunnelling,
    turns::Ticket,
};
use crate::{
    error::Error,
    handler::Guarded,
    message::{Body, Response, Switch, text},
    proto::{
        date,
        linger::LINGER,
        priority::{PRIORITY, Said},
    },
};

/// One stream of a connection.
pub(super) struct Answering {
    stream: u32,
    channel: Channel,
    state: State,
    ticket: Ticket,
    is_head: bool,
    /// Whether the request came with content.
    has_content: bool,
    /// Whether the client takes a trailer section.
    takes_trailers: bool,
    write_timeout: Duration,
    /// Held while the server works, and the client can do nothing.
    working: Option<Rc<()>>,
    /// What the client sends if it has asked for a tunnel.
    incoming: Option<RecvStream>,
}

/// Where the response goes.
pub(super) enum Channel {
    /// To a stream that the client has opened.
    Asked(Arc<Side>),
    /// To one that was promised.
    Pushed { respond: SendPushedResponse<Bytes>, place: PushPlace },
}

enum State {
    Replying(Guarded),
    Sending(Box<Sending>),
    Tunnelling(Box<Tunnelling>),
    /// Everything was handed to h2, and content may still come that nobody reads.
    Sent(Option<Pin<Box<Sleep>>>),
    Done,
}

/// What the answer to a request depends on.
pub(super) struct Asked {
    pub(super) stream: u32,
    pub(super) is_head: bool,
    pub(super) has_content: bool,
    pub(super) takes_trailers: bool,
    pub(super) write_timeout: Duration,
}

impl Answering {
    pub(super) fn new(asked: Asked, channel: Channel, ticket: Ticket, reply: Guarded) -> Self {
        let Asked { stream, is_head, has_content, takes_trailers, write_timeout } = asked;
        let state = State::Replying(reply);
        Self {
            stream,
            channel,
            state,
            ticket,
            is_head,
            has_content,
            takes_trailers,
            write_timeout,
            working: None,
            incoming: None,
        }
    }

    /// The client has asked for a tunnel, and this is what comes through it (RFC 8441 §5).
    pub(super) fn tunnelling(mut self, incoming: Option<RecvStream>) -> Self {
        self.incoming = incoming;
        self
    }

    /// The server stops.
    pub(super) fn stop(&mut self) {
        if let State::Tunnelling(tunnelling) = &mut self.state {
            tunnelling.stop();
        }
    }

    /// Counts among those for which the server works, as long as it does.
    pub(super) fn work(&mut self, working: &Rc<()>) {
        if matches!(self.state, State::Replying(_)) && (!self.has_content || self.incoming.is_some()) {
            self.working = Some(working.clone());
        }
    }

    /// The stream's number.
    pub(super) fn stream(&self) -> u32 {
        self.stream
    }

    /// Sends the head, and content that can be sent at once. What is left is [`State::Sending`].
    fn begin(&mut self, mut response: Response) -> State {
        if let Some(incoming) = self.incoming.take() {
            match self.switch(&mut response, incoming) {
                Ok(tunnelling) => return State::Tunnelling(Box::new(tunnelling)),
                Err(incoming) => self.leave(incoming),
            }
            // RFC 9110 §9.3.6: any 2xx says that there is a tunnel.
            if response.status().is_success() {
                tracing::debug!("an extended CONNECT was answered with no tunnel");
                response = text(StatusCode::NOT_IMPLEMENTED, "This is no WebSocket");
            }
        }
        if conform(&mut response, self.is_head).priority {
            self.ticket.say(Said::in_fields(response.headers()));
        }
        let (parts, body) = response.into_parts();
        // What is there as a whole is as long as the head says.
        let declared = if matches!(body, Body::Full(_)) { None } else { declared_length(&parts.headers) };
        let head = http::Response::from_parts(parts, ());
        let is_end = self.is_head || body.is_empty();
        let sending = match self.channel.send_response(head, is_end) {
            Ok(sending) => sending,
            Err(error) => {
                tracing::debug!(%error, "response not sent");
                return State::Done;
            }
        };
        if is_end {
            return State::Sent(None);
        }
        let (content, rest) = match body {
            Body::Full(content) => (content, None),
            body => (Bytes::new(), Some(body)),
        };
        let mut sending = Sending {
            stream: sending,
            left: declared,
            is_whole: rest.is_none(),
            body: rest.unwrap_or_default(),
            content,
            trailers: None,
            is_blocked: false,
            stall: None,
            is_late: false,
        };
        if sending.is_whole && self.ticket.take_at_once(sending.content.len()) {
            let content = std::mem::take(&mut sending.content);
            if let Err(error) = sending.stream.send_data(content, true) {
                tracing::debug!(%error, "content not sent");
            }
            return State::Sent(None);
        }
        State::Sending(Box::new(sending))
    }

    /// Opens the tunnel that a response asks for. Err: it asks for none, or the client has gone.
    fn switch(&mut self, response: &mut Response, incoming: RecvStream) -> Result<Tunnelling, RecvStream> {
        let tunnel = Switch::take(response).filter(|_| response.status() == StatusCode::OK);
        let Some(tunnel) = tunnel else { return Err(incoming) };
        remove_connection_specific(response.headers_mut());
        response.headers_mut().entry(header::DATE).or_insert_with(date::now);
        let mut head = http::Response::new(());
        *head.headers_mut() = std::mem::take(response.headers_mut());
        match self.channel.send_response(head, false) {
            Ok(sending) => Ok(Tunnelling::new(tunnel, sending, incoming)),
            Err(error) => {
                tracing::debug!(%error, "response not sent");
                Err(incoming)
            }
        }
    }

    /// Leaves what the client sends to be thrown away.
    fn leave(&mut self, incoming: RecvStream) {
        if let Channel::Asked(side) = &self.channel {
            self.has_content = true;
            side.leave(incoming);
        }
    }

    /// RFC 9113 §8.1: a client may be asked to stop by a reset without an error, and must not lose the response by that.
    /// Clients do, if it comes before they have looked at the response. So the rest of the content is taken for a while.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.channel {
            Channel::Asked(side) if self.has_content => side.poll_discard(cx),
            _ => Poll::Ready(()),
        }
    }
}

impl Future for Answering {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let _ = this.poll_discard(cx);
        loop {
            match &mut this.state {
                State::Replying(reply) => {
                    let Poll::Ready(response) = Pin::new(reply).poll(cx) else {
                        // Nobody waits for it any more.
                        ready!(this.channel.poll_reset(cx));
                        this.state = State::Done;
                        continue;
                    };
                    this.working = None;
                    this.state = this.begin(response);
                }
                State::Sending(sending) => {
                    let terms = Terms { takes_trailers: this.takes_trailers, write_timeout: this.write_timeout };
                    ready!(sending.poll(&mut this.ticket, terms, cx));
                    if sending.is_late {
                        this.channel.count_late_reader();
                    }
                    this.state = State::Sent(None);
                }
                State::Tunnelling(tunnelling) => {
                    let incoming = ready!(tunnelling.poll(&mut this.ticket, cx));
                    this.state = State::Sent(None);
                    this.leave(incoming);
                }
                State::Sent(_) => {
                    if this.poll_discard(cx).is_pending()
                        && let State::Sent(timer) = &mut this.state
                    {
                        ready!(timer.get_or_insert_with(|| Box::pin(sleep(LINGER))).as_mut().poll(cx));
                    }
                    this.state = State::Done;
                }
                State::Done => return Poll::Ready(()),
            }
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.channel.end();
    }
}

impl Channel {
    fn send_response(&mut self, head: http::Response<()>, is_end: bool) -> Result<SendStream<Bytes>, h2::Error> {
        match self {
            Self::Asked(side) => side.send_response(head, is_end),
            Self::Pushed { respond, .. } => respond.send_response(head, is_end),
        }
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Asked(side) => side.poll_reset(cx),
            Self::Pushed { respond, .. } => respond.poll_reset(cx).map(drop),
        }
    }

    fn count_late_reader(&self) {
        match self {
            Self::Asked(side) => side.count_late_reader(),
            Self::Pushed { place, .. } => place.count_late_reader(),
        }
    }

    fn end(&self) {
        if let Self::Asked(side) = self {
            side.end();
        }
    }
}

/// Content on its way.
struct Sending {
    stream: SendStream<Bytes>,
    /// What comes after `content`.
    body: Body,
    /// Whether nothing comes after `content`.
    is_whole: bool,
    /// Content that waits for its turn.
    content: Bytes,
    trailers: Option<HeaderMap>,
    /// How much is to come, if the head has said.
    left: Option<u64>,
    /// Whether the client takes no more on this stream, and h2 is to say when it does.
    is_blocked: bool,
    /// How long it may take none.
    stall: Option<Pin<Box<Sleep>>>,
    /// Whether it was given up for that.
    is_late: bool,
}

#[derive(Clone, Copy)]
struct Terms {
    takes_trailers: bool,
    write_timeout: Duration,
}

impl Sending {
    /// Ready when everything was handed to h2, or the stream was reset.
    fn poll(&mut self, ticket: &mut Ticket, terms: Terms, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.content.is_empty() && !self.is_whole {
                let Poll::Ready(frame) = self.poll_body(cx) else { return self.poll_reset(cx) };
                match frame {
                    Some(Ok(frame)) => self.take_frame(frame),
                    Some(Err(error)) => {
                        tracing::error!(kind = "handler", %error, "the content of a response failed");
                        return self.reset(Reason::INTERNAL_ERROR);
                    }
                    None => self.is_whole = true,
                }
                if self.left.is_some_and(|left| left < self.content.len() as u64) {
                    return self.contradict();
                }
                continue;
            }
            if self.content.is_empty() {
                if self.left.is_some_and(|left| left > 0) {
                    return self.contradict();
                }
                self.end(terms);
                return Poll::Ready(());
            }
            if self.is_blocked {
                match self.stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => self.is_blocked = false,
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return self.poll_stall(terms, cx),
                }
            }
            let Poll::Ready(turn) = ticket.poll_turn(cx) else { return self.poll_reset(cx) };
            let spent = self.send(turn, terms);
            ticket.spend(spent);
            if self.is_whole
                && self.content.is_empty()
                && self.trailers.is_none()
                && self.left.is_none_or(|left| left == 0)
            {
                return Poll::Ready(());
            }
        }
    }

    /// Hands a piece of content to h2, as much as the client takes on this stream. Returns how much.
    fn send(&mut self, turn: usize, terms: Terms) -> usize {
        let wanted = turn.min(self.content.len());
        self.stream.reserve_capacity(wanted);
        let n = self.stream.capacity().min(wanted);
        if n == 0 {
            // A byte, so that h2 tells when the window opens and withholds nothing from the other streams.
            self.stream.reserve_capacity(1);
            self.is_blocked = true;
            return 0;
        }
        self.stall = None;
        let piece = self.content.split_to(n);
        self.left = self.left.map(|left| left.saturating_sub(n as u64));
        let has_trailers = self.trailers.is_some() && terms.takes_trailers;
        let is_end =
            self.is_whole && self.content.is_empty() && !has_trailers && self.left.is_none_or(|left| left == 0);
        if is_end {
            self.trailers = None;
        }
        if let Err(error) = self.stream.send_data(piece, is_end) {
            tracing::debug!(%error, "content not sent");
        }
        n
    }

    fn end(&mut self, terms: Terms) {
        let trailers = self.trailers.take().filter(|_| terms.takes_trailers);
        let sent = match trailers {
            Some(mut trailers) => {
                remove_connection_specific(&mut trailers);
                self.stream.send_trailers(trailers)
            }
            None => self.stream.send_data(Bytes::new(), true),
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "end of content not sent");
        }
    }

    fn take_frame(&mut self, frame: Frame<Bytes>) {
        match frame.into_data() {
            Ok(data) => {
                self.content = data;
                self.is_whole = self.body.is_end_stream();
            }
            Err(frame) => {
                self.trailers = frame.into_trailers().ok();
                self.is_whole = true;
            }
        }
    }

    /// A panic in it is the end of this stream, and not of the others.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let body = &mut self.body;
        catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(cx))).unwrap_or_else(|_| {
            let body = std::mem::take(&mut self.body);
            let _ = catch_unwind(AssertUnwindSafe(|| drop(body)));
            Poll::Ready(Some(Err(Error::new(crate::error::Kind::Bug, "a panic was contained"))))
        })
    }

    /// Ready if the client has given up.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(drop)
    }

    fn poll_stall(&mut self, terms: Terms, cx: &mut Context<'_>) -> Poll<()> {
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(terms.write_timeout)));
        ready!(stall.as_mut().poll(cx));
        self.is_late = true;
        tracing::info!(kind = "limit", "a client took no content of a stream (write_timeout)");
        self.reset(Reason::CANCEL)
    }

    /// RFC 9113 §8.1.1: content of another length than the head says is malformed, so better none.
    fn contradict(&mut self) -> Poll<()> {
        tracing::error!(kind = "handler", "the content of a response is not as long as its content-length");
        self.reset(Reason::INTERNAL_ERROR)
    }

    fn reset(&mut self, reason: Reason) -> Poll<()> {
        self.stream.send_reset(reason);
        Poll::Ready(())
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What a response's field section has, found in one pass: see `Found` in `head.rs`.
#[derive(Default)]
struct Has {
    length: bool,
    date: bool,
    priority: bool,
    connection_specific: bool,
}

impl Has {
    fn look(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::default(), |has, name| Self {
            length: has.length || *name == header::CONTENT_LENGTH,
            date: has.date || *name == header::DATE,
            priority: has.priority || *name == PRIORITY,
            connection_specific: has.connection_specific || is_connection_specific(name),
        })
    }
}

/// Makes a response one that HTTP/2 can carry, whatever a handler made of it. Returns what it has.
fn conform(response: &mut Response, is_head: bool) -> Has {
    let status = response.status();
    if status.is_informational() {
        // RFC 9110 §15.2: not an answer. Who switches protocols says to what.
        tracing::error!(kind = "handler", %status, "a handler answered with an interim status");
        *response = text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error");
    }
    let has = Has::look(response.headers());
    if has.connection_specific {
        remove_connection_specific(response.headers_mut());
    }
    let status = response.status();
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED) {
        *response.body_mut() = Body::Empty;
    }
    conform_length(response, is_head, has.length);
    if !has.date {
        response.headers_mut().insert(header::DATE, date::now());
    }
    has
}

/// RFC 9110 §8.6: the length is that of the content, or of what a GET would have had.
fn conform_length(response: &mut Response, is_head: bool, has_length: bool) {
    let status = response.status();
    let size = response.body().size_hint().exact();
    if has_length {
        let mut lengths = response.headers().get_all(header::CONTENT_LENGTH).iter();
        let length = lengths.next().and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let is_only = lengths.next().is_none();
        let is_right = is_only
            && match (length, size) {
                (Some(_), Some(0)) => is_head || status == StatusCode::NOT_MODIFIED || length == Some(0),
                (Some(length), Some(size)) => length == size,
                (Some(_), None) => true,
                (None, _) => false,
            };
        if is_right && status != StatusCode::NO_CONTENT {
            return;
        }
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    // What was left empty for HEAD, or has no content by its status, says nothing of a length.
    let is_silent = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) || (is_head && size == Some(0));
    if let Some(size) = size.filter(|_| !is_silent) {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    }
}
