//! Stopping: idle connections soon, running requests in time, the rest by force.

use std::time::Duration;

use httpy::{Config, Reply, Request, Response};
use tokio::{
    sync::oneshot,
    task::spawn_local,
    time::{Instant, sleep},
};

use crate::support::{Drops, drops, frames, ok, once, run, serve};

const GRACE: Duration = Duration::from_secs(30);

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn closes_connections_that_were_idle_for_the_idle_grace_at_once() {
    run(async || {
        let served = serve(|_: Request| ok("").into());
        let (mut fresh, mut kept) = (served.connect(), served.connect());
        kept.send(GET).await;
        kept.answer().await;
        sleep(Config::default().idle_grace).await;
        let start = Instant::now();

        let cut_off = served.stop(GRACE).await;

        assert_eq!((cut_off, start.elapsed()), (0, Duration::ZERO));
        assert!(fresh.is_closed().await && kept.is_closed().await);
    });
}

#[test]
fn closes_other_idle_connections_after_the_rest_of_it() {
    run(async || {
        let served = serve(|_: Request| ok("").into());
        let (mut fresh, mut kept) = (served.connect(), served.connect());
        kept.send(GET).await;
        kept.answer().await;
        sleep(Duration::from_millis(400)).await;
        let start = Instant::now();

        let cut_off = served.stop(GRACE).await;

        // The timers of the runtime have a resolution of one millisecond.
        assert_eq!((cut_off, start.elapsed().as_millis() / 10), (0, 60));
        assert!(fresh.is_closed().await && kept.is_closed().await);
    });
}

/// RFC 9112 §9.6: a client that was about to send gets an answer, and is told that there is no other.
#[test]
fn answers_what_comes_within_the_idle_grace_and_closes_behind_it() {
    run(async || {
        let served = serve(|_: Request| ok("done").into());
        let (mut fresh, mut kept) = (served.connect(), served.connect());
        kept.send(GET).await;
        kept.answer().await;
        let stopping = spawn_local(served.stop(GRACE));
        sleep(Config::default().idle_grace - Duration::from_millis(10)).await;

        for client in [&mut fresh, &mut kept] {
            client.send(GET).await;
            let answer = client.rest().await;
            assert!(answer.contains("\r\nconnection: close\r\n") && answer.ends_with("\r\n\r\ndone"), "{answer}");
        }

        assert_eq!(stopping.await.expect("no panic"), 0);
    });
}

#[test]
fn says_once_that_it_closes() {
    run(async || {
        let served = serve(|_: Request| ok("").into());
        let mut client = served.connect();
        let _stopping = spawn_local(served.stop(GRACE));
        tokio::task::yield_now().await;

        client.send("GET / HTTP/1.1\r\n\r\n").await;

        let refusal = client.rest().await;
        assert!(refusal.starts_with("HTTP/1.1 400 "), "{refusal}");
        assert_eq!(refusal.matches("connection: close\r\n").count(), 1, "{refusal}");
    });
}

#[test]
fn waits_for_the_rest_of_a_head() {
    run(async || {
        let served = serve(|_: Request| ok("done").into());
        let mut client = served.connect();
        client.send(&GET[..10]).await;
        let stopping = spawn_local(served.stop(GRACE));
        sleep(Config::default().idle_grace * 2).await;

        client.send(&GET[10..]).await;

        let answer = client.rest().await;
        assert!(answer.ends_with("\r\n\r\ndone"), "{answer}");
        assert_eq!(stopping.await.expect("no panic"), 0);
    });
}

/// Its head has gone out without `close`, so the client may send another request behind it.
#[test]
fn keeps_a_connection_for_one_more_request_behind_a_stream_that_had_begun() {
    run(async || {
        let (sender, body) = frames();
        let body = once(body);
        let served = serve(move |request: Request| match request.uri.path() {
            "/stream" => Response::new(body()).into(),
            _ => ok("done").into(),
        });
        let mut client = served.connect();
        client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.read_until(b"\r\n\r\n").await;
        let stopping = spawn_local(served.stop(GRACE));
        tokio::task::yield_now().await;
        drop(sender);
        client.read_until(b"0\r\n\r\n").await;

        client.send(GET).await;

        let answer = client.rest().await;
        assert!(answer.contains("\r\nconnection: close\r\n") && answer.ends_with("\r\n\r\ndone"), "{answer}");
        assert_eq!(stopping.await.expect("no panic"), 0);
    });
}

#[test]
fn serves_connections_that_nobody_had_accepted_yet() {
    run(async || {
        let served = serve(|_: Request| ok("done").into());
        let mut clients = [served.connect(), served.connect(), served.connect()];
        for client in &mut clients {
            client.send(GET).await;
        }

        assert_eq!(served.stop(GRACE).await, 0);

        for client in &mut clients {
            let answer = client.rest().await;
            assert!(answer.ends_with("\r\n\r\ndone"), "{answer}");
        }
    });
}

/// RFC 9112 §9.6: the response says that it is the last.
#[test]
fn lets_a_running_request_finish_and_closes_behind_it() {
    run(async || {
        let (started, start) = oneshot::channel::<()>();
        let (may, wait) = oneshot::channel::<()>();
        let parts = once((started, wait));
        let served = serve(move |_: Request| {
            let (started, wait) = parts();
            Reply::later(async move {
                let _ = started.send(());
                let _ = wait.await;
                ok("done")
            })
        });
        let connector = served.connector();
        let mut client = served.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        start.await.expect("the handler runs");

        let stopping = spawn_local(served.stop(GRACE));
        tokio::task::yield_now().await;
        assert!(connector.connect().is_err(), "new connections are refused");
        assert!(!stopping.is_finished());
        let _ = may.send(());

        let answer = client.rest().await;
        assert!(answer.contains("\r\nconnection: close\r\n") && answer.ends_with("\r\n\r\ndone"), "{answer}");
        assert_eq!(stopping.await.expect("no panic"), 0);
    });
}

#[test]
fn lets_a_stream_finish() {
    run(async || {
        let (sender, body) = frames();
        let body = once(body);
        let served = serve(move |_: Request| Response::new(body()).into());
        let mut client = served.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.read_until(b"\r\n\r\n").await;

        let stopping = spawn_local(served.stop(GRACE));
        tokio::task::yield_now().await;
        drop(sender);

        assert_eq!(client.rest().await, "0\r\n\r\n");
        assert_eq!(stopping.await.expect("no panic"), 0);
    });
}

#[test]
fn cuts_off_what_is_left_after_the_grace_and_drops_it() {
    run(async || {
        let (guard, dropped) = drops();
        let (started, start) = oneshot::channel::<()>();
        let parts = once((started, guard));
        let served = serve(move |_: Request| {
            let (started, guard): (oneshot::Sender<()>, Drops) = parts();
            Reply::later(async move {
                let _guard = guard;
                let _ = started.send(());
                std::future::pending().await
            })
        });
        let mut client = served.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        start.await.expect("the handler runs");
        let began = Instant::now();

        let cut_off = served.stop(GRACE).await;

        assert_eq!((cut_off, began.elapsed().as_secs()), (1, 30));
        let mut dropped = dropped;
        assert!(dropped.try_recv().is_ok(), "dropped before stop returns");
        assert!(client.is_closed().await);
    });
}

#[test]
fn dropping_a_server_cuts_everything_off() {
    run(async || {
        let served = serve(|_: Request| ok("").into());
        let mut client = served.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.answer().await;

        drop(served);

        assert!(client.is_closed().await);
    });
}
