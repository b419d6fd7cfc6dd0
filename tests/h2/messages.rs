//! Requests and responses (RFC 9113 §8).

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::Frame;
use httpy::{App, Body, Error, Reply, Request, Response, message::text};
use tokio::sync::{Notify, oneshot};

use crate::support::{
    DATA, Drops, END_HEADERS, END_STREAM, H2Client, PREFACE, SETTINGS, WHOLE, describe, drops, frames, ok, once,
    request, run, serve, serve_app,
};

fn hello(_: Request) -> Reply {
    ok("Hello").into()
}

const TEXT: &str = "content-type=text/plain; charset=utf-8";

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

        assert_eq!(client.next().await, format!("HEADERS 1: :status=200 {TEXT} content-length=5"));
        assert_eq!(client.next().await, "DATA 1 END_STREAM: Hello");
    });
}

/// Above the carrier there is one kind of request.
#[test]
fn a_request_looks_as_it_does_by_any_version() {
    run(async || {
        let served = serve(|request: Request| {
            let headers: Vec<_> = request.headers.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
            ok(format!("{} {} {} {}", request.http_version(), request.method, request.uri, headers.join(" "))).into()
        });
        let mut client = served.connect_h2(&[]).await;

        client
            .headers(
                WHOLE,
                1,
                &[(":method", "GET"), (":scheme", "https"), (":authority", "a:8000"), (":path", "/b?c=d"), ("x", "y")],
            )
            .await;

        assert_eq!(client.answer(1).await.1, "2 GET /b?c=d x=\"y\" host=\"a:8000\"");
    });
}

/// RFC 9113 §5: a stream does not wait for another.
#[test]
fn answers_requests_in_the_order_in_which_they_are_ready() {
    run(async || {
        let gate = Arc::new(Notify::new());
        let opened = gate.clone();
        let served = serve(move |request: Request| match request.path() {
            "/slow" => {
                let gate = opened.clone();
                Reply::later(async move {
                    gate.notified().await;
                    ok("slow")
                })
            }
            path => ok(path.to_owned()).into(),
        });
        let mut client = served.connect_h2(&[]).await;

        client.get(1, "/slow").await;
        client.get(3, "/fast").await;
        assert_eq!(client.answer(3).await.1, "/fast");
        client.get(5, "/later").await;
        assert_eq!(client.answer(5).await.1, "/later");
        gate.notify_one();

        assert_eq!(client.answer(1).await.1, "slow");
    });
}

#[test]
fn is_served_beside_http_1_on_the_same_listener_however_slowly_the_preface_comes() {
    run(async || {
        let served = serve(hello);
        let mut old = served.connect();
        let mut client = H2Client::new(served.connect().io);

        old.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        for byte in PREFACE {
            client.send([*byte]).await;
            tokio::task::yield_now().await;
        }
        client.settings(&[]).await;

        assert!(old.answer().await.ends_with("\r\n\r\nHello"));
        assert!(client.next().await.starts_with("SETTINGS:"));
    });
}

/// RFC 9113 §3.4: what begins as neither is closed, and not answered in a language that it does not speak.
#[test]
fn closes_what_speaks_something_else() {
    run(async || {
        let served = serve(hello);

        assert_eq!(served.exchange("INVALID CONNECTION PREFACE\r\n\r\n").await, "");
        let prefix = H2Client::new(served.connect().io);
        drop(prefix);
        assert_eq!(
            served.exchange("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").await.split("\r\n").next(),
            Some("HTTP/1.1 505 HTTP Version Not Supported")
        );
    });
}

/// RFC 9110 §9.3.2.
#[test]
fn head_is_answered_with_the_length_and_without_the_content() {
    run(async || {
        let served = serve(hello);
        let mut client = served.connect_h2(&[]).await;

        client.headers(WHOLE, 1, &request("HEAD", "/")).await;

        assert_eq!(client.next().await, format!("HEADERS 1 END_STREAM: :status=200 {TEXT} content-length=5"));
    });
}

/// RFC 9110 §15.3.5, §15.4.5, §8.6.
#[test]
fn some_statuses_have_no_content() {
    run(async || {
        for (status, head) in [
            (204, format!("HEADERS 1 END_STREAM: :status=204 {TEXT}")),
            (205, format!("HEADERS 1 END_STREAM: :status=205 {TEXT} content-length=0")),
            (304, format!("HEADERS 1 END_STREAM: :status=304 {TEXT}")),
        ] {
            let served = serve(move |_: Request| text(StatusCode::from_u16(status).expect("a status"), "x").into());
            let mut client = served.connect_h2(&[]).await;

            client.get(1, "/").await;

            assert_eq!(client.next().await, head);
        }
    });
}

