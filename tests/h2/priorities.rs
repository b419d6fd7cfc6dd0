//! Whose content is sent first (RFC 9218).

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use httpy::{Body, Config, Reply, Request, Response};
use tokio::time::timeout;

use crate::support::{
    DATA, H2Client, HEADERS, INITIAL_WINDOW_SIZE, PRIORITY_UPDATE, Served, WHOLE, frames, ok, once, request, run,
    serve, serve_with,
};

const LARGE: u32 = 0x7000_0000;

/// As much as the path says, in bytes; the query is the response's Priority field.
fn bytes(request: Request) -> Reply {
    let length = request.path()[1..].parse().expect("a number");
    let mut response = Response::new(Body::from(vec![b'x'; length]));
    if let Some(priority) = request.uri.query() {
        response.headers_mut().insert("priority", HeaderValue::try_from(priority).expect("a field value"));
    }
    response.into()
}

/// A client whose connection takes no content any more, while each of its streams would take all.
async fn full(served: &Served) -> H2Client {
    let mut client = served.connect_h2(&[(INITIAL_WINDOW_SIZE, LARGE)]).await;
    client.get(1, "/65535").await;
    assert_eq!(order(&mut client).await.iter().map(|(_, length)| length).sum::<usize>(), 65_535);
    client
}

async fn get(client: &mut H2Client, stream: u32, path: &str, priority: &str) {
    let mut fields = request("GET", path);
    fields.push(("priority", priority));
    client.headers(WHOLE, stream, &fields).await;
}

async fn update(client: &mut H2Client, stream: u32, priority: &str) {
    let payload = [&stream.to_be_bytes()[..], priority.as_bytes()].concat();
    client.frame(PRIORITY_UPDATE, 0, 0, &payload).await;
}

/// Whose content comes, and how much in one piece, until nothing comes any more.
async fn order(client: &mut H2Client) -> Vec<(u32, usize)> {
    let mut order = Vec::new();
    while let Ok(frame) = timeout(Duration::from_millis(100), client.read()).await {
        let frame = frame.expect("a frame");
        match frame.kind {
            DATA => order.push((frame.stream, frame.payload.len())),
            HEADERS => drop(client.decode(&frame.payload)),
            _ => {}
        }
    }
    order
}

/// Which streams' content comes, in frames.
async fn streams(client: &mut H2Client) -> Vec<u32> {
    order(client).await.into_iter().map(|(stream, _)| stream).collect()
}

/// RFC 9218 §4.1.
#[test]
fn the_more_urgent_goes_first_whenever_it_was_asked_for() {
    run(async || {
        let served = serve(bytes);
        let mut client = full(&served).await;

        get(&mut client, 3, "/30000", "u=5").await;
        get(&mut client, 5, "/30000", "u=1").await;
        get(&mut client, 7, "/30000", "").await;
        get(&mut client, 9, "/30000", "u=0").await;
        assert_eq!(streams(&mut client).await, [0; 0]);
        client.window_update(0, LARGE).await;

        assert_eq!(streams(&mut client).await, [9, 9, 5, 5, 7, 7, 3, 3]);
    });
}

/// RFC 9218 §10: where it is no use in parts, one after the other is soonest for all.
#[test]
fn of_one_urgency_one_goes_after_the_other() {
    run(async || {
        let served = serve(bytes);
        let mut client = full(&served).await;

        for stream in [3, 5, 7] {
            get(&mut client, stream, "/40000", "").await;
        }
        client.window_update(0, LARGE).await;

        assert_eq!(streams(&mut client).await, [3, 3, 3, 5, 5, 5, 7, 7, 7]);
    });
}

/// RFC 9218 §4.2 and §10.
#[test]
fn incremental_ones_take_turns() {
    run(async || {
        let served = serve(bytes);
        let mut client = full(&served).await;

        for stream in [3, 5, 7] {
            get(&mut client, stream, "/40000", "i").await;
        }
        client.window_update(0, LARGE).await;

        assert_eq!(streams(&mut client).await, [3, 5, 7, 3, 5, 7, 3, 5, 7]);
    });
}

#[test]
fn incremental_ones_take_turns_with_the_first_of_those_that_are_not() {
    run(async || {
        let served = serve(bytes);
        let mut client = full(&served).await;

        for (stream, priority) in [(3, "i"), (5, ""), (7, ""), (9, "i")] {
            get(&mut client, stream, "/30000", priority).await;
        }
        client.window_update(0, LARGE).await;

        assert_eq!(streams(&mut client).await, [3, 9, 5, 3, 5, 9, 7, 7]);
    });
}

