//! Redis as what connects the rooms of servers on several machines: a channel that all of them listen to.
//!
//! Each process has two connections: one that listens, one that publishes. Of Redis's protocol (RESP2) that needs three
//! commands and five kinds of values, which are in `redis/resp.rs`; see `docs/decisions/0010-rooms.md` for why it is no client library.
//!
//! Rules:
//! 1. While Redis is away, members of this process still get what this process sends. Nothing is kept for later.
//! 2. A process that has not been heard of for [`SILENCE`] counts no more. All show every [`BEAT`] that they are there, and hear
//!    themselves: who hears nothing has lost its connection.
//! 3. What comes from there is as trusted as Redis is. It is bounded all the same.
//! 4. Addresses and passwords are in no message.

mod resp;
mod url;

use std::{convert::Infallible, future::pending, io, mem::take, time::Duration};

use tokio::{
    task::yield_now,
    time::{interval, sleep, timeout},
};

pub use self::url::RedisUrl;

use self::resp::{Connection, PATIENCE, Value, late};
use super::{
    bus::{MAX_DELIVERIES_AT_A_TIME, Taken},
    packet::{Packet, without_length},
    rooms::Rooms,
};

/// How often a process shows that it is there. 10 s: little, also with hundreds.
const BEAT: Duration = Duration::from_secs(10);
/// Three beats.
const SILENCE: Duration = Duration::from_secs(30);
/// Between two attempts to connect: first, and at most.
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);
impl Rooms {
    /// Has the rooms of this process be those of all that listen to the same channel of the same Redis, for as long as this is
    /// polled.
    pub async fn over_redis(&self, url: &RedisUrl, channel: &str) {
        // Publishing knows no databases: every channel is in all of them.
        let channel = match url.database {
            0 => channel.to_owned(),
            database => format!("{channel}:{database}"),
        };
        let (mut is_told, mut back_off) = (false, FIRST_BACK_OFF);
        loop {
            let mut is_up = false;
            let Err(error) = self.stay(url, &channel, &mut is_up, &mut is_told).await;
            self.outbox().set_open(false);
            if is_up || !is_told {
                tracing::error!(%error, "Redis is away: rooms are those of this process alone meanwhile");
                is_told = true;
            }
            if is_up {
                back_off = FIRST_BACK_OFF;
            }
            // Not all processes at the same moment.
            sleep(back_off + Duration::from_millis(self.node() % 100)).await;
            back_off = (back_off * 2).min(LONGEST_BACK_OFF);
        }
    }

    /// Connects, and stays until that fails.
    async fn stay(
        &self,
        url: &RedisUrl,
        channel: &str,
        is_up: &mut bool,
        is_told: &mut bool,
    ) -> io::Result<Infallible> {
        let mut listener = Connection::open(url).await?;
        let mut publisher = Connection::open(url).await?;
        listener.ask(&[b"SUBSCRIBE", channel.as_bytes()]).await?;
        let begin = Packet::Begin.write(self.node());
        publisher.ask(&[b"PUBLISH", channel.as_bytes(), &without_length(&begin)]).await?;
        *is_up = true;
        if take(is_told) {
            tracing::info!("Redis is back: rooms are shared again");
        }
        let outbox = self.outbox();
        outbox.set_open(true);
        outbox.insist(Packet::Ask { whom: 0 }.write(self.node()));
        self.names().into_iter().for_each(|name| outbox.mark(name));
        tokio::select! {
            ended = self.listen(&mut listener) => ended,
            ended = self.publish(&mut publisher, channel) => ended,
            () = self.beat() => pending().await,
        }
    }

    async fn listen(&self, listener: &mut Connection) -> io::Result<Infallible> {
        let outbox = self.outbox();
        let mut delivered = 0;
        loop {
            let value = timeout(SILENCE, listener.read()).await.map_err(|_| late())??;
            let Value::Array(values) = value else { continue };
            let [Value::Bulk(kind), _, Value::Bulk(packet)] = &values[..] else { continue };
            if **kind != *b"message" {
                continue;
            }
            let (node, packet) = match Packet::read(packet) {
                Ok(read) => read,
                Err(error) => {
                    tracing::debug!(%error, "something on the channel of the rooms is no packet");
                    continue;
                }
            };
            if node == self.node() {
                continue;
            }
            match packet {
                Packet::Ask { whom } if whom == 0 || whom == self.node() => {
                    let names = self.names();
                    if names.is_empty() {
                        outbox.insist(Packet::Begin.write(self.node()));
                    }
                    names.into_iter().for_each(|name| outbox.mark(name));
                }
                Packet::Alive if !self.knows(node) => outbox.insist(Packet::Ask { whom: node }.write(self.node())),
                _ => {}
            }
            delivered += self.take_in(node, &packet);
            if delivered >= MAX_DELIVERIES_AT_A_TIME {
                delivered = 0;
                yield_now().await;
            }
        }
    }

    async fn publish(&self, publisher: &mut Connection, channel: &str) -> io::Result<Infallible> {
        let outbox = self.outbox();
        loop {
            let Taken { packets, changed } = outbox.next().await;
            let mut count = 0;
            for packet in packets.into_iter().chain(changed.iter().map(|room| self.count_packet(room))) {
                let command = [&b"PUBLISH"[..], channel.as_bytes(), &without_length(&packet)];
                publisher.put(&command);
                count += 1;
                if publisher.is_full() {
                    timeout(PATIENCE, publisher.finish(take(&mut count))).await.map_err(|_| late())??;
                }
            }
            timeout(PATIENCE, publisher.finish(count)).await.map_err(|_| late())??;
        }
    }

    async fn beat(&self) {
        let mut beats = interval(BEAT);
        loop {
            beats.tick().await;
            self.expire(SILENCE);
            self.outbox().insist(Packet::Alive.write(self.node()));
        }
    }
}
