//! How long a client may take, how it is asked whether it is still there, and how connections end.

use std::time::Duration;

use httpy::{Config, Reply, Request, metrics::Counted};
use tokio::{
    sync::oneshot,
    task::{spawn_local, yield_now},
    time::{Instant, sleep},
};

use crate::support::{
    ACK, DATA, Drops, END_HEADERS, END_STREAM, GOAWAY, H2Client, HEADERS, PING, PREFACE, drops, ok, once, request, run,
    serve, serve_with,
};

const GRACE: Duration = Duration::from_secs(30);

fn hello(_: Request) -> Reply {
    ok("Hello").into()
}

/// RFC 9113 §9.1: whoever closes says so before.
#[test]
fn an_idle_connection_is_closed_after_the_limit() {
    run(async || {
        let served = serve(hello);
        let mut client = served.connect_h2(&[]).await;
        sleep(Duration::from_secs(70)).await;
        client.get(1, "/").await;
        client.answer(1).await;
        let start = Instant::now();

        assert_eq!([client.next().await, client.next().await], ["GOAWAY 1 NO_ERROR", "END"]);

        assert_eq!(start.elapsed().as_secs(), 75);
    });
}

#[test]
fn a_connection_on_which_nothing_is_asked_is_closed_after_the_limit() {
    run(async || {
        let served = serve(hello);
        let start = Instant::now();
        let mut client = served.connect_h2(&[]).await;

        // Frames that ask for nothing don't count.
        for _ in 0..5 {
            sleep(Duration::from_secs(10)).await;
            client.frame(PING, 0, 0, b"12345678").await;
            client.next().await;
        }

        assert_eq!([client.next().await, client.next().await], ["GOAWAY 0 NO_ERROR", "END"]);
        assert_eq!(start.elapsed().as_secs(), 75);
    });
}

/// As with HTTP/1.1: who keeps no connections gives the first request its time all the same.
#[test]
fn a_connection_is_not_kept_if_that_is_off() {
    run(async || {
        let mut config = Config::default();
        config.keep_alive_timeout = Duration::ZERO;
        let served = serve_with(config, hello);
        let mut client = served.connect_h2(&[]).await;
        sleep(Duration::from_secs(9)).await;

        client.get(1, "/").await;

        assert_eq!(client.answer(1).await.1, "Hello");
        assert_eq!([client.next().await, client.next().await], ["GOAWAY 1 NO_ERROR", "END"]);
    });
}

#[test]
fn a_preface_without_settings_is_no_connection() {
    run(async || {
        let served = serve(hello);
        let mut client = H2Client::new(served.connect().io);
        let start = Instant::now();

        client.send(&PREFACE[..20]).await;

        assert_eq!(client.next().await, "END");
        assert_eq!(start.elapsed().as_secs(), 10);
    });
}

/// However many other requests a connection has.
#[test]
fn a_head_that_does_not_end_is_the_end_of_the_connection() {
    run(async || {
        let served = serve(|request: Request| match request.path() {
            "/" => hello(request),
            _ => Reply::later(std::future::pending()),
        });
        let mut client = served.connect_h2(&[]).await;
        client.get(1, "/never").await;
        let head = client.block(&request("GET", "/"));
        let start = Instant::now();

        client.frame(HEADERS, END_STREAM, 3, &head).await;

        assert_eq!([client.next().await, client.next().await], ["GOAWAY 1 ENHANCE_YOUR_CALM", "END"]);
        assert_eq!(start.elapsed().as_secs(), 10);
        assert_eq!(served.counted(Counted::H2HeadsLate), 1);
    });
}

/// RFC 9110 §15.5.9. The limit is 2400 bytes in 10 s, in which 11 pieces come.
#[test]
fn content_that_comes_too_slowly_is_408() {
    run(async || {
        for (bytes, status) in [(219, "200"), (218, "408")] {
            let served = serve(|request: Request| {
                Reply::later(async move {
                    match request.into_parts().body.collect(100_000).await {
                        Ok((content, _)) => ok(content.len().to_string()),
                        Err(error) => ok(error.to_string()),
                    }
                })
            });
            let mut client = served.connect_h2(&[]).await;
            client.headers(END_HEADERS, 1, &request("POST", "/")).await;
            let start = Instant::now();

            for _ in 0..20 {
                client.frame(DATA, 0, 1, &vec![b'x'; bytes]).await;
                sleep(Duration::from_secs(1)).await;
            }
            client.frame(DATA, END_STREAM, 1, b"").await;

            let answer = client.answer(1).await;
            assert_eq!(answer.0, status);
            assert_eq!(start.elapsed().as_secs(), 20);
        }
    });
}

