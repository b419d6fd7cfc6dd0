//! The memory listener: what tests of everything else, and of other people's apps, stand on.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use httpy::{App, Reply, Request, conn::Listener, listen::memory, message::Peer, server::Queued};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::support::*;

/// Writes until nothing more is taken, and says how much that was.
///
/// In few steps: a task may do 128 before it has to let others have their turn.
fn fill(mut io: impl AsyncWrite + Unpin) -> usize {
    let mut cx = Context::from_waker(Waker::noop());
    let mut count = 0;
    while let Poll::Ready(written) = pin!(&mut io).poll_write(&mut cx, &[b'x'; 10 * 1024]) {
        count += written.expect("it is open");
    }
    count
}

#[test]
fn a_connection_holds_64_kib_each_way_and_then_waits_for_the_reader() {
    run(async || {
        let (connector, listener) = memory();
        let mut client = connector.connect().expect("a connection");

        assert_eq!(fill(&mut client), 64 * 1024);

        let incoming = listener.accept().await.expect("it is queued");
        let mut server = incoming.handshake.await.expect("there is none").io;
        assert_eq!(fill(&mut server), 64 * 1024);
        let mut first = [0; 10 * 1024];
        server.read_exact(&mut first).await.expect("what was sent");
        assert_eq!(fill(&mut client), 10 * 1024);
    });
}

#[test]
fn both_ends_see_the_other_one_close() {
    run(async || {
        let (connector, listener) = memory();
        let mut client = connector.connect().expect("a connection");
        let server = listener.accept().await.expect("it is queued").handshake.await.expect("there is none").io;

        client.write_all(b"last words").await.expect("it is open");
        drop(server);

        assert_eq!(client.read(&mut [0; 10]).await.expect("the end"), 0);
        let error = client.write_all(b"too late").await.expect_err("nobody is there");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn the_server_sees_the_addresses_that_it_is_told() {
    run(async || {
        let (connector, listener) = memory();
        let client: SocketAddr = "10.0.0.7:7".parse().expect("an address");

        let _nobody = connector.connect();
        let _somebody = connector.connect_as(Peer { client: Some(client), is_tls: true, ..Peer::default() });

        assert_eq!(listener.accept().await.expect("it is queued").peer.client, None);
        let peer = listener.accept().await.expect("it is queued").peer;
        assert_eq!((peer.client, peer.is_tls), (Some(client), true));
        assert_eq!(listener.address(), "memory:");
    });
}

#[test]
fn a_stop_serves_what_is_queued_and_refuses_what_comes_later() {
    run(async || {
        let (connector, listener) = memory();
        let mut queued = Client::over(connector.connect().expect("a connection"));
        queued.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let server = App::new(Arc::new(|_: Request| Reply::from(ok("hello")))).start(vec![Box::new(listener)]);

        let cut_off = server.stop(Duration::from_secs(1), Queued::Served).await;

        assert_eq!(cut_off, 0);
        assert!(queued.rest().await.ends_with("\r\n\r\nhello"));
        let error = connector.connect().expect_err("it has stopped");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_server_that_has_ended_leaves_no_task_behind() {
    run(async || {
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        for is_stopped in [true, false] {
            let (connector, listener) = memory();
            let server = App::new(Arc::new(|_: Request| Reply::from(ok("answer")))).start(vec![Box::new(listener)]);
            Client::over(connector.connect().expect("a connection"))
                .send("GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
                .await;
            tokio::time::sleep(Duration::from_secs(5)).await;
            if is_stopped {
                server.stop(Duration::from_secs(5), Queued::Served).await;
            } else {
                drop(server);
            }
            tokio::time::sleep(Duration::from_secs(5)).await;

            assert_eq!(tasks(), before, "stopped: {is_stopped}");
        }
    });
}