/// What is being sent gives way to what is more urgent, at the next frame that has not been handed over.
#[test]
fn what_is_more_urgent_overtakes_what_is_being_sent() {
    run(async || {
        let served = serve(bytes);
        let mut client = full(&served).await;
        get(&mut client, 3, "/100000", "u=4").await;
        client.window_update(0, 16_384).await;
        assert_eq!(streams(&mut client).await, [3]);

        get(&mut client, 5, "/30000", "u=2").await;
        client.window_update(0, LARGE).await;

        assert_eq!(streams(&mut client).await, [5, 5, 3, 3, 3, 3, 3, 3]);
    });
}

/// A window that opens a little at a time is filled in the same order.
#[test]
fn a_small_window_is_for_the_most_urgent() {
    run(async || {
        let served = serve(bytes);
        let mut client = full(&served).await;
        get(&mut client, 3, "/1000", "u=7").await;
        get(&mut client, 5, "/1000", "u=0").await;

        for expected in [[(5, 400)], [(5, 400)]] {
            client.window_update(0, 400).await;
            assert_eq!(order(&mut client).await, expected);
        }
        client.window_update(0, 400).await;
        assert_eq!(order(&mut client).await, [(5, 200), (3, 200)]);
        client.window_update(0, 800).await;
        assert_eq!(order(&mut client).await, [(3, 800)]);
    });
}

/// Who can't be sent holds up nobody, however urgent.
#[test]
fn a_stream_that_its_client_holds_up_does_not_hold_up_others() {
    run(async || {
        let served = serve(bytes);
        let mut client = served.connect_h2(&[(INITIAL_WINDOW_SIZE, 20_000)]).await;
        get(&mut client, 1, "/30000", "u=0").await;
        get(&mut client, 3, "/10000", "u=7").await;
        assert_eq!(order(&mut client).await, [(1, 16_384), (1, 3616), (3, 10_000)]);

        get(&mut client, 5, "/20000", "u=7").await;
        client.window_update(1, 10_000).await;

        let mut rest = order(&mut client).await;
        rest.sort_unstable();
        assert_eq!(rest, [(1, 10_000), (5, 3616), (5, 16_384)]);
    });
}

/// RFC 9218 §8: what the response says counts for more; what it does not say stays.
#[test]
fn a_response_overrides_what_the_client_wants() {
    run(async || {
        let served = serve(bytes);
        let mut client = full(&served).await;

        get(&mut client, 3, "/30000?u=6", "u=0, i").await;
        get(&mut client, 5, "/30000?u=6", "u=3, i").await;
        get(&mut client, 7, "/30000", "u=5").await;
        client.window_update(0, LARGE).await;

        assert_eq!(streams(&mut client).await, [7, 7, 3, 5, 3, 5]);
    });
}

/// RFC 9218 §7.1: for a stream that is being answered, for one to come, and for one that is over.
#[test]
fn a_priority_can_be_changed_before_the_request_and_after_it() {
    run(async || {
        let served = serve(bytes);
        let mut client = full(&served).await;

        update(&mut client, 1, "u=0").await;
        update(&mut client, 7, "u=0").await;
        get(&mut client, 3, "/30000", "u=1").await;
        get(&mut client, 5, "/30000", "u=2").await;
        // Later in time, but the frame counts for more than the field.
        get(&mut client, 7, "/30000", "u=7").await;
        update(&mut client, 3, "u=3").await;
        update(&mut client, 3, "u=6, i").await;
        client.window_update(0, LARGE).await;

        assert_eq!(streams(&mut client).await, [7, 7, 5, 5, 3, 3]);
    });
}

/// RFC 9218 §7: an update says all, so what it leaves out is the default.
#[test]
fn a_changed_priority_replaces_the_one_before() {
    run(async || {
        let served = serve(bytes);
        let mut client = full(&served).await;

        for stream in [3, 5] {
            get(&mut client, stream, "/30000", "u=7, i").await;
            update(&mut client, stream, "x=y").await;
        }
        get(&mut client, 7, "/30000", "u=4").await;
        client.window_update(0, LARGE).await;

        assert_eq!(streams(&mut client).await, [3, 3, 5, 5, 7, 7]);
    });
}

#[test]
fn pushed_content_has_the_priority_of_its_promise() {
    run(async || {
        let served = serve(|request: Request| {
            if request.path() != "/" {
                return bytes(request);
            }
            for (path, priority) in [("/30000", "u=7"), ("/30001", "u=0")] {
                let mut headers = http::HeaderMap::new();
                headers.insert("priority", HeaderValue::from_static(priority));
                let target = http::uri::PathAndQuery::from_static(path);
                assert!(request.exchange.push(httpy::message::Promise { target, headers, is_head: false }));
            }
            Response::new(Body::from(vec![b'x'; 30_000])).into()
        });
        let mut client = served.connect_h2(&[(INITIAL_WINDOW_SIZE, LARGE)]).await;
        get(&mut client, 1, "/65535", "").await;
        order(&mut client).await;

        client.get(3, "/").await;
        let mut all = Vec::new();
        while all.len() < 5 {
            let frame = client.read().await.expect("a frame");
            let block = if frame.kind == HEADERS { &frame.payload[..] } else { &frame.payload[4..] };
            client.decode(block);
            all.push(frame.kind);
        }
        client.window_update(0, LARGE).await;

        assert_eq!(streams(&mut client).await, [4, 4, 3, 3, 2, 2]);
    });
}