#[test]
fn content_that_does_not_come_is_408_after_the_limit() {
    run(async || {
        let (dropped, is_dropped) = drops();
        let dropped = once(dropped);
        let served = serve(move |request: Request| {
            if request.path() == "/" {
                return ok("fine").into();
            }
            let dropped: Drops = dropped();
            Reply::later(async move {
                let _dropped = dropped;
                let error = request.into_parts().body.collect(100_000).await.expect_err("late");
                ok(error.to_string())
            })
        });
        let mut client = served.connect_h2(&[]).await;
        client.headers(END_HEADERS, 1, &request("POST", "/slow")).await;
        let start = Instant::now();

        assert_eq!(client.next().await, "HEADERS 1 END_STREAM: :status=408 content-length=0");
        assert_eq!(client.next().await, "RST_STREAM 1 NO_ERROR");
        assert_eq!(start.elapsed().as_secs(), 10);
        is_dropped.await.expect("dropped");
        assert_eq!(served.counted(Counted::H2ContentLate), 1);
        client.get(3, "/").await;

        assert_eq!(client.answer(3).await.1, "fine");
    });
}

/// How long a handler takes is not the client's fault.
#[test]
fn time_in_which_nobody_waits_for_content_does_not_count() {
    run(async || {
        let served = serve(|request: Request| {
            Reply::later(async move {
                sleep(Duration::from_secs(60)).await;
                let (content, _) = request.into_parts().body.collect(1000).await.expect("content");
                ok(content.len().to_string())
            })
        });
        let mut client = served.connect_h2(&[]).await;
        client.headers(END_HEADERS, 1, &request("POST", "/")).await;
        sleep(Duration::from_secs(20)).await;
        client.frame(DATA, END_STREAM, 1, b"x").await;

        while client.next().await != "DATA 1 END_STREAM: 1" {}
    });
}

/// RFC 9113 §6.7: a peer that is gone without a word is found out, while somebody works for it.
#[test]
fn a_silent_client_is_asked_for_a_sign_of_life() {
    run(async || {
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
        client.get(1, "/never").await;
        let start = Instant::now();

        for seconds in [30, 60, 90] {
            let ping = client.read().await.expect("a PING");
            assert_eq!((ping.kind, ping.flags, start.elapsed().as_secs()), (PING, 0, seconds));
            client.frame(PING, ACK, 0, &ping.payload).await;
        }
        assert_eq!(client.next().await, "PING");
        assert_eq!(client.next().await, "END");

        assert_eq!(start.elapsed().as_secs(), 140);
        is_dropped.await.expect("dropped");
        assert_eq!(served.counted(Counted::H2Silent), 1);
    });
}

/// Whatever comes is a sign of life.
#[test]
fn a_client_that_sends_something_is_not_asked() {
    run(async || {
        let served = serve(|_: Request| {
            Reply::later(async {
                sleep(Duration::from_secs(100)).await;
                ok("done")
            })
        });
        let mut client = served.connect_h2(&[]).await;
        client.get(1, "/").await;

        for _ in 0..4 {
            sleep(Duration::from_secs(24)).await;
            client.window_update(0, 1).await;
        }

        assert_eq!(client.answer(1).await.1, "done");
    });
}

#[test]
fn nobody_is_asked_if_that_is_off() {
    run(async || {
        let mut config = Config::default();
        config.h2_ping_interval = None;
        let served = serve_with(config, |_: Request| {
            Reply::later(async {
                sleep(Duration::from_secs(1000)).await;
                ok("at last")
            })
        });
        let mut client = served.connect_h2(&[]).await;

        client.get(1, "/").await;

        assert_eq!(client.answer(1).await.1, "at last");
    });
}

