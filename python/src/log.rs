//! Hands what the core logs to Python's `logging`, where a program decides what becomes of it.
//!
//! 1. Whoever logs in Rust never waits and never attaches: it may hold a lock, and may be a thread that never attaches. Its
//!    event goes into a bounded queue, which a thread of its own hands on. That thread starts with the first event.
//! 2. Until Python asks (`forward_logs`) nothing is taken, and an event costs one comparison.
//! 3. Libraries below us log to their authors; only HTTPy's own events are taken.

use std::{
    collections::VecDeque,
    fmt::{self, Write as _},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use pyo3::{prelude::*, types::PyDict};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};

use crate::driver::generation;

/// How many events may wait: more than a server logs in a moment in which it is well.
const WAITING: usize = 1024;

/// The longest text of an event in bytes; what a client sent can be as long as a request head.
const TEXT_BYTES: usize = 4096;

/// How long the interpreter waits at its end for what was logged last. 1 s, for a handler that writes to a slow place.
const EXIT_GRACE: Duration = Duration::from_secs(1);

/// Has the core's events handed to the loggers `httpy.*`: those of at least this level, in the numbers of `logging`.
///
/// For the whole process; may be called again.
#[pyfunction]
#[pyo3(signature = (level, /))]
pub(crate) fn forward_logs(py: Python<'_>, level: i32) -> PyResult<()> {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if !REGISTERED.swap(true, Relaxed) {
        // Attaching is not possible any more once the interpreter ends, so the thread has to end before.
        let end = wrap_pyfunction!(end_forwarding, py)?;
        py.import("atexit")?.call_method1("register", (end,))?;
        let _ = tracing::subscriber::set_global_default(Forward);
    }
    let filter = match level {
        ..=9 => LevelFilter::TRACE,
        10..=19 => LevelFilter::DEBUG,
        20..=29 => LevelFilter::INFO,
        30..=39 => LevelFilter::WARN,
        40..=50 => LevelFilter::ERROR,
        51.. => LevelFilter::OFF,
    };
    LEVEL.store(filter_number(filter), Relaxed);
    // The macros ask for the most verbose level only when this has them do so.
    tracing_core::callsite::rebuild_interest_cache();
    Ok(())
}

