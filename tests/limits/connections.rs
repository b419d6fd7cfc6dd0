//! How many connections there may be, and which make room for others.

use std::{io, sync::Arc, time::Duration};

use httpy::{
    App, Config, Reply, Request,
    conn::{Connection, Incoming},
    message::{Peer, Stream},
};
use tokio::{
    io::duplex,
    time::{Instant, sleep},
};

use crate::support::{Client, Served, incoming, log, ok, run, scripted, serve_with, settle};

fn at_most(connections: usize) -> Config {
    let mut config = Config::default();
    config.max_connections = connections;
    config
}

fn hello(_: Request) -> Reply {
    ok("Hello").into()
}

/// Answers `/` at once, and other targets after a minute; with all that `/large` has.
fn at_leisure(request: Request) -> Reply {
    match request.path() {
        "/" => ok("Hello").into(),
        "/large" => ok("x".repeat(1 << 20)).into(),
        _ => Reply::later(async {
            let read = request.into_parts().body.collect(1000).await;
            sleep(Duration::from_secs(60)).await;
            ok(if read.is_ok() { "slow" } else { "cut" })
        }),
    }
}

async fn is_answered(client: &mut Client) -> bool {
    client.get().await.ends_with("Hello")
}

async fn connect_and_settle(served: &Served) -> Client {
    let client = served.connect();
    settle().await;
    client
}

#[test]
fn as_many_connections_as_the_limit_are_kept_and_one_more_closes_one_that_rests() {
    run(async || {
        let served = serve_with(at_most(3), hello);
        let mut kept = Vec::new();
        for _ in 0..3 {
            kept.push(connect_and_settle(&served).await);
        }
        for client in &mut kept {
            assert!(is_answered(client).await, "all three are there");
        }

        let mut newcomer = served.connect();

        assert!(is_answered(&mut newcomer).await);
        assert!(kept[0].is_closed().await, "the first to rest");
        assert!(is_answered(&mut kept[1]).await && is_answered(&mut kept[2]).await);
    });
}

#[test]
fn no_limit_is_zero() {
    run(async || {
        let served = serve_with(at_most(0), hello);

        let mut clients: Vec<_> = (0..100).map(|_| served.connect()).collect();

        for client in &mut clients {
            assert!(is_answered(client).await);
        }
    });
}

#[test]
fn the_connection_that_is_idle_for_the_longest_time_is_closed_first() {
    run(async || {
        let served = serve_with(at_most(3), hello);
        let mut clients = [served.connect(), served.connect(), served.connect()];
        for number in [1, 2, 0] {
            assert!(is_answered(&mut clients[number]).await);
        }

        for number in [1, 2, 0] {
            assert!(is_answered(&mut served.connect()).await);

            assert!(clients[number].is_closed().await);
        }
    });
}

#[test]
fn a_connection_without_a_head_for_a_second_is_closed_before_idle_ones_and_not_sooner() {
    for (millis, is_closed) in [(999, false), (1000, true)] {
        run(async || {
            let served = serve_with(at_most(2), hello);
            let mut idle = served.connect();
            assert!(is_answered(&mut idle).await);
            let mut silent = connect_and_settle(&served).await;

            sleep(Duration::from_millis(millis)).await;
            let mut newcomer = served.connect();

            assert!(is_answered(&mut newcomer).await);
            let (closed, mut kept) = if is_closed { (&mut silent, idle) } else { (&mut idle, silent) };
            assert!(closed.is_closed().await);
            assert!(is_answered(&mut kept).await);
        });
    }
}

#[test]
fn a_head_that_drips_keeps_no_connection_open() {
    run(async || {
        let served = serve_with(at_most(2), hello);
        let mut slow = connect_and_settle(&served).await;
        for byte in b"GET / HTTP/1.1\r\n" {
            slow.send([*byte]).await;
            sleep(Duration::from_millis(100)).await;
        }
        let mut idle = served.connect();
        assert!(is_answered(&mut idle).await);

        let mut newcomer = served.connect();

        assert!(is_answered(&mut newcomer).await);
        assert!(slow.is_closed().await);
        assert!(is_answered(&mut idle).await);
    });
}

