//! How long clients may take: limits of time and rate, each at its value and one past it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body::Frame;
use httpy::{Body, Config, Error, Reply, Request, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    time::{Instant, interval, sleep, timeout},
};

use crate::support::{describe, drops, frames, ok, once, run, serve, serve_with};

fn hello(_: Request) -> Reply {
    ok("Hello").into()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const HEAD_LATE: &str = "the request head took too long (head_timeout)";
const CONTENT_LATE: &str = "the content came too slowly (body_min_rate, body_timeout)";

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// RFC 9110 §15.5.9.
fn request_timeout(says: &str) -> String {
    let length = says.len();
    format!(
        "HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n{says}"
    )
}

#[test]
fn a_connection_on_which_no_request_begins_is_closed_without_a_word() {
    run(async || {
        let served = serve(hello);
        let (mut fresh, mut lines, mut kept) = (served.connect(), served.connect(), served.connect());

        // RFC 9112 §2.2: empty lines are nothing.
        lines.send("\r\n\r\n").await;
        kept.send(GET).await;
        kept.answer().await;
        let start = Instant::now();
        sleep(Duration::from_millis(74_900)).await;
        for client in [&mut fresh, &mut lines, &mut kept] {
            assert!(timeout(Duration::ZERO, client.is_closed()).await.is_err(), "closed too early");
        }

        for client in [&mut fresh, &mut lines, &mut kept] {
            assert!(client.is_closed().await);
        }
        assert_eq!(start.elapsed().as_secs(), 75);
    });
}

#[test]
fn the_time_for_a_request_to_begin_starts_again_with_every_response() {
    run(async || {
        let served = serve(hello);
        let mut client = served.connect();
        let mut interval = interval(seconds(74));

        for _ in 0..5 {
            interval.tick().await;
            client.send(GET).await;

            assert!(client.answer().await.ends_with("Hello"));
        }
    });
}

#[test]
fn a_server_that_keeps_no_connection_waits_for_the_first_request() {
    run(async || {
        let mut config = Config::default();
        config.keep_alive_timeout = Duration::ZERO;
        let served = serve_with(config, hello);
        let mut client = served.connect();

        sleep(seconds(9)).await;
        client.send(GET).await;

        assert!(client.answer().await.ends_with("Hello"));
        assert!(client.is_closed().await);
    });
}

#[test]
fn a_head_that_takes_longer_than_the_limit_is_408() {
    run(async || {
        let served = serve(hello);
        for before in ["", GET] {
            let mut client = served.connect();
            client.send(before).await;
            if !before.is_empty() {
                client.answer().await;
            }
            // Its time starts with its first byte.
            sleep(seconds(70)).await;

            client.send("GET / HTTP/1.1\r\n").await;
            let start = Instant::now();

            assert_eq!(client.rest().await, request_timeout(HEAD_LATE));
            assert_eq!(start.elapsed().as_secs(), 10);
        }
    });
}

#[test]
fn a_head_that_takes_as_long_as_the_limit_is_answered() {
    run(async || {
        let served = serve(hello);
        let mut client = served.connect();

        client.send("GET / HTTP/1.1\r\n").await;
        sleep(Duration::from_millis(9_900)).await;
        client.send("Host: a\r\n\r\n").await;

        assert!(client.answer().await.ends_with("Hello"));
    });
}

#[test]
fn a_head_that_drips_gets_no_more_time() {
    run(async || {
        let served = serve(hello);
        let mut client = served.connect();
        let start = Instant::now();

        let mut interval = interval(seconds(3));
        for byte in b"HEAD" {
            interval.tick().await;
            client.send([*byte]).await;
        }

        assert_eq!(client.rest().await, request_timeout(HEAD_LATE));
        assert_eq!(start.elapsed().as_secs(), 10);
    });
}

/// RFC 9110 §9.3.2: the answer to HEAD has no content, also if the head came too late.
#[test]
fn a_late_head_of_head_is_408_without_content() {
    run(async || {
        let served = serve(hello);

        let answer = served.exchange("HEAD / HTTP/1.1\r\n").await;

        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    });
}

#[test]
fn a_slow_handler_is_no_slow_client() {
    run(async || {
        let served = serve(|request: Request| {
            Reply::later(async move {
                sleep(seconds(600)).await;
                let path = request.uri.path().to_owned();
                let (content, _) = request.into_parts().body.collect(1 << 20).await.expect("content");
                ok(format!("{path} {}", content.len()))
            })
        });
        let mut client = served.connect();

        client
            .send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n")
            .await;
        client.send("x".repeat(200_000)).await;

        assert!(client.answer().await.ends_with("/1 0"));
        assert!(client.answer().await.ends_with("/2 200000"));
    });
}

/// RFC 9110 §15.5.9.
#[test]
fn content_slower_than_the_least_rate_is_408() {
    run(async || {
        let served = serve(describe);
        let framings = ["Content-Length: 5000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n1388\r\n"];
        for (framing, rate) in framings.into_iter().flat_map(|framing| [(framing, 0), (framing, 239)]) {
            let mut client = served.connect();
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}")).await;
            let start = Instant::now();
            sleep(Duration::from_millis(500)).await;
            let mut interval = interval(seconds(1));
            for _ in 0..10 {
                interval.tick().await;
                client.send("x".repeat(rate)).await;
            }

            assert_eq!(client.rest().await, request_timeout(CONTENT_LATE), "{framing} {rate}");
            assert_eq!(start.elapsed().as_secs(), 10, "{framing} {rate}");
        }
    });
}

