//! What a client may have: sizes, memory, time.

use std::{sync::Arc, time::Duration};

use httpy::{
    Config,
    ws::{Policy, Prepared, Refused},
};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use super::{BINARY, FIN, Socket, TEXT, accepting, echo, frame, open};
use crate::support::{run, serve_with, settle};

fn limited() -> Config {
    let mut config = Config::default();
    config.ws_max_message_bytes = 1000;
    config.ws_max_frame_bytes = 600;
    config
}

/// RFC 6455 §7.4.1: 1009.
#[test]
fn a_message_and_a_frame_may_be_as_long_as_their_limits_and_no_longer() {
    run(async || {
        let served = serve_with(limited(), accepting(limited(), Policy::Wait, echo));
        let mut client = open(&served).await;
        client.send(frame(BINARY, &[1; 600])).await;
        client.send(frame(FIN, &[1; 400])).await;
        assert_eq!(client.read().await.expect("an echo").1.len(), 1000);

        client.send(frame(BINARY, &[1; 600])).await;
        client.send(frame(FIN, &[1; 401])).await;
        assert_eq!(client.next().await, "close 1009 a message is too long (ws_max_message_bytes)");
        assert_eq!(client.next().await, "END");

        let mut client = open(&served).await;
        client.send(frame(FIN | BINARY, &[1; 601])).await;
        assert_eq!(client.next().await, "close 1009 a frame is too long (ws_max_frame_bytes)");
        assert_eq!(client.next().await, "END");
    });
}

/// What is announced takes no memory, and is refused before it comes.
#[test]
fn a_frame_that_is_announced_too_long_is_refused_at_once() {
    run(async || {
        let served = serve_with(limited(), accepting(limited(), Policy::Wait, echo));
        let mut client = open(&served).await;

        client.send([0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]).await;

        assert_eq!(client.next().await, "close 1009 a frame is too long (ws_max_frame_bytes)");
    });
}

/// A handler that does not receive holds its client up, and takes no more memory than a socket buffer.
#[test]
fn reads_no_further_than_the_application_does() {
    run(async || {
        let go = Arc::new(Notify::new());
        let going = go.clone();
        let served = serve_with(
            Config::default(),
            accepting(Config::default(), Policy::Wait, async move |socket: Socket| {
                going.notified().await;
                echo(socket).await;
            }),
        );
        let mut client = open(&served).await;
        let message = frame(FIN | TEXT, &[b'x'; 1000]);

        let mut sent = 0;
        while tokio::time::timeout(Duration::from_millis(10), client.send(&message)).await.is_ok() {
            sent += 1;
        }

        // 64 KiB in each of the two buffers between, and the same for the application.
        assert!((60..200).contains(&sent), "{sent}");
        go.notify_one();
        for _ in 0..sent {
            assert_eq!(client.read().await.expect("an echo").1.len(), 1000);
        }
    });
}

/// Its answers to pings are behind what was not read.
#[test]
fn a_client_that_is_not_listened_to_is_not_given_up() {
    run(async || {
        let served = serve_with(
            Config::default(),
            accepting(Config::default(), Policy::Wait, async |socket: Socket| {
                tokio::time::sleep(Duration::from_secs(300)).await;
                echo(socket).await;
            }),
        );
        let mut client = open(&served).await;
        let message = frame(FIN | TEXT, &[b'x'; 1000]);
        let mut sent = 0;
        while tokio::time::timeout(Duration::from_millis(10), client.send(&message)).await.is_ok() {
            sent += 1;
        }

        for _ in 0..sent {
            let (mut first, mut content) = client.read().await.expect("an echo");
            while first == FIN | 9 {
                (first, content) = client.read().await.expect("an echo");
            }
            assert_eq!(content.len(), 1000);
        }
    });
}

/// How many messages of 1000 bytes a client that does not read can be sent, and what came of the next.
async fn fill(policy: Policy) -> (usize, Result<(), Refused>, bool, super::WsClient, crate::support::Served) {
    let mut config = Config::default();
    config.ws_max_queue_bytes = 100_000;
    let (sender, mut sockets) = mpsc::unbounded_channel();
    let served = serve_with(
        config.clone(),
        accepting(config, policy, async move |socket: Socket| {
            let _ = sender.send(socket.sender.clone());
            let _ = socket.receive().await;
        }),
    );
    let client = open(&served).await;
    let socket = sockets.recv().await.expect("a socket");
    let message = Prepared::binary(&[7; 1000]);
    let mut sent = 0;
    loop {
        match socket.try_send(&message) {
            Ok(()) => sent += 1,
            Err(refused) => {
                settle().await;
                // The connection has taken what it can, and nothing more moves.
                if socket.queued_bytes() > 99_000 || refused == Refused::Closed || socket.is_closed() {
                    return (sent, Err(refused), socket.is_closed(), client, served);
                }
            }
        }
    }
}

