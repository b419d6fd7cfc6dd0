//! Request content: framing, trailers, `100 Continue`, content nobody reads, backpressure.

use std::time::Duration;

use http::StatusCode;
use http_body::Body as _;
use httpy::message::Parts;
use httpy::{
    Reply, Request,
    error::Kind,
    message::{TooLarge, text},
};
use tokio::{
    io::AsyncWriteExt,
    sync::oneshot,
    task::spawn_local,
    time::{Instant, timeout},
};

use crate::support::{describe, ok, once, run, serve};

#[test]
fn reads_content_by_length_and_by_chunks() {
    run(async || {
        let served = serve(describe);
        let mut client = served.connect();

        for framing in [
            "Content-Length: 11\r\n\r\nHello world",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n6;a=\"b\"\r\n world\r\n0\r\n\r\n",
            "transfer-encoding:CHUNKED\r\n\r\n00B\r\nHello world\r\n000\r\n\r\n",
        ] {
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}")).await;

            assert!(client.answer().await.ends_with("content=Hello world"), "{framing}");
        }
    });
}

/// RFC 9112 §7.1.2, RFC 9110 §6.5.
#[test]
fn hands_the_trailer_section_to_whoever_reads_to_the_end() {
    run(async || {
        let served = serve(|request: Request| {
            Reply::later(async move {
                let Parts { headers, body, .. } = request.into_parts();
                let (content, trailers) = body.collect(100).await.expect("content");
                let trailers = trailers.expect("trailers");
                ok(format!("{content:?} {:?} {:?}", trailers["x-sum"], headers.get("x-sum")))
            })
        });
        let mut client = served.connect();

        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n").await;
        client.send("2\r\nab\r\n0\r\nX-Sum: 7\r\n\r\n").await;

        assert!(client.answer().await.ends_with("b\"ab\" \"7\" None"));
    });
}

/// RFC 9110 §10.1.1.
#[test]
fn says_100_continue_when_a_handler_asks_for_the_content_and_not_before() {
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
        let early = timeout(Duration::from_secs(1), client.read_until(b"\r\n\r\n")).await;
        assert!(early.is_err(), "{early:?}");
        let _ = may.send(());
        assert_eq!(client.read_until(b"\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("Hello").await;

        assert!(client.answer().await.ends_with("\r\n\r\nHello"));
    });
}

#[test]
fn says_no_100_continue_when_the_answer_needs_no_content_and_closes() {
    run(async || {
        let served = serve(|_: Request| text(StatusCode::UNAUTHORIZED, "").into());

        let answer =
            served.exchange("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;

        assert!(answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    });
}

/// RFC 9110 §10.1.1: an HTTP/1.0 client does not know interim responses.
#[test]
fn says_no_100_continue_to_http_1_0() {
    run(async || {
        let served = serve(describe);

        let answer = served.exchange("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx").await;

        assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    });
}

/// What a handler does that wants at most so much.
fn limited(limit: u64) -> impl Fn(Request) -> Reply + Send + Sync {
    move |request: Request| {
        Reply::later(async move {
            match request.into_parts().body.collect(limit).await {
                Ok((content, _)) => ok(format!("{} bytes", content.len())),
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Limit);
                    let source = std::error::Error::source(&error).expect("a source");
                    assert_eq!(source.downcast_ref(), Some(&TooLarge { limit }));
                    text(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
                }
            }
        })
    }
}

#[test]
fn content_may_be_as_large_as_the_limit_and_no_larger() {
    run(async || {
        let served = serve(limited(5));
        let mut client = served.connect();

        for (framing, expected) in [
            ("Content-Length: 5\r\n\r\n01234", "200 OK"),
            ("Content-Length: 6\r\n\r\n012345", "413 Payload Too Large"),
            ("Transfer-Encoding: chunked\r\n\r\n3\r\n012\r\n2\r\n34\r\n0\r\n\r\n", "200 OK"),
            ("Transfer-Encoding: chunked\r\n\r\n3\r\n012\r\n3\r\n345\r\n0\r\n\r\n", "413 Payload Too Large"),
        ] {
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}")).await;

            let answer = client.answer().await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {expected}\r\n")), "{framing}: {answer}");
        }
    });
}

#[test]
fn refuses_declared_content_that_is_too_large_before_it_comes() {
    run(async || {
        let served = serve(limited(1000));

        for expect in ["", "Expect: 100-continue\r\n"] {
            let answer = served
                .exchange(format!("POST / HTTP/1.1\r\nHost: a\r\n{expect}Content-Length: 10000000\r\n\r\n"))
                .await;

            assert!(answer.starts_with("HTTP/1.1 413 Payload Too Large\r\n"), "{answer}");
            assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        }
    });
}

