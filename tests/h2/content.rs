//! Content both ways, and who waits for whom (RFC 9113 §5.2).

use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame};
use httpy::{Body, Config, Reply, Request, Response};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use crate::support::{
    DATA, END_HEADERS, END_STREAM, H2Client, HEADERS, INITIAL_WINDOW_SIZE, PADDED, WHOLE, describe, encode, frames, ok,
    once, request, run, serve, serve_with,
};

const HEAD_200: &str = "HEADERS 1: :status=200";

#[test]
fn content_arrives_in_frames_of_any_size() {
    run(async || {
        let served = serve(describe);
        let mut client = served.connect_h2(&[]).await;

        client.headers(END_HEADERS, 1, &request("POST", "/")).await;
        client.frame(DATA, 0, 1, b"a").await;
        client.frame(DATA, 0, 1, b"").await;
        // RFC 9113 §6.1: three bytes of padding.
        client.frame(DATA, PADDED, 1, b"\x03bc\0\0\0").await;
        client.frame(DATA, END_STREAM, 1, b"").await;

        assert_eq!(client.answer(1).await.1, "POST / host=a content=abc");
    });
}

/// RFC 9113 §8.1.
#[test]
fn a_trailer_section_comes_after_the_content() {
    run(async || {
        let served = serve(|request: Request| {
            Reply::later(async move {
                let (content, trailers) = request.into_parts().body.collect(1000).await.expect("content");
                ok(format!("{content:?} {trailers:?}"))
            })
        });
        let mut client = served.connect_h2(&[]).await;

        client.headers(END_HEADERS, 1, &request("POST", "/")).await;
        client.frame(DATA, 0, 1, b"abc").await;
        client.headers(WHOLE, 1, &[("x", "y")]).await;

        assert_eq!(client.answer(1).await.1, "b\"abc\" Some({\"x\": \"y\"})");
    });
}

/// RFC 9113 §8.1.1.
#[test]
fn content_of_another_length_than_declared_is_a_stream_error() {
    run(async || {
        for content in ["abcd", "abcdef"] {
            let served = serve(describe);
            let mut client = served.connect_h2(&[]).await;
            let mut fields = request("POST", "/");
            fields.push(("content-length", "5"));

            client.headers(END_HEADERS, 1, &fields).await;
            client.frame(DATA, END_STREAM, 1, content.as_bytes()).await;
            client.get(3, "/").await;

            assert_eq!(client.next().await, "RST_STREAM 1 PROTOCOL_ERROR");
            assert_eq!(client.answer(3).await.0, "200");
        }
    });
}

#[test]
fn a_handler_learns_that_the_rest_of_the_content_will_not_come() {
    run(async || {
        let (results, mut result) = mpsc::unbounded_channel();
        let served = serve(move |request: Request| {
            let results = results.clone();
            // Not in the reply, which is dropped with the stream.
            tokio::task::spawn_local(async move {
                let collected = request.into_parts().body.collect(1000).await;
                results.send(collected.map_err(|error| error.to_string())).expect("a test");
            });
            Reply::later(std::future::pending())
        });
        let mut client = served.connect_h2(&[]).await;

        client.headers(END_HEADERS, 1, &request("POST", "/")).await;
        client.frame(DATA, 0, 1, b"abc").await;
        client.reset(1, "CANCEL").await;

        let error = result.recv().await.expect("a result").expect_err("not whole");
        assert_eq!(error, "the request body did not arrive whole");
    });
}

/// Content is let in as it is read, so that a slow reader slows its client down and nothing piles up.
#[test]
fn the_client_may_send_more_when_what_it_sent_is_read() {
    run(async || {
        let (gate, opened) = mpsc::unbounded_channel::<()>();
        let opened = once(opened);
        let served = serve(move |request: Request| {
            let mut opened = opened();
            Reply::later(async move {
                let mut body = Box::pin(request.into_parts().body);
                let mut length = 0;
                while opened.recv().await.is_some() {
                    let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await else { break };
                    length += frame.expect("content").data_ref().expect("data").len();
                }
                ok(length.to_string())
            })
        });
        let mut client = served.connect_h2(&[]).await;
        client.headers(END_HEADERS, 1, &request("POST", "/")).await;
        let piece = vec![b'x'; 16_384];
        // The stream's window is 256 KiB.
        for _ in 0..16 {
            client.frame(DATA, 0, 1, &piece).await;
        }
        assert_eq!(client.all().await, [""; 0], "nothing was read");

        // h2 says so when half of the window has been read.
        for _ in 0..8 {
            gate.send(()).expect("a handler");
        }
        assert_eq!(client.all().await, ["WINDOW_UPDATE 1 +131072"]);
        for _ in 0..9 {
            gate.send(()).expect("a handler");
        }
        client.frame(DATA, END_STREAM, 1, &piece).await;
        drop(gate);

        let all = client.all().await;
        assert_eq!(all.last().map(String::as_str), Some("DATA 1 END_STREAM: 278528"), "{all:?}");
    });
}

