//! Walk 7/10. Before: handler.rs. After: route/.
//!
//! The access log: a line for every request that was answered, or that its client did not wait for.
//!
//! 1. The line is written when the response's content has gone out, or when nobody wants it any more: only then its size and
//!    its time are known.
//! 2. What a client sent can't forge a line or play with a terminal: control characters are escaped.
//! 3. No secrets: of the fields only `Host`, `Referer` and `User-Agent` are read, and the values of query parameters that
//!    usually give access to something are left out.
//! 4. Nobody waits for the log: lines go into a bounded buffer (`sink.rs`), and are dropped, and counted, if it is full.

mod line;
mod sink;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};

use self::line::Line;
pub use self::{line::Format, sink::Sink};
use crate::{
    error::Error,
    handler::{Middleware, Next, Reply},
    message::{Body, Request, Response},
};

/// What nginx calls a request whose client went away before there was a response. No response ever has it.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Writes a line for every request.
pub struct AccessLog {
    sink: Arc<Sink>,
    format: Format,
}

impl AccessLog {
    /// Writes to `sink`.
    pub fn new(sink: Arc<Sink>, format: Format) -> Self {
        Self { sink, format }
    }
}

impl Middleware for AccessLog {
    fn call(&self, request: Request, next: Next) -> Reply {
        let entry = Entry {
            line: Line::new(self.format, &request, SystemTime::now()),
            sink: self.sink.clone(),
            start: Instant::now(),
            status: None,
            bytes: 0,
            is_head: request.method == Method::HEAD,
        };
        match next.run(request) {
            Reply::Now(response) => entry.follow(*response).into(),
            Reply::Later(reply) => Reply::later(async move { entry.follow(reply.await) }),
        }
    }
}

/// A line to come. Being dropped is what writes it: there is no other end that every request has.
struct Entry {
    line: Line,
    sink: Arc<Sink>,
    start: Instant,
    /// None until there is a response.
    status: Option<StatusCode>,
    bytes: u64,
    is_head: bool,
}

impl Entry {
    /// Has the line written when this response's content has gone out.
    fn follow(mut self, response: Response) -> Response {
        let status = response.status();
        self.status = Some(status);
        // RFC 9110 §6.4.1: these have no content, whatever the handler gave them.
        let has_content = !self.is_head && status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED;
        let (head, body) = response.into_parts();
        let body = match body {
            Body::Stream(inner) => Body::stream(Counted { inner: Body::Stream(inner), entry: self }),
            whole => {
                if has_content {
                    self.bytes = whole.size_hint().lower();
                }
                whole
            }
        };
        Response::from_parts(head, body)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let status = match self.status {
            Some(status) => status.as_u16(),
            // A panic on the way is answered further out.
            None if std::thread::panicking() => StatusCode::INTERNAL_SERVER_ERROR.as_u16(),
            None => CLIENT_CLOSED_REQUEST,
        };
        self.sink.write(|out| self.line.finish(status, self.bytes, self.start.elapsed(), out));
    }
}

/// Streamed content whose bytes are counted.
struct Counted {
    inner: Body,
    entry: Entry,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.entry.bytes += data.len() as u64;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        handler::{Handler, Stack},
        message::text,
    };

    /// The lines of one request that `handler` answers, after all of it is over.
    async fn lines(request: Request, read: bool, handler: impl Handler + 'static) -> Vec<String> {
        let (sink, written) = Sink::memory();
        let log = AccessLog::new(sink.clone(), Format::Json);
        let stack = Stack::new(vec![Arc::new(log)], Arc::new(handler));
        let reply = stack.answer(request);
        if read {
            let _ = reply.await.into_body().collect(u64::MAX).await;
        } else {
            drop(reply);
        }
        drop(stack);
        assert!(sink.flush(Duration::from_secs(5)), "the lines were not written");
        let written = written.lock().unwrap().clone();
        String::from_utf8(written).unwrap().lines().map(str::to_owned).collect()
    }

    fn get(target: &'static str) -> Request {
        Request::new(Method::GET, target.parse().unwrap())
    }

    #[tokio::test]
    async fn a_response_at_hand_is_one_line() {
        let handler = |_: Request| Reply::from(text(StatusCode::CREATED, "12345"));

        let lines = lines(get("/a"), true, handler).await;

        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains(r#""target":"/a","version":"1.1","status":201,"bytes":5,"#), "{}", lines[0]);
    }

    #[tokio::test]
    async fn a_stream_is_counted_to_its_end() {
        struct Three(u8);
        impl HttpBody for Three {
            type Data = Bytes;
            type Error = Error;
            fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
                self.0 += 1;
                Poll::Ready((self.0 <= 3).then(|| Ok(Frame::data(Bytes::from_static(b"1234")))))
            }
        }
        let handler = |_: Request| Reply::later(async { Response::new(Body::stream(Three(0))) });

        let lines = lines(get("/"), true, handler).await;

        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains(r#""status":200,"bytes":12,"#), "{}", lines[0]);
    }

    #[tokio::test]
    async fn what_has_no_content_has_no_bytes() {
        let head = Request::new(Method::HEAD, "/".parse().unwrap());

        let head = lines(head, true, |_: Request| Reply::from(text(StatusCode::OK, "12345"))).await;
        let none = lines(get("/"), true, |_: Request| Reply::from(text(StatusCode::NO_CONTENT, "12345"))).await;

        assert!(head[0].contains(r#""status":200,"bytes":0,"#), "{}", head[0]);
        assert!(none[0].contains(r#""status":204,"bytes":0,"#), "{}", none[0]);
    }

    #[tokio::test]
    async fn a_client_that_did_not_wait_is_a_499() {
        let lines = lines(get("/"), false, |_: Request| Reply::later(std::future::pending())).await;

        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains(r#""status":499,"#), "{}", lines[0]);
    }

    #[tokio::test]
    async fn a_panic_is_a_500_at_once_and_later() {
        let at_once = lines(get("/"), true, |_: Request| -> Reply { panic!("at once") }).await;
        let later = lines(get("/"), true, |_: Request| Reply::later(async { panic!("later") })).await;

        assert!(at_once[0].contains(r#""status":500,"#), "{}", at_once[0]);
        assert!(later[0].contains(r#""status":500,"#), "{}", later[0]);
    }
}
