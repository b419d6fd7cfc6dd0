//! Whose content is sent next (RFC 9218 §10).
//!
//! A stream that has content to send asks for a turn. A turn is a piece of content that is handed to h2:
//!
//! 1. The most urgent go first. Of one urgency, those that are not incremental go one after the other, in the order in which
//!    they were asked for. Incremental ones take turns with each other and with the first of those.
//! 2. One turn in [`FAIR`] goes to the stream that has waited for the most turns, so that nobody waits for ever.
//! 3. h2 is handed no more than one round, [`ROUND_BYTES`], before that is on its way, and no more than the client takes on
//!    the whole connection: what is in h2 can't be overtaken any more.
//! 4. Who is alone is sent as it comes.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use super::{super::priority::Priority, wire::GATHERED_BYTES};

/// 16 KiB, the size of a frame (RFC 9113 §4.2).
pub(super) const TURN_BYTES: usize = 16 * 1024;

/// As much as is written at a time.
const ROUND_BYTES: usize = GATHERED_BYTES;

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
    /// How much of this round is left, and of what the client takes.
    round: usize,
    window: i64,
    /// What PRIORITY_UPDATE frames say, for streams that are open and for those that are not open yet.
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
    /// How many turns there had been when it began to wait.
    since: u64,
    waker: Waker,
}

impl Turns {
    /// Begins a round: everything handed to h2 is on its way, and the client takes `window` bytes more.
    pub(super) fn begin_round(&self, window: i64) {
        let mut state = self.0.borrow_mut();
        state.round = ROUND_BYTES;
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
            if state.round == 0 || state.window <= 0 || state.called.is_some() {
                return false;
            }
            let Some(next) = state.next() else { return false };
            state.called = Some(next.stream);
            next.waker
        };
        waker.wake();
        true
    }

    /// What a stream needs to ask for turns. A PRIORITY_UPDATE frame counts for more than what `priority` says (RFC 9218 §7).
    pub(super) fn ticket(&self, stream: u32, priority: Priority) -> Ticket {
        let priority = self.0.borrow().updates.get(&stream).copied().unwrap_or(priority);
        Ticket { turns: self.clone(), stream, priority, is_waiting: false }
    }

    /// Keeps what a PRIORITY_UPDATE frame says.
    pub(super) fn update(&self, stream: u32, priority: Priority) {
        let mut state = self.0.borrow_mut();
        state.updates.insert(stream, priority);
        if let Some(waiting) = state.remove(stream) {
            state.insert(priority, waiting);
        }
    }

    /// How many updates are kept for streams after `last`, which are not open yet.
    pub(super) fn early_updates(&self, last: u32) -> usize {
        self.0.borrow().updates.keys().filter(|stream| **stream > last).count()
    }

    /// What a frame said of a stream's priority.
    fn updated(&self, stream: u32) -> Option<Priority> {
        let state = self.0.borrow();
        if state.updates.is_empty() { None } else { state.updates.get(&stream).copied() }
    }
}

/// A stream's right to ask for turns.
pub(super) struct Ticket {
    turns: Turns,
    stream: u32,
    priority: Priority,
    is_waiting: bool,
}

impl Ticket {
    /// Overrides what the client says by what the response does.
    pub(super) fn set_priority(&mut self, merge: impl FnOnce(Priority) -> Priority) {
        self.priority = merge(self.turns.updated(self.stream).unwrap_or(self.priority));
    }

    /// Takes a turn at once for so much content, if that is one turn and nobody waits for another.
    pub(super) fn take_at_once(&self, bytes: usize) -> bool {
        let mut state = self.turns.0.borrow_mut();
        let may = state.count == 0 && bytes <= TURN_BYTES && bytes <= state.round && bytes as i64 <= state.window;
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
            let bytes = if state.count == 0 { state.round } else { TURN_BYTES.min(state.round) };
            return Poll::Ready(bytes.min(usize::try_from(state.window).unwrap_or(0)));
        }
        match state.find(self.stream) {
            Some(waiting) => waiting.waker.clone_from(cx.waker()),
            None => {
                let waiting = Waiting { stream: self.stream, since: state.turns, waker: cx.waker().clone() };
                state.insert(self.priority, waiting);
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
        self.round = self.round.saturating_sub(bytes);
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

    fn insert(&mut self, priority: Priority, waiting: Waiting) {
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
