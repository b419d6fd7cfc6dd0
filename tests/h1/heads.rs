//! How refusals are answered, and heads that come in pieces. What is refused is in `strict.rs`.

use httpy::Request;
use tokio::task::yield_now;

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

/// What is wrong with the second request's content is known before the first is answered.
#[test]
fn a_refusal_of_content_is_not_the_answer_to_an_earlier_request() {
    run(async || {
        let served = serve(describe);
        let request = |number: u8, content: &str| {
            format!("POST /{number} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{content}")
        };

        let answer =
            served.exchange(format!("{}{}", request(1, "1\r\nx\r\n0\r\n\r\n"), request(2, "1\r\nx\r\n-1\r\n"))).await;

        let (first, second) = answer.split_once("POST /1 host=a content=x").expect("an answer to the first");
        assert!(first.starts_with("HTTP/1.1 200 OK\r\n") && !first.contains("close"), "{first}");
        assert!(second.starts_with("HTTP/1.1 400 Bad Request\r\n") && second.contains("a chunk's size"), "{second}");
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

/// Heads end in the middle of packets, and content begins there.
#[test]
fn answers_the_same_however_the_bytes_are_cut() {
    run(async || {
        let served = serve(describe);
        let bytes: &[u8] = b"\r\nPOST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\nGET / HTTP/1\
            \r\nPOST /2 HTTP/1.2\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n\
            5;a=b\r\n\n\r\n\n\n\r\n00a\r\n0123456789\r\n0\r\nA: b\r\nC: d\r\n\r\n\
            \r\n\r\nGET /3 HTTP/1.1\r\nHost: c\r\n\r\nGET /4 HTTP/1.1\r\n\r\nGET /5 HTTP/1.1\r\nHost: d\r\n\r\n";
        let expected = served.exchange(bytes).await;
        assert_eq!(expected.matches(" 200 OK\r\n").count(), 3, "{expected}");
        assert!(expected.contains("POST /1 host=a content=GET / HTTP/1HTTP/1.1 200"), "{expected}");
        assert!(expected.contains("POST /2 host=b content=\n\r\n\n\n0123456789HTTP/1.1 200"), "{expected}");
        assert!(expected.ends_with("the Host field is missing (RFC 9112 section 3.2)"), "{expected}");

        for cut in 1..bytes.len() {
            let mut client = served.connect();
            for piece in [&bytes[..cut], &bytes[cut..]] {
                client.send(piece).await;
                yield_now().await;
            }

            assert_eq!(client.rest().await, expected, "cut at {cut}");
        }
    });
}
