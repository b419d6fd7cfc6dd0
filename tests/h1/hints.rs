//! 103 Early Hints (RFC 8297), which clients of HTTP/1.1 get where the operator says so.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header, uri::PathAndQuery};
use httpy::{
    Config, Reply, Request,
    message::{Feature, Promise},
};
use tokio::sync::{Notify, oneshot};

use crate::support::{Served, ok, once, run, serve, serve_with, settle};

const HINT: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";

fn serve_hinting(handler: impl Fn(Request) -> Reply + Send + Sync + 'static) -> Served {
    let mut config = Config::default();
    config.h1_early_hints = true;
    serve_with(config, handler)
}

fn hint(request: &Request) -> bool {
    let mut fields = HeaderMap::new();
    fields.append(header::LINK, HeaderValue::from_static("</a.css>; rel=preload"));
    request.exchange.early_hints(fields)
}

fn page(content: &str) -> String {
    let length = content.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\n\r\n{content}")
}

#[test]
fn goes_ahead_of_the_response_while_the_handler_works() {
    run(async || {
        let (said, heard) = oneshot::channel();
        let said = once(said);
        let gate = Arc::new(Notify::new());
        let opened = gate.clone();
        let served = serve_hinting(move |request: Request| {
            let (said, gate) = (said(), opened.clone());
            Reply::later(async move {
                assert!(request.supports(Feature::EarlyHints));
                assert!(hint(&request) && hint(&request));
                gate.notified().await;
                let _ = said.send(request);
                ok("page")
            })
        });
        let mut client = served.connect();

        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.read_until(b"\r\n\r\n").await, HINT);
        assert_eq!(client.read_until(b"\r\n\r\n").await, HINT);
        gate.notify_one();

        assert_eq!(client.answer().await, page("page"));
        assert!(!hint(&heard.await.expect("a request")), "the response has been sent");
    });
}

#[test]
fn goes_ahead_of_a_response_that_is_there_at_once() {
    run(async || {
        let served = serve_hinting(|request: Request| ok(hint(&request).to_string()).into());
        let mut client = served.connect();

        for _ in 0..2 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;

            assert_eq!(client.read_until(b"\r\n\r\n").await, HINT);
            assert_eq!(client.answer().await, page("true"));
        }
    });
}

#[test]
fn can_be_given_from_another_thread() {
    run(async || {
        let (asked, request) = oneshot::channel();
        let asked = once(asked);
        let gate = Arc::new(Notify::new());
        let opened = gate.clone();
        let served = serve_hinting(move |request: Request| {
            let (asked, gate) = (asked(), opened.clone());
            Reply::later(async move {
                let _ = asked.send(request);
                gate.notified().await;
                ok("page")
            })
        });
        let mut client = served.connect();

        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let request = request.await.expect("a request");
        assert!(std::thread::spawn(move || hint(&request)).join().expect("no panic"));

        assert_eq!(client.read_until(b"\r\n\r\n").await, HINT);
        gate.notify_one();
        assert_eq!(client.answer().await, page("page"));
    });
}

/// The response before it may still be on its way.
#[test]
fn stands_between_the_responses_of_pipelined_requests() {
    run(async || {
        for size in [1, 10_000, 1_000_000] {
            let served = serve_hinting(move |request: Request| match request.path() {
                "/1" => ok("x".repeat(size)).into(),
                _ => ok(hint(&request).to_string()).into(),
            });
            let mut client = served.connect();

            client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
            client.send("GET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            settle().await;

            let all = client.rest().await;
            let rest = all.strip_prefix(&page(&"x".repeat(size))).expect("the first response, whole");
            let last = page("true").replace("\r\ncontent-length", "\r\nconnection: close\r\ncontent-length");
            assert_eq!(rest, [HINT, &last].concat(), "{size}");
        }
    });
}

#[test]
fn is_not_sent_unless_it_is_configured_and_never_by_http_1_0() {
    run(async || {
        let answer =
            |request: Request| ok(format!("{} {}", request.supports(Feature::EarlyHints), hint(&request))).into();
        for (served, version) in [(serve(answer), "1.1"), (serve_hinting(answer), "1.0")] {
            let mut client = served.connect();

            client.send(format!("GET / HTTP/{version}\r\nHost: a\r\nConnection: close\r\n\r\n")).await;

            let all = client.rest().await;
            assert!(all.starts_with(&format!("HTTP/{version} 200 OK\r\n")) && all.ends_with("false false"), "{all}");
        }
    });
}

#[test]
fn says_nothing_of_the_connection_or_of_content() {
    run(async || {
        let served = serve_hinting(|request: Request| {
            let mut fields = HeaderMap::new();
            for name in ["connection", "keep-alive", "upgrade", "transfer-encoding", "content-length", "trailer", "x"] {
                fields.append(name, HeaderValue::from_static("1"));
            }
            ok(request.exchange.early_hints(fields).to_string()).into()
        });
        let mut client = served.connect();

        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;

        assert_eq!(client.read_until(b"\r\n\r\n").await, "HTTP/1.1 103 Early Hints\r\nx: 1\r\n\r\n");
        assert_eq!(client.answer().await, page("true"));
    });
}

/// 16 KiB wait to be written, and no byte more.
#[test]
fn does_not_pile_up() {
    run(async || {
        for (size, fits) in [(16 * 1024 - HINT.len() - 33, true), (16 * 1024 - HINT.len() - 32, false)] {
            let served = serve_hinting(move |request: Request| {
                let mut fields = HeaderMap::new();
                fields.append("x", HeaderValue::try_from("y".repeat(size)).expect("a value"));
                ok(format!("{} {}", hint(&request), request.exchange.early_hints(fields))).into()
            });
            let mut client = served.connect();

            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;

            assert_eq!(client.read_until(b"\r\n\r\n").await, HINT);
            if fits {
                client.read_until(b"\r\n\r\n").await;
            }
            assert_eq!(client.answer().await, page(&format!("true {fits}")));
        }
    });
}

#[test]
fn pushes_nothing() {
    run(async || {
        let served = serve_hinting(|request: Request| {
            let target = PathAndQuery::from_static("/a");
            let promise = Promise { target, headers: HeaderMap::new(), is_head: false };
            ok(format!("{} {}", request.supports(Feature::Push), request.exchange.push(promise))).into()
        });

        assert_eq!(served.connect().get().await, page("false false"));
    });
}