/// RFC 9110 §8.6, RFC 9113 §8.1.1: a length that is not the content's is no length.
#[test]
fn the_length_of_a_response_is_that_of_its_content() {
    run(async || {
        for (said, status, content, sent) in [
            ("5", 200, "Hello", " content-length=5"),
            ("4", 200, "Hello", " content-length=5"),
            ("x", 200, "Hello", " content-length=5"),
            ("7", 200, "", " content-length=0"),
            ("7", 204, "", ""),
            ("7", 304, "", " content-length=7"),
        ] {
            let served = serve(move |_: Request| {
                let mut response = Response::new(Body::from(content));
                *response.status_mut() = StatusCode::from_u16(status).expect("a status");
                response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static(said));
                response.into()
            });
            let mut client = served.connect_h2(&[]).await;

            client.get(1, "/").await;

            let head = client.next().await;
            assert!(head.ends_with(&format!(":status={status}{sent}")), "{said} {status}: {head}");
        }
    });
}

/// RFC 9113 §8.2.2.
#[test]
fn fields_that_speak_of_a_connection_are_not_sent() {
    run(async || {
        let served = serve(|_: Request| {
            let mut response = Response::default();
            for (name, value) in [
                ("connection", "close"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "keep-alive"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "websocket"),
                ("x", "y"),
            ] {
                response.headers_mut().append(name, HeaderValue::from_static(value));
            }
            response.into()
        });
        let mut client = served.connect_h2(&[]).await;

        client.get(1, "/").await;

        assert_eq!(client.next().await, "HEADERS 1 END_STREAM: :status=200 x=y content-length=0");
    });
}

/// RFC 9110 §15.2: not an answer, and 101 least of all (RFC 9113 §8.6).
#[test]
fn an_interim_status_from_a_handler_is_500() {
    run(async || {
        for status in [100, 101, 103] {
            let served = serve(move |_: Request| text(StatusCode::from_u16(status).expect("a status"), "x").into());
            let mut client = served.connect_h2(&[]).await;

            client.get(1, "/").await;

            assert_eq!(client.answer(1).await.0, "500");
        }
    });
}

/// RFC 9110 §6.6.1.
#[test]
fn the_date_of_a_handler_is_kept() {
    run(async || {
        const DATE: &str = "Thu, 01 Jan 1970 00:00:00 GMT";
        let served = serve(|_: Request| {
            let mut response = Response::default();
            response.headers_mut().insert(header::DATE, HeaderValue::from_static(DATE));
            response.into()
        });
        let mut client = served.connect_h2(&[]).await;

        client.get(1, "/").await;

        let head = client.read().await.expect("a head");
        let fields = client.decode(&head.payload);
        assert!(fields.contains(&("date".to_owned(), DATE.to_owned())), "{fields:?}");
    });
}

#[test]
fn a_stream_is_sent_as_it_comes_and_ends_when_it_does() {
    run(async || {
        let (sender, body) = frames();
        let body = once(body);
        let served = serve(move |_: Request| Response::new(body()).into());
        let mut client = served.connect_h2(&[]).await;

        client.get(1, "/").await;
        assert_eq!(client.next().await, "HEADERS 1: :status=200");
        for piece in ["one", "two"] {
            sender.send(Ok(Frame::data(Bytes::from(piece)))).expect("a stream");
            assert_eq!(client.next().await, format!("DATA 1: {piece}"));
        }
        drop(sender);

        assert_eq!(client.next().await, "DATA 1 END_STREAM: ");
    });
}

/// RFC 9113 §8.1.1: shorter or longer than it says is malformed. Better reset than taken for whole.
#[test]
fn a_stream_of_another_length_than_it_says_is_reset() {
    run(async || {
        for (content, before) in [("Hell", Some("DATA 1: Hell")), ("Hello!", None)] {
            let (sender, body) = frames();
            let body = once(body);
            let served = serve(move |_: Request| {
                let mut response = Response::new(body());
                response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(5));
                response.into()
            });
            let mut client = served.connect_h2(&[]).await;
            client.get(1, "/").await;
            assert_eq!(client.next().await, "HEADERS 1: :status=200 content-length=5");

            sender.send(Ok(Frame::data(Bytes::from(content)))).expect("a stream");
            if let Some(before) = before {
                assert_eq!(client.next().await, before);
            }
            drop(sender);

            assert_eq!(client.next().await, "RST_STREAM 1 INTERNAL_ERROR");
        }
    });
}

