//! What the server knows of an HTTP/2 connection when it needs room for another one.

use std::time::Duration;

use httpy::{Body, Config, Reply, Request, Response};
use tokio::time::sleep;

use crate::support::{
    DATA, END_HEADERS, END_STREAM, H2Client, INITIAL_WINDOW_SIZE, Served, ok, request, run, serve_with, settle,
};

/// Two connections, of which one has to go for a third.
fn serve_two() -> Served {
    let mut config = Config::default();
    config.max_connections = 2;
    serve_with(config, |request: Request| match request.path() {
        "/large" => Response::new(Body::from(vec![b'x'; 100_000])).into(),
        "/busy" => Reply::later(async {
            sleep(Duration::from_secs(5)).await;
            ok("done")
        }),
        _ => Reply::later(async move {
            let _ = request.into_parts().body.collect(1000).await;
            ok("Hello")
        }),
    })
}

async fn idle(served: &Served) -> H2Client {
    let mut client = served.connect_h2(&[]).await;
    client.get(1, "/").await;
    client.answer(1).await;
    client
}

async fn assert_lives(client: &mut H2Client, stream: u32) {
    client.get(stream, "/").await;
    assert_eq!(client.answer(stream).await.1, "Hello");
}

#[test]
fn an_idle_connection_makes_room_and_one_that_is_worked_for_does_not() {
    run(async || {
        let served = serve_two();
        let mut busy = served.connect_h2(&[]).await;
        busy.get(1, "/busy").await;
        settle().await;
        let mut rests = idle(&served).await;

        let mut newcomer = idle(&served).await;

        assert_eq!(rests.next().await, "END");
        assert_eq!(busy.answer(1).await.1, "done");
        assert_lives(&mut newcomer, 3).await;
    });
}

/// Whoever waits for its client can wait in vain.
#[test]
fn connections_that_wait_for_their_clients_make_room_for_those_that_do_not() {
    run(async || {
        for (method, path, settings) in [("POST", "/", &[][..]), ("GET", "/large", &[(INITIAL_WINDOW_SIZE, 100)])] {
            let served = serve_two();
            let mut waits = served.connect_h2(settings).await;
            let end = if method == "GET" { END_STREAM } else { 0 };
            waits.headers(END_HEADERS | end, 1, &request(method, path)).await;
            settle().await;
            let mut busy = served.connect_h2(&[]).await;
            busy.get(1, "/busy").await;
            settle().await;

            let mut newcomer = idle(&served).await;

            let end = waits.rest().await;
            assert!(end.iter().all(|frame| !frame.starts_with("GOAWAY")), "{end:?}");
            assert_eq!(busy.answer(1).await.1, "done");
            assert_lives(&mut newcomer, 3).await;
        }
    });
}

/// A client that gets on goes to the end of the line.
#[test]
fn of_connections_that_wait_the_one_that_gets_on_stays() {
    run(async || {
        let served = serve_two();
        let mut first = served.connect_h2(&[]).await;
        first.headers(END_HEADERS, 1, &request("POST", "/")).await;
        settle().await;
        let mut second = served.connect_h2(&[]).await;
        second.headers(END_HEADERS, 1, &request("POST", "/")).await;
        settle().await;
        first.get(3, "/").await;
        assert_eq!(first.answer(3).await.1, "Hello");

        let _newcomer = idle(&served).await;

        assert_eq!(second.next().await, "END");
        first.frame(DATA, END_STREAM, 1, b"x").await;
        assert_eq!(first.answer(1).await.1, "Hello");
    });
}
