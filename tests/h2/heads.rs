//! Which request heads are refused, and how (RFC 9113 §8.3).

use httpy::{Config, Request};

use crate::support::{CONTINUATION, END_HEADERS, END_STREAM, HEADERS, WHOLE, ok, request, run, serve, serve_with};

fn hello(_: Request) -> httpy::Reply {
    ok("Hello").into()
}

fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&request("GET", "/")[..], more].concat()
}

fn without<'a>(name: &str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    with(more).into_iter().filter(|(known, _)| *known != name).collect()
}

fn replaced<'a>(name: &str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    request("GET", "/").into_iter().map(|(known, old)| (known, if known == name { value } else { old })).collect()
}

#[test]
fn an_authority_is_one_host_and_port() {
    run(async || {
        let served = serve(hello);
        for (fields, status) in [
            (replaced(":authority", "example.com:8000"), "200"),
            (replaced(":authority", "[::1]:80"), "200"),
            (with(&[("host", "A")]), "200"),
            (without(":authority", &[("host", "a")]), "200"),
            (without(":authority", &[]), "400"),
            (without(":authority", &[("host", "")]), "400"),
            (without(":authority", &[("host", "a b")]), "400"),
            (without(":authority", &[("host", "a"), ("host", "a")]), "400"),
            (with(&[("host", "b")]), "400"),
            (with(&[("host", "a"), ("host", "a")]), "400"),
            (with(&[("host", "")]), "400"),
            (replaced(":authority", "user@a"), "400"),
            (replaced(":authority", "user:secret@a"), "400"),
            (replaced(":authority", "a:b"), "400"),
        ] {
            let mut client = served.connect_h2(&[]).await;

            client.headers(WHOLE, 1, &fields).await;

            assert_eq!(client.answer(1).await.0, status, "{fields:?}");
        }
    });
}

#[test]
fn a_target_has_a_form_that_its_method_takes() {
    run(async || {
        let served = serve(hello);
        for (method, scheme, path, status) in [
            ("GET", "http", "/a?b", "200"),
            ("GET", "https", "/", "200"),
            ("OPTIONS", "http", "*", "200"),
            ("any-token", "http", "/", "200"),
            ("GET", "http", "*", "400"),
            ("GET", "ftp", "/", "400"),
        ] {
            let mut client = served.connect_h2(&[]).await;

            client
                .headers(WHOLE, 1, &[(":method", method), (":scheme", scheme), (":authority", "a"), (":path", path)])
                .await;

            assert_eq!(client.answer(1).await.0, status, "{method} {scheme} {path}");
        }
    });
}

/// RFC 9113 §8.1.1: a malformed request is a stream error, and the connection goes on.
#[test]
fn a_malformed_request_is_reset_and_the_connection_goes_on() {
    run(async || {
        for fields in [
            without(":method", &[]),
            without(":path", &[]),
            without(":scheme", &[]),
            replaced(":path", ""),
            replaced(":path", "a"),
            with(&[(":path", "/")]),
            with(&[(":status", "200")]),
            with(&[("x", "y"), (":path", "/")]),
            with(&[("connection", "close")]),
            with(&[("transfer-encoding", "chunked")]),
            with(&[("upgrade", "h2c")]),
            with(&[("keep-alive", "1")]),
            with(&[("proxy-connection", "close")]),
            with(&[("te", "gzip")]),
            with(&[("content-length", "5")]),
            with(&[("content-length", "x")]),
            with(&[("content-length", "0"), ("content-length", "1")]),
            with(&[("x", " y")]),
            with(&[("x", "y ")]),
            with(&[("x", "\ty")]),
            with(&[(":protocol", "websocket")]),
            vec![(":method", "CONNECT")],
        ] {
            let served = serve(hello);
            let mut client = served.connect_h2(&[]).await;

            client.headers(WHOLE, 1, &fields).await;
            client.get(3, "/").await;

            assert_eq!(client.next().await, "RST_STREAM 1 PROTOCOL_ERROR", "{fields:?}");
            assert_eq!(client.answer(3).await.0, "200", "{fields:?}");
        }
    });
}