#[test]
fn a_newcomer_waits_while_every_connection_works() {
    run(async || {
        let log = log();
        let served = serve_with(at_most(1), at_leisure);
        let mut busy = served.connect();
        busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
        settle().await;
        let start = Instant::now();

        let (mut newcomer, mut next) = (served.connect(), served.connect());
        settle().await;

        assert_eq!(log.with("WARN every connection is busy, new ones wait (max_connections)").len(), 1);
        assert!(is_answered(&mut newcomer).await);
        assert_eq!(start.elapsed().as_secs(), 60);
        assert!(busy.answer().await.ends_with("slow"));
        assert!(busy.is_closed().await);
        assert!(is_answered(&mut next).await);
    });
}

#[test]
fn the_room_that_a_connection_leaves_is_a_newcomers() {
    run(async || {
        let served = serve_with(at_most(1), at_leisure);
        let mut busy = served.connect();
        busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
        settle().await;
        let mut newcomer = served.connect();
        settle().await;
        let start = Instant::now();

        drop(busy);

        assert!(is_answered(&mut newcomer).await);
        assert_eq!(start.elapsed(), Duration::ZERO);
    });
}

#[test]
fn content_that_does_not_come_makes_room() {
    run(async || {
        let served = serve_with(at_most(1), at_leisure);
        let mut slow = served.connect();
        slow.send("POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345").await;
        settle().await;
        let start = Instant::now();

        let mut newcomer = served.connect();

        assert!(is_answered(&mut newcomer).await);
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(slow.is_closed().await);
    });
}

#[test]
fn a_client_that_does_not_read_makes_room() {
    run(async || {
        let served = serve_with(at_most(1), at_leisure);
        let mut slow = served.connect();
        slow.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
        settle().await;
        let start = Instant::now();

        let mut newcomer = served.connect();

        assert!(is_answered(&mut newcomer).await);
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(slow.rest().await.len() < 1 << 20);
    });
}

/// However long its response is, and however often the server has to wait for it.
#[test]
fn of_clients_that_read_the_one_that_reads_on_is_kept() {
    run(async || {
        let served = serve_with(at_most(2), at_leisure);
        let (mut reads, mut stops) = (served.connect(), served.connect());
        for client in [&mut reads, &mut stops] {
            client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
            settle().await;
        }
        reads.read_exactly(200_000).await;
        settle().await;

        assert!(is_answered(&mut served.connect()).await);

        reads.read_exactly((1 << 20) - 200_000).await;
        assert!(stops.rest().await.len() < 1 << 20);
    });
}

/// Refused, and still sending: the connection is only kept so that its client gets to see why.
#[test]
fn a_connection_that_is_about_to_close_makes_room() {
    run(async || {
        let served = serve_with(at_most(1), at_leisure);
        let mut refused = served.connect();
        refused.send("GET / HTTP/1.1\r\n\r\n").await;
        refused.read_until(b"\r\n\r\n").await;
        settle().await;
        let start = Instant::now();

        let mut newcomer = served.connect();

        assert!(is_answered(&mut newcomer).await);
        assert_eq!(start.elapsed(), Duration::ZERO);
    });
}

/// Else they would push each other out, each before its head has come.
#[test]
fn newcomers_wait_for_each_other_to_begin() {
    run(async || {
        let served = serve_with(at_most(8), hello);
        let mut silent = Vec::new();
        for _ in 0..8 {
            silent.push(connect_and_settle(&served).await);
        }
        let start = Instant::now();

        let mut newcomer = served.connect();

        assert!(is_answered(&mut newcomer).await);
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        assert!(silent[0].is_closed().await);
        assert!(is_answered(&mut silent[1]).await);
    });
}

/// A flood of connections: the first of them goes.
#[test]
fn when_more_than_an_eighth_are_new_newcomers_wait_no_longer() {
    // An eighth of 72 is 9.
    for (connections, secs) in [(9, 1), (10, 0)] {
        run(async || {
            let served = serve_with(at_most(72), at_leisure);
            let mut busy: Vec<_> = (connections..72).map(|_| served.connect()).collect();
            for client in &mut busy {
                client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
            }
            settle().await;
            let mut silent = Vec::new();
            for _ in 0..connections {
                silent.push(connect_and_settle(&served).await);
            }
            let start = Instant::now();

            let mut newcomer = served.connect();

            assert!(is_answered(&mut newcomer).await);
            assert_eq!(start.elapsed().as_secs(), secs, "{connections}");
            assert!(silent[0].is_closed().await);
            assert!(is_answered(&mut silent[1]).await);
        });
    }
}

fn at_most_per_address(connections: usize) -> Config {
    let mut config = Config::default();
    config.max_connections_per_address = connections;
    config
}

