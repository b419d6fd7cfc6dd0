//! Rooms across processes: here across threads, by the sockets and the hub that workers have.

use std::{
    thread,
    time::{Duration, Instant},
};

use httpy::{
    Config,
    ws::{Hub, Policy, Prepared, Rooms, Sender},
};
use socket2::{Domain, Socket as RawSocket, Type};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::mpsc,
    task::spawn_local,
};

use super::{Socket, WsClient, accepting, open};
use crate::support::{Served, serve_with};

/// 1 MiB: less than is sent to somebody who does not read.
const QUEUE_BYTES: usize = 1024 * 1024;

/// Runs a test on a clock that goes on by itself, as the hub's thread does.
fn run(test: impl AsyncFnOnce()) {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test()).await.expect("the test hangs");
    });
}

/// What a worker has: a server, and rooms that it shares.
struct Worker {
    rooms: Rooms,
    served: Served,
    sockets: mpsc::UnboundedReceiver<Sender>,
    following: tokio::task::JoinHandle<()>,
}

fn pair() -> (RawSocket, RawSocket) {
    RawSocket::pair(Domain::UNIX, Type::STREAM, None).expect("two sockets")
}

impl Worker {
    fn new(hub: &Hub) -> Self {
        let (theirs, ours) = pair();
        hub.add(vec![theirs]);
        Self::with(ours)
    }

    fn with(ours: RawSocket) -> Self {
        let rooms = Rooms::new(&Config::default());
        let following = rooms.follow(ours);
        let (sender, sockets) = mpsc::unbounded_channel();
        let handler = accepting(Config::default(), Policy::Wait, async move |socket: Socket| {
            let _ = sender.send(socket.sender.clone());
            while socket.receive().await.is_ok() {}
        });
        let following = spawn_local(async move { drop(following.await) });
        Self { rooms, served: serve_with(Config::default(), handler), sockets, following }
    }

    async fn enter(&mut self, room: &str) -> WsClient {
        let client = open(&self.served).await;
        let member = self.sockets.recv().await.expect("a socket");
        assert_eq!(self.rooms.join(&member, room), Ok(true));
        client
    }

    fn say(&self, room: &str, text: &str) {
        self.rooms.broadcast(room, Prepared::text(text), &[]).expect("sent");
    }

    /// Waits until a room has so many members, for all that is known here.
    async fn counts(&self, room: &str, wanted: usize) {
        let start = Instant::now();
        while self.rooms.count(room) != wanted {
            assert!(start.elapsed() < Duration::from_secs(30), "{} instead of {wanted}", self.rooms.count(room));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[test]
fn a_room_is_one_room_for_all_workers() {
    run(async || {
        let hub = Hub::start(QUEUE_BYTES).expect("a thread");
        let (mut first, mut second, third) = (Worker::new(&hub), Worker::new(&hub), Worker::new(&hub));
        let mut anna = first.enter("red").await;
        let mut bert = second.enter("red").await;
        let _carl = second.enter("blue").await;

        third.say("red", "from a third");
        first.say("red", "from the first");

        // Of two senders either may be first.
        for client in [&mut anna, &mut bert] {
            let mut seen = [client.next().await, client.next().await];
            seen.sort();
            assert_eq!(seen, ["text from a third", "text from the first"]);
        }
        for worker in [&first, &second, &third] {
            worker.counts("red", 2).await;
            worker.counts("blue", 1).await;
        }
    });
}

/// As it is when the hub starts because the first worker has said something.
#[test]
fn nobody_misses_what_was_said_before_the_hub_was_there() {
    run(async || {
        for _ in 0..20 {
            let (sockets, ends): (Vec<_>, Vec<_>) = (0..3).map(|_| pair()).unzip();
            let mut workers: Vec<_> = ends.into_iter().map(Worker::with).collect();
            workers[0].say("red", "first");
            let mut bert = workers[1].enter("red").await;
            let mut carl = workers[2].enter("red").await;

            let hub = Hub::start(QUEUE_BYTES).expect("a thread");
            hub.add(sockets);

            assert_eq!(bert.next().await, "text first");
            assert_eq!(carl.next().await, "text first");
        }
    });
}

#[test]
fn who_comes_later_is_told_the_counts_and_who_is_gone_counts_no_more() {
    run(async || {
        let hub = Hub::start(QUEUE_BYTES).expect("a thread");
        let mut first = Worker::new(&hub);
        let clients = [first.enter("red").await, first.enter("red").await];
        let second = Worker::new(&hub);
        second.counts("red", 2).await;

        drop(clients);
        second.counts("red", 0).await;
        let _client = first.enter("red").await;
        second.counts("red", 1).await;
        first.following.abort();

        second.counts("red", 0).await;
    });
}

/// Messages for one that does not read are dropped when there are too many; the others get theirs.
#[test]
fn a_worker_that_is_stuck_holds_nobody_up() {
    run(async || {
        let hub = Hub::start(QUEUE_BYTES).expect("a thread");
        let (mut first, second) = (Worker::new(&hub), Worker::new(&hub));
        let (theirs, stuck) = pair();
        hub.add(vec![theirs]);
        let mut anna = first.enter("red").await;
        let text = "x".repeat(100_000);

        for _ in 0..100 {
            second.say("red", &text);
            assert_eq!(anna.next().await.len(), "text ".len() + text.len());
        }

        // It comes back: what is left for it ends, with what was said last.
        let rooms = Rooms::new(&Config::default());
        let following = spawn_local(rooms.follow(stuck));
        let start = Instant::now();
        while rooms.count("red") != 1 {
            assert!(start.elapsed() < Duration::from_secs(30));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        following.abort();
    });
}

/// What is no packet ends one connection, and nothing else.
#[test]
fn a_worker_that_talks_nonsense_is_dropped() {
    run(async || {
        let hub = Hub::start(QUEUE_BYTES).expect("a thread");
        let (mut first, second) = (Worker::new(&hub), Worker::new(&hub));
        for nonsense in [&b"\xff\xff\xff\xff"[..], b"\x00\x00\x00\x01\x09", b"\x00\x00\x00\x00"] {
            let (theirs, mut ours) = pair();
            hub.add(vec![theirs]);
            std::io::Write::write_all(&mut ours, nonsense).expect("written");
            let end = thread::spawn(move || {
                ours.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
                std::io::Read::read(&mut ours, &mut [0]).map(|length| (length, nonsense))
            });
            assert_eq!(end.join().expect("no panic").expect("an end"), (0, nonsense));
        }
        let mut anna = first.enter("red").await;

        second.say("red", "still here");

        assert_eq!(anna.next().await, "text still here");
    });
}
