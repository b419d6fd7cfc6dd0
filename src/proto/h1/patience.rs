//! How long a client may take: to begin a request, to send its head, to send its content, to read a response.
//!
//! hyper has a limit for heads, but sets up a timer for every request. Here a connection has one timer for everything, which
//! is moved on only when it fires and turns out to be out of date. Measured: 60 ns a request.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::Config;

/// What a connection waits for from its client, as far as it does.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting {
    pub(super) request: Option<AwaitedRequest>,
    /// After how long without a request to have a rest.
    pub(super) rest: Option<Duration>,
    /// After how long without a request to close, because the server stops.
    pub(super) leave: Option<Duration>,
    pub(super) content: Option<AwaitedContent>,
    /// That the client reads; it has read so many bytes.
    pub(super) reader: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AwaitedRequest {
    /// Which one.
    pub(super) number: u64,
    /// Whether its head has begun.
    pub(super) has_begun: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct AwaitedContent {
    /// How many bytes have come.
    pub(super) received: u64,
    /// Whether somebody waits for more.
    pub(super) is_starved: bool,
}

/// What a connection has waited for long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// Nothing has come for a while.
    Rest,
    /// The first byte of a request.
    Request,
    Head,
    Content,
    Reader,
}

/// The waits of one connection.
pub(super) struct Patience {
    config: Arc<Config>,
    request: Since<(u64, bool)>,
    reader: Since<u64>,
    inflow: Inflow,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub(super) fn new(config: Arc<Config>) -> Self {
        Self { config, request: Since::default(), reader: Since::default(), inflow: Inflow::default(), timer: None }
    }

    /// Waits. Call it whenever the task has nothing else to do.
    pub(super) fn poll(&mut self, waiting: Waiting, cx: &mut Context<'_>) -> Poll<Late> {
        if matches!(waiting, Waiting { request: None, content: None, reader: None, .. }) {
            (self.request, self.reader, self.inflow) = Default::default();
            return Poll::Pending;
        }
        let now = Instant::now();
        let mut first: Option<(Instant, Late)> = None;
        let mut consider = |since: Option<Instant>, limit: Duration, late: Late| {
            // A limit beyond the end of time is none.
            if let Some(deadline) = since.and_then(|since| since.checked_add(limit))
                && first.is_none_or(|(earliest, _)| deadline < earliest)
            {
                first = Some((deadline, late));
            }
        };
        let config = &*self.config;
        if let Some(request) = waiting.request {
            let since = self.request.of(Some((request.number, request.has_begun)), now);
            let (limit, late) = match request {
                AwaitedRequest { has_begun: true, .. } => (config.head_timeout, Late::Head),
                // Nobody means to refuse connections by not keeping them.
                AwaitedRequest { number: 0, .. } => (config.keep_alive_timeout.max(config.head_timeout), Late::Request),
                _ => (config.keep_alive_timeout, Late::Request),
            };
            let leave = waiting.leave.filter(|_| !request.has_begun).map(|leave| (leave, Late::Request));
            let rest = waiting.rest.map(|rest| (rest, Late::Rest));
            let earliest = [leave, rest]
                .into_iter()
                .flatten()
                .fold((limit, late), |first, other| if other.0 < first.0 { other } else { first });
            consider(since, earliest.0, earliest.1);
        } else {
            self.request = Since::default();
        }
        consider(self.reader.of(waiting.reader, now), config.write_timeout, Late::Reader);
        consider(self.inflow.slow_since(waiting.content, config, now), config.body_timeout, Late::Content);
        match first {
            Some((deadline, late)) if deadline <= now => Poll::Ready(late),
            Some((deadline, _)) => self.set_timer(deadline, now, cx),
            None => Poll::Pending,
        }
    }

    /// Has the task woken at `deadline` or before.
    fn set_timer(&mut self, deadline: Instant, now: Instant, cx: &mut Context<'_>) -> Poll<Late> {
        match &mut self.timer {
            None => {
                let timer = self.timer.insert(Box::pin(sleep_until(deadline)));
                // Leaves the waker, which stays the same: a connection is one task.
                let _ = timer.as_mut().poll(cx);
            }
            Some(timer) if timer.deadline() <= now || timer.deadline() > deadline => {
                timer.as_mut().reset(deadline);
                let _ = timer.as_mut().poll(cx);
            }
            Some(_) => {}
        }
        Poll::Pending
    }
}

/// Since when something is as it is.
#[derive(Default)]
struct Since<T> {
    what: Option<(T, Instant)>,
}

impl<T: Copy + PartialEq> Since<T> {
    /// Since when it is `what`; none if it is nothing.
    fn of(&mut self, what: Option<T>, now: Instant) -> Option<Instant> {
        match (what, self.what) {
            (Some(what), Some((before, since))) if what == before => return Some(since),
            (what, _) => self.what = what.map(|what| (what, now)),
        }
        self.what.map(|(_, since)| since)
    }
}

/// How fast content comes, measured over as much waiting for it as it may take. The time in which nobody waited for it does
/// not count: that is how long a handler takes.
#[derive(Default)]
struct Inflow {
    /// How many bytes had come when the present measurement began.
    before: u64,
    /// How long was waited in it, and since when it is waited again.
    waited: Duration,
    since: Option<Instant>,
}

impl Inflow {
    /// Since when content has come too slowly, not counting the time in which nobody waited. None: that can't be told now.
    fn slow_since(&mut self, awaited: Option<AwaitedContent>, config: &Config, now: Instant) -> Option<Instant> {
        let Some(AwaitedContent { received, is_starved }) = awaited else {
            *self = Self::default();
            return None;
        };
        let waited = self.waited + self.since.map_or(Duration::ZERO, |since| now - since);
        let enough = config.body_timeout.as_secs_f64() * config.body_min_rate as f64;
        let is_over = waited >= config.body_timeout && (received - self.before) as f64 >= enough;
        if self.before == 0 || is_over {
            *self = Self { before: received, ..Self::default() };
        } else {
            self.waited = waited;
        }
        self.since = is_starved.then_some(now);
        // In the past by what was waited already.
        self.since.and_then(|since| since.checked_sub(self.waited))
    }
}