#[test]
fn content_at_the_least_rate_is_taken_however_long_it_is() {
    run(async || {
        let served = serve(|request: Request| {
            Reply::later(async move {
                let (content, _) = request.into_parts().body.collect(1 << 20).await.expect("content");
                ok(format!("{}", content.len()))
            })
        });
        let mut client = served.connect();

        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 24000\r\n\r\n").await;
        sleep(Duration::from_millis(500)).await;
        let mut interval = interval(seconds(1));
        for _ in 0..100 {
            interval.tick().await;
            client.send("x".repeat(240)).await;
        }

        assert!(client.answer().await.ends_with("\r\n\r\n24000"));
    });
}

/// A fast start does not pay for a wait of any length behind it.
#[test]
fn content_that_stops_coming_is_408() {
    run(async || {
        let served = serve(describe);
        let mut client = served.connect();

        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").await;
        client.send("x".repeat(60_000)).await;
        let start = Instant::now();

        assert_eq!(client.rest().await, request_timeout(CONTENT_LATE));
        assert!(start.elapsed() < seconds(30), "{:?}", start.elapsed());
    });
}

/// One byte now and then must not start the measurement again.
#[test]
fn content_that_drips_is_408() {
    run(async || {
        let served = serve(describe);
        let mut client = served.connect();
        let start = Instant::now();

        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n").await;
        for _ in 0..3 {
            sleep(seconds(3)).await;
            client.send("x").await;
        }

        assert_eq!(client.rest().await, request_timeout(CONTENT_LATE));
        assert_eq!(start.elapsed().as_secs(), 10);
    });
}

#[test]
fn the_handler_of_content_that_is_late_is_dropped() {
    run(async || {
        let (guard, dropped) = drops();
        let guard = once(guard);
        let served = serve(move |request: Request| {
            let guard = guard();
            Reply::later(async move {
                let _guard = guard;
                let _ = request.into_parts().body.collect(100).await;
                std::future::pending().await
            })
        });
        let mut client = served.connect();

        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n").await;

        dropped.await.expect("the handler is dropped");
        assert_eq!(client.rest().await, request_timeout(CONTENT_LATE));
    });
}

