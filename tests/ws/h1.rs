//! By HTTP/1.1 (RFC 6455): the handshake, messages, and how it ends.

use std::time::Duration;

use httpy::{
    Config, Handler, Reply, Request,
    message::{Feature, text},
    ws::{Close, Policy, Prepared},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_local,
    time::Instant,
};

use super::{BINARY, CLOSE, FIN, HANDSHAKE, PING, PONG, Socket, TEXT, WsClient, accepting, close, echo, frame, open};
use crate::support::{once, run, serve, settle};

fn echoing() -> crate::support::Served {
    serve(accepting(Config::default(), Policy::Wait, echo))
}

#[test]
fn opens_with_the_answer_of_the_rfc() {
    run(async || {
        let served = echoing();
        let mut client = served.connect();

        client.send(HANDSHAKE).await;
        let answer = client.answer().await;

        assert_eq!(
            answer,
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
             sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    });
}

#[test]
fn sends_back_what_comes() {
    run(async || {
        let served = echoing();
        let mut client = open(&served).await;
        let long = "x".repeat(70_000);

        client.say("Hello").await;
        client.say("").await;
        client.send(frame(FIN | BINARY, &[0, 255])).await;
        client.say(&long).await;

        assert_eq!(client.next().await, "text Hello");
        assert_eq!(client.next().await, "text ");
        assert_eq!(client.next().await, "binary [0, 255]");
        assert_eq!(client.next().await, format!("text {long}"));
    });
}

/// RFC 6455 §5.4: control frames may come between fragments; and a message is one however it is cut.
#[test]
fn puts_fragments_together() {
    run(async || {
        let served = echoing();
        let mut client = open(&served).await;

        client.send(frame(TEXT, b"one ")).await;
        client.send(frame(FIN | PING, b"in between")).await;
        client.send(frame(0, b"two ")).await;
        client.send(frame(FIN, b"three")).await;

        assert_eq!(client.next().await, "pong in between");
        assert_eq!(client.next().await, "text one two three");
    });
}

#[test]
fn answers_a_request_before_the_handshake_on_the_same_connection() {
    run(async || {
        let echo = accepting(Config::default(), Policy::Wait, echo);
        let served = serve(move |request: Request| -> Reply {
            if request.uri.path() == "/" { text(http::StatusCode::OK, "first").into() } else { echo.call(request) }
        });
        let mut client = served.connect();

        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n\r\n{HANDSHAKE}")).await;

        assert!(client.answer().await.ends_with("first"));
        assert!(client.read_until(b"\r\n\r\n").await.starts_with("HTTP/1.1 101 "));
        let mut client = WsClient::over(client);
        client.say("second").await;
        assert_eq!(client.next().await, "text second");
    });
}

/// RFC 6455 §4.1: the client waits for the answer. Whoever does not is not heard.
#[test]
fn closes_on_frames_before_the_handshake_is_answered() {
    run(async || {
        let served = echoing();

        let answer = served.exchange([HANDSHAKE.as_bytes(), &frame(FIN | TEXT, b"early")].concat()).await;

        assert!(!answer.contains("early") && !answer.contains("HTTP/1.1 200"), "{answer}");
    });
}

#[test]
fn what_is_wrong_with_a_handshake_is_answered_in_http() {
    run(async || {
        let served = echoing();
        let without = |field: &str| {
            let lines: Vec<_> = HANDSHAKE.split("\r\n").filter(|line| !line.starts_with(field)).collect();
            lines.join("\r\n")
        };

        for (handshake, status) in [
            (without("Sec-WebSocket-Key"), "400 Bad Request"),
            (without("Sec-WebSocket-Version"), "426 Upgrade Required"),
            (without("Upgrade"), "426 Upgrade Required"),
            (HANDSHAKE.replace("HTTP/1.1", "HTTP/1.0"), "426 Upgrade Required"),
        ] {
            let mut client = served.connect();
            client.send(&handshake).await;
            let answer = client.answer().await;
            assert!(answer.contains(status), "{handshake}: {answer}");
        }
    });
}

#[test]
fn claims_to_carry_websocket() {
    run(async || {
        let served = serve(|request: Request| {
            let supports = request.supports(Feature::WebSocket);
            text(http::StatusCode::OK, supports.to_string()).into()
        });

        let mut client = served.connect();
        assert!(client.get().await.ends_with("true"));
        assert!(served.exchange("GET / HTTP/1.0\r\n\r\n").await.ends_with("false"));
    });
}

// -- how it ends ---------------------------------------------------------------------------------------------------

/// RFC 6455 §5.5.1 and §7.1.1: the close is answered, and the server closes the connection.
#[test]
fn answers_a_close_and_closes_the_connection() {
    run(async || {
        let served = echoing();
        for (says, answer) in [
            (close(1000, "bye"), "close 1000 bye"),
            (close(3333, ""), "close 3333"),
            (frame(FIN | CLOSE, b""), "close"),
        ] {
            let mut client = open(&served).await;

            client.send(says).await;

            assert_eq!((client.next().await.as_str(), client.next().await.as_str()), (answer, "END"));
        }
    });
}

#[test]
fn says_what_a_client_did_wrong_and_closes() {
    run(async || {
        let served = echoing();
        for (bytes, answer) in [
            (vec![0x81, 0x00], "close 1002 a frame is not masked"),
            (frame(FIN | 0x40 | TEXT, b"a"), "close 1002 a reserved bit is set"),
            (frame(FIN | 3, b""), "close 1002 an opcode is reserved"),
            (frame(FIN, b"a"), "close 1002 a continuation continues nothing"),
            (frame(FIN | TEXT, b"\xFF"), "close 1007 a text message is not UTF-8"),
            (close(1005, ""), "close 1002 a close has a code that must not be sent"),
        ] {
            let mut client = open(&served).await;

            client.send(&bytes).await;

            assert_eq!((client.next().await.as_str(), client.next().await.as_str()), (answer, "END"));
        }
    });
}

/// RFC 6455 §5.5.1: what was answered before the mistake was found is not lost, also if all of it came together.
#[test]
fn what_was_sent_before_the_end_arrives_before_the_close() {
    run(async || {
        for last in [frame(FIN | 3, b""), close(1000, "")] {
            let served = serve(accepting(Config::default(), Policy::Wait, async |socket: Socket| {
                socket.send(&Prepared::text("one")).await.expect("open");
                socket.send(&Prepared::text("two")).await.expect("open");
                let _ = socket.receive().await;
            }));
            let mut client = served.connect();
            client.send(HANDSHAKE).await;
            client.read_until(b"\r\n\r\n").await;
            let mut client = WsClient::over(client);

            client.send(&last).await;

            assert_eq!(client.next().await, "text one");
            assert_eq!(client.next().await, "text two");
            assert!(client.next().await.starts_with("close "));
        }
    });
}

/// Everything that came before the end is received, and then how it ended.
#[test]
fn the_application_learns_how_it_ended() {
    run(async || {
        for (last, code, reason) in [
            (close(4000, "why"), 4000, "why"),
            (frame(FIN | CLOSE, b""), 1005, ""),
            (Vec::new(), 1006, ""),
            (frame(FIN | 5, b""), 1002, "an opcode is reserved"),
        ] {
            let (sender, mut ended) = mpsc::unbounded_channel();
            let served = serve(accepting(Config::default(), Policy::Wait, async move |socket: Socket| {
                let first = socket.receive().await;
                let _ = sender.send((first, socket.receive().await, socket.sender.ended()));
            }));
            let mut client = open(&served).await;
            client.say("before").await;
            client.send(&last).await;
            drop(client);

            let (first, second, ended) = ended.recv().await.expect("an end");

            assert_eq!(first.expect("a message").data, "before");
            assert_eq!(second, Err(Close::new(code, reason)));
            assert_eq!(ended, Some(Close::new(code, reason)));
        }
    });
}

#[test]
fn closes_behind_what_waits_to_be_sent() {
    run(async || {
        let served = serve(accepting(Config::default(), Policy::Wait, async |socket: Socket| {
            socket.send(&Prepared::text("last words")).await.expect("room");
            assert!(socket.sender.close(Close::new(4001, "done")));
            assert!(!socket.sender.close(Close::new(4002, "again")));
            assert_eq!(socket.sender.try_send(&Prepared::text("too late")), Err(httpy::ws::Refused::Closed));
        }));
        let mut client = open(&served).await;

        assert_eq!(client.next().await, "text last words");
        assert_eq!(client.next().await, "close 4001 done");
        client.send(close(4001, "")).await;
        assert_eq!(client.next().await, "END");
    });
}

#[test]
fn cuts_off_who_does_not_answer_a_close() {
    run(async || {
        let served = serve(accepting(Config::default(), Policy::Wait, async |socket: Socket| {
            socket.sender.close(Close::new(1000, ""));
        }));
        let mut client = open(&served).await;
        let start = Instant::now();
        assert_eq!(client.next().await, "close 1000");

        assert_eq!(client.next().await, "END");

        assert_eq!(start.elapsed().as_millis() / 10, Config::default().ws_close_timeout.as_millis() / 10);
    });
}

/// RFC 6455 §7.4.1: 1001 when a server goes down.
#[test]
fn says_that_it_goes_away_when_the_server_stops() {
    run(async || {
        let (sender, ended) = oneshot::channel();
        let ended_by = once(sender);
        let ended_by = std::sync::Arc::new(ended_by);
        let served = serve(accepting(Config::default(), Policy::Wait, async move |socket: Socket| {
            let end = socket.receive().await.expect_err("an end");
            let _ = ended_by().send(end);
        }));
        let mut client = open(&served).await;

        let stopping = spawn_local(served.stop(Duration::from_secs(30)));
        assert_eq!(client.next().await, "close 1001 the server stops");
        client.send(close(1001, "")).await;

        assert_eq!(client.next().await, "END");
        drop(client);
        assert_eq!(stopping.await.expect("no panic"), 0);
        assert_eq!(ended.await.expect("an end").code, 1001);
    });
}

// -- signs of life -------------------------------------------------------------------------------------------------

#[test]
fn asks_a_silent_client_for_a_sign_of_life_and_gives_it_up_without() {
    run(async || {
        let config = Config::default();
        let served = echoing();
        let mut client = open(&served).await;
        let start = Instant::now();

        assert_eq!(client.next().await, "ping");
        let asked = start.elapsed();
        assert_eq!(client.next().await, "END");

        assert_eq!(Some(asked.as_secs()), config.ws_ping_interval.map(|interval| interval.as_secs()));
        assert_eq!((start.elapsed() - asked).as_secs(), config.ws_ping_timeout.as_secs());
    });
}

#[test]
fn a_client_that_answers_pings_stays() {
    run(async || {
        let served = echoing();
        let mut client = open(&served).await;

        for _ in 0..10 {
            assert_eq!(client.next().await, "ping");
            client.send(frame(FIN | PONG, b"")).await;
        }

        client.say("still here").await;
        assert_eq!(client.next().await, "text still here");
    });
}

#[test]
fn the_application_can_ping_too() {
    run(async || {
        let served = serve(accepting(Config::default(), Policy::Wait, async |socket: Socket| {
            socket.sender.ping(b"there?").expect("open");
            echo(socket).await;
        }));
        let mut client = open(&served).await;

        assert_eq!(client.next().await, "ping there?");
    });
}

/// A handler that is gone hears nothing more, and the connection lives on until somebody closes it.
#[test]
fn what_nobody_receives_is_thrown_away() {
    run(async || {
        let (keep, mut kept) = mpsc::unbounded_channel();
        let served = serve(accepting(Config::default(), Policy::Wait, async move |socket: Socket| {
            let _ = keep.send(socket.sender.clone());
        }));
        let mut client = open(&served).await;
        for _ in 0..100 {
            client.say(&"x".repeat(10_000)).await;
        }
        settle().await;

        client.send(frame(FIN | PING, b"x")).await;

        assert_eq!(client.next().await, "pong x");
        assert!(!kept.recv().await.expect("a sender").is_closed());
    });
}
