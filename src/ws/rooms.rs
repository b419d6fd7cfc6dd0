//! Rooms: names under which the WebSockets of a server are sent to together.
//!
//! ```text
//! Rooms ── members by room ──► Sender ──► Shared ── Joined: the rooms by member ──► Rooms, to leave them in the end
//!   └── counts of other processes, and a queue of what they are to know ◄── bus.rs ──► hub.rs or redis.rs
//! ```
//!
//! Rules:
//! 1. Sending to a room never waits: a message is put into the queue of every member, or what that member's policy says is done
//!    with it. Where the policy is to wait, which nobody does here, a member whose queue is full is closed (1008): it was
//!    promised everything.
//! 2. A frame is made once for all members, also the compressed one.
//! 3. A socket that has ended is in no room, and a room without members is not there.
//! 4. Who joins is a member when `join` returns. What others know of it is a count, and a little late.
//! 5. Locks are taken in this order: a socket's rooms, the rooms, the socket. All members see messages in the same order.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, RandomState},
    mem::take,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use foldhash::fast::FixedState;
use tokio::time::Instant;

use super::{bus::Outbox, message::Prepared, packet::Packet, sender::Sender};
use crate::config::Config;

/// 255 bytes. A name is what an app makes of ids and words; every process that counts members keeps it.
pub const MAX_ROOM_NAME_BYTES: usize = 255;

/// 16 MiB. A message to a room may be held by every process, for every member that has yet to read it.
pub const MAX_ROOM_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// How long a process that ends waits for having said so. 0.5 s, many round trips on any network that this is for.
const FAREWELL: Duration = Duration::from_millis(500);

/// Why something can't be done with a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RoomError {
    /// The name is empty or longer than [`MAX_ROOM_NAME_BYTES`].
    Name {
        /// How long it is, in bytes.
        bytes: usize,
    },
    /// The message is longer than [`MAX_ROOM_MESSAGE_BYTES`].
    Message {
        /// How long it is, in bytes.
        bytes: usize,
    },
    /// The socket is in as many rooms as it may be (`ws_max_rooms`).
    TooMany {
        /// How many that is.
        limit: usize,
    },
    /// The socket has ended, or is about to.
    Closed,
}

impl fmt::Display for RoomError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { bytes } => {
                write!(f, "the name of a room has 1 to {MAX_ROOM_NAME_BYTES} bytes, found {bytes}")
            }
            Self::Message { bytes } => {
                write!(f, "a message to a room has at most {MAX_ROOM_MESSAGE_BYTES} bytes, found {bytes}")
            }
            Self::TooMany { limit } => write!(f, "a WebSocket is in at most {limit} rooms (ws_max_rooms)"),
            Self::Closed => f.write_str("the WebSocket is closed"),
        }
    }
}

impl std::error::Error for RoomError {}

/// The rooms of one server. Clones are the same rooms. Any thread.
#[derive(Clone)]
pub struct Rooms(Arc<Inner>);

struct Inner {
    /// What other processes know this one by. Never zero.
    node: u64,
    max_rooms: usize,
    /// How much may wait for other processes.
    max_queue_bytes: usize,
    state: Mutex<State>,
    /// What other processes are to be told, if there are others.
    outbox: OnceLock<Arc<Outbox<Arc<str>>>>,
}

#[derive(Default)]
struct State {
    rooms: HashMap<Arc<str>, Members>,
    /// How many members rooms have in other processes.
    others: HashMap<u64, Other>,
}

type Members = HashMap<usize, Sender, FixedState>;

struct Other {
    counts: HashMap<Box<str>, u32>,
    /// When it has last shown that it is there.
    heard: Instant,
}

impl State {
    fn other(&mut self, node: u64, now: Instant) -> &mut Other {
        self.others.entry(node).or_insert_with(|| Other { counts: HashMap::new(), heard: now })
    }
}

