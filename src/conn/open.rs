//! The open connections of a server: how many there are, from where, and which one is closed for a newcomer.
//!
//! ```text
//!         a head has come                  the client's turn: to send content, or to read
//! New ---------------------> Working <------------------------------------------------> Waiting
//!                   a head ^    | the response was sent                                    |
//!                           Idle <---------------------------------------------------------'
//! ```
//!
//! Rules:
//! 1. A connection at which the server works is never closed for a newcomer.
//! 2. Closed first are those that are new for more than [`BEGINNING`]: who is in no hurry to ask for something can come again.
//!    A head that drips in does not help. Then idle ones, then those that wait for their client; in each case the one that has
//!    been so for the longest time.
//! 3. Younger ones have yet to send their first head, and it would starve requests if newcomers pushed each other out before
//!    that. So newcomers wait instead, one for each listener here, and the rest with the system; unless so many are new that it
//!    can only be an attack, and then the first of them goes.
//! 4. What is done for every request is a few writes to linked lists. Nothing is searched, and no clock is read.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use super::{Network, Siblings};

/// How long a new connection may take to its first complete head before it is closed for a newcomer. 1 s: three round trips
/// to the far end of the world, which is what TLS and a request take.
const BEGINNING: Duration = Duration::from_secs(1);

/// How many connections may be younger than that before newcomers push each other out: an eighth of all, and at least 8. In a
/// flood of 1,250 connections in a second a request has that second, and in a flood of 12,500 still 100 ms.
const MOST_NEW: usize = 8;

/// How often the log says the same. 10 s: an attack must not fill the disk.
const SAID_AGAIN: Duration = Duration::from_secs(10);

/// What a connection is doing, for the server to know which it can best do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No request is under way: nothing was sent, or not a complete head.
    Resting,
    /// A request is under way, and it is the client's turn: to send its content, or to read the response.
    Waiting,
    /// A request is under way, and it is the server's turn.
    Working,
}

/// The open connections of one server.
pub(crate) struct Open {
    roll: RefCell<Roll>,
    max: usize,
    max_per_network: usize,
    /// Other processes that accept from the same sockets, if there are any.
    siblings: Option<Siblings>,
    /// Wakes newcomers that wait for room.
    room: Notify,
    is_awaited: Cell<bool>,
    last_said: Cell<Option<Instant>>,
}

impl Open {
    /// At most `max` connections, `max_per_network` of them from one network; 0 is no limit.
    pub(crate) fn new(max: usize, max_per_network: usize, siblings: Option<Siblings>) -> Self {
        let no_limit = |n| if n == 0 { usize::MAX } else { n };
        Self {
            roll: RefCell::new(Roll::new()),
            max: no_limit(max),
            max_per_network: no_limit(max_per_network),
            siblings,
            room: Notify::new(),
            is_awaited: Cell::new(false),
            last_said: Cell::new(None),
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.roll.borrow().open
    }

    /// The other processes that accept from the same sockets.
    pub(crate) fn siblings(&self) -> Option<&Siblings> {
        self.siblings.as_ref()
    }

    /// Has the siblings know that this process accepts nothing any more.
    pub(crate) fn leave(&self) {
        if let Some(siblings) = &self.siblings {
            siblings.leave();
        }
    }

    /// Has the siblings know how many these are.
    fn tell(&self) {
        if let Some(siblings) = &self.siblings {
            siblings.tell(self.count());
        }
    }

    /// Makes room for a newcomer, or waits until there is some, and gives it its place. None: its network has enough.
    pub(crate) async fn admit(self: &Rc<Self>, network: Option<Network>) -> Option<Rc<Place>> {
        if network.is_some_and(|network| self.roll.borrow().count_from(network) >= self.max_per_network) {
            if self.is_to_be_said() {
                tracing::info!(kind = "limit", ?network, "connections refused (max_connections_per_address)");
            }
            return None;
        }
        while self.roll.borrow().open >= self.max && !self.close_one() {
            if self.is_to_be_said() {
                tracing::warn!(kind = "limit", "every connection is busy, new ones wait (max_connections)");
            }
            let room = self.room.notified();
            self.is_awaited.set(true);
            let age = self.roll.borrow().next_to_age();
            match age {
                // Either way there is something to look at.
                Some(age) => drop(timeout_at(age, room).await),
                None => room.await,
            }
        }
        let number = self.roll.borrow_mut().enter(network);
        self.tell();
        Some(Rc::new(Place { open: self.clone(), number, standing: Cell::new(Standing::Resting) }))
    }

    /// Closes the connection that can best be done without. Returns whether there was one.
    ///
    /// Its task ends as soon as the runtime gets to it, and is not counted any more.
    pub(crate) fn close_one(&self) -> bool {
        let task = {
            let mut roll = self.roll.borrow_mut();
            let Some(number) = roll.dispensable(MOST_NEW.max(self.max / 8)) else { return false };
            roll.leave(number);
            roll.entries[number as usize].task.take()
        };
        if let Some(task) = task {
            task.abort();
        }
        tracing::debug!(kind = "limit", "a connection was closed to make room (max_connections)");
        true
    }

    /// Ends the tasks of all connections.
    pub(crate) fn abort(&self) {
        let tasks: Vec<_> = self.roll.borrow_mut().entries.iter_mut().filter_map(|entry| entry.task.take()).collect();
        for task in tasks {
            task.abort();
        }
    }

    fn tell_of_room(&self) {
        if self.is_awaited.replace(false) {
            self.room.notify_waiters();
        }
    }

    fn is_to_be_said(&self) -> bool {
        let now = Instant::now();
        let is_due = self.last_said.get().is_none_or(|last| now - last >= SAID_AGAIN);
        if is_due {
            self.last_said.set(Some(now));
        }
        is_due
    }
}

/// A connection's place among the open ones; given up when it is dropped.
pub struct Place {
    open: Rc<Open>,
    number: u32,
    standing: Cell<Standing>,
}

impl Place {
    /// Says what the connection is doing. Whenever it begins to rest, or to wait, it goes to the end of the line of those
    /// that are closed when a newcomer needs room. Nothing happens if nothing has changed.
    pub fn set(&self, standing: Standing) {
        if self.standing.replace(standing) != standing {
            self.put(standing);
        }
    }

