//! The threads `def` handlers run on, because they may block.
//!
//! One thread is hot: it takes job after job without letting the interpreter go, and is woken once for all that the
//! runtime has collected before it waits. Others are added, and woken, only when jobs have to wait although the
//! interpreter is free: then those that run must be blocked. Threads that compute would only hand it to and fro.
//!
//! ```text
//! runtime --reply--> jobs --flush, when it waits--> hot thread --bell, when no job is left--> runtime
//!                      ^------ warden, every tick: did a job wait too long?
//! ```
//!
//! One file, because all of it is what may happen to one queue under one lock.

mod busy;
mod hang;

use std::{
    any::Any,
    collections::VecDeque,
    mem::take,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use httpy::Reply;
use pyo3::{exceptions::PySystemExit, ffi, intern, prelude::*};

pub(crate) use self::hang::hang_if_ended;

use self::busy::Busy;
use crate::driver::{Bell, Slot, Watch, generation};

/// How long a job waits before another thread is set to work, and how often that is looked after. 2 ms: far above what
/// a burst of jobs that compute takes (64 of them: 0.5 ms), well below what people notice.
const TICK: Duration = Duration::from_millis(2);
/// How long a job waits before a thread is added although the interpreter is busy. 100 ms.
const STARVED: Duration = Duration::from_millis(100);
/// How long it takes at most to get an interpreter that nobody holds. 100 us: a few system calls.
const FREE: Duration = Duration::from_micros(100);
/// How long, after jobs had to wait, several threads are woken at once for several jobs. 1 s.
const SPREAD: Duration = Duration::from_secs(1);
/// How long a thread without a job is kept. 10 s.
const IDLE: Duration = Duration::from_secs(10);
/// How long a thread without a job counts as busy: as long, others are asked to let the interpreter go sooner. 100 ms.
const QUIET: Duration = Duration::from_millis(100);
/// How long a hot thread collects answers before it rings. 200 us: a few per cent of what the network takes anyway.
const RING: Duration = Duration::from_micros(200);
/// How long the interpreter's end waits for running jobs. 1 s.
const EXIT_GRACE: Duration = Duration::from_secs(1);
/// And how long for those that were then told to end. 250 ms.
const LAST_GRACE: Duration = Duration::from_millis(250);
/// How many jobs may wait, whoever waits for them, before they are looked through. 256: no more than some megabytes.
const FEW: usize = 256;
/// What Python code may need that recurses through C. 8 MiB as on a main thread; only what is touched is taken.
const STACK_BYTES: usize = 8 << 20;

/// How many threads there are at most, unless configured. 40, as Starlette has it: handlers that block the same way are
/// answered as many at a time. Only as many are started as are blocked, so more would cost nothing until they are.
pub(crate) fn default_threads() -> usize {
    40
}

/// What a pool thread does.
pub(crate) type Job = Box<dyn FnOnce(Python<'_>) + Send>;

/// The pool of one server. Its first thread starts with its first job.
pub(crate) struct Pool {
    queue: Mutex<Queue>,
    /// Wakes who waits for the last thread to end.
    ended: Condvar,
    /// Wakes the warden.
    aging: Condvar,
    bell: Arc<Bell>,
    max_threads: usize,
    /// Whether jobs were added that no thread has been woken for.
    unflushed: AtomicBool,
    generation: u32,
}

/// A job that waits for a thread.
struct Queued {
    job: Job,
    /// Tells whether anybody waits for it, if it answers a request.
    watch: Option<Watch>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Queued>,
    /// At how many jobs those are removed that nobody waits for any more.
    cleared_at: usize,
    /// How many jobs were ever taken: the number of the first one in the queue.
    taken: u64,
    /// Threads without a job. The one that became idle last is woken first: its memory is warm, and the others' time
    /// to end comes.
    idle: Vec<Thread>,
    /// How many threads run a job.
    in_job: usize,
    /// Python's idents of all threads.
    threads: Vec<u64>,
    starting: usize,
    /// Until when several threads are woken for several jobs.
    spread_until: Option<Instant>,
    warden: Warden,
    closed: bool,
}

#[derive(Default, PartialEq, Eq)]
enum Warden {
    #[default]
    Absent,
    Sleeps,
    Watches,
}

impl Pool {
    /// A pool of at most `max_threads` threads, for the runtime that hears `bell`.
    pub(crate) fn new(bell: Arc<Bell>, max_threads: usize) -> Arc<Self> {
        let pool = Arc::new(Self {
            queue: Mutex::default(),
            ended: Condvar::new(),
            aging: Condvar::new(),
            bell,
            max_threads: max_threads.max(1),
            unflushed: AtomicBool::new(false),
            generation: generation(),
        });
        lock(&POOLS).push(Arc::downgrade(&pool));
        pool
    }

    /// Answers a request by a job on a pool thread.
    pub(crate) fn reply(&self, work: impl FnOnce(Python<'_>, Slot) + Send + 'static) -> Reply {
        let (slot, waiting) = Slot::new(self.bell.clone(), None);
        let watch = slot.watch();
        let job: Job = Box::new(move |py| {
            if !slot.is_given_up() {
                work(py, slot);
            }
        });
        self.add(Queued { job, watch: Some(watch) });
        Reply::later(waiting)
    }

    /// Runs a job on a pool thread, in no particular context. The runtime calls [`Pool::flush`] before it waits.
    pub(crate) fn submit(&self, job: Job) {
        self.add(Queued { job, watch: None });
    }

    fn add(&self, job: Queued) {
        let mut queue = self.lock();
        if queue.closed {
            drop(queue);
            // Outside the lock: its slot answers.
            drop(job);
            return;
        }
        queue.jobs.push_back(job);
        let given_up = queue.remove_given_up();
        drop(queue);
        // Outside the lock, like all that may end in Python code.
        drop(given_up);
        self.unflushed.store(true, Release);
    }

    /// Wakes a thread, if jobs were added since the last time.
    pub(crate) fn flush(self: &Arc<Self>) {
        if !self.unflushed.load(Acquire) {
            return;
        }
        self.unflushed.store(false, Release);
        let mut queue = self.lock();
        let jobs = queue.jobs.len();
        let spreads = queue.spread_until.is_some_and(|until| Instant::now() < until);
        let wanted = if spreads { jobs } else { jobs.min(1) };
        if queue.threads.len() + queue.starting == 0 && jobs > 0 {
            self.start_thread(&mut queue);
        }
        let woken = take_idle(&mut queue, wanted);
        // A thread that is busy will take what is left, unless it is blocked: the warden sees to that.
        if woken.len() < jobs {
            self.watch(&mut queue);
        }
        drop(queue);
        for thread in woken {
            thread.unpark();
        }
    }

    /// Lets no more jobs start. Does not wait: threads end when their jobs have.
    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        let jobs = take(&mut queue.jobs);
        let idle = take(&mut queue.idle);
        drop(queue);
        self.aging.notify_all();
        for thread in idle {
            thread.unpark();
        }
        // Outside the lock: their slots answer.
        drop(jobs);
        self.bell.ring();
    }

    /// Waits until all threads have ended, at most until `deadline`. Returns whether they have. Must not be called
    /// attached, which they may need to be.
    pub(crate) fn join(&self, deadline: Instant) -> bool {
        let mut queue = self.lock();
        while queue.threads.len() + queue.starting > 0 || queue.warden != Warden::Absent {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            queue = self.ended.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    fn start_thread(self: &Arc<Self>, queue: &mut Queue) {
        let pool = self.clone();
        let started =
            thread::Builder::new().name("httpy-pool".to_owned()).stack_size(STACK_BYTES).spawn(move || pool.work());
        match started {
            Ok(_) => queue.starting += 1,
            // The system has no more threads: those there are do it, or the warden tries again.
            Err(error) => tracing::error!(%error, "can't start a pool thread"),
        }
    }

    // -- a thread's life ----------------------------------------------------------------------------------------

    fn work(self: Arc<Self>) {
        hang_if_ended();
        // None if the interpreter ends.
        let ident = Python::try_attach(|py| {
            let ident = thread_ident(py);
            {
                let mut queue = self.lock();
                queue.starting -= 1;
                queue.threads.push(ident);
            }
            self.work_attached(py);
            ident
        });
        // Counted out only now that the thread state is gone: the interpreter may end when the last is.
        let mut queue = self.lock();
        match ident {
            Some(ident) => queue.threads.retain(|known| *known != ident),
            None => queue.starting -= 1,
        }
        drop(queue);
        self.ended.notify_all();
    }

    fn work_attached(&self, py: Python<'_>) {
        let mut busy = Some(Busy::new(py));
        let mut last_ring = Instant::now();
        let mut next = self.take(false);
        loop {
            if let Some(job) = next.take() {
                if busy.is_none() {
                    busy = Some(Busy::new(py));
                }
                contain(|| job(py));
                let now = Instant::now();
                if now - last_ring > RING {
                    self.bell.ring();
                    last_ring = now;
                }
                next = self.take(true);
                continue;
            }
            let waited = py.detach(|| {
                self.bell.ring();
                self.wait(if busy.is_some() { QUIET } else { IDLE })
            });
            match waited {
                Waited::Job(job) => {
                    next = Some(job);
                    last_ring = Instant::now();
                }
                Waited::InVain if busy.is_some() => drop(busy.take().map(|busy| busy.end(py))),
                Waited::InVain => {}
                Waited::ToEnd => break,
            }
        }
        if let Some(busy) = busy {
            busy.end(py);
        }
    }

    fn take(&self, from_job: bool) -> Option<Job> {
        let mut queue = self.lock();
        queue.in_job -= usize::from(from_job);
        queue.take()
    }

    /// Waits for a job, at most `time`.
    fn wait(&self, time: Duration) -> Waited {
        let this = thread::current();
        let deadline = Instant::now() + time;
        let mut queue = self.lock();
        if queue.closed {
            return Waited::ToEnd;
        }
        if let Some(job) = queue.take() {
            return Waited::Job(job);
        }
        queue.idle.push(this.clone());
        loop {
            drop(queue);
            thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
            queue = self.lock();
            let place = queue.idle.iter().position(|thread| thread.id() == this.id());
            if queue.closed {
                return Waited::ToEnd;
            }
            if let Some(job) = queue.take() {
                place.map(|place| queue.idle.remove(place));
                return Waited::Job(job);
            }
            if Instant::now() < deadline {
                if place.is_none() {
                    // Woken, but another thread was faster.
                    queue.idle.push(this.clone());
                }
                continue;
            }
            place.map(|place| queue.idle.remove(place));
            // The last thread stays: starting one costs a request's worth many times over.
            return if time == IDLE && queue.threads.len() > 1 { Waited::ToEnd } else { Waited::InVain };
        }
    }

    // -- the warden: sees to it that a blocked thread does not keep jobs waiting -----------------------------------

    fn watch(self: &Arc<Self>, queue: &mut Queue) {
        match queue.warden {
            Warden::Watches => return,
            Warden::Sleeps => self.aging.notify_one(),
            Warden::Absent => {
                let pool = self.clone();
                let started = thread::Builder::new().name("httpy-pool-warden".to_owned()).spawn(move || pool.guard());
                if let Err(error) = started {
                    tracing::error!(%error, "can't start the pool's warden");
                    return;
                }
            }
        }
        queue.warden = Warden::Watches;
    }

    fn guard(self: Arc<Self>) {
        block_signals();
        let mut queue = self.lock();
        let mut mark = Mark::new(&queue);
        while !queue.closed {
            if queue.jobs.is_empty() {
                queue.warden = Warden::Sleeps;
                queue = self.aging.wait(queue).unwrap_or_else(PoisonError::into_inner);
                mark = Mark::new(&queue);
                continue;
            }
            queue = self.aging.wait_timeout(queue, TICK).unwrap_or_else(PoisonError::into_inner).0;
            let waited = mark.since.elapsed();
            if queue.taken >= mark.next {
                mark = Mark::new(&queue);
                continue;
            }
            // A thread that was woken and has no job yet will take what waits, once the processor has time for it.
            let is_starved = waited >= STARVED;
            if !is_starved {
                if queue.is_one_on_its_way() {
                    continue;
                }
                drop(queue);
                let is_free = is_interpreter_free();
                queue = self.lock();
                if !is_free || queue.taken >= mark.next || queue.is_one_on_its_way() {
                    continue;
                }
            }
            mark = Mark::new(&queue);
            queue.spread_until = Some(Instant::now() + SPREAD);
            let jobs = queue.jobs.len();
            let woken = take_idle(&mut queue, jobs);
            let threads = queue.threads.len() + queue.starting;
            if woken.len() < jobs {
                // Twice as many each time where threads are blocked; one by one where they compute.
                let more = if is_starved { 1 } else { threads.max(1) };
                for _ in 0..more.min(jobs - woken.len()).min(self.max_threads.saturating_sub(threads)) {
                    self.start_thread(&mut queue);
                }
            }
            drop(queue);
            for thread in woken {
                thread.unpark();
            }
            queue = self.lock();
        }
        queue.warden = Warden::Absent;
        drop(queue);
        self.ended.notify_all();
    }
}

impl Queue {
    fn take(&mut self) -> Option<Job> {
        let Queued { job, .. } = self.jobs.pop_front()?;
        self.taken += 1;
        self.in_job += 1;
        Some(job)
    }

    /// Removes jobs whose clients have left, each time that the queue has doubled: while all threads are blocked, clients
    /// that come and go must not fill the memory with requests.
    fn remove_given_up(&mut self) -> Vec<Queued> {
        if self.jobs.len() < self.cleared_at.max(FEW) {
            return Vec::new();
        }
        let is_given_up = |job: &Queued| job.watch.as_ref().is_some_and(Watch::is_given_up);
        let (given_up, jobs): (Vec<_>, Vec<_>) = take(&mut self.jobs).into_iter().partition(is_given_up);
        self.jobs = jobs.into();
        self.cleared_at = 2 * self.jobs.len();
        // As good as taken.
        self.taken += given_up.len() as u64;
        given_up
    }

    fn is_one_on_its_way(&self) -> bool {
        self.threads.len() + self.starting > self.idle.len() + self.in_job
    }
}

/// The jobs there were at some time: those whose number is below `next` have waited since.
struct Mark {
    next: u64,
    since: Instant,
}

impl Mark {
    fn new(queue: &Queue) -> Self {
        Self { next: queue.taken + queue.jobs.len() as u64, since: Instant::now() }
    }
}

/// Whether nobody computes in Python. A thread that holds the interpreter gives it away after
/// [`busy::SWITCH_INTERVAL_S`] at the earliest; one that waits in a system call has let it go.
///
/// How busy the processor is would not tell: on a loaded machine, all this process does is wait for it.
fn is_interpreter_free() -> bool {
    let begun = Instant::now();
    Python::try_attach(|_| begun.elapsed()).is_some_and(|took| took < FREE)
}

enum Waited {
    Job(Job),
    InVain,
    ToEnd,
}

fn take_idle(queue: &mut Queue, at_most: usize) -> Vec<Thread> {
    let from = queue.idle.len() - at_most.min(queue.idle.len());
    queue.idle.split_off(from)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A panic ends its job, not the thread: the job's slot has answered while it unwound.
fn contain(job: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
        let panic: Box<dyn Any + Send> = panic;
        drop(panic);
        tracing::error!(kind = "bug", "a panic in a pool thread was contained and answered with 500");
    }
}

/// Leaves signals to the threads that run Python: to be called on those that never do.
pub(crate) fn block_signals() {
    #[cfg(unix)]
    // SAFETY: a full signal set is made before it is read, and only this thread's mask changes.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
}

fn thread_ident(py: Python<'_>) -> u64 {
    let ident = py.import(intern!(py, "threading")).and_then(|threading| threading.call_method0("get_ident"));
    ident.and_then(|ident| ident.extract()).unwrap_or(0)
}

// -- the interpreter's end ------------------------------------------------------------------------------------------

static POOLS: Mutex<Vec<Weak<Pool>>> = Mutex::new(Vec::new());

/// Sees to it that the interpreter can end while a pool is busy. Idempotent.
///
/// A thread that comes back when it is gone hangs (`hang.rs`), so most should have ended before.
///
/// # Errors
/// If `atexit` refuses.
pub(crate) fn end_with_interpreter(py: Python<'_>) -> PyResult<()> {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if !REGISTERED.swap(true, Relaxed) {
        let end_pools = wrap_pyfunction!(end_pools, py)?;
        py.import("atexit")?.call_method1("register", (end_pools,))?;
    }
    Ok(())
}

#[pyfunction(name = "_end_pools")]
fn end_pools(py: Python<'_>) {
    let known = take(&mut *lock(&POOLS));
    // A forked child has none of the threads, and must not wait for them.
    let pools: Vec<Arc<Pool>> =
        known.iter().filter_map(Weak::upgrade).filter(|pool| pool.generation == generation()).collect();
    for pool in &pools {
        pool.close();
    }
    let wait = |grace| {
        let deadline = Instant::now() + grace;
        py.detach(|| pools.iter().all(|pool| pool.join(deadline)))
    };
    if wait(EXIT_GRACE) {
        return;
    }
    let exit = py.get_type::<PySystemExit>();
    for pool in &pools {
        let idents = pool.lock().threads.clone();
        for ident in idents {
            // SAFETY: attached; an ident that is not a thread's any more is allowed.
            unsafe { ffi::PyThreadState_SetAsyncExc(ident.cast_signed() as _, exit.as_ptr()) };
        }
    }
    wait(LAST_GRACE);
}
