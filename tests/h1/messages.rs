//! One request, one response; many of them on one connection.

use http::{HeaderName, HeaderValue, StatusCode, header};
use httpy::{Body, Reply, Request, Response, message::Feature};
use tokio::sync::oneshot;

use crate::support::{describe, frames, ok, once, run, serve};

#[test]
fn answers_a_request_and_keeps_the_connection() {
    run(async || {
        let served = serve(|_: Request| ok("Hello").into());
        let mut client = served.connect();

        for _ in 0..2 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;

            assert_eq!(
                client.answer().await,
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 5\r\n\r\nHello"
            );
        }
    });
}

#[test]
fn sends_a_date_as_rfc_9110_5_6_7_writes_it() {
    run(async || {
        let served = serve(|_: Request| ok("").into());
        let mut client = served.connect();

        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;

        let head = client.read_until(b"\r\n\r\n").await;
        let date = head.lines().find_map(|line| line.strip_prefix("date: ")).expect("a Date field");
        assert!(httpdate::parse_http_date(date).is_ok() && date.ends_with(" GMT") && date.len() == 29, "{date}");
    });
}

/// RFC 9112 §9.3.2.
#[test]
fn answers_pipelined_requests_in_order_however_long_each_takes() {
    run(async || {
        let (first_may, first) = oneshot::channel::<()>();
        let first = once(first);
        let served = serve(move |request: Request| match request.uri.path() {
            "/1" => {
                let first = first();
                Reply::later(async move {
                    let _ = first.await;
                    ok("one")
                })
            }
            "/2" => ok("two").into(),
            _ => Reply::later(async {
                tokio::task::yield_now().await;
                ok("three")
            }),
        });
        let mut client = served.connect();

        client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.send("GET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        tokio::task::yield_now().await;
        let _ = first_may.send(());

        let plain = "content-type: text/plain; charset=utf-8\r\n";
        assert_eq!(
            client.rest().await,
            format!(
                "HTTP/1.1 200 OK\r\n{plain}content-length: 3\r\n\r\none\
                 HTTP/1.1 200 OK\r\n{plain}content-length: 3\r\n\r\ntwo\
                 HTTP/1.1 200 OK\r\n{plain}connection: close\r\ncontent-length: 5\r\n\r\nthree"
            )
        );
    });
}

#[test]
fn does_not_hold_an_answer_back_because_half_a_request_follows() {
    run(async || {
        let served = serve(|request: Request| ok(request.uri.path().to_owned()).into());
        let mut client = served.connect();

        client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HT").await;
        assert!(client.answer().await.ends_with("\r\n\r\n/1"));
        client.send("TP/1.1\r\nHost: a\r\n\r\n").await;

        assert!(client.answer().await.ends_with("\r\n\r\n/2"));
    });
}

/// RFC 9112 §2.2: some clients send CRLF behind content.
#[test]
fn ignores_an_empty_line_before_a_request_and_answers_without_waiting_for_more() {
    run(async || {
        let served = serve(describe);
        let mut client = served.connect();

        client.send("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx\r\n").await;
        assert!(client.answer().await.ends_with("POST /1 host=a content=x"));
        client.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;

        assert!(client.answer().await.ends_with("GET /2 host=a content="));
    });
}

#[test]
fn takes_a_request_that_comes_byte_by_byte() {
    run(async || {
        let served = serve(describe);
        let mut client = served.connect();

        for byte in b"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n" {
            client.send([*byte]).await;
            tokio::task::yield_now().await;
        }

        assert!(client.answer().await.ends_with("POST /1 host=a content=ab"));
    });
}

/// RFC 9110 §9.1: any token is a method, and case matters.
#[test]
fn hands_every_method_to_the_handler() {
    run(async || {
        let served = serve(describe);
        let mut client = served.connect();

        for method in [
            "GET",
            "POST",
            "PUT",
            "PATCH",
            "DELETE",
            "OPTIONS",
            "TRACE",
            "QUERY",
            "get",
            "M-SEARCH",
            "!#$%&'*+-.^_`|~1",
        ] {
            client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).await;

            assert!(client.answer().await.ends_with(&format!("\r\n\r\n{method} / host=a content=")), "{method}");
        }
    });
}

#[test]
fn hands_over_the_four_forms_of_a_target_rfc_9112_3_2() {
    run(async || {
        let served = serve(|request: Request| {
            let host = request.headers[header::HOST].to_str().unwrap_or("?").to_owned();
            ok(format!("path={} query={:?} host={host}", request.path(), request.uri.query())).into()
        });
        let mut client = served.connect();

        for (line, seen) in [
            ("GET /a%20b?c=d HTTP/1.1", "path=/a%20b query=Some(\"c=d\") host=a"),
            ("OPTIONS * HTTP/1.1", "path=* query=None host=a"),
            // §3.2.2: the target's host takes the place of the field's.
            ("GET http://b:81/c?d HTTP/1.1", "path=/c query=Some(\"d\") host=b:81"),
            ("GET http://b HTTP/1.1", "path=/ query=None host=b"),
        ] {
            client.send(format!("{line}\r\nHost: a\r\n\r\n")).await;

            assert!(client.answer().await.ends_with(&format!("\r\n\r\n{seen}")), "{line}");
        }
        // The fourth, authority form, is for CONNECT, which is for proxies.
        client.send("CONNECT b:81 HTTP/1.1\r\nHost: b:81\r\n\r\n").await;
        assert!(client.rest().await.starts_with("HTTP/1.1 501 Not Implemented\r\n"));
    });
}

