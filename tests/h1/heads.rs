//! Which heads are refused. The table itself is tested where it is, in `proto/strict.rs`.

use httpy::Request;

use crate::support::{describe, ok, run, serve};

/// What a refusal looks like; the same for every row.
#[test]
fn says_what_was_wrong_and_closes() {
    run(async || {
        let served = serve(describe);

        let answer = served.exchange("GET / HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;

        assert_eq!(
            answer,
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\
             content-length: 48\r\n\r\nthe Host field is missing (RFC 9112 section 3.2)"
        );
    });
}

#[test]
fn refuses_with_the_right_status_and_calls_no_handler() {
    run(async || {
        let served = serve(|request: Request| panic!("reached by {request:?}"));

        for (bytes, status) in [
            // RFC 9112 §3.2
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            // §2.2, §5.1, §5.2: bare LF, white space before the colon, line folding, bare CR
            ("GET / HTTP/1.1\nHost: a\n\n", 400),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r2\r\n\r\n", 400),
            // §3: request line
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
            ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400),
            ("GET /\r\n\r\n", 400),
            ("\u{16}\u{3}\u{1}\u{2}\u{0}\r\n\r\n", 400),
            // RFC 9110 §5.5: NUL
            ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", 400),
            // RFC 9112 §6.1, §6.3
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n012345", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n01234", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
            // RFC 9110 §9.3.6, §10.1.1
            ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501),
            ("POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 1\r\n\r\n", 417),
        ] {
            let answer = served.exchange(bytes).await;

            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{bytes:?}: {answer}");
            assert!(answer.contains("\r\nconnection: close\r\n"), "{bytes:?}: {answer}");
            assert_eq!(answer.matches("HTTP/1.").count(), 1, "{bytes:?}: {answer}");
        }
    });
}

#[test]
fn a_refusal_waits_for_its_turn_behind_earlier_requests() {
    run(async || {
        let served = serve(describe);

        let answer = served
            .exchange(
                "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n\
                 GET /2 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
            )
            .await;

        let (first, second) = answer.split_once("content=x").expect("an answer to the first");
        assert!(first.starts_with("HTTP/1.1 200 OK\r\n"), "{first}");
        assert!(
            second.starts_with("HTTP/1.1 400 Bad Request\r\n") && second.contains("Host field is repeated"),
            "{second}"
        );
        assert!(!second.contains("/3"), "{second}");
    });
}

#[test]
fn http_1_0_needs_no_host() {
    run(async || {
        let served = serve(|_: Request| ok("Hello").into());

        let answer = served.exchange("GET / HTTP/1.0\r\n\r\n").await;

        assert_eq!(
            answer,
            "HTTP/1.0 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 5\r\n\r\nHello"
        );
    });
}
