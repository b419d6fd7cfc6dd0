//! Clients that want to hurt: memory stays bounded, others are served, and who does it is sent away.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use httpy::{Body, Config, Error, Reply, Request, Response, metrics::Counted};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, PING, PRIORITY, SETTINGS, Served, WHOLE,
    WINDOW_UPDATE, encode, ok, request, run, serve, serve_with,
};

fn hello(_: Request) -> Reply {
    ok("Hello").into()
}

fn never(_: Request) -> Reply {
    Reply::later(std::future::pending())
}

/// A limit of so many frames that do nothing, and resets.
fn calm(frames: u32, resets: u32) -> Config {
    let mut config = Config::default();
    config.h2_max_idle_frames = frames;
    config.h2_max_resets = resets;
    config
}

async fn assert_serves_others(served: &Served) {
    let mut other = served.connect_h2(&[]).await;
    other.get(1, "/").await;
    assert_eq!(other.answer(1).await.1, "Hello");
}

fn went_away(frames: &[String], reason: &str) -> bool {
    frames.iter().any(|frame| frame.starts_with("GOAWAY") && frame.contains(reason))
        && frames.last().is_some_and(|frame| frame == "END")
}

/// CVE-2023-44487. What was reset is not worked on, and after the thousandth the client goes.
#[test]
fn a_client_that_resets_what_it_asks_for_is_sent_away() {
    run(async || {
        let running = Arc::new(AtomicUsize::new(0));
        let counted = running.clone();
        let served = serve_with(calm(1000, 100), move |request: Request| {
            if request.path() == "/" {
                return hello(request);
            }
            let running = Held::new(&counted);
            Reply::later(async move {
                let _running = running;
                std::future::pending().await
            })
        });
        let mut client = served.connect_h2(&[]).await;

        for n in 0..100 {
            client.get(2 * n + 1, "/never").await;
            tokio::task::yield_now().await;
            client.reset(2 * n + 1, "CANCEL").await;
        }
        client.get(201, "/").await;
        assert_eq!(client.answer(201).await.1, "Hello");
        assert_eq!(running.load(Ordering::Relaxed), 0);
        // 33 a second are forgiven.
        tokio::time::advance(Duration::from_secs(1)).await;
        for n in 0..33 {
            client.get(2 * n + 203, "/never").await;
            client.reset(2 * n + 203, "CANCEL").await;
        }
        client.get(299, "/").await;
        assert_eq!(client.answer(299).await.1, "Hello");
        client.get(301, "/never").await;
        client.reset(301, "CANCEL").await;

        assert_eq!(client.all().await, ["GOAWAY 301 ENHANCE_YOUR_CALM", "END"]);
        assert_eq!(served.counted(Counted::H2Resets), 1);
        assert_eq!(running.load(Ordering::Relaxed), 0);
        assert_serves_others(&served).await;
    });
}

/// CVE-2025-8671: resets that the client makes the server send.
#[test]
fn a_client_that_makes_the_server_reset_streams_is_sent_away() {
    run(async || {
        let served = serve_with(calm(1_000_000, 100), |request: Request| match request.path() {
            "/" => hello(request),
            _ => never(request),
        });
        let mut client = served.connect_h2(&[]).await;

        for n in 0..101 {
            client.get(2 * n + 1, "/never").await;
            client.window_update(2 * n + 1, 0x7fff_ffff).await;
            if n < 100 {
                assert_eq!(client.next().await, format!("RST_STREAM {} FLOW_CONTROL_ERROR", 2 * n + 1));
            }
        }

        let all = client.all().await;
        assert!(went_away(&all, "ENHANCE_YOUR_CALM"), "{all:?}");
        assert_eq!(served.counted(Counted::H2Resets) + served.counted(Counted::H2Floods), 1);
        assert_serves_others(&served).await;
    });
}

