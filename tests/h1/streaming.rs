//! Responses that come in frames.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use http_body::Frame;
use httpy::{Body, Error, Kind, Reply, Request, Response};
use tokio::time::Instant;

use crate::support::{drops, frames, ok, once, run, serve};

fn data(bytes: &'static str) -> Result<Frame<Bytes>, Error> {
    Ok(Frame::data(Bytes::from_static(bytes.as_bytes())))
}

#[test]
fn sends_every_frame_as_it_comes_in_chunks() {
    run(async || {
        let (sender, body) = frames();
        let body = once(body);
        let served = serve(move |_: Request| Response::new(body()).into());
        let mut client = served.connect();

        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.read_until(b"\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"), "{head}");
        for (frame, chunk) in [("ab", "2\r\nab\r\n"), ("0123456789", "A\r\n0123456789\r\n")] {
            sender.send(data(frame)).expect("a reader");

            assert_eq!(client.read_exactly(chunk.len()).await, chunk);
        }
        drop(sender);

        assert_eq!(client.read_exactly(5).await, "0\r\n\r\n");
    });
}

#[test]
fn a_stream_may_pause_longer_than_a_head_may_take_and_requests_behind_it_wait() {
    run(async || {
        let (sender, body) = frames();
        let body = once(body);
        let served = serve(move |request: Request| match request.uri.path() {
            "/stream" => Response::new(body()).into(),
            _ => ok("second").into(),
        });
        let mut client = served.connect();
        let start = Instant::now();

        client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.read_until(b"\r\n\r\n").await;
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(60)).await;
            sender.send(data("x")).expect("a reader");
            assert_eq!(client.read_exactly(6).await, "1\r\nx\r\n");
        }
        drop(sender);
        assert_eq!(client.read_exactly(5).await, "0\r\n\r\n");

        assert!(client.answer().await.ends_with("second"));
        assert_eq!(start.elapsed().as_secs(), 180);
    });
}

/// RFC 9112 §8: no last chunk, so that the client knows that something is missing.
#[test]
fn an_error_in_the_stream_breaks_the_connection_off() {
    run(async || {
        let (sender, body) = frames();
        let body = once(body);
        let served = serve(move |_: Request| Response::new(body()).into());
        let mut client = served.connect();

        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.read_until(b"\r\n\r\n").await;
        sender.send(data("ab")).expect("a reader");
        assert_eq!(client.read_exactly(7).await, "2\r\nab\r\n");
        sender.send(Err(Error::new(Kind::Handler, "the source failed"))).expect("a reader");

        assert!(client.is_closed().await);
    });
}

#[test]
fn a_stream_that_ends_before_its_declared_length_breaks_the_connection_off() {
    run(async || {
        let (sender, body) = frames();
        let body = once(body);
        let served = serve(move |_: Request| {
            let mut response = Response::new(body());
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("5"));
            response.into()
        });
        let mut client = served.connect();

        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.read_until(b"\r\n\r\n").await;
        assert!(head.contains("\r\ncontent-length: 5\r\n") && !head.contains("chunked"), "{head}");
        sender.send(data("abc")).expect("a reader");
        assert_eq!(client.read_exactly(3).await, "abc");
        drop(sender);

        assert!(client.is_closed().await);
    });
}

#[test]
fn http_1_0_gets_a_stream_without_chunks_that_ends_with_the_connection() {
    run(async || {
        let (sender, body) = frames();
        let body = once(body);
        let served = serve(move |_: Request| Response::new(body()).into());
        sender.send(data("ab")).expect("a reader");
        sender.send(data("cd")).expect("a reader");
        drop(sender);

        let answer = served.exchange("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;

        assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\nabcd"), "{answer}");
        assert!(!answer.contains("transfer-encoding"), "{answer}");
    });
}

fn with_trailers(_: Request) -> Reply {
    let (sender, body) = frames();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    trailers.insert("x-undeclared", HeaderValue::from_static("8"));
    let _ = sender.send(data("ab"));
    let _ = sender.send(Ok(Frame::trailers(trailers)));
    let mut response = Response::new(body);
    response.headers_mut().insert(header::TRAILER, HeaderValue::from_static("x-sum"));
    response.into()
}

/// RFC 9110 §6.5.1: only to those who said `TE: trailers`, and only what `Trailer` announced.
#[test]
fn sends_trailers_to_those_who_take_them() {
    run(async || {
        let served = serve(with_trailers);
        let mut client = served.connect();

        client.send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n").await;
        let with = client.answer().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let without = client.answer().await;

        assert!(with.ends_with("\r\n\r\n2\r\nab\r\n0\r\nx-sum: 7\r\n\r\n"), "{with}");
        assert!(without.ends_with("\r\n\r\n2\r\nab\r\n0\r\n\r\n"), "{without}");
    });
}

/// Content without end that is always at hand, and how many bytes of it were asked for.
struct Endless(Arc<AtomicUsize>);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        static FRAME: [u8; 4096] = [b'x'; 4096];
        self.0.fetch_add(FRAME.len(), Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&FRAME)))))
    }
}

/// Also when the next request is waiting already: hyper's own pipelining lets the response grow without bound then.
#[test]
fn a_client_that_does_not_read_makes_the_server_hold_a_bounded_amount() {
    run(async || {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let served = serve(move |_: Request| Response::new(Body::stream(Endless(counter.clone()))).into());
        let mut client = served.connect();

        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        tokio::time::sleep(Duration::from_secs(1)).await;

        let held = asked.load(Ordering::Relaxed);
        assert!((64 * 1024..=64 * 1024 * 3).contains(&held), "{held}");
        let read = client.read_exactly(1 << 20).await.len();
        assert!(asked.load(Ordering::Relaxed) >= read - 1024, "goes on as the client reads");
    });
}

#[test]
fn drops_the_stream_when_the_client_goes() {
    run(async || {
        let (guard, dropped) = drops();
        let (sender, body) = frames();
        let parts = once((guard, body));
        let served = serve(move |_: Request| {
            let (guard, body) = parts();
            struct Guarded<G>(Body, #[allow(dead_code)] G);
            impl<G: Send + Unpin> http_body::Body for Guarded<G> {
                type Data = Bytes;
                type Error = Error;
                fn poll_frame(
                    mut self: Pin<&mut Self>,
                    cx: &mut Context<'_>,
                ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
                    Pin::new(&mut self.0).poll_frame(cx)
                }
            }
            Response::new(Body::stream(Guarded(body, guard))).into()
        });
        let mut client = served.connect();

        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.read_until(b"\r\n\r\n").await;
        drop(client);

        dropped.await.expect("the stream is dropped");
        drop(sender);
    });
}

#[test]
fn a_panic_in_a_stream_ends_its_connection_and_no_other() {
    run(async || {
        struct Panics;
        impl http_body::Body for Panics {
            type Data = Bytes;
            type Error = Error;
            fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
                panic!("in the stream")
            }
        }
        let served = serve(|request: Request| match request.uri.path() {
            "/panics" => Response::new(Body::stream(Panics)).into(),
            _ => ok("alive").into(),
        });
        let (mut broken, mut other) = (served.connect(), served.connect());

        broken.send("GET /panics HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(!broken.rest().await.contains("0\r\n\r\n"));
        other.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;

        assert!(other.answer().await.ends_with("alive"));
        assert_eq!(served.stop(Duration::from_secs(30)).await, 0, "the broken one is not waited for");
    });
}