#[test]
fn as_many_connections_of_an_address_as_the_limit_are_served_and_one_more_is_closed() {
    run(async || {
        let log = log();
        let served = serve_with(at_most_per_address(2), hello);
        let mut kept = [served.connect_from("192.0.2.1"), served.connect_from("192.0.2.1")];

        let mut more = [served.connect_from("192.0.2.1"), served.connect_from("192.0.2.1")];

        for client in &mut more {
            assert!(client.is_closed().await);
        }
        for client in &mut kept {
            assert!(is_answered(client).await);
        }
        assert!(is_answered(&mut served.connect_from("192.0.2.2")).await, "another address");
        assert_eq!(log.with("INFO connections refused (max_connections_per_address)").len(), 1);
    });
}

#[test]
fn ipv6_clients_of_one_64_share_a_limit() {
    run(async || {
        let served = serve_with(at_most_per_address(1), hello);
        let mut kept = served.connect_from("2001:db8:0:1::1");

        assert!(served.connect_from("2001:db8:0:1:ffff::1").is_closed().await);
        assert!(is_answered(&mut kept).await);
        assert!(is_answered(&mut served.connect_from("2001:db8:0:2::1")).await);
    });
}

#[test]
fn a_connection_that_ends_leaves_its_place_to_another_of_its_address() {
    run(async || {
        let mut config = at_most_per_address(1);
        config.max_connections = 2;
        let served = serve_with(config, hello);
        for _ in 0..3 {
            let mut client = served.connect_from("192.0.2.1");
            assert!(is_answered(&mut client).await);
            drop(client);
            settle().await;
        }

        // One that was closed to make room, too.
        let mut client = served.connect_from("192.0.2.1");
        assert!(is_answered(&mut client).await);
        let mut others = [served.connect(), served.connect()];
        assert!(is_answered(&mut others[0]).await && is_answered(&mut others[1]).await);
        assert!(client.is_closed().await);
        assert!(is_answered(&mut served.connect_from("192.0.2.1")).await);
    });
}

/// A proxy on this machine or in its network has the connections of many clients.
#[test]
fn clients_of_internal_networks_and_without_address_are_not_limited() {
    run(async || {
        let served = serve_with(at_most_per_address(1), hello);

        let internal = ["127.0.0.1", "10.0.0.1", "::1", "fd00::1"].map(|from| [from, from]);
        let mut clients: Vec<_> = internal.concat().into_iter().map(|from| served.connect_from(from)).collect();
        clients.extend([served.connect(), served.connect()]);

        for client in &mut clients {
            assert!(is_answered(client).await);
        }
    });
}

#[test]
fn a_handshake_may_take_as_long_as_the_limit_and_no_longer() {
    run(async || {
        for (seconds, is_served) in [(10, true), (11, false)] {
            let (queue, listener) = scripted();
            let _server = App::new(Arc::new(hello)).start(vec![Box::new(listener)]);
            let (client, server) = duplex(1000);
            let handshake = async move {
                sleep(Duration::from_secs(seconds)).await;
                Ok(Connection { io: Stream::new(server), peer: Peer::default(), alpn: None })
            };
            let start = Instant::now();
            queue.send(Ok(Incoming { peer: Peer::default(), handshake: Box::pin(handshake) })).expect("a server");

            let mut client = Client::over(client);
            let is_closed = if is_served { !is_answered(&mut client).await } else { client.is_closed().await };

            assert_eq!((start.elapsed().as_secs(), is_closed), (10, !is_served));
        }
    });
}

/// A descriptor less in use is one that the next client can have.
#[test]
fn a_listener_that_lacks_descriptors_gets_that_of_a_connection_that_rests() {
    run(async || {
        let (queue, listener) = scripted();
        let _server = App::new(Arc::new(hello)).start(vec![Box::new(listener)]);
        let connect = || {
            let (client, server) = duplex(1000);
            queue.send(Ok(incoming(server))).expect("a server");
            Client::over(client)
        };
        let (mut first, mut second) = (connect(), connect());
        assert!(is_answered(&mut first).await && is_answered(&mut second).await);

        // EMFILE.
        queue.send(Err(io::Error::from_raw_os_error(24))).expect("a server");

        assert!(first.is_closed().await);
        assert!(is_answered(&mut second).await);
        assert!(is_answered(&mut connect()).await);
    });
}
