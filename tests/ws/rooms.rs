//! Rooms of one process.

use std::sync::Arc;

use flate2::{Decompress, FlushDecompress};
use httpy::{
    Config,
    ws::{MAX_ROOM_MESSAGE_BYTES, Policy, Prepared, RoomError, Rooms, Sender},
};
use tokio::sync::mpsc;

use super::{BINARY, FIN, HANDSHAKE, Socket, WsClient, accepting, close, open};
use crate::support::{Served, run, serve_with, settle};

/// A server whose sockets come out of a channel, and its rooms.
struct Place {
    rooms: Rooms,
    served: Served,
    sockets: mpsc::UnboundedReceiver<Sender>,
}

impl Place {
    fn new(config: Config, policy: Policy) -> Self {
        let (sender, sockets) = mpsc::unbounded_channel();
        let rooms = Rooms::new(&config);
        let handler = accepting(config.clone(), policy, async move |socket: Socket| {
            let _ = sender.send(socket.sender.clone());
            while socket.receive().await.is_ok() {}
        });
        Self { rooms, served: serve_with(config, handler), sockets }
    }

    async fn enter(&mut self, rooms: &[&str]) -> (WsClient, Sender) {
        let client = open(&self.served).await;
        let member = self.sockets.recv().await.expect("a socket");
        for room in rooms {
            assert_eq!(self.rooms.join(&member, room), Ok(true));
        }
        (client, member)
    }
}

fn names(member: &Sender) -> Vec<String> {
    let mut names: Vec<String> = member.rooms().iter().map(|name| name.to_string()).collect();
    names.sort();
    names
}

#[test]
fn a_message_goes_to_the_members_of_its_room_and_to_nobody_else() {
    run(async || {
        let mut place = Place::new(Config::default(), Policy::Wait);
        let (mut anna, anna_member) = place.enter(&["red", "blue"]).await;
        let (mut bert, _) = place.enter(&["red"]).await;
        let (mut carl, _) = place.enter(&[]).await;

        place.rooms.broadcast("red", Prepared::text("one"), &[]).expect("sent");
        place.rooms.broadcast("red", Prepared::text("two"), &[anna_member.id()]).expect("sent");
        place.rooms.broadcast("blue", Prepared::binary(&[3]), &[]).expect("sent");
        place.rooms.broadcast("green", Prepared::text("four"), &[]).expect("sent to nobody");
        assert!(place.rooms.leave(&anna_member, "red"));
        place.rooms.broadcast("red", Prepared::text("five"), &[]).expect("sent");
        place.rooms.broadcast("blue", Prepared::text("six"), &[]).expect("sent");

        for wanted in ["text one", "binary [3]", "text six"] {
            assert_eq!(anna.next().await, wanted);
        }
        for wanted in ["text one", "text two", "text five"] {
            assert_eq!(bert.next().await, wanted);
        }
        carl.send(close(1000, "")).await;
        assert_eq!(carl.next().await, "close 1000");
    });
}

#[test]
fn joining_twice_is_joining_once_and_leaving_is_for_members() {
    run(async || {
        let mut place = Place::new(Config::default(), Policy::Wait);
        let (mut client, member) = place.enter(&["red"]).await;

        assert_eq!(place.rooms.join(&member, "red"), Ok(false));
        place.rooms.broadcast("red", Prepared::text("once"), &[]).expect("sent");
        assert_eq!((names(&member), place.rooms.count("red")), (vec!["red".to_owned()], 1));
        assert!(place.rooms.leave(&member, "red"));
        assert!(!place.rooms.leave(&member, "red"));
        assert!(!place.rooms.leave(&member, "never"));

        assert_eq!(client.next().await, "text once");
        assert!(names(&member).is_empty() && place.rooms.is_empty());
    });
}

/// However it ends.
#[test]
fn who_has_ended_is_in_no_room() {
    run(async || {
        let mut place = Place::new(Config::default(), Policy::Wait);
        let (mut closes, first) = place.enter(&["red", "blue"]).await;
        let (vanishes, second) = place.enter(&["red"]).await;
        let (mut closed, third) = place.enter(&["red"]).await;
        let (mut stays, last) = place.enter(&["red"]).await;
        assert_eq!((place.rooms.count("red"), place.rooms.count("blue"), place.rooms.len()), (4, 1, 2));

        closes.send(close(1000, "")).await;
        assert_eq!(closes.next().await, "close 1000");
        drop(vanishes);
        third.close(httpy::ws::Close::new(1000, ""));
        assert_eq!(closed.next().await, "close 1000");
        settle().await;

        assert_eq!((place.rooms.count("red"), place.rooms.count("blue"), place.rooms.len()), (1, 0, 1));
        for ended in [first, second, third] {
            assert!(names(&ended).is_empty());
            assert_eq!(place.rooms.join(&ended, "red"), Err(RoomError::Closed));
        }
        place.rooms.broadcast("red", Prepared::text("still here"), &[]).expect("sent");
        assert_eq!(stays.next().await, "text still here");
        assert_eq!(names(&last), ["red"]);
    });
}

