//! Server push (RFC 9113 §8.4).

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, uri::PathAndQuery};
use httpy::{
    App, Body, Middleware, Next, Reply, Request, Response,
    message::{Feature, Promise},
};
use tokio::sync::Notify;

use crate::support::{
    DATA, ENABLE_PUSH, END_HEADERS, END_STREAM, H2Client, HEADERS, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, PING,
    PREFACE, SETTINGS, Served, WHOLE, encode, ok, once, request, run, serve, serve_app,
};

fn promise(path: &'static str) -> Promise {
    let mut headers = HeaderMap::new();
    headers.insert("x", HeaderValue::from_static("y"));
    for field in ["connection", "content-length", "host", "te", "expect"] {
        headers.insert(field, HeaderValue::from_static("no"));
    }
    Promise { target: PathAndQuery::from_static(path), headers, is_head: false }
}

/// A page that pushes two things, and says whether it could.
fn page(request: Request) -> Reply {
    match request.path() {
        "/" => {
            let pushed = [request.exchange.push(promise("/a.css?b")), request.exchange.push(promise("/c.js"))];
            ok(format!("{pushed:?}")).into()
        }
        path => {
            let host = request.headers["host"].to_str().expect("text");
            let pushes = request.supports(Feature::Push) || request.exchange.push(promise("/d"));
            ok(format!("{} {host} {path} {:?} pushes={pushes}", request.method, request.headers.get("x"))).into()
        }
    }
}

const TEXT: &str = "content-type=text/plain; charset=utf-8";

#[test]
fn promises_and_then_serves_through_the_whole_stack() {
    run(async || {
        struct Marks;
        impl Middleware for Marks {
            fn call(&self, mut request: Request, next: Next) -> Reply {
                if let Some(x) = request.headers.get_mut("x") {
                    *x = HeaderValue::from_static("seen");
                }
                next.run(request)
            }
        }
        let served = serve_app(App::new(Arc::new(page)).middleware(Arc::new(Marks)));
        let mut client = served.connect_h2(&[]).await;

        client.get(1, "/").await;

        let all = client.all().await;
        let promised = |stream: u32, path: &str| {
            format!("PUSH_PROMISE 1 of {stream}: :method=GET :scheme=http :authority=a :path={path} x=y")
        };
        assert_eq!(all[..2], [promised(2, "/a.css?b"), promised(4, "/c.js")]);
        assert!(all.contains(&"DATA 1 END_STREAM: [true, true]".to_owned()), "{all:?}");
        for (stream, path) in [(2, "/a.css"), (4, "/c.js")] {
            let content = format!("GET a {path} Some(\"seen\") pushes=false");
            assert!(
                all.contains(&format!("HEADERS {stream}: :status=200 {TEXT} content-length={}", content.len())),
                "{all:?}"
            );
            assert!(all.contains(&format!("DATA {stream} END_STREAM: {content}")), "{all:?}");
        }
    });
}

#[test]
fn a_head_request_can_be_promised() {
    run(async || {
        let served = serve(|request: Request| match request.path() {
            "/" => ok(request.exchange.push(Promise { is_head: true, ..promise("/a") }).to_string()).into(),
            _ => ok("content").into(),
        });
        let mut client = served.connect_h2(&[]).await;

        client.get(1, "/").await;

        let all = client.all().await;
        assert!(all[0].starts_with("PUSH_PROMISE 1 of 2: :method=HEAD "), "{all:?}");
        assert!(all.contains(&format!("HEADERS 2 END_STREAM: :status=200 {TEXT} content-length=7")), "{all:?}");
    });
}

/// RFC 9113 §6.5.2: not to a client that does not want it, or takes none at a time.
#[test]
fn nothing_is_pushed_to_who_does_not_want_it() {
    run(async || {
        for settings in [&[(ENABLE_PUSH, 0)][..], &[(MAX_CONCURRENT_STREAMS, 0)]] {
            let served = serve(page);
            let mut client = served.connect_h2(settings).await;

            client.get(1, "/").await;

            assert_eq!(client.answer(1).await.1, "[false, false]");
        }
    });
}

/// RFC 9113 §3.4: a client need not wait for the server before it asks.
#[test]
fn what_a_client_says_of_pushes_counts_for_the_request_behind_it() {
    run(async || {
        for (push, expected) in [(1, "[true, true]"), (0, "[false, false]")] {
            let served = serve(page);
            let mut client = H2Client::new(served.connect().io);
            let settings = [&ENABLE_PUSH.to_be_bytes()[..], &u32::to_be_bytes(push)].concat();
            let head = client.block(&request("GET", "/"));

            let bytes = [PREFACE, &encode(SETTINGS, 0, 0, &settings), &encode(HEADERS, WHOLE, 1, &head)].concat();
            client.send(bytes).await;

            let all = client.all().await;
            assert!(all.contains(&format!("DATA 1 END_STREAM: {expected}")), "{all:?}");
        }
    });
}

/// A client may change its mind.
#[test]
fn the_last_word_on_pushes_counts() {
    run(async || {
        let served = serve(page);
        let mut client = served.connect_h2(&[]).await;

        client.settings(&[(ENABLE_PUSH, 0)]).await;
        assert_eq!(client.next().await, "SETTINGS ACK");
        client.get(1, "/").await;

        assert_eq!(client.answer(1).await.1, "[false, false]");
    });
}

