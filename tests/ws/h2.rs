//! By HTTP/2 (RFC 8441): an extended CONNECT, and frames of one protocol in those of another.

use std::time::Duration;

use httpy::{
    Config, Handler, Reply, Request,
    message::Feature,
    ws::{Policy, Prepared},
};
use tokio::task::spawn_local;

use super::{FIN, Socket, TEXT, accepting, close, echo, frame};
use crate::support::{DATA, END_HEADERS, END_STREAM, H2Client, ok, run, serve};

fn connect(protocol: &str) -> Vec<(&str, &str)> {
    vec![
        (":method", "CONNECT"),
        (":protocol", protocol),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/ws"),
        ("sec-websocket-version", "13"),
    ]
}

async fn open(client: &mut H2Client, stream: u32) {
    client.headers(END_HEADERS, stream, &connect("websocket")).await;
    assert_eq!(client.next().await, format!("HEADERS {stream}: :status=200"));
}

async fn send(client: &mut H2Client, stream: u32, bytes: &[u8]) {
    client.frame(DATA, 0, stream, bytes).await;
}

fn echoing() -> crate::support::Served {
    let echo = accepting(Config::default(), Policy::Wait, echo);
    serve(move |request: Request| -> Reply {
        match request.uri.path() {
            "/ws" => echo.call(request),
            _ => ok(request.supports(Feature::WebSocket).to_string()).into(),
        }
    })
}

#[test]
fn sends_back_what_comes() {
    run(async || {
        let served = echoing();
        let mut client = served.connect_h2(&[]).await;
        open(&mut client, 1).await;

        send(&mut client, 1, &frame(FIN | TEXT, b"Hello")).await;

        assert_eq!(client.next().await, "DATA 1: \u{fffd}\u{5}Hello");
        send(&mut client, 1, &close(1000, "")).await;
        assert_eq!(client.read().await.expect("a close").payload, [0x88, 2, 3, 0xE8]);
        // The server's end, as the client's TCP connection would be closed (RFC 8441 §5).
        assert_eq!(client.next().await, "DATA 1 END_STREAM: ");
        client.frame(DATA, END_STREAM, 1, b"").await;
    });
}

#[test]
fn two_sockets_and_a_request_share_a_connection() {
    run(async || {
        let served = echoing();
        let mut client = served.connect_h2(&[]).await;
        open(&mut client, 1).await;
        open(&mut client, 3).await;

        send(&mut client, 3, &frame(FIN | TEXT, b"three")).await;
        assert!(client.next().await.ends_with("three"));
        send(&mut client, 1, &frame(FIN | TEXT, b"one")).await;
        assert!(client.next().await.ends_with("one"));
        client.get(5, "/").await;

        assert_eq!(client.answer(5).await, ("200".to_owned(), "true".to_owned()));
    });
}

#[test]
fn other_protocols_are_not_served() {
    run(async || {
        let served = echoing();
        let mut client = served.connect_h2(&[]).await;

        client.headers(END_HEADERS, 1, &connect("connect-udp")).await;

        assert!(client.next().await.starts_with("HEADERS 1: :status=501"));
    });
}

/// RFC 9110 §9.3.6: any 2xx would say that there is a tunnel.
#[test]
fn a_handler_that_opens_no_tunnel_does_not_succeed() {
    run(async || {
        let served = serve(|_: Request| ok("I am a page").into());
        let mut client = served.connect_h2(&[]).await;

        client.headers(END_HEADERS, 1, &connect("websocket")).await;

        assert!(client.next().await.starts_with("HEADERS 1: :status=501"));
    });
}

#[test]
fn a_rejection_is_a_response() {
    run(async || {
        let served = serve(|_: Request| httpy::message::text(http::StatusCode::FORBIDDEN, "no").into());
        let mut client = served.connect_h2(&[]).await;

        client.headers(END_HEADERS, 1, &connect("websocket")).await;

        assert!(client.next().await.starts_with("HEADERS 1: :status=403"));
        assert_eq!(client.next().await, "DATA 1 END_STREAM: no");
    });
}

/// What the client does not take on the stream waits, and nobody else does.
#[test]
fn keeps_to_the_window_of_the_stream() {
    run(async || {
        let served = serve(accepting(Config::default(), Policy::Wait, async |socket: Socket| {
            socket.send(&Prepared::binary(&[7; 100])).await.expect("open");
            echo(socket).await;
        }));
        let mut client = served.connect_h2(&[(crate::support::INITIAL_WINDOW_SIZE, 60)]).await;
        open(&mut client, 1).await;
        assert_eq!(client.read().await.expect("a part").payload.len(), 60);
        assert!(client.all().await.is_empty());

        client.window_update(1, 1000).await;

        assert_eq!(client.read().await.expect("the rest").payload.len(), 42);
    });
}

#[test]
fn a_reset_ends_it() {
    run(async || {
        let (sender, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let served = serve(accepting(Config::default(), Policy::Wait, async move |socket: Socket| {
            let _ = sender.send(socket.receive().await);
        }));
        let mut client = served.connect_h2(&[]).await;
        open(&mut client, 1).await;

        client.reset(1, "CANCEL").await;

        let end = ended.recv().await.expect("an end").expect_err("no message");
        assert_eq!(end.code, 1006);
    });
}

#[test]
fn says_that_it_goes_away_when_the_server_stops() {
    run(async || {
        let served = echoing();
        let mut client = served.connect_h2(&[]).await;
        open(&mut client, 1).await;

        let stopping = spawn_local(served.stop(Duration::from_secs(30)));
        let frames = [client.next().await, client.next().await, client.next().await];

        assert!(frames.iter().any(|frame| frame.contains("the server stops")), "{frames:?}");
        assert!(frames.iter().any(|frame| frame.starts_with("GOAWAY")), "{frames:?}");
        send(&mut client, 1, &close(1001, "")).await;
        client.frame(DATA, END_STREAM, 1, b"").await;
        client.rest().await;
        assert_eq!(stopping.await.expect("no panic"), 0);
    });
}