/// Malformed requests are such resets, too, also those that h2 lets pass.
#[test]
fn a_client_that_sends_nothing_but_malformed_requests_is_sent_away() {
    run(async || {
        for field in [("connection", "close"), ("x", " y")] {
            let served = serve_with(calm(1_000_000, 100), hello);
            let mut client = served.connect_h2(&[]).await;
            let mut fields = request("GET", "/");
            fields.push(field);

            for n in 0..101 {
                client.headers(WHOLE, 2 * n + 1, &fields).await;
                if n < 100 {
                    assert_eq!(client.next().await, format!("RST_STREAM {} PROTOCOL_ERROR", 2 * n + 1));
                }
            }

            let all = client.all().await;
            assert!(went_away(&all, "ENHANCE_YOUR_CALM"), "{all:?}");
            assert_eq!(served.counted(Counted::H2Resets) + served.counted(Counted::H2Floods), 1);
        }
    });
}

/// CVE-2019-9512, -9513, -9515, -9518 and their kin: frames that do nothing, each alone.
#[test]
fn a_client_that_sends_frames_that_do_nothing_is_sent_away() {
    run(async || {
        let cases: [(&str, u8, u8, u32, &[u8]); 6] = [
            ("PING", PING, 0, 0, b"12345678"),
            ("PING ACK", PING, 1, 0, b"12345678"),
            ("SETTINGS", SETTINGS, 0, 0, b""),
            ("WINDOW_UPDATE", WINDOW_UPDATE, 0, 0, b"\0\0\0\x01"),
            ("PRIORITY", PRIORITY, 0, 1, b"\0\0\0\0\x10"),
            ("unknown", 0xfa, 0, 0, b"x"),
        ];
        for (name, kind, flags, stream, payload) in cases {
            let served = serve_with(calm(100, 1000), hello);
            let mut client = served.connect_h2(&[]).await;

            // Two came with the handshake.
            for _ in 0..98 {
                client.frame(kind, flags, stream, payload).await;
            }
            client.get(1, "/").await;
            while client.next().await != "DATA 1 END_STREAM: Hello" {}
            // A request is worth eight.
            for _ in 0..9 {
                client.frame(kind, flags, stream, payload).await;
            }

            let all = client.all().await;
            assert!(went_away(&all, "ENHANCE_YOUR_CALM"), "{name}: {all:?}");
            assert_eq!(served.counted(Counted::H2IdleFrames), 1, "{name}");
            assert_serves_others(&served).await;
        }
    });
}

/// h2 counts empty DATA frames itself, and forgives 100.
#[test]
fn a_client_that_sends_content_without_content_is_sent_away() {
    run(async || {
        let served = serve(|request: Request| match request.path() {
            "/" => hello(request),
            _ => never(request),
        });
        let mut client = served.connect_h2(&[]).await;
        client.headers(END_HEADERS, 1, &request("POST", "/never")).await;

        for _ in 0..101 {
            client.frame(DATA, 0, 1, b"").await;
        }

        assert!(went_away(&client.all().await, "ENHANCE_YOUR_CALM"));
        assert_eq!(served.counted(Counted::H2Floods), 1);
        assert_serves_others(&served).await;
    });
}

/// A byte in each frame takes more memory than the window counts. h2 counts that.
#[test]
fn a_client_that_sends_content_byte_by_byte_to_nobody_is_sent_away() {
    run(async || {
        let served = serve(|request: Request| {
            Reply::later(async move {
                let _request = request;
                std::future::pending().await
            })
        });
        let mut client = served.connect_h2(&[]).await;
        client.headers(END_HEADERS, 1, &request("POST", "/")).await;

        for _ in 0..10_000 {
            client.frame(DATA, 0, 1, b"x").await;
        }

        assert!(went_away(&client.all().await, "ENHANCE_YOUR_CALM"));
        assert_eq!(served.counted(Counted::H2Floods), 1);
    });
}

