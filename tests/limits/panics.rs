//! A panic ends what it happened in, and nothing else: it is a bug of ours, and the other requests are not to blame.

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::Frame;
use httpy::{
    App, Body, Error, Reply, Request, Response,
    conn::{Connection, Cx, LocalFuture, Protocol},
    message::Stream,
    proto::{Looks, Row},
};

use crate::support::{Client, log, ok, run, serve, serve_app};

async fn is_answered(client: &mut Client) -> bool {
    client.send("GET /well HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.answer().await.ends_with("well")
}

/// Answers `/well`; what it does about other requests is `otherwise`.
fn well(otherwise: impl Fn() -> Reply + Send + Sync) -> impl Fn(Request) -> Reply + Send + Sync {
    move |request: Request| if request.path() == "/well" { ok("well").into() } else { otherwise() }
}

#[test]
fn a_handler_that_panics_is_500_and_its_connection_lives() {
    let at_once: fn() -> Reply = || panic!("a bug in a handler");
    let later: fn() -> Reply = || Reply::later(async { panic!("a bug in a handler") });
    for handler in [at_once, later] {
        run(async || {
            let log = log();
            let served = serve(well(handler));
            let mut client = served.connect();

            let answer = client.get().await;

            assert!(answer.starts_with("HTTP/1.1 500 Internal Server Error\r\n"), "{answer}");
            assert!(!answer.contains("bug"), "the client learns nothing of the inside: {answer}");
            assert!(is_answered(&mut client).await);
            let said = r#"ERROR a panic was contained and answered with 500 kind="bug" panic="a bug in a handler""#;
            assert_eq!(log.with("panic"), [said]);
        });
    }
}

/// Content that panics when it is asked for its second frame, or when it is dropped.
struct Broken {
    frames: u32,
    breaks_at: u32,
    breaks_at_end: bool,
}

impl http_body::Body for Broken {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.frames += 1;
        assert_ne!(self.frames, self.breaks_at, "a bug in a body");
        Poll::Ready((self.frames < 3).then(|| Ok(Frame::data(Bytes::from_static(b"some")))))
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        assert!(!self.breaks_at_end, "a bug in a body");
    }
}

/// The status is on its way, so all that is left to say is that the content did not end.
#[test]
fn content_that_panics_cuts_its_response_off_and_the_server_lives() {
    for (breaks_at, breaks_at_end) in [(1, false), (2, false), (2, true)] {
        run(async || {
            let log = log();
            let broken = move || Response::new(Body::stream(Broken { frames: 0, breaks_at, breaks_at_end })).into();
            let served = serve(well(broken));
            let (mut client, mut other) = (served.connect(), served.connect());

            client.send("GET /well HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let answers = client.rest().await;

            assert!(answers.starts_with("HTTP/1.1 200 OK\r\n"), "{answers}");
            assert!(answers.contains("\r\n\r\nwell"), "what was answered before is sent: {answers}");
            assert!(!answers.ends_with("0\r\n\r\n"), "{answers}");
            assert!(is_answered(&mut other).await);
            let said = log.with(r#"kind="bug" panic="#);
            assert_eq!(said.len(), 1 + usize::from(breaks_at_end), "{said:?}");
            assert!(said[0].starts_with("ERROR a panic in streamed content was contained"), "{said:?}");
        });
    }
}

#[test]
fn content_that_panics_as_it_is_dropped_has_been_sent() {
    run(async || {
        let log = log();
        let served =
            serve(well(|| Response::new(Body::stream(Broken { frames: 0, breaks_at: 0, breaks_at_end: true })).into()));
        let mut client = served.connect();

        assert!(client.get().await.ends_with("4\r\nsome\r\n4\r\nsome\r\n0\r\n\r\n"));

        assert!(is_answered(&mut client).await);
        assert_eq!(log.with(r#"kind="bug" panic="a bug in a body""#).len(), 1);
    });
}

/// Panics as soon as its first line has come.
struct Broke;

impl Protocol<Stream> for Broke {
    fn serve(&self, _connection: Connection<Stream>, _cx: Cx) -> LocalFuture<'static, ()> {
        Box::pin(async { panic!("a bug in a {}", "protocol") })
    }
}

#[test]
fn a_protocol_that_panics_ends_its_connection_and_no_other() {
    run(async || {
        let log = log();
        let looks = |bytes: &[u8]| if bytes.starts_with(b"B") { Looks::Like } else { Looks::Unlike };
        let row = Row { alpn: b"broke", looks, protocol: Rc::new(Broke) };
        let served = serve_app(App::new(Arc::new(well(|| ok("").into()))).protocol(row));
        let (mut before, mut broken) = (served.connect(), served.connect());
        assert!(is_answered(&mut before).await);

        broken.send("B").await;

        assert!(broken.is_closed().await);
        assert!(is_answered(&mut before).await);
        assert!(is_answered(&mut served.connect()).await);
        let said = r#"ERROR a panic ended its connection kind="bug" panic="a bug in a protocol""#;
        assert_eq!(log.with("panic"), [said]);
        assert_eq!(served.stop(std::time::Duration::from_secs(5)).await, 0, "it is not waited for");
    });
}