#[test]
fn a_name_has_1_to_255_bytes() {
    run(async || {
        let mut place = Place::new(Config::default(), Policy::Wait);
        let (_client, member) = place.enter(&[]).await;
        let (longest, longer) = ("r".repeat(255), "r".repeat(256));

        assert_eq!(place.rooms.join(&member, &longest), Ok(true));
        assert_eq!(place.rooms.join(&member, &longer), Err(RoomError::Name { bytes: 256 }));
        assert_eq!(place.rooms.join(&member, ""), Err(RoomError::Name { bytes: 0 }));
        assert_eq!(place.rooms.broadcast(&longest, Prepared::text("x"), &[]), Ok(()));
        let refused = place.rooms.broadcast(&longer, Prepared::text("x"), &[]);
        assert_eq!(refused, Err(RoomError::Name { bytes: 256 }));
        let says = "the name of a room has 1 to 255 bytes, found 256";
        assert_eq!(refused.expect_err("refused").to_string(), says);
    });
}

#[test]
fn a_socket_is_in_as_many_rooms_as_it_may_be() {
    run(async || {
        let mut config = Config::default();
        config.ws_max_rooms = 2;
        let mut place = Place::new(config, Policy::Wait);
        let (_client, member) = place.enter(&["one", "two"]).await;

        let refused = place.rooms.join(&member, "three");

        assert_eq!(refused, Err(RoomError::TooMany { limit: 2 }));
        assert_eq!(refused.expect_err("refused").to_string(), "a WebSocket is in at most 2 rooms (ws_max_rooms)");
        assert_eq!(place.rooms.join(&member, "two"), Ok(false));
        assert!(place.rooms.leave(&member, "one"));
        assert_eq!(place.rooms.join(&member, "three"), Ok(true));
    });
}

#[test]
fn a_message_has_at_most_16_mebibytes() {
    let rooms = Rooms::new(&Config::default());
    let longest = vec![0; MAX_ROOM_MESSAGE_BYTES + 1];

    assert_eq!(rooms.broadcast("red", Prepared::binary(&longest[1..]), &[]), Ok(()));
    let refused = rooms.broadcast("red", Prepared::binary(&longest), &[]);
    assert_eq!(refused, Err(RoomError::Message { bytes: MAX_ROOM_MESSAGE_BYTES + 1 }));
}

/// Sends until the member that does not read has no room, and then some. The other one reads everything.
async fn overrun(policy: Policy) -> (Place, WsClient, Sender, usize) {
    let mut config = Config::default();
    config.ws_max_queue_bytes = 100_000;
    let mut place = Place::new(config, policy);
    let (slow, slow_member) = place.enter(&["red"]).await;
    let (mut quick, _) = place.enter(&["red"]).await;
    let message = Prepared::binary(&[7; 10_000]);
    let count = 60;
    for _ in 0..count {
        place.rooms.broadcast("red", message.clone(), &[]).expect("sent");
        let (first, content) = quick.read().await.expect("a message");
        assert_eq!((first, content.len()), (FIN | BINARY, 10_000));
    }
    (place, slow, slow_member, count)
}

/// How many messages a client finds when it reads at last, and what comes behind them.
async fn read_on(client: &mut WsClient) -> (usize, String) {
    let mut received = 0;
    loop {
        match tokio::time::timeout(std::time::Duration::from_secs(1), client.read()).await {
            Ok(Some((first, _))) if first == FIN | BINARY => received += 1,
            Ok(Some((first, content))) => {
                return (received, format!("{first:#x} {}", String::from_utf8_lossy(&content[2..])));
            }
            Ok(None) => return (received, "END".to_owned()),
            Err(_) => return (received, "nothing".to_owned()),
        }
    }
}

/// Nobody waits, and losing a message without a word would break what the policy promises.
#[test]
fn a_member_that_is_promised_everything_is_closed_when_it_reads_too_slowly() {
    run(async || {
        for policy in [Policy::Wait, Policy::Close] {
            let (place, mut slow, member, sent) = overrun(policy).await;

            assert!(member.is_closed() && names(&member).is_empty());
            assert_eq!(place.rooms.count("red"), 1, "it is no member any more");
            let (received, then) = read_on(&mut slow).await;
            assert!(received < sent);
            assert_eq!(then, "0x88 messages are read too slowly");
        }
    });
}

