//! Requests and responses (RFC 9113 §8).

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::Frame;
use httpy::{Body, Reply, Request, Response, message::text};

use crate::support::{END_HEADERS, H2Client, SETTINGS, WHOLE, describe, frames, ok, once, request, run, serve};
use crate::support::{PREFACE, DATA, END_STREAM};

fn hello(_: Request) -> Reply {
    ok("Hello").into()
}

/// RFC 9113 §3.4: settings first. RFC 9218 §2.1: and that old priorities mean nothing.
#[test]
fn begins_with_settings() {
    run(async || {
        let served = serve(hello);
        let mut client = H2Client::new(served.connect().io);

        client.send(PREFACE).await;
        client.frame(SETTINGS, 0, 0, b"").await;

        assert_eq!(client.next().await, "SETTINGS: 3=100 4=262144 6=65536 8=1 9=1");
        assert_eq!(client.next().await, "SETTINGS ACK");
        assert_eq!(client.next().await, "WINDOW_UPDATE 0 +983041");
    });
}

#[test]
fn answers_a_request() {
    run(async || {
        let served = serve(hello);
        let mut client = served.connect_h2(&[]).await;

        client.headers(WHOLE, 1, &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]).await;

        let head = "HEADERS 1: :status=200 content-type=text/plain; charset=utf-8 content-length=5";
        assert_eq!(client.next().await, head);
        assert_eq!(client.next().await, "DATA 1 END_STREAM: Hello");
    });
}