    /// Says that requests have come, and what the connection is doing after them: it goes to the end of the line also if it
    /// does the same as before.
    pub fn renew(&self, standing: Standing) {
        self.standing.set(standing);
        self.put(standing);
    }

    fn put(&self, standing: Standing) {
        self.open.roll.borrow_mut().put(self.number, Circle::of(standing));
        if standing != Standing::Working {
            self.open.tell_of_room();
        }
    }

    /// Names the task that ends with the connection.
    pub(crate) fn set_task(&self, task: AbortHandle) {
        self.open.roll.borrow_mut().entries[self.number as usize].task = Some(task);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let task = {
            let mut roll = self.open.roll.borrow_mut();
            roll.leave(self.number);
            roll.free.push(self.number);
            roll.entries[self.number as usize].task.take()
        };
        drop(task);
        self.open.tell();
        self.open.tell_of_room();
    }
}

/// Connections that do the same are linked in a circle, in the order in which they came to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Circle {
    New = 0,
    Idle = 1,
    Waiting = 2,
    /// None: those that work are in no order.
    Working = 3,
}

impl Circle {
    /// What is new once is not new again.
    fn of(standing: Standing) -> Self {
        match standing {
            Standing::Resting => Self::Idle,
            Standing::Waiting => Self::Waiting,
            Standing::Working => Self::Working,
        }
    }
}

/// The list of connections.
///
/// Its first entries are no connections but the ends of the circles, one each: what follows an end has been in its circle for
/// the longest time.
struct Roll {
    entries: Vec<Entry>,
    free: Vec<u32>,
    open: usize,
    new: usize,
    networks: HashMap<Network, usize>,
}

struct Entry {
    previous: u32,
    next: u32,
    circle: Circle,
    /// Whether it counts: not after it was closed, while its task ends.
    is_open: bool,
    network: Option<Network>,
    entered: Instant,
    task: Option<AbortHandle>,
}

impl Roll {
    fn new() -> Self {
        let ends = [Circle::New, Circle::Idle, Circle::Waiting].map(|circle| Entry {
            previous: circle as u32,
            next: circle as u32,
            circle,
            is_open: false,
            network: None,
            entered: Instant::now(),
            task: None,
        });
        Self { entries: ends.into(), free: Vec::new(), open: 0, new: 0, networks: HashMap::new() }
    }

    fn count_from(&self, network: Network) -> usize {
        self.networks.get(&network).copied().unwrap_or(0)
    }

    fn enter(&mut self, network: Option<Network>) -> u32 {
        let entry = Entry {
            previous: 0,
            next: 0,
            circle: Circle::Working,
            is_open: true,
            network,
            entered: Instant::now(),
            task: None,
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.entries[number as usize] = entry;
                number
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).expect("no system has as many descriptors")
            }
        };
        if let Some(network) = network {
            *self.networks.entry(network).or_default() += 1;
        }
        self.open += 1;
        self.put(number, Circle::New);
        number
    }

    /// Takes a connection out of its circle, and to the end of another or the same one.
    fn put(&mut self, number: u32, circle: Circle) {
        let entries = &mut self.entries[..];
        let Entry { previous, next, circle: last, is_open, .. } = entries[number as usize];
        let end = circle as u32;
        if !is_open || (next == end && last == circle) {
            return;
        }
        if last != Circle::Working {
            entries[previous as usize].next = next;
            entries[next as usize].previous = previous;
        }
        if circle != Circle::Working {
            let previous = std::mem::replace(&mut entries[end as usize].previous, number);
            entries[previous as usize].next = number;
            let entry = &mut entries[number as usize];
            (entry.previous, entry.next) = (previous, end);
        }
        if last != circle {
            entries[number as usize].circle = circle;
            self.new -= usize::from(last == Circle::New);
            self.new += usize::from(circle == Circle::New);
        }
    }

    /// Stops counting a connection. Idempotent.
    fn leave(&mut self, number: u32) {
        if !self.entries[number as usize].is_open {
            return;
        }
        self.put(number, Circle::Working);
        let entry = &mut self.entries[number as usize];
        entry.is_open = false;
        self.open -= 1;
        let Some(network) = entry.network else { return };
        if let Some(count) = self.networks.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.networks.remove(&network);
            }
        }
    }

    fn first(&self, circle: Circle) -> Option<u32> {
        let next = self.entries[circle as usize].next;
        (next != circle as u32).then_some(next)
    }

    /// The connection to close for another, if up to `most_new` may be new.
    fn dispensable(&self, most_new: usize) -> Option<u32> {
        let new = self.first(Circle::New);
        new.filter(|_| self.next_to_age().is_some_and(|age| age <= Instant::now()))
            .or_else(|| self.first(Circle::Idle))
            .or_else(|| self.first(Circle::Waiting))
            .or_else(|| new.filter(|_| self.new > most_new))
    }

    /// When the first of those that are new has been so for too long.
    fn next_to_age(&self) -> Option<Instant> {
        self.first(Circle::New).map(|number| self.entries[number as usize].entered + BEGINNING)
    }
}
