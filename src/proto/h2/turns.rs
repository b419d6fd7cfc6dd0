//! Whose content is sent next (RFC 9218 §10).
//!
//! A stream that has content to send asks for a turn. A turn is a piece of content that is handed to h2:
//!
//! 1. The most urgent go first. Of one urgency, those that are not incremental go one after the other, in the order in which
//!    they were asked for. Incremental ones take turns with each other and with the first of those.
//! 2. One turn in [`FAIR`] goes to the stream that has waited for the most turns, so that nobody waits for ever.
//! 3. h2 is handed no more than one turn before that has left it, and no more than can be sent and the client takes on the
//!    whole connection: what is in h2 can't be overtaken any more.
//! 4. Who is alone is sent as it comes.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use super::super::priority::{Priority, Said};

/// 16 KiB, the size of a frame (RFC 9113 §4.2).
pub(super) const TURN_BYTES: usize = 16 * 1024;

/// 16: those whom everybody may overtake have a sixteenth of the connection among them.
const FAIR: u64 = 16;

/// The turns of one connection. A handle.
#[derive(Clone, Default)]
pub(super) struct Turns(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    /// By urgency.
    levels: [Level; 8],
    count: usize,
    /// Whose turn it is, until it takes it.
    called: Option<u32>,
    turns: u64,
    /// How much can be sent, and how much the client takes.
    room: usize,
    window: i64,
    /// What PRIORITY_UPDATE frames say, for streams that are open and for those that are not open yet. It counts for more
    /// than what requests say (RFC 9218 §7).
    updates: HashMap<u32, Priority>,
}

/// Those of one urgency that wait.
#[derive(Default)]
struct Level {
    /// Not incremental, in the order of their requests.
    sequence: VecDeque<Waiting>,
    /// Incremental, in the order in which they came.
    circle: VecDeque<Waiting>,
    /// How many incremental ones had a turn since the sequence had one.
    round: usize,
}

struct Waiting {
    stream: u32,
    /// What the response says of its priority.
    said: Said,
    /// How many turns there had been when it began to wait.
    since: u64,
    waker: Waker,
}

impl Turns {
    /// Begins a round: everything handed to h2 has left it, about `room` can be sent at once, and the client takes `window`.
    pub(super) fn begin_round(&self, room: usize, window: i64) {
        let mut state = self.0.borrow_mut();
        state.room = room;
        state.window = window;
    }

    /// Whether anybody waits.
    pub(super) fn is_awaited(&self) -> bool {
        self.0.borrow().count > 0
    }

    /// Calls the next stream. False: nobody waits, or nothing may be sent.
    pub(super) fn call(&self) -> bool {
        let waker = {
            let mut state = self.0.borrow_mut();
            if state.room == 0 || state.window <= 0 || state.called.is_some() {
                return false;
            }
            let Some(next) = state.next() else { return false };
            state.called = Some(next.stream);
            next.waker
        };
        waker.wake();
        true
    }

    /// What a stream needs to ask for turns, by what the request says.
    pub(super) fn ticket(&self, stream: u32, asked: Said) -> Ticket {
        Ticket { turns: self.clone(), stream, asked, said: Said::default(), is_waiting: false }
    }

    /// Keeps what a PRIORITY_UPDATE frame says. RFC 9218 §7: it says all, so what it leaves out is the default again.
    pub(super) fn update(&self, stream: u32, said: Said) {
        let mut state = self.0.borrow_mut();
        let priority = Priority::default().with(said);
        state.updates.insert(stream, priority);
        if let Some(waiting) = state.remove(stream) {
            state.insert(priority, waiting);
        }
    }

    /// How many streams after `last`, which are not open yet, have an update; without `but`.
    pub(super) fn early_updates(&self, last: u32, but: u32) -> usize {
        self.0.borrow().updates.keys().filter(|stream| **stream > last && **stream != but).count()
    }
}

/// A stream's right to ask for turns.
pub(super) struct Ticket {
    turns: Turns,
    stream: u32,
    /// What the request says of its priority, and what the response does.
    asked: Said,
    said: Said,
    is_waiting: bool,
}

impl Ticket {
    /// Takes down what the response says of its priority.
    pub(super) fn say(&mut self, said: Said) {
        self.said = said;
    }