/// RFC 9110 §9.3.6; RFC 8441 §4 is announced in SETTINGS, and there is nothing yet to connect to.
#[test]
fn connect_is_not_implemented() {
    run(async || {
        let served = serve(hello);
        let plain = vec![(":method", "CONNECT"), (":authority", "a:80")];
        let mut extended = replaced(":method", "CONNECT");
        extended.push((":protocol", "websocket"));
        for fields in [plain, extended] {
            let mut client = served.connect_h2(&[]).await;

            client.headers(END_HEADERS, 1, &fields).await;

            assert_eq!(client.answer(1).await.0, "501", "{fields:?}");
        }
    });
}

/// RFC 9110 §10.1.1.
#[test]
fn an_unknown_expectation_is_417() {
    run(async || {
        let served = serve(hello);
        let mut client = served.connect_h2(&[]).await;

        client.headers(WHOLE, 1, &with(&[("expect", "tea")])).await;

        assert_eq!(client.answer(1).await.0, "417");
    });
}

/// RFC 9110 §15.5.15.
#[test]
fn a_target_longer_than_the_limit_is_414() {
    run(async || {
        let served = serve(hello);
        let mut client = served.connect_h2(&[]).await;

        client.get(1, &format!("/{}", "x".repeat(8191))).await;
        assert_eq!(client.answer(1).await.0, "200");
        client.get(3, &format!("/{}", "x".repeat(8192))).await;
        assert_eq!(client.answer(3).await.0, "414");
    });
}

/// RFC 6585 §5. The crumbs of one cookie count as one.
#[test]
fn more_fields_than_the_limit_are_431() {
    run(async || {
        let mut config = Config::default();
        config.max_fields = 10;
        let served = serve_with(config, hello);
        let mut client = served.connect_h2(&[]).await;
        let crumbs = [("cookie", "a=b"); 20];
        // Host is one of them.
        let (at, past) = ([("x", "y"); 8], [("x", "y"); 9]);

        client.headers(WHOLE, 1, &with(&[&crumbs[..], &at].concat())).await;
        assert_eq!(client.answer(1).await.0, "200");
        client.headers(WHOLE, 3, &with(&[&crumbs[..], &past].concat())).await;

        assert_eq!(client.answer(3).await.0, "431");
    });
}

/// RFC 6585 §5.
#[test]
fn a_field_longer_than_the_limit_is_431() {
    run(async || {
        let mut config = Config::default();
        config.max_field_bytes = 1000;
        let served = serve_with(config, hello);
        let mut client = served.connect_h2(&[]).await;
        for (stream, length, status) in [(1, 1000, "200"), (3, 1001, "431")] {
            let value = "y".repeat(length - 1);

            client.headers(WHOLE, stream, &with(&[("x", &value)])).await;

            assert_eq!(client.answer(stream).await.0, status);
        }
    });
}

/// RFC 9113 §6.5.2 counts 32 bytes for each field. h2 refuses at the limit, not past it.
#[test]
fn a_head_as_large_as_the_limit_is_431() {
    run(async || {
        let mut config = Config::default();
        config.max_field_bytes = 100_000;
        let served = serve_with(config, hello);
        let mut client = served.connect_h2(&[]).await;
        let size =
            |fields: &[(&str, &str)]| fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>();
        let rest = size(&with(&[("x", "")]));
        for (stream, length, status) in [(1, 65_535, "200"), (3, 65_536, "431")] {
            let value = "y".repeat(length - rest);
            let block = client.block(&with(&[("x", &value)]));
            let mut pieces = block.chunks(16_384);
            client.frame(HEADERS, END_STREAM, stream, pieces.next().expect("a piece")).await;
            let pieces: Vec<_> = pieces.collect();
            for (index, piece) in pieces.iter().enumerate() {
                let is_last = index + 1 == pieces.len();
                client.frame(CONTINUATION, if is_last { END_HEADERS } else { 0 }, stream, piece).await;
            }

            let head = client.read().await.expect("a head");
            assert_eq!(client.decode(&head.payload)[0].1, status);
            if status == "200" {
                client.next().await;
            }
        }
    });
}