/// CVE-2024-27316: a head that never ends.
#[test]
fn a_head_in_endless_pieces_is_ended() {
    run(async || {
        for piece in [&b""[..], &[0x40, 1, b'a', 1, b'b'].repeat(1000)] {
            let served = serve(hello);
            let mut client = served.connect_h2(&[]).await;
            let head = client.block(&request("GET", "/"));
            client.frame(HEADERS, END_STREAM, 1, &head).await;

            for _ in 0..1000 {
                client.frame(CONTINUATION, 0, 1, piece).await;
            }

            assert!(went_away(&client.all().await, "ENHANCE_YOUR_CALM"));
            assert_eq!(served.counted(Counted::H2IdleFrames) + served.counted(Counted::H2Floods), 1);
            assert_serves_others(&served).await;
        }
    });
}

/// RFC 7541 §7.3: few bytes that mean many. Four kilobytes in the table, referred to again and again.
#[test]
fn a_head_that_unpacks_to_much_more_than_it_is_is_refused() {
    run(async || {
        let served = serve(hello);
        let value = "v".repeat(4000);
        for (repeats, expected) in [(20, "431"), (100, "GOAWAY")] {
            let mut client = served.connect_h2(&[]).await;
            let mut fields = request("GET", "/");
            fields.push(("bomb", &value));
            fields.extend(std::iter::repeat_n(("bomb", &*value), repeats));
            let block = client.block(&fields);
            assert!(block.len() < 5000, "{} bytes", block.len());

            client.frame(HEADERS, WHOLE, 1, &block).await;

            let answer = client.read().await.expect("an answer");
            if expected == "431" {
                assert_eq!(client.decode(&answer.payload)[0].1, expected);
            } else {
                let rest = client.rest().await;
                assert_eq!((answer.kind, rest.len()), (crate::support::GOAWAY, 0), "{rest:?}");
                assert_eq!(served.counted(Counted::H2Floods), 1);
            }
        }
        assert_serves_others(&served).await;
    });
}

/// RFC 9113 §5.1.2: more than it was told are refused, and what runs goes on.
#[test]
fn more_streams_than_there_may_be_are_refused() {
    run(async || {
        let mut config = Config::default();
        config.h2_max_concurrent_streams = 3;
        let served = serve_with(config, |request: Request| match request.path() {
            "/" => hello(request),
            _ => never(request),
        });
        let mut client = served.connect_h2(&[]).await;

        for stream in [1, 3, 5, 7] {
            client.get(stream, "/never").await;
        }
        assert_eq!(client.all().await, ["RST_STREAM 7 REFUSED_STREAM"]);
        client.reset(1, "CANCEL").await;
        client.get(9, "/").await;

        assert_eq!(client.answer(9).await.1, "Hello");
    });
}

/// Who does not stop then is as one that has the server reset streams in another way.
#[test]
fn a_client_that_keeps_asking_for_more_streams_is_sent_away() {
    run(async || {
        let mut config = calm(1_000_000, 100);
        config.h2_max_concurrent_streams = 3;
        let served = serve_with(config, |request: Request| match request.path() {
            "/" => hello(request),
            _ => never(request),
        });
        let mut client = served.connect_h2(&[]).await;

        for n in 0..103 {
            client.get(2 * n + 1, "/never").await;
        }
        let refused = client.all().await;
        assert_eq!(refused.iter().filter(|frame| frame.ends_with("REFUSED_STREAM")).count(), 100, "{refused:?}");
        client.get(207, "/never").await;

        assert!(went_away(&client.all().await, "ENHANCE_YOUR_CALM"));
        assert_eq!(served.counted(Counted::H2Resets) + served.counted(Counted::H2Floods), 1);
        assert_serves_others(&served).await;
    });
}