    /// Takes a turn at once for so much content, if that is one turn and nobody waits for another.
    pub(super) fn take_at_once(&self, bytes: usize) -> bool {
        let mut state = self.turns.0.borrow_mut();
        let may = state.count == 0 && bytes <= TURN_BYTES && state.room > 0 && bytes as i64 <= state.window;
        if may {
            state.spend(bytes);
        }
        may
    }

    /// Waits for a turn. Ready: how many bytes may be handed to h2 in it.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let state = &mut *self.turns.0.borrow_mut();
        if state.called == Some(self.stream) {
            state.called = None;
            self.is_waiting = false;
            // The room is full when the last frame is in it, not before: pieces of frames help nobody.
            let bytes = if state.count == 0 { TURN_BYTES.max(state.room) } else { TURN_BYTES };
            return Poll::Ready(bytes.min(usize::try_from(state.window).unwrap_or(0)));
        }
        match state.find(self.stream) {
            Some(waiting) => waiting.waker.clone_from(cx.waker()),
            None => {
                let asked = Priority::default().with(self.asked);
                let priority = state.updates.get(&self.stream).copied().unwrap_or(asked);
                let (stream, said, since) = (self.stream, self.said, state.turns);
                state.insert(priority, Waiting { stream, said, since, waker: cx.waker().clone() });
                self.is_waiting = true;
            }
        }
        Poll::Pending
    }

    /// Says how much was handed to h2.
    pub(super) fn spend(&self, bytes: usize) {
        self.turns.0.borrow_mut().spend(bytes);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let state = &mut *self.turns.0.borrow_mut();
        if state.called == Some(self.stream) {
            state.called = None;
        } else if self.is_waiting {
            state.remove(self.stream);
        }
        if !state.updates.is_empty() {
            state.updates.remove(&self.stream);
        }
    }
}

impl State {
    fn spend(&mut self, bytes: usize) {
        self.room = self.room.saturating_sub(bytes);
        self.window -= bytes as i64;
    }

    fn next(&mut self) -> Option<Waiting> {
        self.turns += 1;
        let next = if self.turns.is_multiple_of(FAIR) {
            let all = self.levels.iter().flat_map(|level| level.sequence.iter().chain(&level.circle));
            let longest = all.min_by_key(|waiting| (waiting.since, waiting.stream))?.stream;
            return self.remove(longest);
        } else {
            self.levels.iter_mut().find_map(Level::next)
        };
        self.count -= usize::from(next.is_some());
        next
    }

    /// Has a stream wait, by what the client wants and what its response says.
    fn insert(&mut self, priority: Priority, waiting: Waiting) {
        let priority = priority.with(waiting.said);
        self.levels[usize::from(priority.urgency)].insert(priority.is_incremental, waiting);
        self.count += 1;
    }

    fn find(&mut self, stream: u32) -> Option<&mut Waiting> {
        if self.count == 0 {
            return None;
        }
        self.levels.iter_mut().flat_map(Level::all).find(|waiting| waiting.stream == stream)
    }

    fn remove(&mut self, stream: u32) -> Option<Waiting> {
        let removed = self.levels.iter_mut().find_map(|level| level.remove(stream));
        self.count -= usize::from(removed.is_some());
        removed
    }
}

impl Level {
    fn all(&mut self) -> impl Iterator<Item = &mut Waiting> {
        self.sequence.iter_mut().chain(&mut self.circle)
    }

    fn next(&mut self) -> Option<Waiting> {
        if self.round < self.circle.len() || self.sequence.is_empty() {
            self.round += 1;
            self.circle.pop_front()
        } else {
            self.round = 0;
            self.sequence.pop_front()
        }
    }

    fn insert(&mut self, is_incremental: bool, waiting: Waiting) {
        if is_incremental {
            self.circle.push_back(waiting);
        } else {
            let place = self.sequence.partition_point(|other| other.stream < waiting.stream);
            self.sequence.insert(place, waiting);
        }
    }

    fn remove(&mut self, stream: u32) -> Option<Waiting> {
        for queue in [&mut self.sequence, &mut self.circle] {
            if let Some(index) = queue.iter().position(|waiting| waiting.stream == stream) {
                return queue.remove(index);
            }
        }
        None
    }
}
