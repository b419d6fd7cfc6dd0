//! Processes that accept from the same sockets, and how connections are spread over them.
//!
//! The system wakes all of them for a connection, and who runs first gets it: often the same one. A client that opens many
//! at once finds one process that takes nearly all before another has woken. Connections live long, so that would stay so.
//! Measured, 64 connections to 2 and to 4 processes: 49 and 15; 49, 12, 3 and 0.
//!
//! So each counts its open connections where the others can see them, and one that is well ahead lets a connection wait
//! for a moment, so that somebody else may take it.

use std::{cell::Cell, time::Duration};

use tokio::time::sleep;

/// How long a connection waits for another process, at most: 5 steps of 1 ms. Waking takes 50 us, or a few ms on a busy machine.
const STEP: Duration = Duration::from_millis(1);
const STEPS: usize = 5;

/// How far ahead of the average is well ahead: by an eighth, and this many.
const AHEAD: usize = 2;

/// Where processes tell each other how many connections they have.
pub trait Board: Send {
    /// Tells the others; None takes back what was told.
    fn write(&self, open: Option<usize>);

    /// What all have told, this process included.
    fn read(&self) -> Told;
}

/// What processes have told each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// How many connections they have.
    pub open: usize,
    /// How many processes these are.
    pub processes: usize,
}

/// The other processes that accept from the same sockets.
pub struct Siblings {
    board: Box<dyn Board>,
    /// What all had when nobody else took a connection that waited: they are busy, or stuck, and waiting is in vain.
    vain: Cell<Option<Told>>,
    has_left: Cell<bool>,
}

impl Siblings {
    /// Joins them, if the board does not say so yet.
    pub fn new(board: Box<dyn Board>) -> Self {
        board.write(Some(0));
        Self { board, vain: Cell::new(None), has_left: Cell::new(false) }
    }

    /// Tells how many connections are open here.
    pub(crate) fn tell(&self, open: usize) {
        if !self.has_left.get() {
            self.board.write(Some(open));
        }
    }

    /// Leaves them, for good.
    pub(crate) fn leave(&self) {
        self.has_left.set(true);
        self.board.write(None);
    }

    /// Whether somebody else should take the next connection.
    pub(crate) fn is_ahead(&self, open: usize) -> bool {
        let told = self.board.read();
        is_ahead(open, told) && self.vain.get() != Some(others(open, told))
    }

    /// Waits for a moment, as long as somebody else should take the next connection.
    pub(crate) async fn give_way(&self, open: usize) {
        let before = others(open, self.board.read());
        for _ in 0..STEPS {
            let told = self.board.read();
            if !is_ahead(open, told) || others(open, told) != before {
                return;
            }
            sleep(STEP).await;
        }
        self.vain.set(Some(before));
    }
}

fn is_ahead(open: usize, Told { open: all, processes }: Told) -> bool {
    let average = all / processes.max(1);
    open > average + average / 8 + AHEAD
}

fn others(open: usize, told: Told) -> Told {
    Told { open: told.open.saturating_sub(open), processes: told.processes }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::{runtime::Builder, time::Instant};

    use super::*;

    #[derive(Clone, Default)]
    struct Fake(Arc<Mutex<(Option<usize>, Told)>>);

    impl Fake {
        fn others(&self, open: usize, processes: usize) {
            self.0.lock().expect("unpoisoned").1 = Told { open, processes };
        }
    }

    impl Board for Fake {
        fn write(&self, open: Option<usize>) {
            self.0.lock().expect("unpoisoned").0 = open;
        }

        fn read(&self) -> Told {
            let (own, others) = *self.0.lock().expect("unpoisoned");
            Told { open: others.open + own.unwrap_or(0), processes: others.processes + usize::from(own.is_some()) }
        }
    }

    fn run(test: impl AsyncFnOnce(Fake, Siblings)) {
        let board = Fake::default();
        board.others(0, 1);
        let siblings = Siblings::new(Box::new(board.clone()));
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(test(board, siblings));
    }

    #[test]
    fn one_that_is_alone_is_never_ahead() {
        for open in [0, 1, 100, 10_000] {
            assert!(!is_ahead(open, Told { open, processes: 1 }), "{open}");
        }
    }

    #[test]
    fn ahead_is_more_than_an_eighth_and_two_above_the_average() {
        assert!(!is_ahead(74, Told { open: 128, processes: 2 }));
        assert!(is_ahead(75, Told { open: 128, processes: 2 }));
        assert!(!is_ahead(2, Told { open: 2, processes: 4 }));
        assert!(is_ahead(3, Told { open: 3, processes: 4 }));
    }

    #[test]
    fn one_that_is_ahead_waits_until_another_takes_the_connection() {
        run(async |board, siblings| {
            siblings.tell(10);
            assert!(siblings.is_ahead(10));
            let start = Instant::now();
            let other = async {
                sleep(STEP * 2).await;
                board.others(1, 1);
            };

            tokio::join!(siblings.give_way(10), other);

            assert!((STEP * 2..STEP * 5).contains(&start.elapsed()), "{:?}", start.elapsed());
            assert!(siblings.is_ahead(10), "it still is");
        });
    }

    #[test]
    fn waiting_in_vain_is_not_repeated_until_the_others_show_life() {
        run(async |board, siblings| {
            siblings.tell(10);
            let start = Instant::now();

            siblings.give_way(10).await;

            assert_eq!(start.elapsed(), STEP * 5);
            siblings.tell(11);
            assert!(!siblings.is_ahead(11));
            board.others(1, 1);
            assert!(siblings.is_ahead(11));
        });
    }

    #[test]
    fn one_that_has_left_tells_nothing() {
        run(async |board, siblings| {
            siblings.tell(10);

            siblings.leave();
            siblings.tell(9);

            assert_eq!(board.read(), Told { open: 0, processes: 1 });
        });
    }
}