/// Who takes nothing gets nothing: neither large content nor small.
#[test]
fn content_that_the_client_does_not_take_is_given_up() {
    run(async || {
        let served = serve(|request: Request| match request.path() {
            "/" => hello(request),
            "/small" => Response::new(Body::from("x")).into(),
            _ => Response::new(Body::from(vec![b'x'; 1_000_000])).into(),
        });
        let start = Instant::now();
        let mut client = served.connect_h2(&[(INITIAL_WINDOW_SIZE, 0)]).await;
        for stream in [1, 3, 5] {
            client.get(stream, "/large").await;
            client.next().await;
        }
        assert_eq!(client.next().await, "RST_STREAM 1 CANCEL");
        assert_eq!([client.next().await, client.next().await], ["RST_STREAM 3 CANCEL", "RST_STREAM 5 CANCEL"]);
        assert_eq!(start.elapsed().as_secs(), 30);

        client.get(7, "/small").await;
        client.next().await;
        // Signs of life don't help.
        sleep(Duration::from_secs(20)).await;
        client.frame(PING, 0, 0, b"12345678").await;
        client.next().await;

        assert_eq!([client.next().await, client.next().await], ["GOAWAY 7 ENHANCE_YOUR_CALM", "END"]);
        assert_eq!(start.elapsed().as_secs(), 60);
        // Three streams, and the connection.
        assert_eq!(served.counted(Counted::H2ReadersLate), 4);
        assert_serves_others(&served).await;
    });
}

/// CVE-2019-9511: the client gives as little as it can and asks for the rest in crumbs.
#[test]
fn a_client_that_takes_content_in_crumbs_is_sent_away() {
    run(async || {
        let served = serve_with(calm(100, 100), |request: Request| match request.path() {
            "/" => hello(request),
            _ => Response::new(Body::from(vec![b'x'; 1_000_000])).into(),
        });
        let mut client = served.connect_h2(&[(INITIAL_WINDOW_SIZE, 1)]).await;
        client.get(1, "/large").await;

        for _ in 0..200 {
            client.window_update(1, 1).await;
            tokio::task::yield_now().await;
        }

        let all = client.all().await;
        assert!(went_away(&all, "ENHANCE_YOUR_CALM"), "{all:?}");
        assert!(all.iter().filter(|frame| *frame == "DATA 1: x").count() <= 110, "{all:?}");
        assert_eq!(served.counted(Counted::H2IdleFrames), 1);
        assert_serves_others(&served).await;
    });
}

/// A client that reads, and says so with two frames for each that it gets, is not meant.
#[test]
fn a_client_that_takes_much_may_say_so_often() {
    run(async || {
        let served = serve_with(calm(10, 10), |_: Request| Response::new(Body::from(vec![b'x'; 1_000_000])).into());
        let mut client = served.connect_h2(&[]).await;
        client.get(1, "/").await;
        let mut length = 0;

        loop {
            let frame = client.read().await.expect("a frame");
            if frame.kind == DATA {
                length += frame.payload.len();
                if frame.flags & END_STREAM != 0 {
                    break;
                }
                client.window_update(0, frame.payload.len() as u32).await;
                client.window_update(1, frame.payload.len() as u32).await;
            }
        }

        assert_eq!(length, 1_000_000);
    });
}

/// A client that asks and does not read: what it asked for is not made, and after a while the connection ends.
#[test]
fn a_client_that_does_not_read_makes_nothing_pile_up() {
    run(async || {
        let made = Arc::new(AtomicUsize::new(0));
        let counted = made.clone();
        let served = serve(move |request: Request| match request.path() {
            "/" => hello(request),
            _ => Response::new(Body::stream(Endless(counted.clone()))).into(),
        });
        let mut client = served.connect_h2(&[(INITIAL_WINDOW_SIZE, 0x7fff_ffff)]).await;
        client.window_update(0, 0x7000_0000).await;
        for n in 0..100 {
            client.get(2 * n + 1, "/endless").await;
        }
        let start = Instant::now();

        sleep(Duration::from_secs(29)).await;
        let made_by_then = made.load(Ordering::Relaxed);
        assert!(made_by_then <= 100 * PIECE + 300_000, "{made_by_then} bytes");
        assert_serves_others(&served).await;
        let mut read = 0;
        while read < 1_000_000 {
            read += client.read().await.expect("more").payload.len();
        }

        assert!(made.load(Ordering::Relaxed) > read);
        assert_eq!(start.elapsed().as_secs(), 29, "it goes on as soon as there is room");
    });
}

