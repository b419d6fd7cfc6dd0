//! What travels: versions, protocols, records, and how connections begin and end.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::Frame;
use httpy::{
    App, Config, Error, Kind, Reply, Request,
    config::{Tls as Settings, TlsVersion},
    listen::{Credentials, Tls, memory},
    message::Feature,
    metrics::Counted,
    server::Queued,
};
use rustls::{
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf},
    time::Instant,
};
use tokio_rustls::TlsConnector;

use super::{Secure, client_builder, secure, secure_with, tell};
use crate::support::{Client, H2Client, PREFACE, frames, log, ok, once, run, settle};

#[test]
fn speaks_tls_1_3_and_1_2_and_says_which() {
    run(async || {
        let served = secure(tell);

        for (version, expected) in [
            (&TLS13, r#"TLSv1.3 TLS_AES_256_GCM_SHA384 Some("localhost") None resumed=false"#),
            (&TLS12, r#"TLSv1.2 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 Some("localhost") None resumed=false"#),
        ] {
            let roots = served.authority.roots();
            let config = client_builder(&[version]).with_root_certificates(roots).with_no_client_auth();
            let answer = served.connect_with(config).await.get().await;
            assert!(answer.ends_with(expected), "{answer}");
        }
    });
}

#[test]
fn the_request_knows_that_it_is_encrypted() {
    run(async || {
        let served =
            secure(|request: Request| ok(format!("{} {}", request.peer.is_tls, request.supports(Feature::Tls))).into());

        assert!(served.connect().await.get().await.ends_with("true true"));
    });
}

#[test]
fn offers_the_protocols_of_the_table() {
    run(async || {
        let served = secure(tell);
        let mut config = served.client();
        config.alpn_protocols = vec![b"unheard/1".to_vec(), b"http/1.1".to_vec()];

        let answer = served.connect_with(config.clone()).await.get().await;

        assert!(answer.contains(r#"Some("localhost") Some("http/1.1")"#), "{answer}");
        // The server's order counts: clients name what they understand, not what is best.
        config.alpn_protocols = [&b"http/1.0"[..], b"http/1.1", b"h2"].map(<[u8]>::to_vec).into();
        let stream = served.try_connect(config.clone(), "localhost").await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        config.alpn_protocols = vec![b"http/1.0".to_vec()];
        let answer = served.connect_with(config).await.get().await;
        assert!(answer.contains(r#"Some("http/1.0")"#), "{answer}");
    });
}

#[test]
fn serves_http_2_to_who_asks_for_it() {
    run(async || {
        let served = secure(|request: Request| {
            let features = [Feature::Tls, Feature::Multiplexing].map(|feature| request.supports(feature));
            ok(format!("{:?} {} {:?}", request.version, request.peer.is_tls, features)).into()
        });
        let mut config = served.client();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let io = served.try_connect(config, "localhost").await.expect("a handshake");
        let (sender, connection) = h2::client::handshake(io).await.expect("HTTP/2");
        tokio::task::spawn_local(connection);

        let request = http::Request::get("https://localhost/").body(()).expect("a request");
        let (response, _) = sender.ready().await.expect("room").send_request(request, true).expect("sent");
        let mut body = response.await.expect("a response").into_body();
        let content = body.data().await.expect("content").expect("content");

        assert_eq!(content, "HTTP/2.0 true [true, true]");
    });
}

/// There is no telling a client that it should not speak TLS: whatever it gets, it reads as TLS.
#[test]
fn closes_on_who_speaks_tls_to_a_port_without_it() {
    run(async || {
        let log = log();
        let (connector, listener) = memory();
        let _server = App::new(Arc::new(tell)).start(vec![Box::new(listener)]);
        let name = ServerName::try_from("localhost").expect("a name");
        let config = secure(tell).client();

        let plain = connector.connect().expect("a connection");
        let error = TlsConnector::from(Arc::new(config)).connect(name, plain).await.expect_err("no TLS");

        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(log.with("DEBUG a client speaks TLS to a port without it").len(), 1);
    });
}

/// RFC 7301 §3.2: a client that speaks none of them is not served with another one.
#[test]
fn refuses_a_client_that_speaks_no_protocol_of_the_table() {
    run(async || {
        let served = secure(tell);
        let mut config = served.client();
        config.alpn_protocols = vec![b"unheard/1".to_vec()];

        let error = served.try_connect(config, "localhost").await.expect_err("refused");

        assert_eq!(error.to_string(), "received fatal alert: NoApplicationProtocol");
    });
}

#[test]
fn refuses_versions_below_the_least_one() {
    run(async || {
        let served = secure_with(|settings, _, _| settings.min_version = TlsVersion::V1_3, tell);
        let roots = served.authority.roots();
        let config = client_builder(&[&TLS12]).with_root_certificates(roots).with_no_client_auth();

        let error = served.try_connect(config, "localhost").await.expect_err("refused");

        assert_eq!(error.to_string(), "received fatal alert: ProtocolVersion");
        assert!(served.connect().await.get().await.contains("TLSv1.3"));
    });
}

#[test]
fn uses_only_the_ciphers_that_are_named() {
    run(async || {
        for (ciphers, expected) in [
            (&["TLS_CHACHA20_POLY1305_SHA256"][..], "TLSv1.3 TLS_CHACHA20_POLY1305_SHA256"),
            // None of 1.3, which is then not agreed on.
            (&["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"], "TLSv1.2 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
            // Of several the client chooses: it knows which one its processor is good at.
            (&["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"], "TLSv1.3 TLS_AES_256_GCM_SHA384"),
        ] {
            let names = ciphers.iter().map(|&name| name.to_owned()).collect();
            let served = secure_with(|settings, _, _| settings.ciphers = names, tell);

            let answer = served.connect().await.get().await;

            assert!(answer.contains(expected), "{answer}");
        }
    });
}

#[test]
fn serves_with_and_without_tls_at_once() {
    run(async || {
        let Secure { authority, folder, credentials, .. } = secure(tell);
        let (plain_connector, plain) = memory();
        let (connector, listener) = memory();
        let encrypted = Tls::new(Box::new(listener), credentials.clone());
        let server = App::new(Arc::new(tell)).start(vec![Box::new(plain), Box::new(encrypted)]);
        let served = Secure { authority, folder, credentials, connector, server };

        let mut plain = Client::over(plain_connector.connect().expect("a connection"));

        assert!(plain.get().await.ends_with("\r\n\r\nplain"));
        assert!(served.connect().await.get().await.contains("TLSv1.3"));
    });
}

#[test]
fn tells_who_speaks_http_without_tls() {
    run(async || {
        let log = log();
        let served = secure(tell);

        for request in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"]
        {
            let mut client = Client::over(served.plain());
            client.send(request).await;

            let answer = client.rest().await;

            assert_eq!(
                answer,
                "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n\
                 content-length: 61\r\n\r\na plain HTTP request was sent to an HTTPS port: use https://\n"
            );
        }
        settle().await;
        assert_eq!(log.with("handshake failed error=the client speaks HTTP without TLS").len(), 2);
    });
}

/// RFC 9113 §6.8: clients of HTTP/2 show the debug data of a GOAWAY.
#[test]
fn tells_who_speaks_http_2_without_tls() {
    run(async || {
        let served = secure(tell);
        let mut client = H2Client::new(served.plain());

        client.send(PREFACE).await;
        client.settings(&[]).await;

        assert_eq!(client.next().await, "SETTINGS: ");
        let goaway = client.read().await.expect("a frame");
        assert_eq!(&goaway.payload[..8], [0, 0, 0, 0, 0, 0, 0, 0xc], "INADEQUATE_SECURITY");
        let text = std::str::from_utf8(&goaway.payload[8..]);
        assert_eq!(text, Ok("a plain HTTP request was sent to an HTTPS port: use https://"));
        assert_eq!(client.next().await, "END");
        drop(client);
        settle().await;
        assert_eq!(served.server.metrics().get(Counted::HandshakesFailed), 1);
    });
}

/// A reset, because of content that nobody reads, would take the answer from the client.
#[test]
fn reads_what_follows_a_request_without_tls() {
    run(async || {
        let served = secure(tell);
        let mut client = Client::over(served.plain());
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;

        client.send(vec![b'x'; 1_000_000]).await;

        assert!(client.read_until(b"https://\n").await.starts_with("HTTP/1.1 400"));
        client.half_close().await;
        assert!(client.is_closed().await);
    });
}

#[test]
fn who_does_not_go_away_after_that_is_left() {
    run(async || {
        let served = secure(tell);
        let mut client = Client::over(served.plain());
        client.send("GET / HTTP/1.1\r\n\r\n").await;
        client.rest().await;
        let start = Instant::now();

        let mut gone = client.io;
        while gone.write(&[b'x'; 1000]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }

        assert!(start.elapsed() <= Duration::from_millis(1100), "{:?}", start.elapsed());
    });
}

#[test]
fn answers_anything_else_with_an_alert() {
    run(async || {
        let log = log();
        let served = secure(tell);
        for garbage in
            [&b"\x00\x01\x02\x03\x04\x05"[..], b"\x16\x03\x01\xff\xff\xff\xff\xff", b"\x80\x2e\x01\x00\x02\x00"]
        {
            let mut client = served.plain();
            client.write_all(garbage).await.expect("sent");

            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.expect("closed");

            // RFC 8446 §6: an alert (0x15), fatal (2).
            assert_eq!((answer[0], answer[5]), (0x15, 2), "{garbage:?}: {answer:?}");
        }
        assert_eq!(log.with("DEBUG handshake failed").len(), 3);
        assert_eq!(served.server.metrics().get(Counted::HandshakesFailed), 3);
    });
}

#[test]
fn a_client_that_says_nothing_and_leaves_is_no_failure_of_others() {
    run(async || {
        let log = log();
        let served = secure(tell);

        drop(served.plain());
        settle().await;

        assert_eq!(log.with("the client closed before the handshake").len(), 1);
        assert!(served.connect().await.get().await.contains("TLSv1.3"));
    });
}

#[test]
fn a_handshake_may_take_its_time_and_no_longer() {
    run(async || {
        let log = log();
        let served = secure(tell);
        // The beginning of a record, whose rest never comes.
        for begun in [&b""[..], b"\x16\x03\x01"] {
            let start = Instant::now();
            let mut client = served.plain();
            client.write_all(begun).await.expect("sent");

            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.expect("closed");

            assert_eq!(answer, b"");
            assert_eq!(start.elapsed(), Config::default().handshake_timeout);
        }
        assert_eq!(log.with("handshake took too long (handshake_timeout)").len(), 2);
        assert_eq!(served.server.metrics().get(Counted::HandshakesLate), 2);
    });
}

#[test]
fn a_handshake_just_in_time_is_fine() {
    run(async || {
        let served = secure(tell);
        let late = Late {
            io: served.plain(),
            until: Config::default().handshake_timeout - Duration::from_millis(1),
            sleep: None,
        };
        let name = ServerName::try_from("localhost").expect("a name");

        let io = TlsConnector::from(Arc::new(served.client())).connect(name, late).await.expect("a handshake");

        assert!(Client::over(io).get().await.contains("TLSv1.3"));
    });
}

/// A stream whose first bytes are sent late.
struct Late {
    io: DuplexStream,
    until: Duration,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl AsyncRead for Late {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Late {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let until = self.until;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(until)));
        std::task::ready!(sleep.as_mut().poll(cx));
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// RFC 8446 §6.1: close_notify is what tells a response that ends with its connection from one that was cut off.
#[test]
fn ends_with_close_notify_what_ended_well() {
    run(async || {
        let (sender, body) = frames();
        let body = once(body);
        let served = secure(move |_: Request| ok(body()).into());
        let mut client = served.connect().await;
        sender.send(Ok(Frame::data("some content".into()))).expect("the body is there");
        drop(sender);
        client.send("GET / HTTP/1.0\r\n\r\n").await;

        let mut all = String::new();
        // It fails where close_notify is missing.
        client.io.read_to_string(&mut all).await.expect("close_notify");

        assert!(all.ends_with("\r\n\r\nsome content"), "{all}");
        assert!(!all.contains("content-length"), "{all}");
    });
}

#[test]
fn sends_no_close_notify_after_content_that_failed() {
    run(async || {
        let (sender, body) = frames();
        let body = once(body);
        let served = secure(move |_: Request| ok(body()).into());
        let mut client = served.connect().await;
        client.send("GET / HTTP/1.0\r\n\r\n").await;
        sender.send(Ok(Frame::data("some content".into()))).expect("the body is there");
        client.read_until(b"\r\n\r\nsome content").await;

        sender.send(Err(Error::new(Kind::Handler, "no more"))).expect("the body is there");
        let error = client.io.read_to_end(&mut Vec::new()).await.expect_err("no close_notify");

        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn a_client_that_closes_is_gone_whether_it_says_so_or_not() {
    run(async || {
        let log = log();
        for says_so in [true, false] {
            let served = secure(tell);
            let mut client = served.connect().await;
            client.get().await;

            if says_so {
                client.half_close().await;
                assert!(client.is_closed().await);
            }
            drop(client);
            settle().await;

            assert_eq!(served.stop(Duration::ZERO).await, 0);
        }
        assert_eq!(log.with("connection ended"), <[String; 0]>::default());
        assert_eq!(log.with("connection broke"), <[String; 0]>::default());
    });
}

/// RFC 8446 §6.1 lets a client close its side and read on. What is at hand is sent, as without TLS.
#[test]
fn answers_a_client_that_has_closed_its_side_behind_the_request() {
    run(async || {
        let served = secure(|_: Request| ok("an answer").into());
        let mut client = served.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;

        client.half_close().await;

        assert!(client.rest().await.ends_with("an answer"));
    });
}

#[test]
fn carries_much_both_ways_to_a_client_that_is_slow() {
    run(async || {
        let served = secure(|request: Request| {
            Reply::later(async move {
                let (content, _) = request.into_parts().body.collect(1 << 24).await.expect("content");
                ok(content)
            })
        });
        let mut client = served.connect().await;
        let content: Vec<u8> = (0..3_000_000_u32).map(|n| b'a' + (n % 23) as u8).collect();

        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", content.len())).await;
        for part in content.chunks(100_000) {
            client.send(part).await;
            settle().await;
        }
        let head = client.read_until(b"\r\n\r\n").await;
        let mut answer = String::new();
        while answer.len() < content.len() {
            answer += &client.read_exactly(100_000).await;
            settle().await;
        }

        assert!(head.contains("content-length: 3000000"), "{head}");
        assert_eq!(answer.as_bytes(), content);
    });
}

#[test]
fn a_stopping_server_lets_tls_connections_finish() {
    run(async || {
        let served = secure(|_: Request| ok("").into());
        let mut client = served.connect().await;
        client.get().await;
        let Secure { server, folder: _folder, .. } = served;
        let stopped = tokio::task::spawn_local(server.stop(Duration::from_secs(5), Queued::Served));
        settle().await;

        let answer = client.get().await;

        assert!(answer.contains("connection: close"), "{answer}");
        client.io.read_to_end(&mut Vec::new()).await.expect("close_notify");
        assert_eq!(stopped.await.expect("stopped"), 0);
    });
}

/// Rule 5 of `listen/tls.rs`: a record costs 22 bytes and some hundred nanoseconds, a write to the system some thousand.
#[test]
fn sends_what_belongs_together_as_one_record_in_one_write() {
    run(async || {
        let served = secure(|_: Request| ok("x".repeat(100)).into());
        let (io, seen) = Tapped::new(served.plain());
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = TlsConnector::from(Arc::new(served.client())).connect(name, io).await.expect("a handshake");
        let mut client = Client::over(stream);
        // Tickets come with the first answer.
        client.get().await;
        settle().await;
        seen.lock().expect("unpoisoned").clear();

        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(16)).await;
        for _ in 0..16 {
            client.answer().await;
        }

        let seen = seen.lock().expect("unpoisoned").concat();
        assert_eq!(records(&seen), 1, "{} bytes", seen.len());
    });
}

#[test]
fn large_content_is_sent_in_large_records() {
    run(async || {
        let served = secure(|_: Request| ok(Bytes::from(vec![b'x'; 160_000])).into());
        let (io, seen) = Tapped::new(served.plain());
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = TlsConnector::from(Arc::new(served.client())).connect(name, io).await.expect("a handshake");
        let mut client = Client::over(stream);

        client.get().await;
        seen.lock().expect("unpoisoned").clear();
        client.get().await;

        let seen = seen.lock().expect("unpoisoned").concat();
        // 16 KiB each; one or two are smaller where the stream was full.
        assert!(records(&seen) <= 14, "{} records", records(&seen));
    });
}

/// How many records some bytes are.
fn records(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let [_, _, _, high, low, rest @ ..] = bytes {
        bytes = &rest[usize::from(u16::from_be_bytes([*high, *low]))..];
        count += 1;
    }
    count
}

/// What was read, read by read.
type Seen = Arc<Mutex<Vec<Vec<u8>>>>;

/// A stream that keeps what it reads.
struct Tapped {
    io: DuplexStream,
    seen: Seen,
}

impl Tapped {
    fn new(io: DuplexStream) -> (Self, Seen) {
        let seen = Seen::default();
        (Self { io, seen: seen.clone() }, seen)
    }
}

impl AsyncRead for Tapped {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        self.seen.lock().expect("unpoisoned").push(buffer.filled()[before..].to_vec());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[test]
fn says_its_address_as_https() {
    run(async || {
        let served = secure(tell);
        let listening = httpy::listen::Listening::tcp("127.0.0.1:0".parse().expect("an address"), 10);
        let listening = listening.expect("a port");
        let port = listening.port().expect("a port");
        let credentials: Arc<Credentials> = served.credentials.clone();

        let listener = Tls::new(listening.listen().expect("a listener"), credentials);

        assert_eq!(httpy::conn::Listener::address(&listener), format!("https://127.0.0.1:{port}"));
    });
}

/// Workers that share a socket look first whether anybody waits there.
#[cfg(unix)]
#[test]
fn tells_when_somebody_waits() {
    run(async || {
        let served = secure(tell);
        let listening = httpy::listen::Listening::tcp("127.0.0.1:0".parse().expect("an address"), 10);
        let listening = listening.expect("a port");
        let port = listening.port().expect("a port");
        let listener = Tls::new(listening.listen().expect("a listener"), served.credentials.clone());
        let _waiting = std::net::TcpStream::connect(("127.0.0.1", port)).expect("connected");

        let readable = httpy::conn::Listener::readable(&listener).expect("it can tell");

        readable.await.expect("somebody");
        assert!(httpy::conn::Listener::accept_queued(&listener).expect("no error").is_some());
    });
}

#[test]
fn the_defaults_are_these() {
    let settings = Settings::default();

    assert_eq!(settings.min_version, TlsVersion::V1_2);
    assert_eq!(settings.reload_interval, Duration::from_secs(10));
    assert!(settings.certificates.is_empty() && settings.ciphers.is_empty() && settings.client_ca.is_none());
}
