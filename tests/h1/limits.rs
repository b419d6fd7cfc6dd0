//! Limits, each at its value and one past it.

use std::time::Duration;

use httpy::{Config, Request};
use tokio::time::Instant;

use crate::support::{ok, run, serve, serve_with};

fn hello(_: Request) -> httpy::Reply {
    ok("Hello").into()
}

/// RFC 9110 §15.5.15.
#[test]
fn a_target_longer_than_the_limit_is_414() {
    run(async || {
        let served = serve(hello);
        let request = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "x".repeat(n - 1));

        let at = served.exchange(request(8192)).await;
        let past = served.exchange(request(8193)).await;

        assert!(at.starts_with("HTTP/1.1 200 OK\r\n"), "{at}");
        assert!(past.starts_with("HTTP/1.1 414 URI Too Long\r\n"), "{past}");
        assert!(past.contains("\r\nconnection: close\r\n"), "{past}");
    });
}

/// RFC 6585 §5.
#[test]
fn a_head_larger_than_the_limit_is_431() {
    run(async || {
        let served = serve(hello);
        let frame = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: \r\n\r\n".len();
        let request = |n: usize| {
            format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: {}\r\n\r\n", "x".repeat(n - frame))
        };

        let at = served.exchange(request(65_536)).await;
        let past = served.exchange(request(65_537)).await;
        let endless = served.exchange("x".repeat(100_000)).await;

        assert!(at.starts_with("HTTP/1.1 200 OK\r\n"), "{at}");
        assert!(past.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{past}");
        assert!(past.contains("\r\nconnection: close\r\n"), "{past}");
        assert!(endless.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{endless}");
    });
}

#[test]
fn more_fields_than_the_limit_are_431() {
    run(async || {
        let mut few = Config::default();
        few.max_fields = 20;
        for (config, limit) in [(Config::default(), 100), (few, 20)] {
            let served = serve_with(config, hello);
            let request = |n: usize| {
                format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{}\r\n", "X: 1\r\n".repeat(n - 2))
            };

            let at = served.exchange(request(limit)).await;
            let past = served.exchange(request(limit + 1)).await;

            assert!(at.starts_with("HTTP/1.1 200 OK\r\n"), "{at}");
            assert!(past.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{past}");
        }
    });
}

/// RFC 9110 §15.5.9.
#[test]
fn a_head_that_takes_longer_than_the_limit_is_408() {
    run(async || {
        let served = serve(hello);
        let mut client = served.connect();

        client.send("GET / HTTP/1.1\r\n").await;
        let start = Instant::now();
        let answer = client.rest().await;

        assert_eq!(answer, "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(start.elapsed().as_secs(), 10);
    });
}

#[test]
fn a_head_that_drips_gets_no_more_time() {
    run(async || {
        let served = serve(hello);
        let mut client = served.connect();
        let start = Instant::now();

        let mut interval = tokio::time::interval(Duration::from_secs(3));
        for byte in b"GET " {
            interval.tick().await;
            client.send([*byte]).await;
        }
        let answer = client.rest().await;

        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert_eq!(start.elapsed().as_secs(), 10);
    });
}

#[test]
fn a_connection_that_sends_nothing_is_closed_without_a_word() {
    run(async || {
        let served = serve(hello);
        let mut fresh = served.connect();
        let start = Instant::now();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let mut kept = served.connect();

        assert!(fresh.is_closed().await);
        assert_eq!(start.elapsed().as_secs(), 10);
        // Between two requests as well.
        kept.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        kept.answer().await;
        let start = Instant::now();
        assert!(kept.is_closed().await);
        assert_eq!(start.elapsed().as_secs(), 10);
    });
}

#[test]
fn the_time_for_a_head_starts_again_with_every_response() {
    run(async || {
        let served = serve(hello);
        let mut client = served.connect();
        let mut interval = tokio::time::interval(Duration::from_secs(9));

        for _ in 0..5 {
            interval.tick().await;
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;

            assert!(client.answer().await.ends_with("Hello"));
        }
    });
}

#[test]
fn a_slow_handler_is_no_slow_client() {
    run(async || {
        let served = serve(|request: Request| {
            httpy::Reply::later(async move {
                tokio::time::sleep(Duration::from_secs(60)).await;
                ok(request.uri.path().to_owned())
            })
        });
        let mut client = served.connect();

        client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;

        assert!(client.answer().await.ends_with("/1"));
        assert!(client.answer().await.ends_with("/2"));
    });
}

#[test]
fn a_client_that_reads_slowly_gets_the_whole_answer() {
    run(async || {
        let served = serve(|_: Request| ok("x".repeat(1 << 20)).into());
        let mut client = served.connect();

        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        tokio::time::sleep(Duration::from_secs(60)).await;

        assert!(client.rest().await.len() > 1 << 20);
    });
}

#[test]
fn a_time_limit_beyond_the_end_of_time_is_none() {
    run(async || {
        let mut config = Config::default();
        config.head_timeout = Duration::MAX;
        let served = serve_with(config, hello);
        let mut client = served.connect();

        tokio::time::sleep(Duration::from_secs(1000)).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;

        assert!(client.answer().await.ends_with("Hello"));
    });
}
