//! Connections at rest: after a second without a request they have given up their buffers, and nobody notices.

use std::time::Duration;

use httpy::{Reply, Request};
use tokio::{
    sync::oneshot,
    task::{spawn_local, yield_now},
    time::{Instant, sleep},
};

use crate::support::{Client, Served, describe, ok, once, run, serve};

const GRACE: Duration = Duration::from_secs(30);
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A connection that has had a response and has rested since.
async fn rested(served: &Served) -> Client {
    let mut client = served.connect();
    client.send(GET).await;
    assert!(client.answer().await.starts_with("HTTP/1.1 200 OK\r\n"));
    sleep(Duration::from_secs(5)).await;
    client
}

#[test]
fn serves_on_as_if_nothing_had_been() {
    run(async || {
        let served = serve(describe);
        let mut client = rested(&served).await;

        for _ in 0..3 {
            client
                .send("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nxGET /2 HTTP/1.1\r\nHost: b\r\n\r\n")
                .await;

            assert!(client.answer().await.ends_with("\r\n\r\nPOST /1 host=a content=x"));
            assert!(client.answer().await.ends_with("\r\n\r\nGET /2 host=b content="));
            sleep(Duration::from_secs(5)).await;
        }
    });
}

#[test]
fn takes_heads_and_content_of_any_size_in_any_pieces() {
    run(async || {
        let served = serve(describe);
        let content = "x".repeat(20_000);
        let field = "y".repeat(5_000);
        let request = format!(
            "\r\n\r\nPOST /1 HTTP/1.1\r\nHost: a\r\nX: {field}\r\nX: {field}\r\nX: {field}\r\nContent-Length: 20000\r\n\r\n\
             {content}"
        );
        let mut client = rested(&served).await;

        for size in [1, 1000, 2048, 10_000, 100_000] {
            for piece in request.as_bytes().chunks(size) {
                client.send(piece).await;
                yield_now().await;
            }

            assert!(client.answer().await.ends_with(&content), "in pieces of {size}");
            sleep(Duration::from_secs(5)).await;
        }
    });
}

#[test]
fn rests_while_half_a_head_is_there() {
    run(async || {
        let served = serve(describe);
        let mut client = served.connect();

        client.send(format!("{GET}GET /2 HT")).await;
        assert!(client.answer().await.ends_with("GET / host=a content="));
        sleep(Duration::from_secs(5)).await;
        client.send("TP/1.1\r\nHost: b\r\n\r\n").await;

        assert!(client.answer().await.ends_with("GET /2 host=b content="));
    });
}

#[test]
fn closes_quietly_when_the_client_leaves() {
    run(async || {
        let served = serve(describe);
        for unfinished in ["", "\r\n", "\r", "GET / HT"] {
            let mut client = rested(&served).await;

            client.send(unfinished).await;
            client.half_close().await;

            assert!(client.is_closed().await, "{unfinished:?}");
        }
    });
}

/// The request and the end of the stream come together.
#[test]
fn answers_a_client_that_half_closed_if_the_answer_is_at_hand() {
    run(async || {
        let served = serve(describe);
        let (mut fresh, mut kept) = (served.connect(), rested(&served).await);

        for client in [&mut fresh, &mut kept] {
            client.send(format!("{GET}{GET}")).await;
            client.half_close().await;

            assert_eq!(client.rest().await.matches("GET / host=a content=").count(), 2);
        }
    });
}

#[test]
fn the_server_stops_at_once() {
    run(async || {
        let served = serve(describe);
        let (mut fresh, mut kept) = (served.connect(), rested(&served).await);
        let start = Instant::now();

        let cut_off = served.stop(GRACE).await;

        assert_eq!((cut_off, start.elapsed()), (0, Duration::ZERO));
        assert!(fresh.is_closed().await && kept.is_closed().await);
    });
}

/// A request that has come before the server learnt that it has to stop is not lost.
#[test]
fn answers_what_has_come_before_the_stop() {
    run(async || {
        let served = serve(describe);
        let (mut fresh, mut kept) = (served.connect(), rested(&served).await);
        yield_now().await;

        for client in [&mut fresh, &mut kept] {
            client.send(GET).await;
        }
        assert_eq!(served.stop(GRACE).await, 0);

        for client in [&mut fresh, &mut kept] {
            assert!(client.rest().await.starts_with("HTTP/1.1 200 OK\r\n"));
        }
    });
}

#[test]
fn a_head_that_has_begun_is_waited_for_when_the_server_stops() {
    run(async || {
        let served = serve(describe);
        let (mut ends, mut stalls) = (rested(&served).await, served.connect());
        let start = Instant::now();
        ends.send("GET / HTTP/1.1\r\n").await;
        stalls.send("GET / HTTP/1.1\r\n").await;
        sleep(Duration::from_secs(1)).await;

        let stopping = spawn_local(served.stop(GRACE));
        yield_now().await;
        ends.send("Host: a\r\n\r\n").await;

        let answer = ends.rest().await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
        assert!(stalls.rest().await.starts_with("HTTP/1.1 408 "));
        assert_eq!(stopping.await.expect("no panic"), 0);
        assert!(start.elapsed() < GRACE);
    });
}

#[test]
fn does_not_rest_while_a_request_is_answered() {
    run(async || {
        let (may, wait) = oneshot::channel::<()>();
        let wait = once(wait);
        let served = serve(move |_: Request| {
            let wait = wait();
            Reply::later(async move {
                let _ = wait.await;
                ok("done")
            })
        });
        let mut client = served.connect();

        client.send(GET).await;
        sleep(Duration::from_secs(1000)).await;
        let _ = may.send(());

        assert!(client.answer().await.ends_with("\r\n\r\ndone"));
    });
}

/// From so many on, none waits for the second.
#[test]
fn serves_more_connections_than_may_stay_awake() {
    run(async || {
        let served = serve(describe);
        let mut clients: Vec<Client> = (0..3000).map(|_| served.connect()).collect();

        for _ in 0..3 {
            for client in &mut clients {
                client.send(GET).await;
            }
            for client in &mut clients {
                assert!(client.answer().await.ends_with("GET / host=a content="));
            }
        }
    });
}
