//! How packets go to other processes and come from them: a queue, and both directions of a byte stream.
//!
//! Rules:
//! 1. Who queues never waits. Messages are dropped where they don't fit.
//! 2. Counts are not: what is queued is that a count has changed, which is looked up when it is sent. So they are right in the
//!    end, however slow somebody is.
//! 3. While nothing comes, next to nothing is held.

use std::{
    collections::{HashSet, VecDeque},
    convert::Infallible,
    hash::Hash,
    io,
    mem::take,
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
    task::yield_now,
};

use super::packet::{Packet, split, without_length};

/// 64 KiB: what is written at once, unless one packet is longer.
const GATHERED_BYTES: usize = 64 * 1024;
/// 4 KiB: what is read at once, unless a long packet has begun.
const CHUNK_BYTES: usize = 4 * 1024;
/// 64 KiB, likewise within a long packet: memory is taken for what comes, never for what was announced.
const LARGE_CHUNK_BYTES: usize = 64 * 1024;

/// 16,384 members. After so many messages were put into queues, which takes a few milliseconds, others get their turn. Sooner, each
/// member would be written to for every message by itself: messages that come together go out together.
pub(super) const MAX_DELIVERIES_AT_A_TIME: usize = 16_384;

/// Reads packets from a byte stream until its end, and gives each to `take_in`, with its length. That returns how many members
/// it was delivered to.
///
/// # Errors
/// If reading fails, and if what comes is no packet.
pub(super) async fn read_all(
    stream: &mut (impl AsyncRead + Unpin),
    mut take_in: impl FnMut(u64, &Packet<'_>, &Bytes) -> usize,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    let mut delivered = 0;
    loop {
        while let Some(packet) = split(&mut buffer)? {
            let content = without_length(&packet);
            let (node, said) = Packet::read(&content).map_err(io::Error::other)?;
            delivered += take_in(node, &said, &packet);
            if delivered >= MAX_DELIVERIES_AT_A_TIME {
                delivered = 0;
                yield_now().await;
            }
        }
        if buffer.is_empty() {
            // Else what a long packet has taken would be held for ever.
            buffer = BytesMut::new();
        }
        buffer.reserve(if buffer.len() < CHUNK_BYTES { CHUNK_BYTES } else { LARGE_CHUNK_BYTES });
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// What is yet to be told to others: packets, and which counts have changed.
pub(super) struct Outbox<K> {
    queue: Mutex<Queue<K>>,
    news: Notify,
    /// All was told.
    idle: Notify,
    max_bytes: usize,
}

struct Queue<K> {
    packets: VecDeque<Bytes>,
    bytes: usize,
    changed: HashSet<K>,
    /// Whether there is somebody to be told, or will be soon.
    is_open: bool,
    /// How many messages there was no room for, since there last was.
    dropped: u64,
    /// Whether what was taken last may be under way still.
    is_busy: bool,
}

/// What was taken from an outbox.
pub(super) struct Taken<K> {
    pub(super) packets: Vec<Bytes>,
    pub(super) changed: HashSet<K>,
}

impl<K: Eq + Hash> Outbox<K> {
    /// Makes one for at most so many bytes of messages, or one message that is longer.
    pub(super) fn new(max_bytes: usize) -> Self {
        let queue = Queue {
            packets: VecDeque::new(),
            bytes: 0,
            changed: HashSet::new(),
            is_open: true,
            dropped: 0,
            is_busy: false,
        };
        Self { queue: Mutex::new(queue), news: Notify::new(), idle: Notify::new(), max_bytes }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<K>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message that is made only if there is somebody to be told. Drops it if there is no room.
    pub(super) fn push(&self, packet: impl FnOnce() -> Bytes) {
        if !self.lock().is_open {
            return;
        }
        let packet = packet();
        let mut queue = self.lock();
        if queue.bytes > 0 && queue.bytes + packet.len() > self.max_bytes {
            queue.dropped += 1;
            let is_first = queue.dropped == 1;
            drop(queue);
            if is_first {
                tracing::warn!(
                    kind = "limit",
                    limit = "rooms_max_queue_bytes",
                    "messages to rooms come faster than another process takes them: those that find no room are dropped"
                );
            }
            return;
        }
        queue.bytes += packet.len();
        queue.packets.push_back(packet);
        drop(queue);
        self.news.notify_one();
    }

    /// Queues something that is short and seldom: whether or not there is room.
    pub(super) fn insist(&self, packet: Bytes) {
        let mut queue = self.lock();
        queue.bytes += packet.len();
        queue.packets.push_back(packet);
        drop(queue);
        self.news.notify_one();
    }

    /// Notes that a count has changed.
    pub(super) fn mark(&self, room: K) {
        let mut queue = self.lock();
        if queue.is_open {
            queue.changed.insert(room);
            drop(queue);
            self.news.notify_one();
        }
    }

    /// Says whether there is somebody to be told: while there is nobody, nothing is kept.
    pub(super) fn set_open(&self, is_open: bool) {
        let mut queue = self.lock();
        let left = (!is_open).then(|| (take(&mut queue.packets), take(&mut queue.changed)));
        if left.is_some() {
            queue.bytes = 0;
        }
        queue.is_open = is_open;
        drop(queue);
        drop(left);
    }

    /// Takes some 64 KiB of what is to be told. None: there is nothing.
    pub(super) fn take(&self) -> Option<Taken<K>> {
        let mut queue = self.lock();
        let (mut packets, mut gathered) = (Vec::new(), 0);
        while let Some(first) = queue.packets.front() {
            if gathered > 0 && gathered + first.len() > GATHERED_BYTES {
                break;
            }
            gathered += first.len();
            packets.extend(queue.packets.pop_front());
        }
        queue.bytes -= gathered;
        if queue.packets.is_empty() {
            // What a burst has taken is given back.
            queue.packets = VecDeque::new();
            let dropped = take(&mut queue.dropped);
            if dropped > 0 {
                tracing::warn!(dropped, "messages to rooms are not dropped any more");
            }
        }
        // Behind the packets: the one that has counts forgotten comes before them.
        let changed = if queue.packets.is_empty() { take(&mut queue.changed) } else { HashSet::new() };
        queue.is_busy = !packets.is_empty() || !changed.is_empty();
        queue.is_busy.then_some(Taken { packets, changed })
    }

    /// Waits until there is something to be told, and takes it. One waits at a time.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn next(&self) -> Taken<K> {
        loop {
            if let Some(taken) = self.take() {
                return taken;
            }
            self.idle.notify_waiters();
            self.news.notified().await;
        }
    }

    /// Waits until all was told.
    pub(super) async fn rested(&self) {
        let mut idle = pin!(self.idle.notified());
        loop {
            idle.as_mut().enable();
            {
                let queue = self.lock();
                if queue.packets.is_empty() && queue.changed.is_empty() && !queue.is_busy {
                    return;
                }
            }
            idle.as_mut().await;
            idle.set(self.idle.notified());
        }
    }

    /// Writes all that is to be told, until that fails. `count` makes the packet of a count that has changed.
    ///
    /// # Errors
    /// That of the stream. It never ends without.
    pub(super) async fn write_all<W>(
        &self,
        stream: &mut W,
        mut count: impl FnMut(&K) -> Option<Bytes>,
    ) -> io::Result<Infallible>
    where
        W: AsyncWrite + Unpin,
    {
        loop {
            let Taken { packets, changed } = self.next().await;
            let counts = changed.iter().filter_map(&mut count);
            let mut gathered = BytesMut::new();
            for mut packet in packets.into_iter().chain(counts) {
                if gathered.len() + packet.len() > GATHERED_BYTES {
                    stream.write_all_buf(&mut gathered).await?;
                }
                if packet.len() > GATHERED_BYTES {
                    stream.write_all_buf(&mut packet).await?;
                } else {
                    gathered.extend_from_slice(packet.chunk());
                }
            }
            stream.write_all_buf(&mut gathered).await?;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn messages_find_room_up_to_the_limit_and_counts_always() {
        let outbox = Outbox::new(100);
        let message = |length| move || Bytes::from(vec![0; length]);
        outbox.push(message(60));
        outbox.push(message(40));
        outbox.push(message(1));
        outbox.mark("a");
        outbox.mark("b");
        outbox.mark("a");

        let taken = outbox.take().unwrap();

        assert_eq!(taken.packets.iter().map(Bytes::len).collect::<Vec<_>>(), [60, 40]);
        assert_eq!(taken.changed, HashSet::from(["a", "b"]));
        assert!(outbox.take().is_none());
        // One that is longer than all the room goes when nothing else waits.
        outbox.push(message(101));
        outbox.push(message(1));
        assert_eq!(outbox.take().unwrap().packets.len(), 1);
    }

    #[test]
    fn nothing_is_kept_for_nobody() {
        let outbox = Outbox::new(100);
        outbox.push(|| Bytes::from_static(b"old"));
        outbox.mark("a");

        outbox.set_open(false);
        outbox.push(|| unreachable!("it is not even made"));
        outbox.mark("b");
        assert!(outbox.take().is_none());

        outbox.set_open(true);
        outbox.push(|| Bytes::from_static(b"new"));
        assert_eq!(outbox.take().unwrap().packets, ["new"]);
    }
}