/// RFC 9113 §6.9.1: who sends more than it may has itself to blame, and nobody else has.
#[test]
fn more_content_than_the_window_is_a_stream_error() {
    run(async || {
        let served = serve(|request: Request| match request.path() {
            "/hold" => Reply::later(async move {
                let _request = request;
                std::future::pending().await
            }),
            _ => ok("fine").into(),
        });
        let mut client = served.connect_h2(&[]).await;
        client.headers(END_HEADERS, 1, &request("POST", "/hold")).await;
        for _ in 0..16 {
            client.frame(DATA, 0, 1, &[b'x'; 16_384]).await;
        }

        client.frame(DATA, 0, 1, b"x").await;
        client.get(3, "/").await;

        assert_eq!(client.next().await, "RST_STREAM 1 FLOW_CONTROL_ERROR");
        assert_eq!(client.answer(3).await.1, "fine");
    });
}

/// A handler that does not read holds up its own client's stream, and no other stream of the connection.
#[test]
fn content_that_nobody_reads_leaves_room_for_others() {
    run(async || {
        let served = serve(|request: Request| match request.path() {
            "/hold" => Reply::later(async move {
                let _request = request;
                std::future::pending().await
            }),
            _ => describe(request),
        });
        let mut client = served.connect_h2(&[]).await;
        for stream in [1, 3, 5] {
            client.headers(END_HEADERS, stream, &request("POST", "/hold")).await;
            for _ in 0..16 {
                client.frame(DATA, 0, stream, &[b'x'; 16_384]).await;
            }
        }

        client.headers(END_HEADERS, 7, &request("POST", "/")).await;
        client.frame(DATA, END_STREAM, 7, b"abc").await;

        assert_eq!(client.answer(7).await.1, "POST / host=a content=abc");
    });
}

/// RFC 9113 §8.1: the response is whole, and the client need not send the rest. It is told so after a while: some clients
/// send everything before they look, and some forget the response when they are reset.
#[test]
fn content_that_is_not_wanted_is_taken_for_a_while() {
    run(async || {
        let served = serve(|_: Request| ok("enough").into());
        let mut client = served.connect_h2(&[]).await;
        let start = Instant::now();

        client.headers(END_HEADERS, 1, &request("POST", "/")).await;
        assert_eq!(client.answer(1).await.1, "enough");
        let mut sent = 0;
        for _ in 0..5 {
            for _ in 0..8 {
                client.frame(DATA, 0, 1, &[b'x'; 16_384]).await;
                sent += 16_384;
            }
            sleep(Duration::from_millis(999)).await;
        }
        assert!(sent > 262_144, "more than the window");
        while client.next().await != "RST_STREAM 1 NO_ERROR" {}
        assert_eq!(start.elapsed().as_secs(), 5);

        // What is on its way already is no offence, and is given back to the connection's window.
        for _ in 0..100 {
            client.frame(DATA, 0, 1, &[b'x'; 16_384]).await;
        }
        client.get(3, "/").await;
        let rest = client.all().await;
        assert_eq!(rest.last().map(String::as_str), Some("DATA 3 END_STREAM: enough"), "{rest:?}");
    });
}

