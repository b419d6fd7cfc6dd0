//! What a response can have beside it: 100 Continue, 103 Early Hints, pushes, and content that nobody reads.
//!
//! A handler asks for these from whatever thread it runs on, and h2 takes them there. Only the answer to a promised request
//! has to come from the connection's own thread, so promises are put into its inbox; and unread content is left to the task
//! that answers.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use h2::{
    Reason, RecvStream, SendStream,
    server::{SendPushedResponse, SendResponse},
};
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, Version, header,
    uri::{Authority, Scheme},
};

use super::head::is_connection_specific;
use crate::{
    message::{Carrier, Promise},
    metrics::{Counted, Metrics},
    proto::date,
};

/// 100 pushes at a time on one connection, where the client names no number. As many as it may ask for itself.
const MAX_PUSHES: usize = 100;

/// The way from anywhere to a connection.
pub(super) struct Link {
    pub(super) waker: AtomicWaker,
    pub(super) metrics: Arc<Metrics>,
    /// How many pushes the client takes at a time.
    max_pushes: AtomicUsize,
    pushes: AtomicUsize,
    inbox: Mutex<Vec<Pushed>>,
}

/// A promised request, and where its response goes.
pub(super) struct Pushed {
    pub(super) promise: Promise,
    pub(super) authority: Authority,
    pub(super) respond: SendPushedResponse<Bytes>,
    pub(super) place: PushPlace,
}

/// A push's place among those that run at the same time; given up when it is dropped. It does not keep the connection: it
/// may lie in that one's inbox, and with it for ever if nobody looks there any more.
pub(super) struct PushPlace(Weak<Link>);

impl Link {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            waker: AtomicWaker::new(),
            metrics,
            max_pushes: AtomicUsize::new(0),
            pushes: AtomicUsize::new(0),
            inbox: Mutex::default(),
        }
    }

    /// Says how many pushes the client takes at a time.
    pub(super) fn allow_pushes(&self, n: u32) {
        self.max_pushes.store(MAX_PUSHES.min(n as usize), Ordering::Relaxed);
    }

    /// Whether the client takes pushes.
    pub(super) fn has_pushes(&self) -> bool {
        self.max_pushes.load(Ordering::Relaxed) > 0
    }

    /// The promises made since this was asked.
    pub(super) fn take_pushed(&self) -> Vec<Pushed> {
        std::mem::take(&mut *lock(&self.inbox))
    }

    fn enter(self: &Arc<Self>) -> Option<PushPlace> {
        let max = self.max_pushes.load(Ordering::Relaxed);
        let one_more = |n: usize| (n < max).then_some(n + 1);
        self.pushes.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        Some(PushPlace(Arc::downgrade(self)))
    }
}

impl PushPlace {
    /// The client takes nothing of the content.
    pub(super) fn count_late_reader(&self) {
        if let Some(link) = self.0.upgrade() {
            link.metrics.count(Counted::H2ReadersLate);
        }
    }
}

