//! How many requests are answered at the same time, and what becomes of the others.
//!
//! Rules:
//! 1. A request counts from the call of its handler to the response. Whoever puts this around a handler sees to it that the
//!    content has arrived before, and a streamed response does not count while it is sent: clients set the pace of both, and
//!    slow ones would take all the places.
//! 2. What is answered at once does not count. It costs a load and a comparison.
//! 3. When all places are taken, some requests wait in line for a while. Those that find the line full, or wait in vain, are
//!    503 with `Retry-After` (RFC 9110 §15.6.4): their clients know at once, and the work that others wait for gets done.
//! 4. It belongs around what takes long, inside of routing: a 404 or a health check is no work, and must not wait for any.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderValue, StatusCode, header};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    config::Config,
    handler::{Middleware, Next, Reply},
    message::{Request, Response, refusal},
};

/// When a refused client may come again. 1 s, the least that can be said: what keeps a server busy for a second is rare,
/// and a client that comes too soon finds the line.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Limits the requests of one server that are being answered. Clones are the same limit.
#[derive(Clone)]
pub struct InFlight(Arc<Shared>);

struct Shared {
    places: Arc<Semaphore>,
    queued: AtomicUsize,
    max_queued: usize,
    queue_timeout: Duration,
}

impl InFlight {
    /// Takes `max_in_flight`, `max_queued` and `queue_timeout`.
    pub fn new(config: &Config) -> Self {
        let places = match config.max_in_flight {
            0 => Semaphore::MAX_PERMITS,
            max => max.min(Semaphore::MAX_PERMITS),
        };
        Self(Arc::new(Shared {
            places: Arc::new(Semaphore::new(places)),
            queued: AtomicUsize::new(0),
            max_queued: config.max_queued,
            queue_timeout: config.queue_timeout,
        }))
    }

    /// Answers with `work`: at once, or later, or not at all.
    pub fn admit(&self, work: impl FnOnce() -> Reply + 'static) -> Reply {
        // A place is taken only once it is needed. On one thread nobody can take it in between; threads that share a limit
        // may pass it by one each.
        if self.0.places.available_permits() == 0 {
            return self.wait(work);
        }
        let mut reply = work();
        if let Reply::Later(response) = &mut reply {
            let place = self.0.places.clone().try_acquire_owned().ok();
            let counted = Counted { response: std::mem::replace(response, Box::pin(pending())), place };
            *response = Box::pin(counted);
        }
        reply
    }

    /// The answer to a request that would not even be let into the line, for whoever has not yet read its content.
    pub fn refuse_early(&self) -> Option<Response> {
        let is_full = self.0.places.available_permits() == 0 && self.0.queued.load(Relaxed) >= self.0.max_queued;
        is_full.then(refused)
    }

    #[cold]
    fn wait(&self, work: impl FnOnce() -> Reply + 'static) -> Reply {
        let Some(queued) = Queued::enter(&self.0) else { return refused().into() };
        let shared = self.0.clone();
        Reply::later(async move {
            let place = timeout(shared.queue_timeout, shared.places.clone().acquire_owned()).await;
            drop(queued);
            // The semaphore is never closed, so this is the time that was up.
            let Ok(Ok(place)) = place else { return refused() };
            match work() {
                Reply::Now(response) => *response,
                Reply::Later(response) => Counted { response, place: Some(place) }.await,
            }
        })
    }
}

impl Middleware for InFlight {
    fn call(&self, request: Request, next: Next) -> Reply {
        self.admit(move || next.run(request))
    }
}

fn refused() -> Response {
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable");
    response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    response
}

/// A response that is being made, and its place among those.
struct Counted {
    response: Pin<Box<dyn Future<Output = Response>>>,
    place: Option<OwnedSemaphorePermit>,
}

impl Future for Counted {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        let response = ready!(self.response.as_mut().poll(cx));
        self.place = None;
        Poll::Ready(response)
    }
}

/// A place in the line.
struct Queued(Arc<Shared>);

impl Queued {
    fn enter(shared: &Arc<Shared>) -> Option<Self> {
        let entered = shared.queued.fetch_add(1, Relaxed) < shared.max_queued;
        let queued = Self(shared.clone());
        entered.then_some(queued)
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Relaxed);
    }
}
