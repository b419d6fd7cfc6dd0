//! How many requests are answered at the same time, and for how long.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::Method;
use httpy::{
    App, Config, Handler, Middleware, Reply, Request, Response, Stack,
    middleware::{InFlight, Timeout},
    route::{Pattern, Router},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use crate::support::{Client, Served, drops, frames, ok, once, run, serve_app, settle};

const REFUSED: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
     content-length: 32\r\n\r\n{\"detail\":\"Service Unavailable\"}";

fn limits(max_in_flight: usize, max_queued: usize) -> Config {
    let mut config = Config::default();
    (config.max_in_flight, config.max_queued, config.queue_timeout) =
        (max_in_flight, max_queued, Duration::from_secs(2));
    config
}

/// A handler that answers when the test says so.
#[derive(Clone, Default)]
struct Held(Arc<Mutex<Vec<oneshot::Sender<()>>>>);

impl Handler for Held {
    fn call(&self, _: Request) -> Reply {
        let (release, released) = oneshot::channel();
        self.0.lock().expect("unpoisoned").push(release);
        Reply::later(async {
            let _ = released.await;
            ok("done")
        })
    }
}

impl Held {
    /// How many requests it has got.
    fn seen(&self) -> usize {
        self.0.lock().expect("unpoisoned").len()
    }

    /// Answers the oldest.
    fn release(&self) {
        let _ = self.0.lock().expect("unpoisoned").remove(0).send(());
    }
}

fn serve_behind(stage: impl Middleware + 'static, handler: impl Handler + 'static) -> Served {
    serve_app(App::new(Arc::new(handler)).middleware(Arc::new(stage)))
}

/// Sends a request on a connection of its own and lets it get to where it waits.
async fn ask(served: &Served) -> Client {
    let mut client = served.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    settle().await;
    client
}

#[test]
fn as_many_requests_as_the_limit_run_and_one_more_waits_for_one_to_end() {
    run(async || {
        let held = Held::default();
        let served = serve_behind(InFlight::new(&limits(2, 10)), held.clone());
        let mut running = [ask(&served).await, ask(&served).await];
        assert_eq!(held.seen(), 2);

        let mut waiting = ask(&served).await;
        assert_eq!(held.seen(), 2);
        held.release();

        assert!(running[0].answer().await.ends_with("done"));
        settle().await;
        assert_eq!(held.seen(), 2, "one has ended, the one that waited runs");
        held.release();
        held.release();
        assert!(running[1].answer().await.ends_with("done"));
        assert!(waiting.answer().await.ends_with("done"));
    });
}

/// RFC 9110 §15.6.4 and §10.2.3.
#[test]
fn as_many_requests_as_the_line_holds_wait_and_one_more_is_503_at_once() {
    run(async || {
        let held = Held::default();
        let served = serve_behind(InFlight::new(&limits(1, 2)), held.clone());
        let mut admitted = [ask(&served).await, ask(&served).await, ask(&served).await];
        let start = Instant::now();

        let mut refused = ask(&served).await;

        assert_eq!(refused.answer().await, REFUSED);
        assert_eq!(start.elapsed(), Duration::ZERO);
        for client in &mut admitted {
            held.release();
            assert!(client.answer().await.ends_with("done"), "those before it are answered");
            settle().await;
        }
        // The connection is as good as before.
        held.0.lock().expect("unpoisoned").clear();
        refused.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        settle().await;
        held.release();
        assert!(refused.answer().await.ends_with("done"));
    });
}

#[test]
fn a_request_waits_as_long_as_the_limit_and_no_longer() {
    run(async || {
        for (millis, is_answered) in [(2000, true), (2001, false)] {
            let served = serve_behind(InFlight::new(&limits(1, 1)), move |_: Request| {
                Reply::later(async move {
                    sleep(Duration::from_millis(millis)).await;
                    ok("done")
                })
            });
            let _running = ask(&served).await;
            let start = Instant::now();
            let mut waiting = ask(&served).await;

            let answer = waiting.answer().await;

            assert_eq!(answer == REFUSED, !is_answered, "{millis} {answer}");
            assert_eq!(start.elapsed().as_secs(), if is_answered { 4 } else { 2 });
        }
    });
}

#[test]
fn an_answer_at_hand_does_not_count() {
    run(async || {
        let calls = AtomicUsize::new(0);
        let served = serve_behind(InFlight::new(&limits(1, 0)), move |_: Request| match calls.fetch_add(1, Relaxed) {
            0..5 => Reply::from(ok("at once")),
            _ => Reply::later(std::future::pending()),
        });
        let mut client = served.connect();

        for _ in 0..5 {
            assert!(client.get().await.ends_with("at once"));
        }
        let _running = ask(&served).await;

        assert_eq!(client.get().await, REFUSED);
    });
}

/// Rule 4: what is outside of the stage does not wait for what is inside.
#[test]
fn other_routes_are_answered_while_those_behind_the_limit_are_full() {
    run(async || {
        let stage = InFlight::new(&limits(1, 0));
        let slow = Stack::new(vec![Arc::new(stage)], Arc::new(|_: Request| Reply::later(std::future::pending())));
        let mut router = Router::new();
        let mut add = |path, handler| router.add(Method::GET.into(), Pattern::parse(path).expect("a path"), handler);
        add("/", Arc::new(slow)).expect("no conflict");
        add("/health", Arc::new(|_: Request| Reply::from(ok("well")))).expect("no conflict");
        let served = serve_app(App::new(Arc::new(router)));
        let _running = ask(&served).await;

        assert_eq!(ask(&served).await.answer().await, REFUSED);
        let health = served.exchange("GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(health.ends_with("well"), "{health}");
        let nothing = served.exchange("GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(nothing.starts_with("HTTP/1.1 404 "), "{nothing}");
    });
}

/// Its client decides how long that takes.
#[test]
fn a_response_does_not_count_while_it_is_streamed() {
    run(async || {
        let (sender, body) = frames();
        let body = once(body);
        let calls = AtomicUsize::new(0);
        let served = serve_behind(InFlight::new(&limits(1, 0)), move |_: Request| match calls.fetch_add(1, Relaxed) {
            0 => {
                let response = Response::new(body());
                Reply::later(async { response })
            }
            _ => Reply::later(async { ok("another") }),
        });
        let mut streamed = ask(&served).await;
        streamed.read_until(b"\r\n\r\n").await;

        assert!(ask(&served).await.answer().await.ends_with("another"));

        drop(sender);
        assert_eq!(streamed.read_until(b"0\r\n\r\n").await, "0\r\n\r\n");
    });
}

#[test]
fn a_client_that_leaves_gives_its_place_up() {
    run(async || {
        let held = Held::default();
        let served = serve_behind(InFlight::new(&limits(1, 1)), held.clone());
        let running = ask(&served).await;
        let waiting = ask(&served).await;
        assert_eq!(ask(&served).await.answer().await, REFUSED);

        drop(waiting);
        settle().await;
        let mut next = ask(&served).await;
        drop(running);
        settle().await;

        assert_eq!(held.seen(), 2);
        held.0.lock().expect("unpoisoned").remove(0);
        held.release();
        assert!(next.answer().await.ends_with("done"));
    });
}

#[test]
fn no_limit_is_zero() {
    run(async || {
        let held = Held::default();
        let served = serve_behind(InFlight::new(&limits(0, 0)), held.clone());

        let mut clients = Vec::new();
        for _ in 0..100 {
            clients.push(ask(&served).await);
        }

        assert_eq!(held.seen(), 100);
    });
}

#[test]
fn a_handler_may_take_as_long_as_the_limit_and_is_dropped_one_later() {
    run(async || {
        for (millis, is_answered) in [(2000, true), (2001, false)] {
            let (guard, mut dropped) = drops();
            let guard = once(guard);
            let served = serve_behind(Timeout(Duration::from_secs(2)), move |_: Request| {
                let guard = guard();
                Reply::later(async move {
                    let _guard = guard;
                    sleep(Duration::from_millis(millis)).await;
                    ok("done")
                })
            });
            let start = Instant::now();

            let answer = served.connect().get().await;

            assert_eq!(answer.starts_with("HTTP/1.1 200 "), is_answered, "{answer}");
            assert_eq!(answer.starts_with("HTTP/1.1 503 "), !is_answered, "{answer}");
            assert_eq!(start.elapsed().as_secs(), 2);
            assert!(dropped.try_recv().is_ok());
        }
    });
}