/// RFC 9113 §5.1.2: no more at a time than the client takes.
#[test]
fn no_more_is_pushed_at_a_time_than_the_client_takes() {
    run(async || {
        let gate = Arc::new(Notify::new());
        let opened = gate.clone();
        let served = serve(move |request: Request| match request.path() {
            "/" => page(request),
            _ => {
                let gate = opened.clone();
                Reply::later(async move {
                    gate.notified().await;
                    ok("pushed")
                })
            }
        });
        let mut client = served.connect_h2(&[(MAX_CONCURRENT_STREAMS, 1)]).await;

        client.get(1, "/").await;
        let all = client.all().await;
        assert_eq!(all.last().map(String::as_str), Some("DATA 1 END_STREAM: [true, false]"), "{all:?}");
        gate.notify_one();
        assert_eq!(client.answer(2).await.1, "pushed");
        client.get(3, "/").await;

        let all = client.all().await;
        assert_eq!(all.last().map(String::as_str), Some("DATA 3 END_STREAM: [true, false]"), "{all:?}");
    });
}

/// RFC 9113 §8.4.2: the client can refuse, and nobody works on it then.
#[test]
fn a_refused_push_is_dropped() {
    run(async || {
        let (dropped, is_dropped) = crate::support::drops();
        let dropped = once(dropped);
        let served = serve(move |request: Request| match request.path() {
            "/" => ok(request.exchange.push(promise("/a")).to_string()).into(),
            _ => {
                let dropped = dropped();
                Reply::later(async move {
                    let _dropped: crate::support::Drops = dropped;
                    std::future::pending().await
                })
            }
        });
        let mut client = served.connect_h2(&[]).await;
        client.get(1, "/").await;
        assert!(client.next().await.starts_with("PUSH_PROMISE 1 of 2"));

        client.reset(2, "CANCEL").await;

        is_dropped.await.expect("dropped");
    });
}

/// RFC 9113 §8.4.1: promised are only what belongs to a request that is being answered.
#[test]
fn nothing_is_pushed_once_the_response_has_ended() {
    run(async || {
        let (said, heard) = tokio::sync::oneshot::channel();
        let said = once(said);
        let served = serve(move |request: Request| {
            let _ = said().send(request);
            ok("page").into()
        });
        let mut client = served.connect_h2(&[]).await;
        client.get(1, "/").await;
        assert_eq!(client.answer(1).await.1, "page");

        let request = heard.await.expect("a request");

        assert!(request.supports(Feature::Push) && !request.exchange.push(promise("/a")));
        client.frame(PING, 0, 0, b"12345678").await;
        assert_eq!(client.next().await, "PING ACK: 12345678");
    });
}

/// While a response streams it can be followed by more; from any thread.
#[test]
fn pushes_can_be_made_while_content_is_sent_and_from_another_thread() {
    run(async || {
        let (sender, body) = crate::support::frames();
        let (said, heard) = tokio::sync::oneshot::channel();
        let parts = once((said, body));
        let served = serve(move |request: Request| match request.path() {
            "/" => {
                let (said, body) = parts();
                let _ = said.send(request);
                Response::new(body).into()
            }
            _ => ok("pushed").into(),
        });
        let mut client = served.connect_h2(&[]).await;
        client.get(1, "/").await;
        assert_eq!(client.next().await, "HEADERS 1: :status=200");
        let request = heard.await.expect("a request");

        let pushed = std::thread::spawn(move || request.exchange.push(promise("/a"))).join().expect("no panic");

        assert!(pushed);
        assert!(client.next().await.starts_with("PUSH_PROMISE 1 of 2: "));
        assert_eq!(client.answer(2).await.1, "pushed");
        drop(sender);
    });
}

/// Pushed content has its windows, too.
#[test]
fn pushed_content_is_sent_as_the_client_takes_it() {
    run(async || {
        let served = serve(|request: Request| match request.path() {
            "/" => ok(request.exchange.push(promise("/a")).to_string()).into(),
            _ => Response::new(Body::from(vec![b'x'; 20_000])).into(),
        });
        let mut client = served.connect_h2(&[(INITIAL_WINDOW_SIZE, 10_000)]).await;
        client.get(1, "/").await;
        let all = client.all().await;
        assert_eq!(all.last().map(String::as_str), Some("DATA 2: 10000 bytes"), "{all:?}");

        client.window_update(2, 10_000).await;

        assert_eq!(client.all().await, ["DATA 2 END_STREAM: 10000 bytes"]);
    });
}

/// RFC 9113 §8.4: a client does not push.
#[test]
fn a_client_that_pushes_is_sent_away() {
    run(async || {
        let served: Served = serve(page);
        let mut client = served.connect_h2(&[]).await;
        client.headers(END_HEADERS, 1, &request("POST", "/a")).await;
        let block = [&2_u32.to_be_bytes()[..], &client.block(&request("GET", "/"))].concat();

        client.frame(crate::support::PUSH_PROMISE, END_HEADERS, 1, &block).await;
        client.frame(DATA, END_STREAM, 1, b"").await;

        let all = client.all().await;
        assert!(all.iter().any(|frame| frame.contains("PROTOCOL_ERROR")), "{all:?}");
        assert_eq!(all.last().map(String::as_str), Some("END"));
    });
}