#[test]
fn keeps_the_connection_when_a_handler_leaves_a_little_content_unread() {
    run(async || {
        let served = serve(|request: Request| ok(request.uri.path().to_owned()).into());
        let mut client = served.connect();

        for framing in [
            "Content-Length: 5\r\n\r\nHello".to_owned(),
            format!("Content-Length: 100000\r\n\r\n{}", "x".repeat(100_000)),
            "Transfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n6\r\n world\r\n0\r\nA: b\r\n\r\n".to_owned(),
        ] {
            client.send(format!("POST /1 HTTP/1.1\r\nHost: a\r\n{framing}")).await;
            assert!(client.answer().await.ends_with("\r\n\r\n/1"));
            client.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;

            assert!(client.answer().await.ends_with("\r\n\r\n/2"), "{}", &framing[..40]);
        }
    });
}

#[test]
fn the_next_request_waits_for_content_that_outlives_its_response() {
    run(async || {
        let (may, wait) = oneshot::channel::<()>();
        let wait = once(wait);
        let served = serve(move |request: Request| match request.uri.path() {
            "/1" => {
                let wait = wait();
                spawn_local(async move {
                    let _ = wait.await;
                    drop(request);
                });
                ok("/1").into()
            }
            _ => ok("/2").into(),
        });
        let mut client = served.connect();

        client.send("POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        client.send("1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(client.answer().await.ends_with("\r\n\r\n/1"));
        assert!(timeout(Duration::from_secs(60), client.answer()).await.is_err());
        let _ = may.send(());

        assert!(client.answer().await.ends_with("\r\n\r\n/2"));
    });
}

/// RFC 9112 §9.6: the client gets the whole response though it goes on sending.
#[test]
fn ends_the_connection_when_much_content_is_left_unread_and_says_so() {
    run(async || {
        let served = serve(|_: Request| text(StatusCode::FORBIDDEN, "no").into());
        let mut client = served.connect();

        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
        client.send("x".repeat(500_000)).await;

        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    });
}

#[test]
fn gives_up_on_unread_content_that_does_not_come() {
    run(async || {
        let served = serve(|_: Request| ok("").into());
        let mut client = served.connect();
        let start = Instant::now();

        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx").await;

        assert!(client.answer().await.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(client.is_closed().await);
        assert_eq!(start.elapsed().as_secs(), 10);
    });
}

#[test]
fn a_handler_that_does_not_read_makes_the_server_take_a_bounded_amount() {
    run(async || {
        let (_may, wait) = oneshot::channel::<()>();
        let wait = once(wait);
        let served = serve(move |request: Request| {
            let wait = wait();
            Reply::later(async move {
                let _ = wait.await;
                drop(request);
                ok("")
            })
        });
        let mut client = served.connect();

        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n").await;
        let mut taken = 0;
        while let Ok(n) = timeout(Duration::from_secs(1), client.io.write(&[b'x'; 16 * 1024])).await {
            taken += n.expect("the connection lives");
        }

        // The stream itself holds 64 KiB, and the server twice that at most.
        assert!(taken <= 64 * 1024 * 3, "{taken}");
    });
}

#[test]
fn content_arrives_while_the_response_goes_out() {
    run(async || {
        let served = serve(|request: Request| httpy::Response::new(request.into_parts().body).into());
        let mut client = served.connect();

        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n").await;
        assert!(client.read_until(b"\r\n\r\n").await.contains("transfer-encoding: chunked"));
        assert_eq!(client.read_until(b"ab\r\n").await, "2\r\nab\r\n");
        client.send("2\r\ncd\r\n").await;
        assert_eq!(client.read_until(b"cd\r\n").await, "2\r\ncd\r\n");
        client.send("0\r\n\r\n").await;

        assert_eq!(client.read_until(b"0\r\n\r\n").await, "0\r\n\r\n");
    });
}

#[test]
fn a_body_says_its_length_before_it_is_read() {
    run(async || {
        let served = serve(|request: Request| {
            ok(format!("{:?} {}", request.body.size_hint().exact(), request.body.is_empty())).into()
        });
        let mut client = served.connect();

        for (framing, expected) in [
            ("\r\n", "Some(0) true"),
            ("Content-Length: 0\r\n\r\n", "Some(0) true"),
            ("Content-Length: 1\r\n\r\nx", "Some(1) false"),
            ("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "None false"),
        ] {
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}")).await;

            assert!(client.answer().await.ends_with(&format!("\r\n\r\n{expected}")), "{framing}");
        }
    });
}
