//! Walk 6/10. Before: proto/h1.rs. After: middleware/*.
//!
//! The whole concept of answering: a [`Handler`] takes a request and replies, a [`Middleware`] takes a request and
//! `next` and replies, a [`Stack`] is a chain of middleware with a handler at its end and is itself a handler.
//! Nothing here fails: a failure is a response.

use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::{
    error::{Error, Kind, panic_message},
    message::{Body, Request, Response, text},
};

/// Answers requests.
pub trait Handler: Send + Sync {
    /// Answers one request. Runs on the thread of the connection and must not block it.
    fn call(&self, request: Request) -> Reply;
}

/// Stands between the carrier and a handler: looks at the request, calls `next` or not, looks at the response.
pub trait Middleware: Send + Sync {
    /// Handles one request. Call `next.run(request)` at most once.
    fn call(&self, request: Request, next: Next) -> Reply;
}

/// An answer, now or later.
///
/// A handler that has its response at hand returns [`Reply::Now`]; only one that has to wait pays for a future.
/// Dropping a [`Reply::Later`] cancels the work: it is what happens when the client goes away.
pub enum Reply {
    /// The response. One pointer: it is handed on some ten times, and is 140 bytes.
    Now(Box<Response>),
    /// A future of it. Not `Send`: a connection lives on one thread.
    Later(Pin<Box<dyn Future<Output = Response>>>),
}

impl Reply {
    /// Wraps a future.
    pub fn later(future: impl Future<Output = Response> + 'static) -> Self {
        Self::Later(Box::pin(future))
    }
}

impl From<Response> for Reply {
    fn from(response: Response) -> Self {
        Self::Now(Box::new(response))
    }
}

impl From<Box<Response>> for Reply {
    fn from(response: Box<Response>) -> Self {
        Self::Now(response)
    }
}

impl Future for Reply {
    type Output = Response;

    /// # Panics
    /// If polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        match &mut *self {
            Self::Later(future) => future.as_mut().poll(cx),
            Self::Now(response) => Poll::Ready(std::mem::take(response)),
        }
    }
}

impl<F> Handler for F
where
    F: Fn(Request) -> Reply + Send + Sync,
{
    fn call(&self, request: Request) -> Reply {
        self(request)
    }
}

struct Chain {
    middleware: Vec<Arc<dyn Middleware>>,
    handler: Arc<dyn Handler>,
}

/// Middleware in the order written, outermost first, and the handler they lead to.
#[derive(Clone)]
pub struct Stack {
    chain: Arc<Chain>,
}

impl Stack {
    /// Builds a stack.
    pub fn new(middleware: Vec<Arc<dyn Middleware>>, handler: Arc<dyn Handler>) -> Self {
        Self { chain: Arc::new(Chain { middleware, handler }) }
    }

    /// Answers a request like [`Handler::call`], and turns a panic on the way into a 500.
    ///
    /// This is the outermost call: carriers use it, so that a bug in one request can't end its connection's task
    /// and with it other requests on the same connection.
    pub fn answer(&self, request: Request) -> Guarded {
        let reply = catch_unwind(AssertUnwindSafe(|| self.call(request)));
        Guarded::new(reply.unwrap_or_else(|panic| internal_error(&*panic).into()))
    }
}

impl Handler for Stack {
    fn call(&self, request: Request) -> Reply {
        match self.chain.middleware.first() {
            None => self.chain.handler.call(request),
            Some(first) => first.call(request, Next { chain: self.chain.clone(), index: 1 }),
        }
    }
}

/// The rest of a [`Stack`].
pub struct Next {
    chain: Arc<Chain>,
    index: usize,
}

impl Next {
    /// Runs the rest of the chain.
    pub fn run(mut self, request: Request) -> Reply {
        let Some(middleware) = self.chain.middleware.get(self.index).cloned() else {
            return self.chain.handler.call(request);
        };
        self.index += 1;
        middleware.call(request, self)
    }
}

/// A [`Reply`] whose panics are contained, and those of the content that it leads to.
pub struct Guarded {
    /// None: it was ready.
    reply: Option<Reply>,
}

impl Guarded {
    /// Contains the panics of `reply`.
    pub fn new(reply: Reply) -> Self {
        Self { reply: Some(reply) }
    }
}

impl Future for Guarded {
    type Output = Response;

    /// # Panics
    /// If polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        let mut response = match self.reply.take().expect("a reply is not polled again after it was ready") {
            Reply::Now(mut response) => {
                GuardedBody::guard(response.body_mut());
                return Poll::Ready(*response);
            }
            Reply::Later(mut future) => match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                Ok(Poll::Ready(response)) => response,
                Ok(Poll::Pending) => {
                    self.reply = Some(Reply::Later(future));
                    return Poll::Pending;
                }
                Err(panic) => {
                    // What is left of the future may panic again as it is dropped.
                    let _ = catch_unwind(AssertUnwindSafe(|| drop(future)));
                    internal_error(&*panic)
                }
            },
        };
        GuardedBody::guard(response.body_mut());
        Poll::Ready(response)
    }
}

/// The place was printed by the panic hook; the client learns nothing of internals.
fn internal_error(panic: &(dyn Any + Send)) -> Response {
    let panic = panic_message(panic);
    tracing::error!(kind = "bug", panic, "a panic was contained and answered with 500");
    text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
}

/// Streamed content whose panics are contained: it fails then, like any content that can't go on.
struct GuardedBody {
    body: Body,
    /// Whether it has panicked, and is not to be asked again.
    is_broken: bool,
}

impl GuardedBody {
    fn guard(body: &mut Body) {
        if let Body::Stream(_) = body {
            *body = Body::stream(Self { body: std::mem::take(body), is_broken: false });
        }
    }

    fn fail(&mut self, panic: &(dyn Any + Send)) -> Error {
        let panic = panic_message(panic);
        tracing::error!(kind = "bug", panic, "a panic in streamed content was contained, its response is cut short");
        self.is_broken = true;
        Error::new(Kind::Bug, "the response content panicked")
    }
}

impl HttpBody for GuardedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.is_broken {
            return Poll::Ready(None);
        }
        let body = &mut self.body;
        match catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(cx))) {
            Ok(poll) => poll,
            Err(panic) => Poll::Ready(Some(Err(self.fail(&*panic)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.is_broken && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for GuardedBody {
    fn drop(&mut self) {
        let body = std::mem::take(&mut self.body);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(body))) {
            self.fail(&*panic);
        }
    }
}