/// RFC 9113 §6.8: the client hears at once that it should go elsewhere, and a round trip later which requests count.
#[test]
fn stopping_lets_what_runs_finish_and_tells_the_client_twice() {
    run(async || {
        let (started, start) = oneshot::channel::<()>();
        let (may, wait) = oneshot::channel::<()>();
        let parts = once((started, wait));
        let served = serve(move |request: Request| {
            if request.path() == "/late" {
                return ok("late").into();
            }
            let (started, wait) = parts();
            Reply::later(async move {
                let _ = started.send(());
                let _ = wait.await;
                ok("done")
            })
        });
        let mut client = served.connect_h2(&[]).await;
        client.get(1, "/").await;
        start.await.expect("the handler runs");

        let stopping = spawn_local(served.stop(GRACE));
        assert_eq!(client.next().await, "GOAWAY 2147483647 NO_ERROR");
        let ping = client.read().await.expect("a PING");
        // On its way when the client had not heard yet.
        client.get(3, "/late").await;
        assert_eq!(client.answer(3).await.1, "late");
        client.frame(PING, ACK, 0, &ping.payload).await;
        assert_eq!(client.next().await, "GOAWAY 3 NO_ERROR");
        client.get(5, "/too-late").await;
        yield_now().await;
        assert!(!stopping.is_finished());
        let _ = may.send(());

        assert_eq!(client.answer(1).await.1, "done");
        assert_eq!(client.next().await, "END");
        drop(client);
        assert_eq!(stopping.await.expect("no panic"), 0);
    });
}

#[test]
fn stopping_closes_idle_connections() {
    run(async || {
        let served = serve(hello);
        let mut client = served.connect_h2(&[]).await;
        client.get(1, "/").await;
        client.answer(1).await;

        let stopping = spawn_local(served.stop(GRACE));
        assert_eq!(client.next().await, "GOAWAY 2147483647 NO_ERROR");
        let ping = client.read().await.expect("a PING");
        client.frame(PING, ACK, 0, &ping.payload).await;

        assert_eq!([client.next().await, client.next().await], ["GOAWAY 1 NO_ERROR", "END"]);
        drop(client);
        assert_eq!(stopping.await.expect("no panic"), 0);
    });
}

/// A client that does not answer is not waited for until the grace ends.
#[test]
fn stopping_does_not_wait_for_clients_that_say_nothing() {
    run(async || {
        let served = serve(hello);
        let mut client = served.connect_h2(&[]).await;
        client.get(1, "/").await;
        client.answer(1).await;
        let silent = served.connect_h2(&[]).await;
        let start = Instant::now();

        let cut_off = served.stop(GRACE).await;

        assert_eq!(cut_off, 0);
        assert!(start.elapsed() <= Duration::from_secs(10), "{:?}", start.elapsed());
        let rest = client.rest().await;
        assert_eq!(rest, ["GOAWAY 2147483647 NO_ERROR", "PING", "GOAWAY 1 NO_ERROR"]);
        drop(silent);
    });
}

#[test]
fn stopping_before_the_preface_closes_at_once() {
    run(async || {
        let served = serve(hello);
        let mut client = H2Client::new(served.connect().io);
        client.send(&PREFACE[..20]).await;
        sleep(Duration::from_secs(2)).await;
        let start = Instant::now();

        assert_eq!(served.stop(GRACE).await, 0);

        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(client.next().await, "END");
    });
}

#[test]
fn what_does_not_finish_in_time_is_cut_off() {
    run(async || {
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
        yield_now().await;

        assert_eq!(served.stop(Duration::from_secs(1)).await, 1);

        is_dropped.await.expect("dropped");
    });
}

/// RFC 9113 §6.8: a client that goes is answered what it has asked for.
#[test]
fn a_client_that_says_goodbye_gets_its_answers() {
    run(async || {
        let served = serve(|_: Request| {
            Reply::later(async {
                sleep(Duration::from_secs(1)).await;
                ok("done")
            })
        });
        let mut client = served.connect_h2(&[]).await;

        client.get(1, "/").await;
        client.frame(GOAWAY, 0, 0, &[0; 8]).await;

        assert_eq!(client.answer(1).await.1, "done");
        assert_eq!([client.next().await, client.next().await], ["GOAWAY 1 NO_ERROR", "END"]);
    });
}

/// What can be answered at once is, before the end of the client's side is seen.
#[test]
fn a_client_that_half_closes_behind_its_request_gets_an_answer_that_is_at_hand() {
    run(async || {
        let served = serve(hello);
        let mut client = served.connect_h2(&[]).await;

        client.get(1, "/").await;
        client.half_close().await;

        assert_eq!(client.answer(1).await.1, "Hello");
        assert_eq!(client.next().await, "END");
    });
}