impl Rooms {
    /// No rooms yet.
    pub fn new(config: &Config) -> Self {
        let inner = Inner {
            node: RandomState::new().hash_one(()) | 1,
            max_rooms: config.ws_max_rooms,
            max_queue_bytes: config.rooms_max_queue_bytes,
            state: Mutex::default(),
            outbox: OnceLock::new(),
        };
        Self(Arc::new(inner))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a socket a member of a room, until it leaves or ends. Returns whether it was none before.
    ///
    /// # Errors
    /// [`RoomError::Name`], [`RoomError::TooMany`], [`RoomError::Closed`].
    pub fn join(&self, member: &Sender, room: &str) -> Result<bool, RoomError> {
        check_name(room)?;
        let mut joined = member.joined();
        if joined.is_over || member.is_closed() {
            return Err(RoomError::Closed);
        }
        if joined.names.iter().any(|name| **name == *room) {
            return Ok(false);
        }
        if joined.names.len() >= self.0.max_rooms {
            return Err(RoomError::TooMany { limit: self.0.max_rooms });
        }
        let name = {
            let mut state = self.lock();
            let known = state.rooms.get_key_value(room).map(|(name, _)| name.clone());
            let name = known.unwrap_or_else(|| Arc::from(room));
            state.rooms.entry(name.clone()).or_default().insert(member.id(), member.clone());
            name
        };
        joined.rooms.get_or_insert_with(|| self.clone());
        joined.names.push(name.clone());
        self.count_anew(name);
        Ok(true)
    }

    /// Takes a socket out of a room. Returns whether it was a member.
    pub fn leave(&self, member: &Sender, room: &str) -> bool {
        let mut joined = member.joined();
        let Some(place) = joined.names.iter().position(|name| **name == *room) else { return false };
        let name = joined.names.swap_remove(place);
        self.remove(member.id(), &name);
        true
    }

    /// Sends a message to every member of a room, here and in other processes. Never waits.
    ///
    /// # Arguments
    /// - `except`: the [ids](Sender::id) of those who don't get it.
    ///
    /// # Errors
    /// [`RoomError::Name`], [`RoomError::Message`].
    pub fn broadcast(&self, room: &str, message: Prepared, except: &[usize]) -> Result<(), RoomError> {
        check_name(room)?;
        let bytes = message.data().len();
        if bytes > MAX_ROOM_MESSAGE_BYTES {
            return Err(RoomError::Message { bytes });
        }
        if let Some(outbox) = self.0.outbox.get() {
            let packet = Packet::Message { room, kind: message.kind(), data: message.data() };
            outbox.push(|| packet.write(self.0.node));
        }
        self.deliver(room, message, except);
        Ok(())
    }

    /// Sends a message to the members that are here. Returns how many there are.
    fn deliver(&self, room: &str, message: Prepared, except: &[usize]) -> usize {
        let mut except = except.to_vec();
        except.sort_unstable();
        let mut state = self.lock();
        let Some(members) = state.rooms.get(room) else { return 0 };
        let message = message.for_many();
        let (count, mut gone) = (members.len(), Vec::new());
        for (id, member) in members {
            if except.binary_search(id).is_err() && member.send_or_close(&message).is_err() && member.is_closed() {
                gone.push(*id);
            }
        }
        // It will leave by itself, but perhaps only when its client has taken what is being written.
        let removed = take_out(&mut state, room, &gone);
        drop(state);
        if let Some((name, members)) = removed {
            self.count_anew(name);
            drop(members);
        }
        count
    }

    /// How many members a room has, here and in other processes.
    pub fn count(&self, room: &str) -> usize {
        let state = self.lock();
        let here = state.rooms.get(room).map_or(0, HashMap::len);
        let elsewhere = state.others.values().filter_map(|other| other.counts.get(room));
        here + elsewhere.map(|count| *count as usize).sum::<usize>()
    }

    /// How many rooms have members here.
    pub fn len(&self) -> usize {
        self.lock().rooms.len()
    }

    /// Whether no room has members here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn remove(&self, id: usize, room: &Arc<str>) {
        let removed = take_out(&mut self.lock(), room, &[id]);
        if removed.is_some() {
            self.count_anew(room.clone());
        }
    }

    /// Has others told how many members a room has.
    fn count_anew(&self, room: Arc<str>) {
        if let Some(outbox) = self.0.outbox.get() {
            outbox.mark(room);
        }
    }

    /// Has other processes told of what is sent and of how many members there are, from now on: what there is to tell waits for
    /// who carries it there.
    pub fn share(&self) {
        self.outbox();
    }

    /// Tells other processes, if there are any, that this one ends. Waits until that is on its way, but not for long.
    pub async fn say_goodbye(&self) {
        if let Some(outbox) = self.0.outbox.get() {
            outbox.insist(Packet::Gone.write(self.0.node));
            let _ = tokio::time::timeout(FAREWELL, outbox.rested()).await;
        }
    }

    // -- what the carriers of a bus use ----------------------------------------------------------------------------------

    pub(super) fn outbox(&self) -> &Arc<Outbox<Arc<str>>> {
        self.0.outbox.get_or_init(|| Arc::new(Outbox::new(self.0.max_queue_bytes)))
    }

    pub(super) fn node(&self) -> u64 {
        self.0.node
    }

    /// The packet that tells how many members a room has here.
    pub(super) fn count_packet(&self, room: &Arc<str>) -> bytes::Bytes {
        let members = self.lock().rooms.get(room).map_or(0, HashMap::len);
        Packet::Count { room, members: u32::try_from(members).unwrap_or(u32::MAX) }.write(self.0.node)
    }

