//! How many connections have hyper, and what becomes of the memory of those that had.

use std::{cell::Cell, rc::Rc};

use crate::platform::give_back_memory;

/// 64 connections' buffers are a megabyte: less is not worth a word to the allocator.
const WORTH: usize = 64;

/// Memory is given back when three of four have gone: a few times, however many there were.
const PART: usize = 4;

/// Counts the connections of one server that have hyper.
#[derive(Clone, Default)]
pub(super) struct Awake(Rc<Counts>);

#[derive(Default)]
struct Counts {
    now: Cell<usize>,
    /// The most since memory was last given back.
    most: Cell<usize>,
}

/// One of them, for as long as it is not dropped.
pub(super) struct Waking(Awake);

impl Awake {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.now.get()
    }

    /// Counts one more.
    pub(super) fn wake(&self) -> Waking {
        let now = self.0.now.get() + 1;
        self.0.now.set(now);
        self.0.most.set(self.0.most.get().max(now));
        Waking(self.clone())
    }
}

impl Drop for Waking {
    fn drop(&mut self) {
        let Awake(counts) = &self.0;
        let now = counts.now.get() - 1;
        counts.now.set(now);
        if counts.most.get() - now >= WORTH && counts.most.get() >= PART * now {
            counts.most.set(now);
            give_back_memory();
        }
    }
}