impl Drop for PushPlace {
    fn drop(&mut self) {
        if let Some(link) = self.0.upgrade() {
            link.pushes.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// The sending side of a stream, shared by the task that answers and the request that is being answered.
pub(super) struct Side {
    respond: Mutex<Respond>,
    unwanted: Mutex<Option<RecvStream>>,
    /// Wakes the task that answers.
    waker: AtomicWaker,
    link: Arc<Link>,
    /// Scheme and authority of the request, if it may be followed by pushes.
    origin: Option<(Scheme, Authority)>,
}

/// ```text
/// Before ──► During ──► After
///   └─────────────────────▲
/// ```
enum Respond {
    /// The response has not begun.
    Before(SendResponse<Bytes>),
    /// Its content is being sent.
    During(SendResponse<Bytes>),
    /// It has ended, or never will.
    After,
}

impl Side {
    pub(super) fn new(respond: SendResponse<Bytes>, link: Arc<Link>, origin: Option<(Scheme, Authority)>) -> Self {
        let respond = Mutex::new(Respond::Before(respond));
        Self { respond, unwanted: Mutex::default(), waker: AtomicWaker::new(), link, origin }
    }

    /// Begins the response.
    pub(super) fn send_response(&self, head: Response<()>, is_end: bool) -> Result<SendStream<Bytes>, h2::Error> {
        let mut side = lock(&self.respond);
        match std::mem::replace(&mut *side, Respond::After) {
            Respond::Before(mut respond) => {
                let sending = respond.send_response(head, is_end)?;
                if !is_end {
                    *side = Respond::During(respond);
                }
                Ok(sending)
            }
            _ => Err(Reason::INTERNAL_ERROR.into()),
        }
    }

    /// Waits for the client to give up.
    pub(super) fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *lock(&self.respond) {
            Respond::Before(respond) => respond.poll_reset(cx).map(drop),
            _ => Poll::Pending,
        }
    }

    /// Refuses to answer.
    pub(super) fn send_reset(&self, reason: Reason) {
        if let Respond::Before(mut respond) = std::mem::replace(&mut *lock(&self.respond), Respond::After) {
            respond.send_reset(reason);
        }
    }

    /// RFC 9110 §10.1.1: asks for the content, if the client waits for that.
    pub(super) fn send_continue(&self) {
        self.inform(StatusCode::CONTINUE, HeaderMap::new());
    }

    /// RFC 9110 §15.5.9: the content did not come in time. If the response has begun there is only the reset.
    pub(super) fn refuse_late(&self) {
        self.link.metrics.count(Counted::H2ContentLate);
        match std::mem::replace(&mut *lock(&self.respond), Respond::After) {
            Respond::Before(mut respond) => {
                let mut head = Response::new(());
                *head.status_mut() = StatusCode::REQUEST_TIMEOUT;
                head.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
                head.headers_mut().insert(header::DATE, date::now());
                if let Err(error) = respond.send_response(head, true) {
                    tracing::debug!(%error, "408 not sent");
                }
            }
            Respond::During(mut respond) => respond.send_reset(Reason::CANCEL),
            Respond::After => {}
        }
    }

    /// Leaves content that nobody will read.
    pub(super) fn leave(&self, content: RecvStream) {
        *lock(&self.unwanted) = Some(content);
        self.waker.wake();
    }

    /// Reads content that nobody will read and throws it away, so that a client that sends all of it before it looks at the
    /// response gets to see that. Ready: there is none.
    pub(super) fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        let mut unwanted = lock(&self.unwanted);
        while let Some(content) = &mut *unwanted {
            match ready!(content.poll_data(cx)) {
                Some(Ok(data)) => {
                    let _ = content.flow_control().release_capacity(data.len());
                }
                Some(Err(_)) | None => *unwanted = None,
            }
        }
        Poll::Ready(())
    }

    /// The client takes nothing of the content.
    pub(super) fn count_late_reader(&self) {
        self.link.metrics.count(Counted::H2ReadersLate);
    }

    /// The stream is done with. Who still holds the request can't hold the stream.
    pub(super) fn end(&self) {
        let respond = std::mem::replace(&mut *lock(&self.respond), Respond::After);
        let unwanted = lock(&self.unwanted).take();
        drop((respond, unwanted));
    }

    fn inform(&self, status: StatusCode, fields: HeaderMap) -> bool {
        let Respond::Before(respond) = &mut *lock(&self.respond) else { return false };
        let mut interim = Response::new(());
        *interim.status_mut() = status;
        *interim.headers_mut() = fields;
        respond.send_informational(interim).is_ok()
    }
}

impl Carrier for Side {
    fn early_hints(&self, mut fields: HeaderMap) -> bool {
        remove_connection_specific(&mut fields);
        self.inform(StatusCode::EARLY_HINTS, fields)
    }

    fn push(&self, mut promise: Promise) -> bool {
        let Some((scheme, authority)) = &self.origin else { return false };
        remove_connection_specific(&mut promise.headers);
        // RFC 9113 §8.4.1: a promised request has no content, and no field that says so.
        for name in [header::CONTENT_LENGTH, header::EXPECT, header::HOST, header::TE] {
            promise.headers.remove(name);
        }
        let Some(place) = self.link.enter() else { return false };
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(scheme.clone());
        uri.authority = Some(authority.clone());
        uri.path_and_query = Some(promise.target.clone());
        let Ok(uri) = Uri::from_parts(uri) else { return false };
        let mut request = http::Request::new(());
        *request.method_mut() = if promise.is_head { Method::HEAD } else { Method::GET };
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = promise.headers.clone();
        let respond = match &mut *lock(&self.respond) {
            Respond::Before(respond) | Respond::During(respond) => respond.push_request(request),
            Respond::After => return false,
        };
        match respond {
            Ok(respond) => {
                let pushed = Pushed { promise, authority: authority.clone(), respond, place };
                lock(&self.link.inbox).push(pushed);
                self.link.waker.wake();
                true
            }
            Err(error) => {
                tracing::debug!(%error, "push refused");
                false
            }
        }
    }
}

/// RFC 9113 §8.2.2: fields that speak of an HTTP/1.x connection must not be sent.
pub(super) fn remove_connection_specific(fields: &mut HeaderMap) {
    while let Some(name) = fields.keys().find(|name| is_connection_specific(name)).cloned() {
        fields.remove(name);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A push that was promised when the connection ended lies in the link's inbox: it would keep the link, and so itself.
    #[test]
    fn a_push_does_not_keep_its_connection() {
        let link = Arc::new(Link::new(Arc::default()));
        link.allow_pushes(1);

        let place = link.enter();

        assert!(place.is_some() && link.enter().is_none());
        assert_eq!(Arc::strong_count(&link), 1);
        drop(place);
        assert!(link.enter().is_some());
    }
}