/// RFC 9110 §9.3.2.
#[test]
fn answers_head_with_the_length_and_without_the_content() {
    run(async || {
        let served = serve(|request: Request| match request.uri.path() {
            "/stream" => Response::new(frames().1).into(),
            // The handler may also know the length and have no content.
            "/length" => {
                let mut response = Response::new(Body::Empty);
                response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("1234"));
                response.into()
            }
            _ => ok("Hello").into(),
        });
        let mut client = served.connect();

        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\nHEAD /length HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.send("HEAD /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;

        assert_eq!(
            client.rest().await,
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 5\r\n\r\n\
             HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n\
             HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"
        );
    });
}

/// RFC 9110 §6.4.1, §8.6: no content, and with 204 no length either.
#[test]
fn sends_no_content_with_204_205_and_304_whatever_the_handler_says() {
    run(async || {
        let served = serve(|request: Request| {
            let mut response = ok("content");
            *response.status_mut() = StatusCode::from_bytes(&request.uri.path().as_bytes()[1..]).expect("a status");
            response.headers_mut().remove(header::CONTENT_TYPE);
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("7"));
            response.into()
        });
        let mut client = served.connect();

        for status in ["204", "205", "304"] {
            client.send(format!("GET /{status} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        }
        client.half_close().await;

        assert_eq!(
            client.rest().await,
            "HTTP/1.1 204 No Content\r\n\r\n\
             HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n\
             HTTP/1.1 304 Not Modified\r\n\r\n"
        );
    });
}

/// RFC 9112 §6.3: two lengths, or a length and chunks, would let what follows pass for another response.
#[test]
fn frames_a_response_by_its_content_and_not_by_what_the_handler_claims() {
    run(async || {
        let served = serve(|request: Request| {
            let mut response = Response::new("Hello".into());
            let (name, value) = request.uri.path()[1..].split_once('=').expect("name=value");
            let name: header::HeaderName = name.parse().expect("a name");
            response.headers_mut().append(&name, HeaderValue::from_str(value).expect("a value"));
            response.headers_mut().append(name, HeaderValue::from_str(value).expect("a value"));
            response.into()
        });
        let mut client = served.connect();

        for claim in [
            "content-length=4",
            "content-length=6",
            "content-length=5",
            "content-length=x",
            "transfer-encoding=chunked",
        ] {
            client.send(format!("GET /{claim} HTTP/1.1\r\nHost: a\r\n\r\n")).await;

            assert_eq!(client.answer().await, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nHello", "{claim}");
        }
    });
}

#[test]
fn a_handler_that_answers_with_an_interim_status_is_a_500() {
    run(async || {
        let served = serve(|_: Request| {
            let mut response = ok("");
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.into()
        });
        let mut client = served.connect();

        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n").await;

        assert!(client.answer().await.starts_with("HTTP/1.1 500 Internal Server Error\r\n"));
    });
}

#[test]
fn a_panic_is_a_500_and_the_connection_lives() {
    run(async || {
        let served = serve(|request: Request| match request.uri.path() {
            "/now" => panic!("at once"),
            "/later" => Reply::later(async {
                tokio::task::yield_now().await;
                panic!("later")
            }),
            _ => ok("alive").into(),
        });
        let mut client = served.connect();

        for path in ["/now", "/later"] {
            client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            let answer = client.answer().await;
            assert!(answer.starts_with("HTTP/1.1 500 Internal Server Error\r\n"), "{answer}");
            assert!(answer.ends_with("\r\n\r\nInternal Server Error"), "says nothing of internals: {answer}");
        }
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;

        assert!(client.answer().await.ends_with("alive"));
    });
}

#[test]
fn a_request_says_what_its_carrier_can_do() {
    run(async || {
        let served = serve(|request: Request| {
            let can: Vec<_> = Feature::NAMES
                .iter()
                .filter(|(_, feature)| request.supports(*feature))
                .map(|(name, _)| *name)
                .collect();
            ok(format!("{} {can:?}", request.http_version())).into()
        });
        let mut client = served.connect();

        for (head, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "1.1 [\"websocket\"]"),
            ("GET / HTTP/1.1\r\nHost: a\r\nTE: gzip, Trailers\r\n\r\n", "1.1 [\"trailers\", \"websocket\"]"),
            ("GET / HTTP/1.0\r\nTE: trailers\r\nConnection: keep-alive\r\n\r\n", "1.0 []"),
        ] {
            client.send(head).await;

            assert!(client.answer().await.ends_with(&format!("\r\n\r\n{expected}")), "{head}");
        }
    });
}

/// RFC 9110 §5.5: whatever can be made a field of a response is one line of it, and nothing else can be made one.
#[test]
fn no_field_can_split_a_response() {
    run(async || {
        for byte in 0..=0x7f_u8 {
            let evil = [b'a', byte, b'X', b':'];
            assert_eq!(
                HeaderName::from_bytes(&evil[..3]).is_ok(),
                byte.is_ascii_alphanumeric() || is_mark(byte),
                "{byte}"
            );
            let Ok(value) = HeaderValue::from_bytes(&evil) else {
                assert!(byte.is_ascii_control() && byte != b'\t', "{byte}");
                continue;
            };
            let (line, value) = (format!("x: {}", evil.escape_ascii()), once(value));
            let served = serve(move |_: Request| {
                let mut response = ok("");
                response.headers_mut().insert("x", value());
                response.into()
            });

            let answer = served.exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;

            let lines: Vec<String> =
                answer.split("\r\n").map(|line| line.as_bytes().escape_ascii().to_string()).collect();
            assert!(lines.contains(&line), "{line}: {lines:?}");
            // The status, four fields, and the empty line.
            assert_eq!(lines.len(), 7, "{lines:?}");
        }
    });
}

/// What a token is made of, besides letters and digits (RFC 9110 §5.6.2).
fn is_mark(byte: u8) -> bool {
    b"!#$%&'*+-.^_`|~".contains(&byte)
}