#[test]
fn a_stream_that_fails_or_panics_is_reset_and_the_others_go_on() {
    run(async || {
        let served = serve(|request: Request| match request.path() {
            "/panic" => Response::new(Body::stream(Panics)).into(),
            "/fail" => {
                let (sender, body) = frames();
                let _ = sender.send(Err(Error::new(httpy::Kind::Handler, "no more")));
                Response::new(body).into()
            }
            _ => ok("fine").into(),
        });
        let mut client = served.connect_h2(&[]).await;

        client.get(1, "/panic").await;
        client.get(3, "/fail").await;
        client.get(5, "/").await;

        let all = client.all().await;
        for expected in ["RST_STREAM 1 INTERNAL_ERROR", "RST_STREAM 3 INTERNAL_ERROR", "DATA 5 END_STREAM: fine"] {
            assert!(all.iter().any(|frame| frame == expected), "{expected}: {all:?}");
        }
    });
}

struct Panics;

impl http_body::Body for Panics {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Error>>> {
        panic!("in a stream");
    }
}

#[test]
fn a_panic_in_a_handler_is_500_and_the_connection_lives_on() {
    run(async || {
        let served =
            serve(|request: Request| if request.path() == "/panic" { panic!("here") } else { ok("fine").into() });
        let mut client = served.connect_h2(&[]).await;

        client.get(1, "/panic").await;
        client.get(3, "/").await;

        assert_eq!(client.answer(1).await.0, "500");
        assert_eq!(client.answer(3).await.1, "fine");
    });
}

/// RFC 9110 §6.5.1: for those who say that they take it.
#[test]
fn a_trailer_section_is_sent_to_those_who_take_it() {
    run(async || {
        for (te, end) in [(true, "HEADERS 1 END_STREAM: x=y"), (false, "DATA 1 END_STREAM: ")] {
            let (sender, body) = frames();
            let body = once(body);
            let served = serve(move |_: Request| Response::new(body()).into());
            let mut client = served.connect_h2(&[]).await;
            let mut fields = request("GET", "/");
            fields.extend(te.then_some(("te", "trailers")));
            client.headers(WHOLE, 1, &fields).await;
            client.next().await;

            sender.send(Ok(Frame::data(Bytes::from("content")))).expect("a stream");
            let mut trailers = HeaderMap::new();
            trailers.insert("x", HeaderValue::from_static("y"));
            trailers.insert("connection", HeaderValue::from_static("z"));
            sender.send(Ok(Frame::trailers(trailers))).expect("a stream");

            assert_eq!([client.next().await, client.next().await], ["DATA 1: content", end]);
        }
    });
}

/// RFC 9113 §8.2.3.
#[test]
fn cookies_are_one_field_again() {
    run(async || {
        let served = serve(|request: Request| {
            let cookies: Vec<_> = request.headers.get_all("cookie").iter().map(|cookie| cookie.to_str()).collect();
            ok(format!("{cookies:?}")).into()
        });
        let mut client = served.connect_h2(&[]).await;
        let mut fields = request("GET", "/");
        fields.extend([("cookie", "a=b"), ("cookie", "c=d"), ("cookie", "e=f; g=h")]);

        client.headers(WHOLE, 1, &fields).await;

        assert_eq!(client.answer(1).await.1, "[Ok(\"a=b; c=d; e=f; g=h\")]");
    });
}

/// RFC 9110 §10.1.1.
#[test]
fn continue_is_sent_when_the_content_is_wanted() {
    run(async || {
        let served = serve(describe);
        let mut client = served.connect_h2(&[]).await;
        let mut fields = request("POST", "/");
        fields.push(("expect", "100-Continue"));

        client.headers(END_HEADERS, 1, &fields).await;
        assert_eq!(client.next().await, "HEADERS 1: :status=100");
        client.frame(DATA, END_STREAM, 1, b"abc").await;

        assert_eq!(client.answer(1).await.1, "POST / host=a content=abc");
    });
}