/// RFC 9110 §10.1.1: the client waits for the handler, and not the other way round.
#[test]
fn content_that_was_not_asked_for_is_not_late() {
    run(async || {
        let (may, wait) = oneshot::channel::<()>();
        let wait = once(wait);
        let served = serve(move |request: Request| {
            let wait = wait();
            Reply::later(async move {
                let _ = wait.await;
                let (content, _) = request.into_parts().body.collect(100).await.expect("content");
                ok(content)
            })
        });
        let mut client = served.connect();

        client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
        sleep(seconds(600)).await;
        let _ = may.send(());
        assert_eq!(client.read_until(b"\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("Hello").await;

        assert!(client.answer().await.ends_with("\r\n\r\nHello"));
    });
}

/// The response has begun, so that there is no 408 to be had: it ends early.
#[test]
fn content_that_is_late_behind_the_start_of_the_response_ends_it() {
    run(async || {
        let served = serve(|request: Request| Response::new(request.into_parts().body).into());
        let mut client = served.connect();

        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n").await;

        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n2\r\nab\r\n"), "{answer}");
    });
}

#[test]
fn limits_of_time_can_be_taken_off() {
    run(async || {
        let mut config = Config::default();
        (config.head_timeout, config.keep_alive_timeout, config.write_timeout) =
            (Duration::MAX, Duration::MAX, Duration::MAX);
        config.body_min_rate = 0;
        let served = serve_with(config, describe);
        let mut client = served.connect();

        for piece in ["", "POST / HTTP/1.1\r\n", "Host: a\r\nContent-Length: 2\r\n\r\n", "x", "y"] {
            sleep(seconds(500)).await;
            client.send(piece).await;
        }

        assert!(client.answer().await.ends_with("content=xy"));
    });
}

/// What a client that does not read leaves behind: its buffer, 64 KiB, is full, and more is to be sent.
const LARGE: usize = 1 << 20;

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    run(async || {
        let (guard, dropped) = drops();
        let guard = once(guard);
        let served = serve(move |_: Request| {
            let guard = guard();
            let chunk = move || {
                let _guard = &guard;
                Bytes::from(vec![b'x'; 1000])
            };
            Response::new(endless(chunk)).into()
        });
        let mut client = served.connect();
        let start = Instant::now();

        client.send(GET).await;
        sleep(Duration::from_millis(29_900)).await;
        assert!(client.io.write_all(b"\r\n").await.is_ok(), "given up too early");

        dropped.await.expect("the response is dropped");
        assert_eq!(start.elapsed().as_secs(), 30);
    });
}

#[test]
fn a_client_that_takes_a_little_now_and_then_gets_the_whole_answer() {
    run(async || {
        let served = serve(|_: Request| ok("x".repeat(LARGE)).into());
        let mut client = served.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let mut received = 0;

        for _ in 0..10 {
            sleep(seconds(29)).await;
            let mut chunk = [0; 100];
            received += client.io.read(&mut chunk).await.expect("a part of the answer");
        }

        assert!(received + client.rest().await.len() > LARGE);
    });
}

/// Time in which there is nothing to send does not count.
#[test]
fn a_slow_stream_is_no_slow_client() {
    run(async || {
        let (sender, body) = frames();
        let body = once(body);
        let served = serve(move |_: Request| Response::new(body()).into());
        let mut client = served.connect();
        client.send(GET).await;
        client.read_until(b"\r\n\r\n").await;

        for _ in 0..3 {
            sleep(seconds(100)).await;
            sender.send(Ok(Frame::data(Bytes::from_static(b"ab")))).expect("the response lives");
            // The next waits until this one is read; so do the 29 s.
            sleep(seconds(20)).await;
            assert_eq!(client.read_until(b"ab\r\n").await, "2\r\nab\r\n");
        }
    });
}

#[test]
fn a_client_that_does_not_read_makes_the_server_hold_a_bounded_amount() {
    run(async || {
        let made = Arc::new(AtomicUsize::new(0));
        let count = made.clone();
        let served = serve(move |_: Request| {
            let made = count.clone();
            let chunk = move || {
                made.fetch_add(1000, Ordering::Relaxed);
                Bytes::from(vec![b'x'; 1000])
            };
            Response::new(endless(chunk)).into()
        });
        let mut client = served.connect();

        client.send(GET.repeat(100)).await;
        sleep(seconds(20)).await;

        // The stream itself holds 64 KiB, and the server as much again.
        let made = made.load(Ordering::Relaxed);
        assert!((64_000..64 * 1024 * 3).contains(&made), "{made}");
    });
}

/// A response without an end.
fn endless(chunk: impl Fn() -> Bytes + Send + 'static) -> Body {
    struct Endless<F>(F);

    impl<F: Fn() -> Bytes + Unpin> http_body::Body for Endless<F> {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, Error>>> {
            std::task::Poll::Ready(Some(Ok(Frame::data((self.0)()))))
        }
    }

    // A function is not pinned.
    Body::stream(Endless(Box::new(chunk)))
}