/// A client that sends all of its content first needs no reset at all.
#[test]
fn content_that_is_not_wanted_may_end() {
    run(async || {
        for path in ["/", "/refused"] {
            let served = serve(|_: Request| ok("enough").into());
            let mut client = served.connect_h2(&[]).await;
            let mut fields = request("POST", path);
            fields.push(("expect", if path == "/" { "100-continue" } else { "tea" }));

            client.headers(END_HEADERS, 1, &fields).await;
            client.answer(1).await;
            client.frame(DATA, 0, 1, b"abc").await;
            client.headers(WHOLE, 1, &[("x", "y")]).await;
            client.get(3, "/").await;

            assert_eq!(client.answer(3).await.1, "enough");
            sleep(Duration::from_secs(10)).await;
            assert_eq!(client.all().await, [""; 0]);
        }
    });
}

/// A handler that has let go of content and still works holds up nobody's content.
#[test]
fn content_that_is_not_wanted_is_taken_while_the_handler_works() {
    run(async || {
        let served = serve(|request: Request| match request.path() {
            "/" => describe(request),
            _ => {
                drop(request);
                Reply::later(std::future::pending())
            }
        });
        let mut client = served.connect_h2(&[]).await;
        for stream in [1, 3, 5, 7] {
            client.headers(END_HEADERS, stream, &request("POST", "/busy")).await;
            for _ in 0..16 {
                client.frame(DATA, 0, stream, &[b'x'; 16_384]).await;
            }
        }

        client.headers(END_HEADERS, 9, &request("POST", "/")).await;
        client.frame(DATA, END_STREAM, 9, b"abc").await;

        while client.next().await != "DATA 9 END_STREAM: POST / host=a content=abc" {}
    });
}

/// What is more than `max_body_bytes` is not waited for.
#[test]
fn declared_content_that_is_too_large_is_refused_before_it_comes() {
    run(async || {
        let served = serve(|request: Request| {
            Reply::later(async move {
                match request.into_parts().body.collect(10).await {
                    Ok(_) => ok("small"),
                    Err(error) => ok(error.to_string()),
                }
            })
        });
        let mut client = served.connect_h2(&[]).await;
        for (stream, length, content) in [(1, "10", Some("0123456789")), (3, "11", None)] {
            let mut fields = request("POST", "/");
            fields.push(("content-length", length));
            client.headers(END_HEADERS, stream, &fields).await;
            if let Some(content) = content {
                client.frame(DATA, END_STREAM, stream, content.as_bytes()).await;
            }
        }

        assert_eq!(client.answer(1).await.1, "small");
        assert_eq!(client.answer(3).await.1, "request body is larger than the limit of 10 bytes (max_body_bytes)");
    });
}

/// RFC 9113 §6.9.2: a stream's window, and what opens it.
#[test]
fn content_is_sent_as_the_stream_takes_it() {
    run(async || {
        let served = serve(|_: Request| Response::new(Body::from("0123456789")).into());
        let mut client = served.connect_h2(&[(INITIAL_WINDOW_SIZE, 3)]).await;

        client.get(1, "/").await;
        assert_eq!(client.all().await, ["HEADERS 1: :status=200 content-length=10", "DATA 1: 012"]);
        client.window_update(1, 2).await;
        assert_eq!(client.all().await, ["DATA 1: 34"]);
        client.settings(&[(INITIAL_WINDOW_SIZE, 4)]).await;
        assert_eq!(client.all().await, ["SETTINGS ACK", "DATA 1: 5"]);
        client.window_update(1, 100).await;

        assert_eq!(client.all().await, ["DATA 1 END_STREAM: 6789"]);
    });
}

/// RFC 9113 §6.9.1: the connection's window, which SETTINGS don't change.
#[test]
fn content_is_sent_as_the_connection_takes_it() {
    run(async || {
        let served = serve(|_: Request| Response::new(Body::from(vec![b'x'; 100_000])).into());
        let mut client = served.connect_h2(&[(INITIAL_WINDOW_SIZE, 1_000_000)]).await;

        client.get(1, "/").await;
        assert_eq!(length(&mut client).await, 65_535);
        client.get(3, "/").await;
        assert_eq!(client.all().await, ["HEADERS 3: :status=200 content-length=100000"]);
        client.window_update(0, 134_465).await;

        assert_eq!(length(&mut client).await, 134_465);
    });
}