/// RFC 9110 §10.1.1: not if nobody wants the content, and not if it has come.
#[test]
fn continue_is_not_sent_for_nothing() {
    run(async || {
        let served = serve(|request: Request| if request.path() == "/no" { hello(request) } else { describe(request) });
        let mut client = served.connect_h2(&[]).await;
        let mut fields = request("POST", "/no");
        fields.push(("expect", "100-continue"));

        client.headers(END_HEADERS, 1, &fields).await;
        assert_eq!(client.answer(1).await, ("200".to_owned(), "Hello".to_owned()));

        fields[3] = (":path", "/yes");
        let head = client.block(&fields);
        let frames = [
            crate::support::encode(crate::support::HEADERS, END_HEADERS, 3, &head),
            crate::support::encode(DATA, END_STREAM, 3, b"abc"),
        ];
        client.send(frames.concat()).await;

        assert_eq!(client.answer(3).await.1, "POST /yes host=a content=abc");
    });
}

/// RFC 8297.
#[test]
fn early_hints_go_ahead_of_the_response() {
    run(async || {
        let (said, heard) = oneshot::channel();
        let said = once(said);
        let gate = Arc::new(Notify::new());
        let opened = gate.clone();
        let served = serve(move |request: Request| {
            let (said, gate) = (said(), opened.clone());
            Reply::later(async move {
                let hint = |link: &'static str| {
                    let mut fields = HeaderMap::new();
                    fields.append(header::LINK, HeaderValue::from_static(link));
                    fields.append(header::CONNECTION, HeaderValue::from_static("close"));
                    request.exchange.early_hints(fields)
                };
                assert!(hint("</a.css>; rel=preload") && hint("</b.css>; rel=preload"));
                gate.notified().await;
                let _ = said.send(request);
                ok("page")
            })
        });
        let mut client = served.connect_h2(&[]).await;

        client.get(1, "/").await;
        assert_eq!(client.next().await, "HEADERS 1: :status=103 link=</a.css>; rel=preload");
        assert_eq!(client.next().await, "HEADERS 1: :status=103 link=</b.css>; rel=preload");
        gate.notify_one();
        assert_eq!(client.answer(1).await.1, "page");

        let request = heard.await.expect("a request");
        assert!(!request.exchange.early_hints(HeaderMap::new()), "the response has been sent");
        assert_eq!(client.all().await, [""; 0]);
    });
}

/// RFC 9113 §5.4.2: what nobody waits for is not worked on.
#[test]
fn a_handler_is_dropped_when_the_client_resets_its_stream_or_leaves() {
    run(async || {
        for leaves in [false, true] {
            let (dropped, is_dropped) = drops();
            let dropped = once(dropped);
            let served = serve(move |_: Request| {
                let dropped: Drops = dropped();
                Reply::later(async move {
                    let _dropped = dropped;
                    std::future::pending().await
                })
            });
            let mut client = served.connect_h2(&[]).await;
            client.get(1, "/").await;
            tokio::task::yield_now().await;

            if leaves {
                drop(client);
            } else {
                client.reset(1, "CANCEL").await;
            }

            is_dropped.await.expect("dropped");
        }
    });
}

/// A stream that nobody reads ends, too.
#[test]
fn the_content_of_a_response_is_dropped_when_the_client_resets_its_stream() {
    run(async || {
        let (sender, body) = frames();
        let body = once(body);
        let served = serve(move |_: Request| Response::new(body()).into());
        let mut client = served.connect_h2(&[]).await;
        client.get(1, "/").await;
        client.next().await;

        client.reset(1, "CANCEL").await;

        sender.closed().await;
    });
}

#[test]
fn says_what_it_can_do() {
    run(async || {
        let served = serve_app(App::new(Arc::new(|request: Request| {
            let can = httpy::message::Feature::NAMES.iter().filter(|(_, feature)| request.supports(*feature));
            ok(can.map(|(name, _)| *name).collect::<Vec<_>>().join(" ")).into()
        })));
        let mut client = served.connect_h2(&[]).await;
        let mut fields = request("GET", "/");
        fields.push(("te", "trailers"));

        client.headers(WHOLE, 1, &fields).await;

        assert_eq!(client.answer(1).await.1, "multiplexing push early_hints trailers websocket priority");
    });
}