/// Waits until what was logged has been handed on, and takes nothing more.
#[pyfunction(name = "_end_forwarding")]
fn end_forwarding(py: Python<'_>) {
    LEVEL.store(filter_number(LevelFilter::OFF), Relaxed);
    tracing_core::callsite::rebuild_interest_cache();
    let deadline = Instant::now() + EXIT_GRACE;
    py.detach(|| {
        let mut queue = lock();
        queue.is_ending = true;
        WORK.notify_all();
        // A forked child has no such thread.
        while queue.thread == Some(generation()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = WORK.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    });
}

static LEVEL: AtomicUsize = AtomicUsize::new(0);
static QUEUE: Mutex<Queue> = Mutex::new(Queue::new());
/// There is something to hand on, or the thread has ended.
static WORK: Condvar = Condvar::new();

struct Queue {
    events: VecDeque<Logged>,
    /// How many there was no room for.
    lost: usize,
    /// Which process's thread hands them on; none if none does.
    thread: Option<u32>,
    is_ending: bool,
}

impl Queue {
    const fn new() -> Self {
        Self { events: VecDeque::new(), lost: 0, thread: None, is_ending: false }
    }
}

fn lock() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An event, with nothing of the place where it was logged but its name.
struct Logged {
    /// Seconds since 1970.
    time: f64,
    level: u8,
    target: &'static str,
    text: Text,
}

/// Is the subscriber of the process.
struct Forward;

impl Subscriber for Forward {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // `>=`: tracing orders levels by how much they say.
        LevelFilter::current() >= *metadata.level() && logger_name(metadata.target()).is_some()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match LEVEL.load(Relaxed) {
            0 => LevelFilter::OFF,
            1 => LevelFilter::ERROR,
            2 => LevelFilter::WARN,
            3 => LevelFilter::INFO,
            4 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut text = Text::default();
        event.record(&mut text);
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        put(Logged { time, level: level_number(*metadata.level()), target: metadata.target(), text });
    }

    // HTTPy has no spans.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

fn put(logged: Logged) {
    let mut queue = lock();
    if queue.is_ending {
        return;
    }
    if queue.events.len() >= WAITING {
        queue.lost += 1;
        return;
    }
    queue.events.push_back(logged);
    if queue.thread != Some(generation()) {
        let started = thread::Builder::new().name("httpy-logs".to_owned()).spawn(hand_on);
        // Without a thread they wait; the next event tries again.
        queue.thread = started.is_ok().then(generation);
    }
    drop(queue);
    WORK.notify_one();
}

/// Is the thread's life.
fn hand_on() {
    loop {
        let mut queue = lock();
        while queue.events.is_empty() && !queue.is_ending {
            queue = WORK.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let (events, lost) = (std::mem::take(&mut queue.events), std::mem::take(&mut queue.lost));
        drop(queue);
        let is_attached = events.is_empty() || Python::try_attach(|py| deliver(py, events, lost)).is_some();
        let mut queue = lock();
        if !is_attached || (queue.is_ending && queue.events.is_empty()) {
            queue.thread = None;
            drop(queue);
            WORK.notify_all();
            return;
        }
    }
}

fn deliver(py: Python<'_>, events: VecDeque<Logged>, lost: usize) {
    let hand = || -> PyResult<()> {
        let deliver = py.import("httpy.logs")?.getattr("deliver")?;
        for event in events {
            let Text { message, fields } = event.text;
            let values = PyDict::new(py);
            for (name, value) in fields {
                match value {
                    Value::Text(text) => values.set_item(name, text)?,
                    Value::Number(number) => values.set_item(name, number)?,
                    Value::Float(number) => values.set_item(name, number)?,
                    Value::Truth(truth) => values.set_item(name, truth)?,
                }
            }
            let name = logger_name(event.target).unwrap_or_default();
            deliver.call1((event.time, event.level, name, message, values))?;
        }
        if lost > 0 {
            let message = format!("{lost} events of the core were not logged: there were too many at a time");
            let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            deliver.call1((time, 30, "httpy", message, PyDict::new(py)))?;
        }
        Ok(())
    };
    if let Err(error) = hand() {
        error.write_unraisable(py, None);
    }
}

/// `httpy.proto.h1` of `httpy::proto::h1`, and of `_httpy::driver` `httpy.driver`; none for what is not ours.
fn logger_name(target: &str) -> Option<String> {
    let target = target.strip_prefix('_').unwrap_or(target);
    let rest = target.strip_prefix("httpy")?;
    (rest.is_empty() || rest.starts_with("::")).then(|| target.replace("::", "."))
}

fn level_number(level: Level) -> u8 {
    match level {
        Level::TRACE => 5,
        Level::DEBUG => 10,
        Level::INFO => 20,
        Level::WARN => 30,
        Level::ERROR => 40,
    }
}

fn filter_number(filter: LevelFilter) -> usize {
    filter.into_level().map_or(0, |level| match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    })
}

/// What an event says.
#[derive(Default)]
struct Text {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

enum Value {
    Text(String),
    Number(i64),
    Float(f64),
    Truth(bool),
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = Short(String::new());
        // Fails where it is cut short.
        let _ = write!(text, "{value:?}");
        if field.name() == "message" {
            self.message = text.0;
        } else {
            self.fields.push((field.name(), Value::Text(text.0)));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        // Not as `Debug`, which puts it in quotes.
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), Value::Number(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.record_i64(field, value),
            Err(_) => self.record_debug(field, &value),
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.push((field.name(), Value::Float(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), Value::Truth(value)));
    }
}

/// Text of at most [`TEXT_BYTES`].
struct Short(String);

impl fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = TEXT_BYTES - self.0.len();
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        let end = (0..=room).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        self.0.push_str(&text[..end]);
        Err(fmt::Error)
    }
}