#[test]
fn a_client_that_never_reads_is_closed() {
    run(async || {
        let made = Arc::new(AtomicUsize::new(0));
        let counted = made.clone();
        let served = serve(move |_: Request| Response::new(Body::stream(Endless(counted.clone()))).into());
        let mut client = served.connect_h2(&[(INITIAL_WINDOW_SIZE, 0x7fff_ffff)]).await;
        client.get(1, "/endless").await;
        sleep(Duration::from_secs(31)).await;
        let made_by_then = made.load(Ordering::Relaxed);

        while client.read().await.is_some() {}

        assert_eq!(made.load(Ordering::Relaxed), made_by_then);
        assert_eq!(served.counted(Counted::H2ReadersLate), 1);
    });
}

/// A client that makes the server answer and does not read the answers is not read either.
#[test]
fn answers_to_frames_do_not_pile_up() {
    run(async || {
        let served = serve_with(calm(u32::MAX, 100), hello);
        let mut client = served.connect_h2(&[]).await;
        let pings = encode(PING, 0, 0, b"12345678").repeat(1000);

        let mut sent = 0;
        while timeout(Duration::from_secs(1), client.send(&pings)).await.is_ok() {
            sent += pings.len();
            assert!(sent < 2_000_000, "the server still reads");
        }

        assert_serves_others(&served).await;
    });
}

/// RFC 9113 §6.5.3, §6.7: the answers come in order, and a client that reads them is served.
#[test]
fn pings_are_answered() {
    run(async || {
        let served = serve(hello);
        let mut client = served.connect_h2(&[]).await;

        client.frame(PING, 0, 0, b"abcdefgh").await;
        client.frame(PING, 0, 0, b"12345678").await;

        assert_eq!(client.all().await, ["PING ACK: abcdefgh", "PING ACK: 12345678"]);
    });
}

/// RFC 9113 §4.2, §6: a frame of a length that its type does not have. What came before it is answered.
#[test]
fn frames_of_a_wrong_length_are_connection_errors() {
    run(async || {
        type Case<'a> = (&'a str, u8, u8, u32, &'a [u8], &'a str);
        let cases: [Case<'_>; 8] = [
            ("PING", PING, 0, 0, b"1234567", "FRAME_SIZE_ERROR"),
            ("SETTINGS", SETTINGS, 0, 0, b"12345", "FRAME_SIZE_ERROR"),
            ("SETTINGS ACK", SETTINGS, 1, 0, b"123456", "FRAME_SIZE_ERROR"),
            ("PRIORITY", PRIORITY, 0, 1, b"1234", "FRAME_SIZE_ERROR"),
            ("RST_STREAM", crate::support::RST_STREAM, 0, 1, b"123", "FRAME_SIZE_ERROR"),
            ("WINDOW_UPDATE", WINDOW_UPDATE, 0, 0, b"123", "FRAME_SIZE_ERROR"),
            ("window too large", SETTINGS, 0, 0, b"\0\x04\x80\0\0\0", "FLOW_CONTROL_ERROR"),
            ("too long", DATA, 0, 1, &[0; 16_385], "FRAME_SIZE_ERROR"),
        ];
        for (name, kind, flags, stream, payload, reason) in cases {
            let served = serve(hello);
            let mut client = served.connect_h2(&[]).await;
            let head = client.block(&request("GET", "/"));

            let both = [encode(HEADERS, WHOLE, 1, &head), encode(kind, flags, stream, payload)].concat();
            client.send(both).await;

            let all = client.all().await;
            assert!(went_away(&all, reason), "{name}: {all:?}");
            assert_eq!(served.counted(Counted::H2Violations), 1, "{name}");
        }
    });
}

const PIECE: usize = 1000;

/// Content without end, and how much of it was made.
struct Endless(Arc<AtomicUsize>);

impl HttpBody for Endless {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.0.fetch_add(PIECE, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; PIECE])))))
    }
}

/// Counts how many of it there are.
struct Held(Arc<AtomicUsize>);

impl Held {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