#[test]
fn who_can_not_wait_is_told_that_the_queue_is_full() {
    run(async || {
        let (sent, refused, is_closed, mut client, _served) = fill(Policy::Wait).await;

        assert_eq!((refused, is_closed), (Err(Refused::Full), false));
        assert!((90..400).contains(&sent), "{sent}");
        for _ in 0..sent {
            assert_eq!(client.read().await.expect("a message").1.len(), 1000);
        }
    });
}

#[test]
fn a_message_is_dropped_and_the_others_come() {
    run(async || {
        let (sent, refused, is_closed, mut client, _served) = fill(Policy::Drop).await;

        assert_eq!((refused, is_closed), (Err(Refused::Full), false));
        for _ in 0..sent {
            assert_eq!(client.read().await.expect("a message").1.len(), 1000);
        }
    });
}

#[test]
fn a_socket_that_reads_too_slowly_is_closed_if_it_is_to_be() {
    run(async || {
        let (sent, refused, is_closed, mut client, _served) = fill(Policy::Close).await;

        assert_eq!((refused, is_closed), (Err(Refused::Full), true));
        let mut received = 0;
        loop {
            let Some((first, content)) = client.read().await else { break };
            if first == FIN | BINARY {
                received += 1;
            } else {
                assert_eq!((first, &content[2..]), (0x88, &b"messages are read too slowly"[..]));
                assert_eq!(content[..2], 1008_u16.to_be_bytes());
                break;
            }
        }
        assert!(received < sent, "what waited was thrown away");
    });
}

#[test]
fn sending_waits_for_a_client_that_reads_slowly() {
    run(async || {
        let mut config = Config::default();
        config.ws_max_queue_bytes = 10_000;
        let (progress, mut sent) = mpsc::unbounded_channel();
        let served = serve_with(
            config.clone(),
            accepting(config, Policy::Wait, async move |socket: Socket| {
                for number in 0..500 {
                    assert_eq!(socket.send(&Prepared::binary(&[7; 1000])).await, Ok(true));
                    let _ = progress.send(number);
                }
            }),
        );
        let mut client = open(&served).await;
        settle().await;
        let before = sent.len();
        assert!(before < 300, "{before}");

        for _ in 0..500 {
            assert_eq!(client.read().await.expect("a message").1.len(), 1000);
        }

        while sent.recv().await != Some(499) {}
    });
}

/// A client that reads nothing at all is given up as with any response, also if it goes on sending.
#[test]
fn gives_up_a_client_that_takes_nothing() {
    run(async || {
        let config = Config::default();
        let (ended, mut end) = mpsc::unbounded_channel();
        let served = serve_with(
            config.clone(),
            accepting(config.clone(), Policy::Wait, async move |socket: Socket| {
                while socket.send(&Prepared::binary(&[7; 10_000])).await.is_ok() {}
                let _ = ended.send(socket.sender.ended());
            }),
        );
        let _client = open(&served).await;
        let start = Instant::now();

        let end = end.recv().await.expect("an end").expect("it has ended");

        assert_eq!(end.code, 1006);
        assert_eq!(start.elapsed().as_secs(), config.write_timeout.as_secs());
    });
}

/// RFC 6455 §5.5.3: the last pong is enough, so that who sends pings and does not read takes no memory for them.
#[test]
fn a_flood_of_pings_takes_no_memory() {
    run(async || {
        let served = serve_with(Config::default(), accepting(Config::default(), Policy::Wait, echo));
        let mut client = open(&served).await;
        let pings: Vec<u8> = (0..1000).flat_map(|_| frame(FIN | 9, &[b'x'; 125])).collect();

        for _ in 0..100 {
            if tokio::time::timeout(Duration::from_millis(10), client.send(&pings)).await.is_err() {
                panic!("the server stopped reading");
            }
        }

        let mut pongs = 0;
        while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(10), client.read()).await {
            pongs += 1;
        }
        assert!((1..5000).contains(&pongs), "{pongs}");
    });
}