    /// The rooms that have members here.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.lock().rooms.keys().cloned().collect()
    }

    /// Whether another process has told of itself.
    pub(super) fn knows(&self, node: u64) -> bool {
        self.lock().others.contains_key(&node)
    }

    /// Forgets processes that have not been heard of for so long.
    pub(super) fn expire(&self, silence: Duration) {
        let now = Instant::now();
        self.lock().others.retain(|_, other| now.saturating_duration_since(other.heard) < silence);
    }

    /// Takes in what another process tells. Returns how many members it was delivered to.
    pub(super) fn take_in(&self, node: u64, packet: &Packet<'_>) -> usize {
        let now = Instant::now();
        let mut state = self.lock();
        if let Some(other) = state.others.get_mut(&node) {
            other.heard = now;
        }
        match packet {
            Packet::Message { room, kind, data } => {
                drop(state);
                return self.deliver(room, Prepared::new(*kind, data), &[]);
            }
            Packet::Begin => state.other(node, now).counts = HashMap::new(),
            Packet::Count { room, members: 0 } => drop(state.other(node, now).counts.remove(*room)),
            Packet::Count { room, members } => drop(state.other(node, now).counts.insert((*room).into(), *members)),
            Packet::Gone => drop(state.others.remove(&node)),
            Packet::Ask { .. } | Packet::Alive => {}
        }
        0
    }
}

impl fmt::Debug for Rooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rooms").field("rooms", &self.len()).finish_non_exhaustive()
    }
}

/// The rooms that one socket is in.
#[derive(Default)]
pub(super) struct Joined {
    rooms: Option<Rooms>,
    names: Vec<Arc<str>>,
    /// Whether it can join no more.
    is_over: bool,
}

impl Joined {
    /// Takes the socket out of all rooms, for good.
    pub(super) fn leave_all(&mut self, id: usize) {
        self.is_over = true;
        let Some(rooms) = self.rooms.take() else { return };
        for name in take(&mut self.names) {
            rooms.remove(id, &name);
        }
    }

    pub(super) fn names(&self) -> &[Arc<str>] {
        &self.names
    }
}

fn check_name(room: &str) -> Result<(), RoomError> {
    match room.len() {
        1..=MAX_ROOM_NAME_BYTES => Ok(()),
        bytes => Err(RoomError::Name { bytes }),
    }
}

/// Takes members out of a room, and the room away with the last. What was taken is dropped by the caller, without the lock.
fn take_out(state: &mut State, room: &str, ids: &[usize]) -> Option<(Arc<str>, Vec<Sender>)> {
    if ids.is_empty() {
        return None;
    }
    let name = state.rooms.get_key_value(room)?.0.clone();
    let members = state.rooms.get_mut(room)?;
    let taken: Vec<Sender> = ids.iter().filter_map(|id| members.remove(id)).collect();
    if members.is_empty() {
        state.rooms.remove(room);
    } else if members.capacity() > 64 && members.capacity() / 8 > members.len() {
        // A room that was full once is not to hold that memory for ever.
        members.shrink_to_fit();
    }
    (!taken.is_empty()).then_some((name, taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(members: u32) -> Packet<'static> {
        Packet::Count { room: "red", members }
    }

    #[test]
    fn others_count_as_they_tell() {
        let rooms = Rooms::new(&Config::default());
        rooms.take_in(2, &count(3));
        rooms.take_in(4, &count(5));
        assert_eq!(rooms.count("red"), 8);
        rooms.take_in(2, &count(1));
        assert_eq!(rooms.count("red"), 6);
        rooms.take_in(2, &count(0));
        assert_eq!((rooms.count("red"), rooms.knows(2)), (5, true));

        rooms.take_in(4, &Packet::Begin);
        assert_eq!((rooms.count("red"), rooms.knows(4)), (0, true));
        rooms.take_in(4, &count(7));
        rooms.take_in(4, &Packet::Gone);
        assert_eq!((rooms.count("red"), rooms.knows(4)), (0, false));
        rooms.take_in(4, &Packet::Alive);
        assert!(!rooms.knows(4), "what it counts is not known");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_counts_until_the_limit_and_no_longer() {
        let silence = Duration::from_secs(30);
        let rooms = Rooms::new(&Config::default());
        rooms.take_in(2, &count(3));
        tokio::time::advance(Duration::from_secs(29)).await;
        rooms.take_in(4, &count(5));
        rooms.expire(silence);
        assert_eq!(rooms.count("red"), 8);

        tokio::time::advance(Duration::from_secs(1)).await;
        rooms.expire(silence);
        assert_eq!(rooms.count("red"), 5);

        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(20)).await;
            rooms.take_in(4, &Packet::Alive);
            rooms.expire(silence);
        }
        assert_eq!(rooms.count("red"), 5);
    }
}