#[test]
fn a_member_that_may_miss_messages_misses_them() {
    run(async || {
        let (place, mut slow, member, sent) = overrun(Policy::Drop).await;

        assert!(!member.is_closed());
        let (received, then) = read_on(&mut slow).await;
        assert!((10..sent).contains(&received), "{received}");
        assert_eq!(then, "nothing");
        place.rooms.broadcast("red", Prepared::text("now"), &[]).expect("sent");
        assert_eq!(slow.next().await, "text now");
    });
}

/// A client that reads what is compressed, with all that came before as its window.
struct Inflating {
    client: WsClient,
    window: Decompress,
}

impl Inflating {
    async fn open(place: &mut Place) -> (Self, Sender) {
        let mut client = place.served.connect();
        let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
        client.send(HANDSHAKE.replace("\r\n\r\n", &format!("\r\n{offer}"))).await;
        let answer = client.read_until(b"\r\n\r\n").await;
        assert!(answer.contains("permessage-deflate"), "{answer}");
        let member = place.sockets.recv().await.expect("a socket");
        (Self { client: WsClient::over(client), window: Decompress::new(false) }, member)
    }

    /// The next message, and the bytes that it came in.
    async fn next(&mut self) -> (String, Vec<u8>) {
        let (first, content) = self.client.read().await.expect("a message");
        assert_eq!(first, 0xC1, "compressed text");
        let bytes = [&content[..], &[0, 0, 0xFF, 0xFF]].concat();
        let mut text = Vec::with_capacity(10_000);
        self.window.decompress_vec(&bytes, &mut text, FlushDecompress::Sync).expect("it inflates");
        (String::from_utf8(text).expect("text"), content)
    }
}

/// RFC 7692 §7.2: what refers to nothing before it is understood by everybody, whatever they were sent before.
#[test]
fn a_message_is_compressed_once_for_all_and_goes_between_those_of_each() {
    run(async || {
        let mut place = Place::new(Config::default(), Policy::Wait);
        let (mut anna, anna_member) = Inflating::open(&mut place).await;
        let (mut bert, bert_member) = Inflating::open(&mut place).await;
        for member in [&anna_member, &bert_member] {
            assert_eq!(place.rooms.join(member, "red"), Ok(true));
        }
        let own = |name: &str| format!("only for {name}, and long enough to be compressed: {}", name.repeat(30));
        let all = "for everybody, and long enough to be compressed, too; ".repeat(5);

        for _ in 0..3 {
            anna_member.try_send(&Prepared::text(&own("anna"))).expect("sent");
            place.rooms.broadcast("red", Prepared::text(&all), &[]).expect("sent");
            anna_member.try_send(&Prepared::text(&own("anna"))).expect("sent");
            bert_member.try_send(&Prepared::text(&own("bert"))).expect("sent");

            assert_eq!(anna.next().await.0, own("anna"));
            let (first, second) = (anna.next().await, bert.next().await);
            assert_eq!(first.0, all);
            assert_eq!(first, second);
            assert_eq!(anna.next().await.0, own("anna"));
            assert_eq!(bert.next().await.0, own("bert"));
        }
    });
}

/// Of two threads, either may be first; both are right, and nothing is left behind.
#[test]
fn members_come_and_go_from_any_thread() {
    run(async || {
        let mut place = Place::new(Config::default(), Policy::Drop);
        let mut clients = Vec::new();
        for _ in 0..8 {
            clients.push(place.enter(&[]).await);
        }
        let (rooms, members) =
            (place.rooms.clone(), Arc::new(clients.iter().map(|(_, member)| member.clone()).collect::<Vec<_>>()));

        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (rooms, members) = (rooms.clone(), members.clone());
                std::thread::spawn(move || {
                    for turn in 0..300 {
                        let member: &Sender = &members[(turn * 7 + thread) % members.len()];
                        let room = ["red", "blue", "green"][turn % 3];
                        match (turn + thread) % 3 {
                            0 => drop(rooms.join(member, room)),
                            1 => drop(rooms.leave(member, room)),
                            _ => rooms.broadcast(room, Prepared::text("x"), &[]).expect("sent"),
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));

        let joined: usize = members.iter().map(|member| member.rooms().len()).sum();
        assert_eq!(["red", "blue", "green"].map(|room| rooms.count(room)).iter().sum::<usize>(), joined);
        drop(clients);
        settle().await;
        assert!(rooms.is_empty());
    });
}
