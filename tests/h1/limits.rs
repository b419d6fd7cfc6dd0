//! Limits of size, each at its value and one past it. Those of time are in `patience.rs`.

use httpy::{Config, Request};

use crate::support::{describe, ok, run, serve, serve_with};

fn hello(_: Request) -> httpy::Reply {
    ok("Hello").into()
}

/// What a refusal looks like.
fn refusal(status: &str, says: &str) -> String {
    let length = says.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n{says}"
    )
}

/// RFC 9110 §15.5.15.
#[test]
fn a_target_longer_than_the_limit_is_414() {
    run(async || {
        let served = serve(hello);
        let request = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "x".repeat(n - 1));
        let expected = refusal("414 URI Too Long", "the request target is too long (max_target_bytes)");

        let at = served.exchange(request(8192)).await;
        let past = served.exchange(request(8193)).await;
        let endless = served.exchange(format!("GET /{}", "x".repeat(8192))).await;

        assert!(at.starts_with("HTTP/1.1 200 OK\r\n"), "{at}");
        assert_eq!(past, expected);
        assert_eq!(endless, expected);
    });
}

/// RFC 6585 §5.
#[test]
fn a_field_line_longer_than_the_limit_is_431() {
    run(async || {
        let served = serve(hello);
        let field = |n: usize| format!("X: {}", "x".repeat(n - 3));
        let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
        let expected = refusal("431 Request Header Fields Too Large", "a field line is too long (max_field_bytes)");

        let at = served.exchange(format!("{head}{}\r\n\r\n", field(16_384))).await;
        let past = served.exchange(format!("{head}{}\r\n\r\n", field(16_385))).await;
        let endless = served.exchange(format!("{head}{}", field(16_385))).await;

        assert!(at.starts_with("HTTP/1.1 200 OK\r\n"), "{at}");
        assert_eq!(past, expected);
        assert_eq!(endless, expected);
    });
}

/// RFC 6585 §5.
#[test]
fn a_head_larger_than_the_limit_is_431() {
    run(async || {
        let served = serve(hello);
        let frame = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: \r\n\r\n".len() + 6 * "X: \r\n".len();
        let request = |n: usize| {
            let fields = format!("X: {}\r\n", "x".repeat(10_000)).repeat(6);
            let last = "x".repeat(n - frame - 60_000);
            format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}X: {last}\r\n\r\n")
        };
        let expected = refusal("431 Request Header Fields Too Large", "the request head is too large (max_head_bytes)");

        let at = served.exchange(request(65_536)).await;
        // Empty lines before it don't count.
        let at_behind_lines = served.exchange(format!("\r\n\r\n{}", request(65_536))).await;
        let past = served.exchange(request(65_537)).await;
        let endless = served.exchange("x".repeat(65_537)).await;

        assert!(at.starts_with("HTTP/1.1 200 OK\r\n"), "{at}");
        assert!(at_behind_lines.starts_with("HTTP/1.1 200 OK\r\n"), "{at_behind_lines}");
        assert_eq!(past, expected);
        assert_eq!(endless, expected);
    });
}

/// RFC 6585 §5.
#[test]
fn more_fields_than_the_limit_are_431() {
    run(async || {
        let (mut few, mut many) = (Config::default(), Config::default());
        (few.max_fields, many.max_fields) = (20, 1000);
        for (config, limit) in [(Config::default(), 100), (few, 20), (many, 1000)] {
            let served = serve_with(config, hello);
            let request = |n: usize| {
                format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{}\r\n", "X: 1\r\n".repeat(n - 2))
            };

            let at = served.exchange(request(limit)).await;
            let past = served.exchange(request(limit + 1)).await;

            assert!(at.starts_with("HTTP/1.1 200 OK\r\n"), "{at}");
            assert_eq!(
                past,
                refusal("431 Request Header Fields Too Large", "there are too many field lines (max_fields)")
            );
        }
    });
}

/// RFC 9110 §6.5: held like the fields of a head.
#[test]
fn a_trailer_section_larger_than_a_head_may_be_is_431() {
    run(async || {
        let served = serve(describe);
        let request = |trailers: String| {
            format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{trailers}\r\n")
        };
        let large = |n: usize| {
            let last = n - 6 * 10_005 - "A: \r\n\r\n".len();
            format!("{}A: {}\r\n", format!("A: {}\r\n", "x".repeat(10_000)).repeat(6), "x".repeat(last))
        };
        let expected = refusal(
            "431 Request Header Fields Too Large",
            "the trailer section is too large (max_head_bytes, max_fields)",
        );

        for (at, past) in [(large(65_536), large(65_537)), ("A: b\r\n".repeat(100), "A: b\r\n".repeat(101))] {
            let mut client = served.connect();
            client.send(request(at)).await;
            assert!(client.answer().await.starts_with("HTTP/1.1 200 OK\r\n"));

            assert_eq!(served.exchange(request(past)).await, expected);
        }
    });
}

/// RFC 6585 §5.
#[test]
fn a_trailer_longer_than_a_field_line_may_be_is_431() {
    run(async || {
        let served = serve(describe);
        let request = |n: usize| {
            let trailer = format!("A: {}", "x".repeat(n - 3));
            format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{trailer}\r\n\r\n")
        };
        let mut client = served.connect();

        client.send(request(16_384)).await;

        assert!(client.answer().await.starts_with("HTTP/1.1 200 OK\r\n"));
        assert_eq!(
            served.exchange(request(16_385)).await,
            refusal("431 Request Header Fields Too Large", "a field line is too long (max_field_bytes)")
        );
    });
}
