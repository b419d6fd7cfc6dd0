//! What "extensible" means here: a foreign protocol and a foreign listener, added through the public seams alone.

use std::{cell::RefCell, io, net::SocketAddr, rc::Rc, sync::Arc};

use http::{Method, Uri};
use httpy::{
    App, Handler, Reply, Request,
    conn::{Connection, Cx, Incoming, Listener, LocalFuture, Protocol, Standing},
    message::{Peer, Stream},
    proto::{Looks, Row},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex},
    sync::mpsc,
};

use crate::support::{ok, run, serve, serve_app};

/// A protocol of lines: `LINE path` in, the content out, until the client leaves or the server drains.
struct Lines;

impl Lines {
    fn row() -> Row {
        let looks = |bytes: &[u8]| match bytes {
            _ if bytes.starts_with(b"LINE ") => Looks::Like,
            _ if b"LINE ".starts_with(bytes) => Looks::Unsure,
            _ => Looks::Unlike,
        };
        Row { alpn: b"lines", looks, protocol: Rc::new(Self) }
    }
}

impl Protocol<Stream> for Lines {
    fn serve(&self, connection: Connection<Stream>, cx: Cx) -> LocalFuture<'static, ()> {
        Box::pin(async move {
            let mut io = BufReader::new(connection.io);
            let mut line = String::new();
            loop {
                line.clear();
                tokio::select! {
                    read = io.read_line(&mut line) => if read.unwrap_or(0) == 0 { return },
                    () = cx.signal.started() => return,
                }
                cx.place.set(Standing::Working);
                let path = line.trim_end().trim_start_matches("LINE ");
                let request = Request::new(Method::GET, path.parse::<Uri>().expect("a path"));
                let response = cx.stack.answer(request).await;
                let (content, _) = response.into_body().collect(1000).await.expect("content");
                cx.place.set(Standing::Waiting);
                if io.write_all(&[&content[..], b"\n"].concat()).await.is_err() {
                    return;
                }
                cx.place.set(Standing::Resting);
            }
        })
    }
}

fn echo_path(request: Request) -> Reply {
    ok(format!("{} {}", request.path(), request.http_version())).into()
}

#[test]
fn a_foreign_protocol_is_served_beside_http_on_one_listener() {
    run(async || {
        let served = serve_app(App::new(Arc::new(echo_path)).protocol(Lines::row()));
        let (mut lines, mut http) = (served.connect(), served.connect());

        lines.send("LINE /a\nLINE /b\n").await;
        assert_eq!(lines.read_exactly(14).await, "/a 1.1\n/b 1.1\n");
        http.send("GET /c HTTP/1.1\r\nHost: a\r\n\r\n").await;

        assert!(http.answer().await.ends_with("\r\n\r\n/c 1.1"));
    });
}

#[test]
fn a_protocol_is_recognised_however_slowly_its_first_bytes_come() {
    run(async || {
        let served = serve_app(App::new(Arc::new(echo_path)).protocol(Lines::row()));

        for (request, answer) in [("LINE /a\n", "/a 1.1\n"), ("LINK / HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK\r\n")] {
            let mut client = served.connect();
            for byte in request.bytes() {
                client.send([byte]).await;
                tokio::task::yield_now().await;
            }

            assert_eq!(client.read_exactly(answer.len()).await, answer);
        }
    });
}

#[test]
fn a_connection_that_never_says_what_it_speaks_is_closed() {
    run(async || {
        let served = serve_app(App::new(Arc::new(echo_path)).protocol(Lines::row()));
        let mut client = served.connect();

        client.send("LIN").await;

        assert!(client.is_closed().await);
    });
}

#[test]
fn a_foreign_protocol_makes_room_when_it_says_that_it_rests() {
    run(async || {
        let mut config = httpy::Config::default();
        config.max_connections = 1;
        let served = serve_app(App::new(Arc::new(echo_path)).protocol(Lines::row()).config(config));
        let mut first = served.connect();
        first.send("LINE /a\n").await;
        first.read_until(b"\n").await;

        let mut second = served.connect();
        second.send("LINE /b\n").await;

        assert_eq!(second.read_exactly(7).await, "/b 1.1\n");
        assert!(first.is_closed().await);
    });
}

#[test]
fn a_foreign_protocol_drains_with_the_rest() {
    run(async || {
        let served = serve_app(App::new(Arc::new(echo_path)).protocol(Lines::row()));
        let mut client = served.connect();
        client.send("LINE /a\n").await;
        client.read_until(b"\n").await;

        assert_eq!(served.stop(std::time::Duration::from_secs(30)).await, 0);

        assert!(client.is_closed().await);
    });
}

/// A listener that is nothing but a queue, and fails now and then.
struct Queue(RefCell<mpsc::UnboundedReceiver<io::Result<DuplexStream>>>);

const CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 4711);

impl Listener for Queue {
    fn accept(&self) -> LocalFuture<'_, io::Result<Incoming>> {
        Box::pin(async {
            let io = std::future::poll_fn(|cx| self.0.borrow_mut().poll_recv(cx)).await.expect("a test to go on")?;
            let peer = Peer { client: Some(CLIENT), ..Peer::default() };
            let connection = Connection { io: Stream::new(io), peer: peer.clone(), alpn: Some(b"lines".to_vec()) };
            Ok(Incoming { peer, handshake: Box::pin(async { Ok(connection) }) })
        })
    }

    fn address(&self) -> String {
        "queue:".to_owned()
    }
}

#[test]
fn a_foreign_listener_says_by_alpn_what_its_connections_speak() {
    run(async || {
        let (queue, receiver) = mpsc::unbounded_channel();
        let app = App::new(Arc::new(echo_path)).protocol(Lines::row());
        let _server = app.start(vec![Box::new(Queue(RefCell::new(receiver)))]);
        let (mut client, io) = duplex(1000);

        // Neither an error of one connection nor one of the system ends the listening.
        queue.send(Err(io::ErrorKind::ConnectionReset.into())).expect("a server");
        queue.send(Err(io::Error::from_raw_os_error(24))).expect("a server");
        queue.send(Ok(io)).expect("a server");
        client.write_all(b"/without-the-word\n").await.expect("a server");

        let mut answer = [0; 22];
        client.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"/without-the-word 1.1\n");
    });
}

#[test]
fn a_closure_and_a_stack_are_handlers() {
    run(async || {
        let stack = httpy::Stack::new(Vec::new(), Arc::new(echo_path));
        let served = serve(move |request: Request| stack.call(request));
        let mut client = served.connect();

        client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;

        assert!(client.answer().await.ends_with("/a 1.1"));
    });
}
