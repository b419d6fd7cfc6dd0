//! Who closes when: connection options, HTTP/1.0, clients that leave.

use http::{HeaderValue, header};
use httpy::{Reply, Request};
use tokio::sync::oneshot;

use crate::support::{Drops, drops, ok, once, run, serve};

/// RFC 9112 §9.6.
#[test]
fn closes_when_either_side_says_so() {
    run(async || {
        let served = serve(|request: Request| {
            let mut response = ok("");
            if request.uri.path() == "/close" {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            response.into()
        });

        for head in [
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: close\r\n\r\n",
            "GET /close HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            let answer = served.exchange(format!("{head}GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")).await;

            assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 1, "{head}");
            assert!(answer.contains("\r\nconnection: close\r\n"), "{head}: {answer}");
        }
    });
}

/// RFC 9112 §9.3.
#[test]
fn http_1_0_closes_unless_the_client_asks_to_keep() {
    run(async || {
        let served = serve(|_: Request| ok("Hello").into());

        let closed = served.exchange("GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n").await;
        let kept = served.exchange("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\nGET / HTTP/1.0\r\n\r\n").await;

        let plain = "content-type: text/plain; charset=utf-8\r\n";
        assert_eq!(closed, format!("HTTP/1.0 200 OK\r\n{plain}content-length: 5\r\n\r\nHello"));
        assert_eq!(
            kept,
            format!(
                "HTTP/1.0 200 OK\r\n{plain}connection: keep-alive\r\ncontent-length: 5\r\n\r\nHello\
                 HTTP/1.0 200 OK\r\n{plain}content-length: 5\r\n\r\nHello"
            )
        );
    });
}

#[test]
fn closes_quietly_when_an_idle_client_leaves() {
    run(async || {
        let served = serve(|_: Request| ok("").into());
        let mut client = served.connect();

        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.answer().await;
        client.half_close().await;

        assert!(client.is_closed().await);
    });
}

/// A handler that starts, and then waits until it is dropped.
fn waits_for_ever() -> (impl Fn(Request) -> Reply + Send + Sync, oneshot::Receiver<()>, oneshot::Receiver<()>) {
    let (started, start) = oneshot::channel::<()>();
    let (guard, dropped) = drops();
    let parts = once((started, guard));
    let handler = move |request: Request| {
        let (started, guard): (oneshot::Sender<()>, Drops) = parts();
        Reply::later(async move {
            let _guard = guard;
            let _ = request.into_parts().body.collect(100).await;
            let _ = started.send(());
            std::future::pending().await
        })
    };
    (handler, start, dropped)
}

#[test]
fn cancels_the_handler_when_the_client_goes() {
    run(async || {
        for request in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nHello",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n0\r\n\r\n",
        ] {
            let (handler, start, dropped) = waits_for_ever();
            let served = serve(handler);
            let mut client = served.connect();

            client.send(request).await;
            start.await.expect("the handler runs");
            drop(client);

            dropped.await.expect("the handler is dropped");
        }
    });
}

/// TCP does not tell a client that closed from one that closed its sending side only, so both count as gone, as in nginx.
#[test]
fn cancels_the_handler_when_the_client_half_closes() {
    run(async || {
        let (handler, start, dropped) = waits_for_ever();
        let served = serve(handler);
        let mut client = served.connect();

        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        start.await.expect("the handler runs");
        client.half_close().await;

        dropped.await.expect("the handler is dropped");
        assert!(client.is_closed().await);
    });
}

/// `printf 'GET / ...' | nc`: the end of the stream comes together with the request.
#[test]
fn answers_a_client_that_half_closed_if_the_answer_is_at_hand() {
    run(async || {
        let served = serve(|_: Request| ok("Hello").into());
        let mut client = served.connect();

        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.half_close().await;

        assert_eq!(client.rest().await.matches("\r\n\r\nHello").count(), 2);
    });
}

#[test]
fn content_that_ends_early_is_an_error_to_the_reader() {
    run(async || {
        let (guard, dropped) = drops();
        let guard = once(guard);
        let served = serve(move |request: Request| {
            let guard: Drops = guard();
            Reply::later(async move {
                let error = request.into_parts().body.collect(100).await.expect_err("half of it");
                assert_eq!(error.kind(), httpy::Kind::Peer);
                drop(guard);
                ok("")
            })
        });
        let mut client = served.connect();

        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nHello").await;
        drop(client);

        dropped.await.expect("the handler went on");
    });
}
