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

/// How many connections are taken after one has waited in vain: 8, and twice as many each time, up to 1024. So those that come
/// all at once leave the others 20 ms to wake, and a process that is stuck costs the others nothing to speak of.
const LEAST_ALLOWED: usize = 8;
const MOST_ALLOWED: usize = 1024;

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
    /// What the others had when none of them took a connection that waited: they are busy, or stuck.
    idle: Cell<Told>,
    /// How many connections are taken before one waits in vain again, and how many that were the last time.
    credit: Cell<usize>,
    allowed: Cell<usize>,
    has_left: Cell<bool>,
}

impl Siblings {
    /// Joins them, if the board does not say so yet.
    pub fn new(board: Box<dyn Board>) -> Self {
        board.write(Some(0));
        Self {
            board,
            idle: Cell::default(),
            credit: Cell::default(),
            allowed: Cell::default(),
            has_left: Cell::default(),
        }
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

    /// Whether the next connection is to wait for somebody else. To be asked once for each.
    pub(crate) fn is_to_wait(&self, open: usize) -> bool {
        let told = self.board.read();
        if !is_ahead(open, told) {
            return false;
        }
        if self.allowed.get() > 0 && others(open, told) != self.idle.get() {
            self.credit.set(0);
            self.allowed.set(0);
        }
        match self.credit.get().checked_sub(1) {
            Some(credit) => {
                self.credit.set(credit);
                false
            }
            None => true,
        }
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
        let allowed = (self.allowed.get() * 2).clamp(LEAST_ALLOWED, MOST_ALLOWED);
        self.idle.set(before);
        self.allowed.set(allowed);
        self.credit.set(allowed);
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
            assert!(siblings.is_to_wait(10));
            let start = Instant::now();
            let other = async {
                sleep(STEP * 2).await;
                board.others(1, 1);
            };

            tokio::join!(siblings.give_way(10), other);

            assert!((STEP * 2..STEP * 5).contains(&start.elapsed()), "{:?}", start.elapsed());
            assert!(siblings.is_to_wait(10), "it still is ahead");
        });
    }

    #[test]
    fn waiting_in_vain_is_repeated_ever_more_rarely_until_the_others_show_life() {
        run(async |board, siblings| {
            siblings.tell(100);
            let mut taken = Vec::new();
            for _ in 0..9 {
                let start = Instant::now();
                siblings.give_way(100).await;
                assert_eq!(start.elapsed(), STEP * 5);
                taken.push((0..).take_while(|_| !siblings.is_to_wait(100)).count());
            }

            assert_eq!(taken, [8, 16, 32, 64, 128, 256, 512, 1024, 1024]);
            siblings.give_way(100).await;
            assert!(!siblings.is_to_wait(100));
            board.others(1, 1);
            assert!(siblings.is_to_wait(100));
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