/// The least urgent has a sixteenth, however much there is that is more urgent, and however little it is incremental.
#[test]
fn nobody_waits_for_ever() {
    run(async || {
        for (endless, other) in [("u=0", "u=7"), ("u=3", "u=3"), ("u=3", "u=3, i"), ("u=2, i", "u=3")] {
            let (sender, body) = frames();
            let body = once(body);
            let served = serve(move |request: Request| match request.path() {
                "/endless" => Response::new(body()).into(),
                _ => bytes(request),
            });
            let mut client = full(&served).await;
            for _ in 0..100 {
                let _ = sender.send(Ok(http_body::Frame::data(Bytes::from(vec![b'x'; 16_384]))));
            }
            get(&mut client, 3, "/endless", endless).await;
            get(&mut client, 5, "/32768", other).await;
            assert_eq!(streams(&mut client).await, [0; 0]);

            client.window_update(0, 16_384 * 40).await;

            let order = streams(&mut client).await;
            assert_eq!(order.iter().filter(|stream| **stream == 5).count(), 2, "{endless} {other}: {order:?}");
            assert_eq!(order.len(), 40, "{endless} {other}: {order:?}");
        }
    });
}

/// Small responses that are ready while others wait are sent in their turn, not before.
#[test]
fn small_content_has_its_turn_like_any_other() {
    run(async || {
        let served = serve(bytes);
        let mut client = full(&served).await;

        get(&mut client, 3, "/30000", "u=1").await;
        get(&mut client, 5, "/10", "u=2").await;
        get(&mut client, 7, "/10", "u=0").await;
        client.window_update(0, LARGE).await;

        assert_eq!(order(&mut client).await, [(7, 10), (3, 16_384), (3, 13_616), (5, 10)]);
    });
}

/// RFC 9218 §7.1, each with the code that it names.
#[test]
fn updates_that_can_not_be_are_connection_errors() {
    run(async || {
        for (stream, payload, reason) in [
            (1, &b"\0\0\0\x01u=1"[..], "PROTOCOL_ERROR"),
            (0, b"\0\0\0\0u=1", "PROTOCOL_ERROR"),
            (0, b"\0\0\x01", "FRAME_SIZE_ERROR"),
        ] {
            let served = serve(|_: Request| ok("").into());
            let mut client = served.connect_h2(&[]).await;

            client.frame(PRIORITY_UPDATE, 0, stream, payload).await;

            assert_eq!(client.rest().await, [format!("GOAWAY 0 {reason}")]);
        }
    });
}

/// RFC 9218 §7.1: those to come and those that are open are no more than may be open.
#[test]
fn updates_for_more_streams_than_there_may_be_are_a_connection_error() {
    run(async || {
        let mut config = Config::default();
        config.h2_max_concurrent_streams = 5;
        let served = serve_with(config, |_: Request| Reply::later(std::future::pending()));
        let mut client = served.connect_h2(&[]).await;
        client.get(1, "/").await;
        client.get(3, "/").await;

        for stream in [5, 7, 9, 9, 9] {
            update(&mut client, stream, "u=1").await;
        }
        assert_eq!(client.all().await, [""; 0]);
        update(&mut client, 11, "u=1").await;

        assert_eq!(client.rest().await, ["GOAWAY 3 PROTOCOL_ERROR"]);

        let mut client = served.connect_h2(&[]).await;
        for stream in [1, 3, 5, 7, 9, 11] {
            update(&mut client, stream, "u=1").await;
        }
        assert_eq!(client.rest().await, ["GOAWAY 0 PROTOCOL_ERROR"]);
    });
}

/// A priority that can't be understood, or is longer than any, says nothing.
#[test]
fn updates_that_say_nothing_are_the_default() {
    run(async || {
        let served = serve(bytes);
        let mut client = full(&served).await;
        let long = format!("u=0, x=\"{}\"", "y".repeat(250));

        get(&mut client, 3, "/30000", "u=4").await;
        get(&mut client, 5, "/30000", "").await;
        get(&mut client, 7, "/30000", "u=1").await;
        update(&mut client, 3, &long).await;
        update(&mut client, 7, "u=0,").await;
        client.window_update(0, LARGE).await;

        assert_eq!(streams(&mut client).await, [3, 3, 5, 5, 7, 7]);
    });
}
