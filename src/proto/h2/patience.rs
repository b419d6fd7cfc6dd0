//! How long a client may take, and how long it may be silent.
//!
//! A connection has one timer. It is moved on only when it fires and turns out to be out of date, or when something is due
//! sooner: a request costs one look at the clock, and that is shared by all that arrive together.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::Config;

/// How long a client that is told to go may take to agree. 5 s, many round trips.
const PARTING: Duration = Duration::from_secs(5);

/// What a connection waits for. Each is a number that changes with progress; none: it does not wait for this.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting {
    /// For a request.
    pub(super) request: Option<u64>,
    /// For the rest of a field section.
    pub(super) head: Option<u64>,
    /// For the client to take what is to be sent.
    pub(super) reader: Option<u64>,
    /// For any sign of life.
    pub(super) life: Option<u64>,
    /// For the client to agree to part.
    pub(super) parting: Option<u64>,
}

/// What took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    Request,
    Head,
    Reader,
    /// It is time to ask whether the client is still there.
    Ping,
    /// It is not.
    Dead,
    Parting,
}

/// The waits of one connection.
pub(super) struct Patience {
    config: Arc<Config>,
    request: Wait,
    head: Wait,
    reader: Wait,
    life: Wait,
    parting: Wait,
    /// Whether a PING was sent and nothing has come since.
    is_asked: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

/// What is waited for, and since when.
#[derive(Clone, Copy, Default)]
struct Wait(Option<(u64, Instant)>);

impl Wait {
    /// When it will have taken `limit`.
    fn deadline(&mut self, waited_for: Option<u64>, limit: Duration, now: Instant) -> Option<Instant> {
        let waited_for = waited_for?;
        let since = match self.0 {
            Some((same, since)) if same == waited_for => since,
            _ => now,
        };
        self.0 = Some((waited_for, since));
        // A limit beyond the end of time is none.
        since.checked_add(limit)
    }
}

impl Patience {
    pub(super) fn new(config: Arc<Config>) -> Self {
        let never = Wait::default();
        Self {
            config,
            request: never,
            head: never,
            reader: never,
            life: never,
            parting: never,
            is_asked: false,
            timer: None,
        }
    }

    /// Waits. Ready: something took too long.
    pub(super) fn poll(&mut self, waiting: Waiting, cx: &mut Context<'_>) -> Poll<Late> {
        loop {
            let now = Instant::now();
            let Some((deadline, late)) = self.next(waiting, now) else { return Poll::Pending };
            if deadline <= now {
                if late == Late::Ping {
                    self.is_asked = true;
                    // The answer has its own time.
                    self.life = Wait::default();
                }
                return Poll::Ready(late);
            }
            let timer = match &mut self.timer {
                None => self.timer.insert(Box::pin(sleep_until(deadline))),
                Some(timer) if deadline < timer.deadline() || timer.is_elapsed() => {
                    timer.as_mut().reset(deadline);
                    timer
                }
                // It will be early, and is moved on then.
                Some(_) => return Poll::Pending,
            };
            // Leaves the waker, which stays the same: a connection is one task.
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn next(&mut self, waiting: Waiting, now: Instant) -> Option<(Instant, Late)> {
        for (wait, waited_for) in [
            (&mut self.request, waiting.request),
            (&mut self.head, waiting.head),
            (&mut self.reader, waiting.reader),
            (&mut self.life, waiting.life),
            (&mut self.parting, waiting.parting),
        ] {
            if waited_for.is_none() {
                *wait = Wait::default();
            }
        }
        if self.life.0.is_some_and(|(before, _)| Some(before) != waiting.life) {
            self.is_asked = false;
        }
        let (interval, silence) = if self.is_asked {
            (Some(self.config.h2_ping_timeout), Late::Dead)
        } else {
            (self.config.h2_ping_interval, Late::Ping)
        };
        let life = interval.and_then(|interval| self.life.deadline(waiting.life, interval, now));
        let config = &self.config;
        let patience = match waiting.request {
            // Nobody means to refuse connections by not keeping them.
            Some(0) => config.keep_alive_timeout.max(config.head_timeout),
            _ => config.keep_alive_timeout,
        };
        [
            (self.request.deadline(waiting.request, patience, now), Late::Request),
            (self.head.deadline(waiting.head, config.head_timeout, now), Late::Head),
            (self.reader.deadline(waiting.reader, config.write_timeout, now), Late::Reader),
            (life, silence),
            (self.parting.deadline(waiting.parting, PARTING, now), Late::Parting),
        ]
        .into_iter()
        .filter_map(|(deadline, late)| Some((deadline?, late)))
        .min_by_key(|(deadline, _)| *deadline)
    }
}