/// What has no content needs no window.
#[test]
fn a_window_of_nothing_holds_up_content_alone() {
    run(async || {
        let (sender, body) = frames();
        let body = once(body);
        let served = serve(move |request: Request| match request.path() {
            "/empty" => Response::default().into(),
            _ => Response::new(body()).into(),
        });
        let mut client = served.connect_h2(&[(INITIAL_WINDOW_SIZE, 0)]).await;

        client.get(1, "/stream").await;
        client.get(3, "/empty").await;
        assert_eq!(client.all().await, [HEAD_200, "HEADERS 3 END_STREAM: :status=200 content-length=0"]);
        drop(sender);

        assert_eq!(client.all().await, ["DATA 1 END_STREAM: "]);
    });
}

/// A stream is asked for more when what it gave is on its way.
#[test]
fn a_stream_is_asked_for_more_as_the_client_takes_it() {
    run(async || {
        let (sender, body) = frames();
        let body = once(body);
        let served = serve(move |_: Request| Response::new(body()).into());
        let mut client = served.connect_h2(&[(INITIAL_WINDOW_SIZE, 1)]).await;
        for _ in 0..3 {
            sender.send(Ok(Frame::data(Bytes::from_static(b"xy")))).expect("a stream");
        }
        client.get(1, "/").await;

        assert_eq!(client.all().await, [HEAD_200, "DATA 1: x"]);
        client.window_update(1, 2).await;
        assert_eq!(client.all().await, ["DATA 1: y", "DATA 1: x"]);
        client.window_update(1, 100).await;

        assert_eq!(client.all().await, ["DATA 1: y", "DATA 1: xy"]);
    });
}

/// A megabyte through windows of every kind, to see that none is forgotten.
#[test]
fn large_content_arrives_whole_on_many_streams() {
    run(async || {
        let content = Bytes::from((0..1_000_000_u32).map(|n| n as u8).collect::<Vec<_>>());
        let sent = content.clone();
        let served = serve(move |_: Request| Response::new(Body::from(sent.clone())).into());
        let mut client = served.connect_h2(&[]).await;
        let mut received = vec![Vec::new(); 10];
        for stream in 0..10 {
            client.get(2 * stream + 1, "/").await;
        }

        let mut open = 10;
        while open > 0 {
            let frame = client.read().await.expect("a frame");
            if frame.kind != DATA {
                client.decode(&frame.payload);
                continue;
            }
            received[frame.stream as usize / 2].extend_from_slice(&frame.payload);
            if frame.flags & END_STREAM != 0 {
                open -= 1;
            } else {
                client.window_update(frame.stream, frame.payload.len() as u32).await;
            }
            client.window_update(0, frame.payload.len() as u32).await;
        }

        assert!(received.iter().all(|received| *received == content));
    });
}

/// The limits of the windows are configuration.
#[test]
fn the_windows_are_as_configured() {
    run(async || {
        let mut config = Config::default();
        config.h2_stream_window_bytes = 1000;
        config.h2_connection_window_bytes = 100_000;
        let served = serve_with(config, describe);
        let mut client = H2Client::new(served.connect().io);

        client.send(crate::support::PREFACE).await;
        client.settings(&[]).await;

        assert_eq!(client.next().await, "SETTINGS: 3=100 4=1000 6=65536 8=1 9=1");
        assert_eq!(client.all().await, ["SETTINGS ACK", "WINDOW_UPDATE 0 +34465"]);
    });
}

/// A head and its content in one packet, and in packets of one byte, are the same.
#[test]
fn frames_may_be_cut_anywhere() {
    run(async || {
        let served = serve(describe);
        let mut client = served.connect_h2(&[]).await;
        let head = client.block(&request("POST", "/"));
        let bytes = [encode(HEADERS, END_HEADERS, 1, &head), encode(DATA, END_STREAM, 1, b"abc")].concat();

        for byte in bytes {
            client.send([byte]).await;
            tokio::task::yield_now().await;
        }

        assert_eq!(client.answer(1).await.1, "POST / host=a content=abc");
    });
}

/// Reads what comes, and says how much content it was.
async fn length(client: &mut H2Client) -> usize {
    let mut length = 0;
    while let Ok(frame) = tokio::time::timeout(std::time::Duration::from_millis(100), client.read()).await {
        let frame = frame.expect("a frame");
        if frame.kind == DATA {
            length += frame.payload.len();
        } else {
            client.decode(&frame.payload);
        }
    }
    length
}
